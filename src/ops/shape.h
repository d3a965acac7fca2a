// Operations that change how an array is seen, not what it holds: reshapes, transposes, broadcasts
// and slices. They are views: no element moves unless a layout cannot express the result, in which
// case the run copies (reshape of a transposed array, for one).
//
//   Array heads_BHLK = transpose(reshape(x_BLD, {B, L, H, K}), {0, 2, 1, 3});
//   Array last_BD = squeeze(slice_axis(x_BLD, 1, L - 1, L), {1});
//
// Negative axes count from the end. Shapes are NumPy's; every dtype is accepted and kept. Axes out
// of range are IndexErrors, impossible shapes ValueErrors.
#pragma once

#include <utility>
#include <vector>

#include "core/op.h"
#include "core/params.h"

namespace mica {

// One extent may be -1: it takes what is left.
Array reshape(const Array& a, const Shape& shape, Stream s = {});
// Axes start … end become one; a scalar becomes an array of one element.
Array flatten(const Array& a, int start = 0, int end = -1, Stream s = {});
// The inverse: axis becomes the axes of `shape`, one of which may be -1.
Array unflatten(const Array& a, int axis, const Shape& shape, Stream s = {});
// Removes axes of extent 1 (others are a ValueError); the second form removes all of them.
Array squeeze(const Array& a, const std::vector<int>& axes, Stream s = {});
Array squeeze(const Array& a, Stream s = {});
// Adds axes of extent 1 at these places of the result.
Array expand_dims(const Array& a, const std::vector<int>& axes, Stream s = {});
// At least `rank` axes, placed as NumPy's atleast_1d, atleast_2d and atleast_3d do.
Array at_least(const Array& a, int rank, Stream s = {});

Array broadcast_to(const Array& a, const Shape& shape, Stream s = {});
Arrays broadcast_arrays(const Arrays& arrays, Stream s = {});

// Axis i of the result is axis axes[i] of the input; the second form reverses all.
Array transpose(const Array& a, const std::vector<int>& axes, Stream s = {});
Array transpose(const Array& a, Stream s = {});
Array swapaxes(const Array& a, int axis1, int axis2, Stream s = {});
Array moveaxis(const Array& a, int source, int destination, Stream s = {});

// Elements start, start + stride, … before stop along every axis. Starts and stops are clamped to
// the array as in Python, negative ones count from the end; with a negative stride a stop below
// -extent means "through the first element". Missing strides are 1.
Array slice(const Array& a, const Shape& start, const Shape& stop, const Shape& strides = {},
            Stream s = {});
// Elements start … stop - 1 along one axis.
Array slice_axis(const Array& a, int axis, int64_t start, int64_t stop, Stream s = {});

// The elements at strides and offset (counted in elements) of `a` laid out in row-major order.
// Reaching outside of `a` is a ValueError.
Array as_strided(const Array& a, const Shape& shape, const Strides& strides, int64_t offset = 0,
                 Stream s = {});
// The same bytes read as another dtype; the last axis grows or shrinks with the element size.
Array view(const Array& a, Dtype dtype, Stream s = {});
// Row-major memory: a copy where `a` does not lie so already.
Array contiguous(const Array& a, Stream s = {});
// `a`, through which no derivative passes.
Array stop_gradient(const Array& a, Stream s = {});
// `a`, evaluated only after `on`: orders work that the graph does not order.
Array depends(const Array& a, const Arrays& on, Stream s = {});

namespace ops {

struct ShapeParams {
  Shape shape;
  static constexpr auto fields() { return std::tuple(argument("shape", &ShapeParams::shape)); }
};
struct TransposeParams {
  std::vector<int> axes;
  static constexpr auto fields() { return std::tuple(field("axes", &TransposeParams::axes)); }
};
struct SliceParams {
  Shape start;   // of the first element, non-negative
  Shape stride;  // not zero
  Shape shape;   // of the result
  static constexpr auto fields() {
    return std::tuple(argument("start", &SliceParams::start), field("stride", &SliceParams::stride),
                      argument("shape", &SliceParams::shape));
  }
};
struct AsStridedParams {
  Shape shape;
  Strides strides;
  int64_t offset;
  static constexpr auto fields() {
    return std::tuple(argument("shape", &AsStridedParams::shape),
                      argument("strides", &AsStridedParams::strides),
                      argument("offset", &AsStridedParams::offset));
  }
};
struct ViewDtypeParams {
  Dtype dtype;
  static constexpr auto fields() { return std::tuple(field("dtype", &ViewDtypeParams::dtype)); }
};

extern const Op reshape_op;
extern const Op broadcast_op;
extern const Op transpose_op;
extern const Op slice_op;
extern const Op as_strided_op;
extern const Op view_op;
extern const Op contiguous_op;
extern const Op stop_gradient_op;
extern const Op depends_op;

// Resolves starts and stops as Python does: clamped, negative ones from the end. `op` names the
// caller in errors.
SliceParams resolve_slice(const Shape& shape, const Shape& start, const Shape& stop,
                          const Shape& strides, const char* op);

}  // namespace ops
}  // namespace mica
