#include "ops/quantized_matmuls.h"

#include <algorithm>

#include "backends/cpu/quantized.h"
#include "backends/cpu/quantized_int8.h"
#include "core/backend.h"

namespace mica::cpu {

namespace {

// The product with matrix i.
QuantizedGemm<float> product(const KernelCall& call, size_t i) {
  const auto& p = call.as<ops::QuantizedMatmulParams>();
  const View &x = call.inputs[0], &out = call.outputs[i];
  const int64_t k = x.shape.back(), n = out.shape.back();
  int64_t m = 1;
  for (size_t axis = 0; axis + 1 < x.shape.size(); ++axis) m *= x.shape[axis];
  return {.m = m,
          .n = n,
          .k = k,
          .left = {.data = x.data, .dtype = x.dtype, .vector_stride = k},
          .matrix = QuantizedMatrix::of(call.inputs[1 + 3 * i], call.inputs[2 + 3 * i],
                                        call.inputs[3 + 3 * i], p.group_size, p.bits),
          .int8 = true,
          .out = {.data = out.data, .dtype = out.dtype, .row_stride = n}};
}

size_t rows_bytes(const QuantizedGemm<float>& first, const Int8Format& format) {
  return static_cast<size_t>(first.m * format.row_bytes);
}

size_t padded(size_t bytes) { return (bytes + 63) / 64 * 64; }

void quantized_matmuls(const KernelCall& call) {
  const QuantizedGemm<float> first = product(call, 0);
  if (first.m == 0) return;
  const Int8Format format(first.matrix, first.k);
  std::vector<const std::byte*> rows;
  for (int64_t i = 0; i < first.m; ++i)
    rows.push_back(call.workspace.data() + i * format.row_bytes);
  std::vector<Int8Product> products;
  for (size_t i = 0; i < call.outputs.size(); ++i) {
    const QuantizedGemm<float> one = product(call, i);
    products.push_back({rows, one.matrix, one.n, one.out});
  }
  fetch_int8(format, products[0]);
  const std::vector<int64_t> odd = prepare_int8(format, first.left, first.m, call.workspace.data());
  run_int8(format, products, call.workspace.subspan(rows_bytes(first, format)));
  for (size_t i = 0; i < products.size(); ++i)
    product(call, i).run_exactly(odd, call.workspace.subspan(padded(int8_workspace(first, 1))));
}

size_t workspace(const KernelCall& call) {
  const QuantizedGemm<float> first = product(call, 0);
  return padded(int8_workspace(first, 1)) + first.exact_row_workspace();
}

}  // namespace

void quantized_matmuls_kernels(KernelTable& registry) {
  registry.add(ops::quantized_matmuls_op, {.run = &quantized_matmuls, .workspace = &workspace});
}

}  // namespace mica::cpu
