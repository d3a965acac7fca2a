#include "ops/quantized_matmuls.h"

#include <algorithm>

#include "ops/elementwise.h"
#include "ops/matmul.h"
#include "ops/registry.h"
#include "ops/rules.h"
#include "ops/shape.h"

namespace mica {

using namespace ops;

Arrays quantized_matmuls(const Array& x, const Arrays& w, const Arrays& scales,
                         const Arrays& biases, int group_size, int bits, Stream s,
                         int activation_bits) {
  const char* name = "quantized_matmuls";
  if (scales.size() != w.size() || biases.size() != w.size())
    throw_value("[{}] {} matrices, {} scales, {} biases", name, w.size(), scales.size(),
                biases.size());
  const QuantizationParams p = check_quantization(name, group_size, bits, "affine");
  Dtype dtype = x.dtype();
  for (size_t i = 0; i < w.size(); ++i) dtype = quantized_dtype(name, x, scales[i], biases[i]);
  const auto fits = [&](size_t i) {
    return w[i].rank() == 2 && quantized_dtype(name, x, scales[i], biases[i]) == dtype &&
           check_quantized(name, w[i], scales[i], biases[i], p) == x.shape(-1);
  };
  const int rounded = rounded_activations(name, activation_bits, p, dtype);
  bool together = rounded != 0 && w.size() > 1 && x.rank() >= 2;
  for (size_t i = 0; together && i < w.size(); ++i) together = fits(i);
  Arrays products;
  if (!together) {
    for (size_t i = 0; i < w.size(); ++i)
      products.push_back(quantized_matmul(x, w[i], scales[i], biases[i], true, group_size, bits,
                                          "affine", s, activation_bits));
    return products;
  }
  Arrays inputs{product_operand(x, dtype, s)};
  for (size_t i = 0; i < w.size(); ++i) inputs.insert(inputs.end(), {w[i], scales[i], biases[i]});
  return apply_many(quantized_matmuls_op, std::span<const Array>(inputs),
                    QuantizedMatmulParams{group_size, bits, true, dtype, rounded}, s);
}

namespace ops {
namespace {

size_t matrices_of(const Application& app) { return app.inputs.size() / 3; }

void infer(const Application& app, std::span<OutputSpec> outputs) {
  for (size_t i = 0; i < outputs.size(); ++i) {
    Shape shape = app.inputs[0].shape();
    shape.back() = app.inputs[1 + 3 * i].shape(0);
    outputs[i] = {shape, app.as<QuantizedMatmulParams>().dtype};
  }
}

Arrays lower(const Application& app) {
  const auto& p = app.as<QuantizedMatmulParams>();
  Arrays products;
  for (size_t i = 1; i < app.inputs.size(); i += 3)
    products.push_back(apply(quantized_matmul_op,
                             {app.inputs[0], app.inputs[i], app.inputs[i + 1], app.inputs[i + 2]},
                             p, app.stream));
  return products;
}

std::vector<Sample> samples() {
  auto of = [](const char* label, Shape x, std::vector<int64_t> rows, int group, int bits) {
    const int64_t columns = x.back();
    Sample sample{.label = label, .inputs = {{.shape = x, .differentiable = false}}};
    for (int64_t n : rows) {
      sample.inputs.push_back({.shape = {n, columns * bits / 32},
                               .low = 0,
                               .high = 4294967295.0,
                               .differentiable = false,
                               .dtype = Dtype::U32,
                               .fixed_dtype = true});
      sample.inputs.push_back(
          {.shape = {n, columns / group}, .low = -0.1, .high = 0.1, .differentiable = false});
      sample.inputs.push_back({.shape = {n, columns / group}, .differentiable = false});
    }
    sample.apply = [=](Given in) {
      Arrays w, scales, biases;
      for (size_t i = 1; i < in.size(); i += 3) {
        w.push_back(in[i]);
        scales.push_back(in[i + 1]);
        biases.push_back(in[i + 2]);
      }
      return quantized_matmuls(in[0], w, scales, biases, group, bits, {}, 8);
    };
    sample.tolerance = 3000.0;  // compared with float64, where nothing is rounded
    return sample;
  };
  return {of("three matrices", {1, 128}, {5, 3, 18}, 64, 4),
          of("many rows", {2, 9, 64}, {6, 4}, 32, 8), of("no rows", {0, 64}, {3, 2}, 64, 4),
          of("no outputs", {2, 64}, {0, 3}, 64, 4)};
}

}  // namespace

const Op quantized_matmuls_op{.name = "quantized_matmuls",
                              .params = &params_type<QuantizedMatmulParams>,
                              .count_outputs = &matrices_of,
                              .infer = &infer,
                              .lower = &lower,
                              .samples = &samples};

void quantized_matmuls_ops(Registry& registry) { registry.ops.add(quantized_matmuls_op); }

}  // namespace ops
}  // namespace mica
