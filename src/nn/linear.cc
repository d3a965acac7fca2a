#include "nn/linear.h"

#include "ops/elementwise.h"
#include "ops/index.h"
#include "ops/matmul.h"
#include "ops/quantized.h"
#include "ops/quantized_matmuls.h"
#include "ops/shape.h"

namespace mica::nn {

void Matrix::visit(Visitor& visitor) {
  quantization_ = visitor.quantization(quantization_);
  if (!quantization_) {
    visitor.parameter("weight", weight_, {rows_, columns_});
    return;
  }
  auto [group, bits, rounded] = *quantization_;
  if (columns_ % group != 0)
    throw_value("a quantized matrix of {} columns is not a multiple of its group size {}", columns_,
                group);
  visitor.parameter("weight", weight_, {rows_, columns_ * bits / 32});
  visitor.parameter("scales", scales_, {rows_, columns_ / group});
  visitor.parameter("biases", biases_, {rows_, columns_ / group});
}

Array Matrix::times(const Array& x) const {
  Array y = quantization_ ? quantized_matmul(x, weight_, scales_, biases_, true,
                                             quantization_->group_size, quantization_->bits,
                                             "affine", {}, quantization_->activation_bits)
                          : matmul(x, transpose(weight_));
  return astype(y, x.dtype());
}

Array Matrix::rows(const Array& ids, Dtype dtype) const {
  if (!quantization_) return astype(take(weight_, ids, 0), dtype);
  // In float32: rounded once, to the activations' dtype, whatever the scales are stored in.
  auto group_terms = [&](const Array& stored) { return astype(take(stored, ids, 0), Dtype::F32); };
  Array dense = dequantize(take(weight_, ids, 0), group_terms(scales_), group_terms(biases_),
                           quantization_->group_size, quantization_->bits);
  return astype(dense, dtype);
}

Linear::Linear(int64_t inputs, int64_t outputs, bool bias, bool transposed)
    : inputs_(inputs),
      outputs_(outputs),
      has_bias_(bias),
      transposed_(transposed),
      matrix_(outputs, inputs) {}

void Linear::visit(Visitor& visitor) {
  if (transposed_)
    visitor.parameter("weight", dense_, {inputs_, outputs_});
  else
    matrix_.visit(visitor);
  if (has_bias_) visitor.parameter("bias", bias_, {outputs_});
}

Array Linear::operator()(const Array& x) const {
  return finished(transposed_ ? matmul(x, dense_) : matrix_.times(x), x);
}

Array Linear::finished(const Array& product, const Array& x) const {
  Array y = astype(product, x.dtype());
  return has_bias_ ? astype(y + bias_, x.dtype()) : y;
}

Arrays Linear::together(const Array& x, std::initializer_list<const Linear*> layers) {
  const auto& quantization = (*layers.begin())->matrix_.quantization();
  Arrays results, weights, scales, biases;
  for (const Linear* layer : layers) {
    const Matrix& matrix = layer->matrix_;
    if (!quantization || layer->transposed_ || matrix.quantization() != quantization) break;
    weights.push_back(matrix.weight());
    scales.push_back(matrix.scales());
    biases.push_back(matrix.biases());
  }
  if (weights.size() != layers.size()) {
    for (const Linear* layer : layers) results.push_back((*layer)(x));
    return results;
  }
  const Arrays products = quantized_matmuls(x, weights, scales, biases, quantization->group_size,
                                            quantization->bits, {}, quantization->activation_bits);
  for (const Linear* layer : layers)
    results.push_back(layer->finished(products[results.size()], x));
  return results;
}

}  // namespace mica::nn
