#include "ops/quantized.h"

#include <algorithm>

#include "backends/cpu/batches.h"
#include "backends/cpu/quantize_groups.h"
#include "backends/cpu/quantized.h"
#include "base/thread_pool.h"
#include "core/backend.h"

namespace mica::cpu {

namespace {

// Rows of some 30,000 elements are worth handing out.
int64_t row_grain(int64_t columns) { return std::max<int64_t>(1, 32768 / (columns + 1)); }

// Groups of rows without gaps follow each other.
void quantize(const KernelCall& call) {
  const auto& p = call.as<ops::QuantizationParams>();
  const View &w = call.inputs[0], &packed = call.outputs[0], &scales = call.outputs[1];
  const int64_t item = size_of(w.dtype), bytes = p.group_size * p.bits / 8;
  ThreadPool::shared().parallel_for(
      scales.size(), 32768 / p.group_size, [&](int64_t begin, int64_t end) {
        quantize_groups(w.data + begin * p.group_size * item, w.dtype, end - begin, p,
                        packed.data + begin * bytes, scales.data + begin * item,
                        call.outputs[2].data + begin * item);
      });
}

void dequantize(const KernelCall& call) {
  const auto& p = call.as<ops::QuantizationParams>();
  const View& out = call.outputs[0];
  int64_t columns = out.shape.back();
  if (out.size() == 0) return;
  QuantizedMatrix matrix =
      QuantizedMatrix::of(call.inputs[0], call.inputs[1], call.inputs[2], p.group_size, p.bits);
  ThreadPool::shared().parallel_for(
      out.size() / columns, row_grain(columns), [&](int64_t begin, int64_t end) {
        for (int64_t row = begin; row < end; ++row)
          dequantize_row(matrix, row, columns, out.data + row * columns * size_of(out.dtype));
      });
}

// The product of each batch.
template <class T>
struct Products {
  explicit Products(const KernelCall& call) : batches(call.inputs, call.outputs[0].shape) {
    const auto& p = call.as<ops::QuantizedMatmulParams>();
    const View &x = call.inputs[0], &out = call.outputs[0];
    size_t rank = out.shape.size(), x_rank = x.shape.size();
    first = {.m = out.shape[rank - 2],
             .n = out.shape[rank - 1],
             .k = x.shape.back(),
             .left = {.data = x.data,
                      .dtype = x.dtype,
                      .vector_stride = x.strides[x_rank - 2],
                      .inner_stride = x.strides[x_rank - 1]},
             .matrix = QuantizedMatrix::of(call.inputs[1], call.inputs[2], call.inputs[3],
                                           p.group_size, p.bits),
             .transpose = p.transpose,
             .int8 = p.activation_bits == 8,
             .out = {.data = out.data, .dtype = out.dtype, .row_stride = out.shape[rank - 1]}};
    batches.join_rows(first.m, first.left.vector_stride);
  }
  QuantizedGemm<T> at(int64_t index) const {
    QuantizedGemm<T> product = first;
    product.left.data += batches.offset(0, index) * size_of(first.left.dtype);
    product.matrix.packed += batches.offset(1, index);
    product.matrix.scales += batches.offset(2, index) * size_of(first.matrix.scales_dtype);
    product.matrix.biases += batches.offset(3, index) * size_of(first.matrix.biases_dtype);
    product.out.data += index * first.m * first.n * size_of(first.out.dtype);
    return product;
  }

  Batches batches;
  QuantizedGemm<T> first;
};

template <class T>
void run_products(const KernelCall& call) {
  Products<T> products(call);
  for (int64_t i = 0; i < products.batches.count(); ++i) products.at(i).run(call.workspace);
}

void quantized_matmul(const KernelCall& call) {
  if (call.outputs[0].dtype == Dtype::F64)
    run_products<double>(call);
  else
    run_products<float>(call);
}

size_t workspace(const KernelCall& call) {
  return call.outputs[0].dtype == Dtype::F64 ? Products<double>(call).first.workspace()
                                             : Products<float>(call).first.workspace();
}

}  // namespace

QuantizedMatrix QuantizedMatrix::of(const View& packed, const View& scales, const View& biases,
                                    int group_size, int bits) {
  size_t row = packed.shape.size() - 2;
  return {.packed = packed.as<const uint32_t>(),
          .packed_stride = packed.strides[row],
          .scales = scales.data,
          .biases = biases.data,
          .scales_stride = scales.strides[row],
          .biases_stride = biases.strides[row],
          .scales_dtype = scales.dtype,
          .biases_dtype = biases.dtype,
          .group_size = group_size,
          .bits = bits};
}

void quantized_kernels(KernelTable& registry) {
  registry.add(ops::quantize_op, {.run = &quantize, .layouts = {Layout::Contiguous}});
  registry.add(ops::dequantize_op, {.run = &dequantize, .layouts = {Layout::Contiguous}});
  registry.add(
      ops::quantized_matmul_op,
      {.run = &quantized_matmul, .layouts = {Layout::Any, Layout::Rows}, .workspace = &workspace});
}

}  // namespace mica::cpu
