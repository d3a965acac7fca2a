// Products of chosen matrices: what mixtures of experts are made of.
//
//   Array h_TkF = gather_mm(x_T1D, up_EDF, token_Tk, expert_Tk);   // (T, k, 1, F)
//
// `a` and `b` are stacks of matrices; the indices choose, flat along the axes before the last two,
// which matrix of a and which of b each product takes. Products that share a matrix of b are run
// together as one product of many rows, whatever the order of the indices: sorting them first gains
// nothing here, and `sorted_indices` is accepted for MLX's sake.
//
// Missing indices are 0, 1, 2 … in the shape of the stack; both index arrays broadcast to each
// other. Indices are integers, negative ones count from the end, others out of range are
// IndexErrors at evaluation. Dtypes and errors otherwise as matmul (ops/matmul.h) and
// quantized_matmul (ops/quantized.h).
#pragma once

#include <optional>
#include <string_view>

#include "core/op.h"
#include "core/params.h"
#include "ops/quantized.h"

namespace mica {

// a [A…, M, K], b [B…, K, N], indices I… -> [I…, M, N]. Vectors as in matmul. Without any indices:
// matmul. Derivatives: a and b.
Array gather_mm(const Array& a, const Array& b, const std::optional<Array>& lhs_indices = {},
                const std::optional<Array>& rhs_indices = {}, bool sorted_indices = false,
                Stream s = {});
// The same with quantized matrices, x [A…, M, K], w [B…, N, K] (transposed) or [B…, K, N].
// Derivatives: x, scales and biases.
Array gather_qmm(const Array& x, const Array& w, const Array& scales, const Array& biases,
                 const std::optional<Array>& lhs_indices = {},
                 const std::optional<Array>& rhs_indices = {}, bool transpose = true,
                 int group_size = 64, int bits = 4, std::string_view mode = "affine",
                 bool sorted_indices = false, Stream s = {});

namespace ops {

struct GatherMmParams {
  Dtype dtype;  // of the result
  static constexpr auto fields() { return std::tuple(field("dtype", &GatherMmParams::dtype)); }
};
struct GatherOuterParams {
  Shape batch;  // of the result
  Dtype dtype;
  static constexpr auto fields() {
    return std::tuple(argument("batch", &GatherOuterParams::batch),
                      field("dtype", &GatherOuterParams::dtype));
  }
};

extern const Op gather_mm_op;   // a, b, lhs, rhs: indices are int32 of one shape
extern const Op gather_qmm_op;  // x, packed, scales, biases, lhs, rhs; QuantizedMatmulParams
// a [A…, M, K], g [I…, M, N], lhs, rhs -> batch + [K, N]: matrix e is the sum, over the i whose rhs
// is e, of the transpose of a[lhs[i]] times g[i]. The derivative of gather_mm by b.
extern const Op gather_outer_op;

}  // namespace ops
}  // namespace mica
