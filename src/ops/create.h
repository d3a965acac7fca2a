// Arrays from nothing but a few numbers: constants, ranges, triangles, diagonals.
//
//   Array mask = tri(n, n, 0, Dtype::Bool);
//   Array positions = arange(length);       // int32
//
// Constants and masks are elementwise operations: they take no memory where they are fused into
// their users. Negative extents are ValueErrors.
#pragma once

#include <string_view>
#include <vector>

#include "core/op.h"
#include "core/params.h"
#include "ops/elementwise.h"

namespace mica {

Array full(const Shape& shape, Scalar value, Dtype dtype, Stream s = {});
// `value`, broadcast to the shape, of its own dtype.
Array full(const Shape& shape, const Array& value, Stream s = {});
Array zeros(const Shape& shape, Dtype dtype = Dtype::F32, Stream s = {});
Array ones(const Shape& shape, Dtype dtype = Dtype::F32, Stream s = {});
Array full_like(const Array& a, Scalar value, Stream s = {});
Array zeros_like(const Array& a, Stream s = {});
Array ones_like(const Array& a, Stream s = {});

// start, start + step, … before stop, computed in float64 (integers: in int64) and rounded once.
Array arange(double start, double stop, double step, Dtype dtype, Stream s = {});
// 0 … count - 1.
Array arange(int64_t count, Dtype dtype = Dtype::I32, Stream s = {});
// `count` numbers at equal distances from start to stop, which is left out without `endpoint`.
Array linspace(double start, double stop, int64_t count = 50, Dtype dtype = Dtype::F32,
               bool endpoint = true, Stream s = {});

// Ones on the k-th diagonal (k > 0: above the main one) of an n x m matrix.
Array eye(int64_t n, int64_t m, int k = 0, Dtype dtype = Dtype::F32, Stream s = {});
// Ones at and below the k-th diagonal.
Array tri(int64_t n, int64_t m, int k = 0, Dtype dtype = Dtype::F32, Stream s = {});
// The last two axes without what lies above (below) the k-th diagonal.
Array tril(const Array& a, int k = 0, Stream s = {});
Array triu(const Array& a, int k = 0, Stream s = {});
// A vector as the k-th diagonal of a matrix; of a matrix its k-th diagonal.
Array diag(const Array& a, int k = 0, Stream s = {});
// The diagonals over two axes, as the last axis of the result (a view).
Array diagonal(const Array& a, int offset = 0, int axis1 = 0, int axis2 = 1, Stream s = {});
// The sum of a diagonal.
Array trace(const Array& a, int offset = 0, int axis1 = 0, int axis2 = 1, Stream s = {});
// Coordinates on a grid; indexing "xy" (the first two axes swapped) or "ij".
Arrays meshgrid(const Arrays& arrays, bool sparse = false, std::string_view indexing = "xy",
                Stream s = {});

namespace ops {

struct ArangeParams {
  double start, step;
  Shape shape;  // one axis
  Dtype dtype;
  static constexpr auto fields() {
    return std::tuple(
        argument("start", &ArangeParams::start), argument("step", &ArangeParams::step),
        argument("shape", &ArangeParams::shape), field("dtype", &ArangeParams::dtype));
  }
};
extern const Op arange_op;

}  // namespace ops
}  // namespace mica
