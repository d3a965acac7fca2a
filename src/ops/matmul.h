// Matrix products, and the compositions made of them.
//
//   Array y_BLN = matmul(x_BLD, w_DN);
//   Array scores_BHLS = matmul(q_BHLK, swapaxes(k_BHSK, -1, -2));
//
// NumPy's semantics: the last two axes are multiplied, those before them broadcast; a vector stands
// for a row on the left and for a column on the right, and that axis is missing from the result.
//
// The result has the promoted dtype, which must be floating (ValueError): integers beside a
// floating operand are converted. float16, bfloat16 and float32 operands may be mixed and are read
// as they lie (a bfloat16 weight beside float32 activations is never widened in memory); transposed
// and broadcast operands are read in place too. Sums are kept in float32 (float64 for float64) and
// rounded once.
#pragma once

#include <vector>

#include "core/op.h"
#include "core/params.h"

namespace mica {

// [..., M, K] x [..., K, N] -> [..., M, N]. ValueError if inner dimensions differ, batches do not
// broadcast, or an operand has no axis.
Array matmul(const Array& a, const Array& b, Stream s = {});
// alpha * (a @ b) + beta * c; c broadcasts to the product. Half types are rounded once, at the end.
Array addmm(const Array& c, const Array& a, const Array& b, double alpha = 1, double beta = 1,
            Stream s = {});

// Sums over pairs of axes (of equal extents); the result has the other axes of a, then those of b.
// The second form pairs the last `axes` of a with the first of b.
Array tensordot(const Array& a, const Array& b, const std::vector<int>& axes_a,
                const std::vector<int>& axes_b, Stream s = {});
Array tensordot(const Array& a, const Array& b, int axes = 2, Stream s = {});
// Sums over the last axes of both; of a scalar: the product.
Array inner(const Array& a, const Array& b, Stream s = {});
// All products of the elements of two (flattened) arrays, as a matrix.
Array outer(const Array& a, const Array& b, Stream s = {});

namespace ops {

// Both operands have two axes or more, batch axes broadcast. The dtypes are floating; if one is
// float64 both are.
struct MatmulParams {
  Dtype dtype;  // of the result
  static constexpr auto fields() { return std::tuple(field("dtype", &MatmulParams::dtype)); }
};
extern const Op matmul_op;

// The product rounded to `dtype`, whatever the operands' floating dtypes. For rules.
Array matmul_as(const Array& a, const Array& b, Dtype dtype, Stream s);
// `a` in a dtype that products with `result` dtype take: as it is if it can be read so.
Array product_operand(const Array& a, Dtype result, Stream s);

}  // namespace ops
}  // namespace mica
