#include "ops/shape.h"

#include <algorithm>
#include <numeric>

#include "base/error.h"
#include "core/view.h"
#include "ops/registry.h"

namespace mica {

using namespace ops;

namespace {

// Replaces the -1 of a shape, if there is one, by what `count` elements leave.
Shape infer_extent(Shape shape, int64_t count, const char* op) {
  int64_t known = 1;
  int free_axis = -1;
  for (size_t i = 0; i < shape.size(); ++i) {
    if (shape[i] == -1) {
      if (free_axis >= 0) throw_value("[{}] only one extent may be -1, got {}", op, shape);
      free_axis = static_cast<int>(i);
    } else if (shape[i] < 0) {
      throw_value("[{}] negative extent in {}", op, shape);
    } else {
      known *= shape[i];
    }
  }
  if (free_axis < 0) return shape;
  if (known == 0) throw_value("[{}] cannot infer the -1 of {}: any extent fits", op, shape);
  if (count % known != 0)
    throw_value("[{}] cannot infer the -1 of {} from {} elements", op, shape, count);
  shape[free_axis] = count / known;
  return shape;
}

std::vector<int> identity_axes(size_t rank) {
  std::vector<int> axes(rank);
  std::iota(axes.begin(), axes.end(), 0);
  return axes;
}

bool is_identity(const std::vector<int>& axes) {
  for (size_t i = 0; i < axes.size(); ++i) {
    if (axes[i] != static_cast<int>(i)) return false;
  }
  return true;
}

}  // namespace

Array reshape(const Array& a, const Shape& shape, Stream s) {
  Shape to = infer_extent(shape, a.size(), "reshape");
  if (to == a.shape()) return a;
  return apply(reshape_op, {a}, ShapeParams{to}, s);
}

Array flatten(const Array& a, int start, int end, Stream s) {
  if (a.rank() == 0) return reshape(a, {1}, s);
  int first = normalize_axis(start, a.rank(), "flatten");
  int last = normalize_axis(end, a.rank(), "flatten");
  if (first > last) throw_value("[flatten] start axis {} lies after end axis {}", start, end);
  Shape shape;
  for (int i = 0; i < static_cast<int>(a.rank()); ++i) {
    if (i <= first || i > last)
      shape.push_back(a.shape()[i]);
    else
      shape.back() *= a.shape()[i];
  }
  return reshape(a, shape, s);
}

Array unflatten(const Array& a, int axis, const Shape& shape, Stream s) {
  int at = normalize_axis(axis, a.rank(), "unflatten");
  if (shape.empty()) throw_value("[unflatten] the new shape has no axes");
  Shape inner = infer_extent(shape, a.shape()[at], "unflatten");
  if (elements(inner) != a.shape()[at]) {
    throw_value("[unflatten] axis {} of {} has {} elements, {} has {}", axis, a.shape(),
                a.shape()[at], inner, elements(inner));
  }
  Shape to;
  for (int i = 0; i < at; ++i) to.push_back(a.shape()[i]);
  for (int64_t extent : inner) to.push_back(extent);
  for (size_t i = at + 1; i < a.rank(); ++i) to.push_back(a.shape()[i]);
  return reshape(a, to, s);
}

Array squeeze(const Array& a, const std::vector<int>& axes, Stream s) {
  std::vector<int> drop = normalize_axes(axes, a.rank(), "squeeze");
  Shape shape = a.shape();
  for (size_t i = drop.size(); i-- > 0;) {
    if (shape[drop[i]] != 1) {
      throw_value("[squeeze] axis {} of {} has extent {}, not 1", drop[i], a.shape(),
                  shape[drop[i]]);
    }
    shape.erase(drop[i]);
  }
  return reshape(a, shape, s);
}

Array squeeze(const Array& a, Stream s) {
  Shape shape;
  for (int64_t extent : a.shape()) {
    if (extent != 1) shape.push_back(extent);
  }
  return reshape(a, shape, s);
}

Array expand_dims(const Array& a, const std::vector<int>& axes, Stream s) {
  Shape shape = a.shape();
  for (int axis : normalize_axes(axes, a.rank() + axes.size(), "expand_dims"))
    shape.insert(axis, 1);
  return reshape(a, shape, s);
}

Array at_least(const Array& a, int rank, Stream s) {
  Shape shape = a.shape();
  if (static_cast<int>(shape.size()) >= rank) return a;
  // NumPy's places: a vector becomes a row of a matrix, a matrix the first two axes of a cube.
  if (rank == 3 && !shape.empty()) shape.push_back(1);
  while (static_cast<int>(shape.size()) < rank) shape.insert(0, 1);
  return reshape(a, shape, s);
}

Array broadcast_to(const Array& a, const Shape& shape, Stream s) {
  if (a.shape() == shape) return a;
  return apply(broadcast_op, {a}, ShapeParams{shape}, s);
}

Arrays broadcast_arrays(const Arrays& arrays, Stream s) {
  Shape shape;
  for (const Array& a : arrays) shape = broadcast_shapes(shape, a.shape(), "broadcast_arrays");
  Arrays result;
  for (const Array& a : arrays) result.push_back(broadcast_to(a, shape, s));
  return result;
}

namespace {
// `order` holds each axis once.
Array permuted(const Array& a, std::vector<int> order, Stream s) {
  if (is_identity(order)) return a;
  return apply(transpose_op, {a}, TransposeParams{std::move(order)}, s);
}
}  // namespace

Array transpose(const Array& a, const std::vector<int>& axes, Stream s) {
  if (axes.size() != a.rank()) {
    throw_value("[transpose] {} axes given for an array of {} axes", axes.size(), a.rank());
  }
  std::vector<int> order;
  order.reserve(axes.size());
  for (int axis : axes) order.push_back(normalize_axis(axis, a.rank(), "transpose"));
  normalize_axes(order, a.rank(), "transpose");
  return permuted(a, std::move(order), s);
}

Array transpose(const Array& a, Stream s) {
  std::vector<int> axes = identity_axes(a.rank());
  std::reverse(axes.begin(), axes.end());
  return permuted(a, std::move(axes), s);
}

Array swapaxes(const Array& a, int axis1, int axis2, Stream s) {
  std::vector<int> axes = identity_axes(a.rank());
  std::swap(axes[normalize_axis(axis1, a.rank(), "swapaxes")],
            axes[normalize_axis(axis2, a.rank(), "swapaxes")]);
  return permuted(a, std::move(axes), s);
}

Array moveaxis(const Array& a, int source, int destination, Stream s) {
  std::vector<int> axes = identity_axes(a.rank());
  int from = normalize_axis(source, a.rank(), "moveaxis");
  int to = normalize_axis(destination, a.rank(), "moveaxis");
  axes.erase(axes.begin() + from);
  axes.insert(axes.begin() + to, from);
  return permuted(a, std::move(axes), s);
}

ops::SliceParams ops::resolve_slice(const Shape& shape, const Shape& start, const Shape& stop,
                                    const Shape& strides, const char* op) {
  size_t rank = shape.size();
  if (start.size() != rank || stop.size() != rank || (!strides.empty() && strides.size() != rank)) {
    throw_value("[{}] {} starts, {} stops and {} strides given for an array of {} axes", op,
                start.size(), stop.size(), strides.size(), rank);
  }
  SliceParams params{start, Shape(rank, 1), shape};
  for (size_t i = 0; i < rank; ++i) {
    int64_t extent = shape[i], step = strides.empty() ? 1 : strides[i];
    if (step == 0) throw_value("[{}] the stride of axis {} is 0", op, i);
    int64_t low = step > 0 ? 0 : -1, high = step > 0 ? extent : extent - 1;
    auto clamp = [&](int64_t at) { return std::clamp(at < 0 ? at + extent : at, low, high); };
    int64_t first = clamp(start[i]), last = clamp(stop[i]);
    int64_t span = step > 0 ? last - first : first - last, width = std::abs(step);
    params.shape[i] = span > 0 ? (span - 1) / width + 1 : 0;
    params.start[i] = params.shape[i] > 0 ? first : 0;
    params.stride[i] = step;
  }
  return params;
}

Array slice(const Array& a, const Shape& start, const Shape& stop, const Shape& strides, Stream s) {
  SliceParams params = resolve_slice(a.shape(), start, stop, strides, "slice");
  bool forward = std::all_of(params.stride.begin(), params.stride.end(),
                             [](int64_t step) { return step > 0; });
  if (forward && params.shape == a.shape()) return a;
  return apply(slice_op, {a}, std::move(params), s);
}

Array slice_axis(const Array& a, int axis, int64_t start, int64_t stop, Stream s) {
  int at = normalize_axis(axis, a.rank(), "slice");
  Shape starts(a.rank(), 0), stops = a.shape();
  starts[at] = start;
  stops[at] = stop;
  return slice(a, starts, stops, {}, s);
}

Array as_strided(const Array& a, const Shape& shape, const Strides& strides, int64_t offset,
                 Stream s) {
  return apply(as_strided_op, {contiguous(a, s)}, AsStridedParams{shape, strides, offset}, s);
}

Array view(const Array& a, Dtype dtype, Stream s) {
  if (dtype == a.dtype()) return a;
  return apply(view_op, {a}, ViewDtypeParams{dtype}, s);
}

Array contiguous(const Array& a, Stream s) { return apply(contiguous_op, {a}, s); }
Array stop_gradient(const Array& a, Stream s) { return apply(stop_gradient_op, {a}, s); }

Array depends(const Array& a, const Arrays& on, Stream s) {
  if (on.empty()) return a;
  Arrays inputs{a};
  inputs.insert(inputs.end(), on.begin(), on.end());
  return apply(depends_op, std::span<const Array>(inputs), s);
}

namespace ops {

namespace {

// One array for one, a list for several.
Value each_at_least(const Arrays& arrays, int rank, Stream s) {
  if (arrays.size() == 1) return at_least(arrays[0], rank, s);
  Arrays result;
  for (const Array& a : arrays) result.push_back(at_least(a, rank, s));
  return result;
}

// As many arrays as were given.
Value each_depends(const Value& inputs, const Arrays& dependencies, Stream s) {
  if (const Array* array = std::get_if<Array>(&inputs)) return depends(*array, dependencies, s);
  const Arrays* arrays = std::get_if<Arrays>(&inputs);
  if (!arrays) throw_type("depends() argument 'inputs' must be arrays, got {}", value_kind(inputs));
  Arrays result;
  for (const Array& a : *arrays) result.push_back(depends(a, dependencies, s));
  return result;
}

void add_reshapes(FunctionRegistry& functions) {
  functions.add("reshape", "a: array, /, shape: Sequence[int]",
                "The elements of `a`, in row-major order, with another shape. One extent may be "
                "-1: it takes\n"
                "what is left. A view where the layout allows it.",
                [](const Array& a, const Shape& shape, Stream s) { return reshape(a, shape, s); });
  functions.add(
      "flatten", "a: array, /, start_axis: int = 0, end_axis: int = -1",
      "Merges the axes `start_axis` to `end_axis` (included) into one. A scalar becomes an array "
      "of\n"
      "one element.",
      [](const Array& a, int start, int end, Stream s) { return flatten(a, start, end, s); });
  functions.add("unflatten", "a: array, /, axis: int, shape: Sequence[int]",
                "Splits `axis` into axes of the given shape, one extent of which may be -1.",
                [](const Array& a, int axis, const Shape& shape, Stream s) {
                  return unflatten(a, axis, shape, s);
                });
  functions.add("squeeze", "a: array, /, axis: int | Sequence[int] | None = None",
                "Removes axes of extent 1: those given, else all. Another extent is a ValueError.",
                [](const Array& a, const std::optional<std::vector<int>>& axes, Stream s) {
                  return axes ? squeeze(a, *axes, s) : squeeze(a, s);
                });
  functions.add("expand_dims", "a: array, /, axis: int | Sequence[int]",
                "Adds axes of extent 1 at these places of the result.",
                [](const Array& a, const std::vector<int>& axes, Stream s) {
                  return expand_dims(a, axes, s);
                });
  functions.add(
      "atleast_1d", "*arys: array", "Arrays with at least one axis; one array for one.",
      [](const Arrays& arrays, Stream s) { return each_at_least(arrays, 1, s); },
      "array | list[array]");
  functions.add(
      "atleast_2d", "*arys: array",
      "Arrays with at least two axes: a vector becomes a row. One array for one.",
      [](const Arrays& arrays, Stream s) { return each_at_least(arrays, 2, s); },
      "array | list[array]");
  functions.add(
      "atleast_3d", "*arys: array",
      "Arrays with at least three axes: a vector becomes (1, n, 1), a matrix (m, n, 1).\n"
      "One array for one.",
      [](const Arrays& arrays, Stream s) { return each_at_least(arrays, 3, s); },
      "array | list[array]");
}

void add_axes(FunctionRegistry& functions) {
  functions.add(
      "broadcast_to", "a: scalar | array, /, shape: Sequence[int]",
      "`a` repeated along new and unit axes to the given shape. A view. ValueError if it does not\n"
      "broadcast.",
      [](const Array& a, const Shape& shape, Stream s) { return broadcast_to(a, shape, s); });
  functions.add(
      "broadcast_arrays", "*arrays: array", "The arrays, broadcast against each other.",
      [](const Arrays& arrays, Stream s) { return broadcast_arrays(arrays, s); }, "list[array]");
  functions.add("transpose|permute_dims", "a: array, /, axes: Sequence[int] | None = None",
                "Axis i of the result is axis `axes[i]` of `a`; without axes their order is "
                "reversed. A view.",
                [](const Array& a, const std::optional<std::vector<int>>& axes, Stream s) {
                  return axes ? transpose(a, *axes, s) : transpose(a, s);
                });
  functions.add(
      "swapaxes", "a: array, /, axis1: int, axis2: int", "`a` with two axes exchanged. A view.",
      [](const Array& a, int axis1, int axis2, Stream s) { return swapaxes(a, axis1, axis2, s); });
  functions.add("moveaxis", "a: array, /, source: int, destination: int",
                "`a` with the axis `source` moved to the place `destination`. A view.",
                [](const Array& a, int source, int destination, Stream s) {
                  return moveaxis(a, source, destination, s);
                });
}

void add_layouts(FunctionRegistry& functions) {
  functions.add(
      "as_strided",
      "a: array, /, shape: Sequence[int] | None = None, strides: Sequence[int] | None = None, "
      "offset: int = 0",
      "The elements at `strides` and `offset`, counted in elements, of `a` in row-major order. "
      "Without\n"
      "a shape that of `a`, without strides the row-major ones. Reaching outside of `a` is a\n"
      "ValueError.",
      [](const Array& a, const std::optional<Shape>& shape, const std::optional<Strides>& strides,
         int64_t offset, Stream s) {
        const Shape& to = shape ? *shape : a.shape();
        return as_strided(a, to, strides ? *strides : row_major(to), offset, s);
      });
  functions.add("view", "a: scalar | array, dtype: Dtype",
                "The bytes of `a` read as another dtype. The last axis grows or shrinks with the "
                "element size.",
                [](const Array& a, Dtype dtype, Stream s) { return view(a, dtype, s); });
  functions.add("contiguous", "a: array, /, allow_col_major: bool = False",
                "`a` in row-major memory: itself where it lies so, else a copy. `allow_col_major` "
                "is accepted\n"
                "and changes nothing.",
                [](const Array& a, bool, Stream s) { return contiguous(a, s); });
  functions.add("stop_gradient", "a: array, /", "`a`, through which no derivative passes.",
                [](const Array& a, Stream s) { return stop_gradient(a, s); });
  functions.add(
      "depends", "inputs: array | Sequence[array], dependencies: array | Sequence[array]",
      "The inputs, evaluated only after the dependencies.",
      [](const Value& inputs, const Arrays& dependencies, Stream s) {
        return each_depends(inputs, dependencies, s);
      },
      "array | list[array]");
}

}  // namespace

void shape_ops(Registry& registry) {
  for (const Op* op : {&reshape_op, &broadcast_op, &transpose_op, &slice_op, &as_strided_op,
                       &view_op, &contiguous_op, &stop_gradient_op, &depends_op}) {
    registry.ops.add(*op);
  }
  add_reshapes(registry.functions);
  add_axes(registry.functions);
  add_layouts(registry.functions);
}

}  // namespace ops
}  // namespace mica
