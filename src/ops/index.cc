#include "ops/index.h"

#include <algorithm>

#include "base/error.h"
#include "ops/create.h"
#include "ops/elementwise.h"
#include "ops/registry.h"
#include "ops/shape.h"

namespace mica {

using namespace ops;

namespace {

void check_indices(const Array& indices, const char* op) {
  if (!is_integer(indices.dtype()))
    throw_value("[{}] indices must be integers, got {}", op, indices.dtype());
}

Array as_type_of(const Array& values, const Array& a, Stream s) {
  return values.dtype() == a.dtype() ? values : astype(values, a.dtype(), s);
}

// Index arrays broadcast to one shape.
Arrays common_indices(const Arrays& indices, const std::vector<int>& axes, const char* op,
                      Stream s) {
  if (indices.size() != axes.size()) {
    throw_value("[{}] {} index arrays given for {} axes", op, indices.size(), axes.size());
  }
  Shape shape;
  for (const Array& index : indices) {
    check_indices(index, op);
    shape = broadcast_shapes(shape, index.shape(), op);
  }
  Arrays result;
  for (const Array& index : indices) result.push_back(broadcast_to(index, shape, s));
  return result;
}

std::vector<int> distinct_axes(const std::vector<int>& axes, size_t rank, const char* op) {
  normalize_axes(axes, rank, op);
  std::vector<int> result;
  for (int axis : axes) result.push_back(normalize_axis(axis, rank, op));
  return result;
}

// Both arrays of one shape but for the axis, which each keeps.
std::pair<Array, Array> align_along(const Array& a, const Array& indices, int axis, const char* op,
                                    Stream s) {
  check_indices(indices, op);
  if (a.rank() != indices.rank()) {
    throw_value("[{}] indices of shape {} need as many axes as the array of shape {}", op,
                indices.shape(), a.shape());
  }
  Shape from = a.shape(), to = indices.shape();
  from[axis] = to[axis] = 1;
  from = to = broadcast_shapes(from, to, op);
  from[axis] = a.shape()[axis];
  to[axis] = indices.shape()[axis];
  return {broadcast_to(a, from, s), broadcast_to(indices, to, s)};
}

Array update_along(const Array& a, const Array& indices, const Array& values, int axis,
                   ScatterMode mode, const char* op, Stream s) {
  int at = normalize_axis(axis, a.rank(), op);
  check_indices(indices, op);
  Shape shape = a.shape();
  if (indices.rank() != a.rank()) {
    throw_value("[{}] indices of shape {} need as many axes as the array of shape {}", op,
                indices.shape(), a.shape());
  }
  shape[at] = indices.shape()[at];
  Array places = broadcast_to(indices, shape, s);
  Array updates = broadcast_to(as_type_of(values, a, s), shape, s);
  return apply(scatter_axis_op, {a, places, updates}, ScatterAxisParams{at, mode}, s);
}

}  // namespace

Array take(const Array& a, const Array& indices, int axis, Stream s) {
  check_indices(indices, "take");
  int at = normalize_axis(axis, a.rank(), "take");
  return apply(take_op, {a, indices}, TakeParams{at}, s);
}

Array take(const Array& a, const Array& indices, Stream s) {
  return take(flatten(a, 0, -1, s), indices, 0, s);
}

Array take(const Array& a, int64_t index, int axis, Stream s) {
  int at = normalize_axis(axis, a.rank(), "take");
  int64_t place = resolve_index(index, a.shape()[at], at, "take");
  return squeeze(slice_axis(a, at, place, place + 1, s), {at}, s);
}

Array take_along_axis(const Array& a, const Array& indices, int axis, Stream s) {
  int at = normalize_axis(axis, a.rank(), "take_along_axis");
  auto [from, places] = align_along(a, indices, at, "take_along_axis", s);
  return apply(take_along_axis_op, {from, places}, TakeParams{at}, s);
}

Array take_along_axis(const Array& a, const Array& indices, Stream s) {
  return take_along_axis(flatten(a, 0, -1, s), flatten(indices, 0, -1, s), 0, s);
}

Array put_along_axis(const Array& a, const Array& indices, const Array& values, int axis,
                     Stream s) {
  return update_along(a, indices, values, axis, ScatterMode::Set, "put_along_axis", s);
}

Array scatter_add_axis(const Array& a, const Array& indices, const Array& values, int axis,
                       Stream s) {
  return update_along(a, indices, values, axis, ScatterMode::Add, "scatter_add_axis", s);
}

Array gather(const Array& a, const Arrays& indices, const std::vector<int>& axes,
             const Shape& slice_sizes, Stream s) {
  std::vector<int> at = distinct_axes(axes, a.rank(), "gather");
  Arrays inputs = common_indices(indices, axes, "gather", s);
  inputs.insert(inputs.begin(), a);
  return apply(gather_op, std::span<const Array>(inputs), GatherParams{std::move(at), slice_sizes},
               s);
}

Array scatter(const Array& a, const Arrays& indices, const Array& updates,
              const std::vector<int>& axes, ScatterMode mode, Stream s) {
  std::vector<int> at = distinct_axes(axes, a.rank(), "scatter");
  Arrays inputs = common_indices(indices, axes, "scatter", s);
  inputs.insert(inputs.begin(), a);
  inputs.push_back(as_type_of(updates, a, s));
  return apply(scatter_op, std::span<const Array>(inputs), ScatterParams{std::move(at), mode}, s);
}

Array slice_update(const Array& a, const Array& update, const Shape& start, const Shape& stop,
                   const Shape& strides, Stream s) {
  SliceParams where = resolve_slice(a.shape(), start, stop, strides, "slice_update");
  Array values = broadcast_to(as_type_of(update, a, s), where.shape, s);
  if (values.size() == 0) return a;
  return apply(slice_update_op, {a, values}, SliceUpdateParams{where.start, where.stride}, s);
}

Array slice(const Array& a, const Array& start, const std::vector<int>& axes, const Shape& sizes,
            Stream s) {
  check_indices(start, "slice");
  std::vector<int> at = distinct_axes(axes, a.rank(), "slice");
  return apply(dynamic_slice_op, {a, start}, DynamicSliceParams{std::move(at), sizes}, s);
}

Array slice_update(const Array& a, const Array& update, const Array& start,
                   const std::vector<int>& axes, Stream s) {
  check_indices(start, "slice_update");
  std::vector<int> at = distinct_axes(axes, a.rank(), "slice_update");
  return apply(dynamic_slice_update_op, {a, as_type_of(update, a, s), start},
               DynamicSliceParams{std::move(at), {}}, s);
}

Array ragged_slice_update(const Array& target, const Array& update, const Array& starts, int axis,
                          bool ring, Stream s) {
  check_indices(starts, "ragged_slice_update");
  int at = normalize_axis(axis, target.rank(), "ragged_slice_update");
  return apply(ragged_slice_update_op, {target, as_type_of(update, target, s), starts},
               RaggedParams{at, ring}, s);
}

namespace ops {

void index_out_of_range(const char* op, int64_t index, int axis, int64_t extent) {
  throw_index("[{}] index {} is out of range for axis {} with {} elements", op, index, axis,
              extent);
}

void check_block(const char* op, int64_t start, int64_t size, int axis, int64_t extent) {
  if (start >= 0 && size <= extent - start) return;
  throw_index("[{}] {} elements from {} on do not fit in axis {} with {} elements", op, size, start,
              axis, extent);
}

namespace {

Array take_of_values(const Array& a, const Value& indices, const std::optional<int>& axis,
                     Stream s) {
  if (const auto* index = std::get_if<int64_t>(&indices)) {
    return axis ? take(a, *index, *axis, s) : take(flatten(a, 0, -1, s), *index, 0, s);
  }
  const auto* array = std::get_if<Array>(&indices);
  if (!array)
    throw_type("take() argument 'indices' must be int or array, got {}", value_kind(indices));
  return axis ? take(a, *array, *axis, s) : take(a, *array, s);
}

void add_reads(FunctionRegistry& functions) {
  functions.add("take", "a: array, /, indices: int | array, axis: int | None = None",
                "The slices of `a` at `indices` (integers; negative ones count from the end) along "
                "an axis, which\n"
                "is replaced by the axes of `indices`. Without an axis `a` is flattened first. An "
                "index out of\n"
                "range is an IndexError at evaluation.",
                [](const Array& a, const Value& indices, const std::optional<int>& axis, Stream s) {
                  return take_of_values(a, indices, axis, s);
                });
  functions.add("take_along_axis", "a: array, /, indices: array, axis: int | None = -1",
                "One element per index: result[.., i, ..] = a[.., indices[.., i, ..], ..]. "
                "`indices` has as many\n"
                "axes as `a`; the others broadcast. Without an axis both are flattened.",
                [](const Array& a, const Array& indices, const std::optional<int>& axis, Stream s) {
                  return axis ? take_along_axis(a, indices, *axis, s)
                              : take_along_axis(a, indices, s);
                });
  functions.add("slice",
                "a: array, start_indices: array, axes: Sequence[int], slice_size: Sequence[int]",
                "The block of `slice_size` whose corner along `axes[i]` is `start_indices[i]` and "
                "0 elsewhere.\n"
                "A block that leaves the array is an IndexError at evaluation.",
                [](const Array& a, const Array& start, const std::vector<int>& axes,
                   const Shape& sizes, Stream s) { return slice(a, start, axes, sizes, s); });
}

void add_updates(FunctionRegistry& functions) {
  functions.add("put_along_axis",
                "a: array, /, indices: array, values: scalar | array, axis: int | None = None",
                "`a` with `values`, broadcast to `indices`, at the places that take_along_axis "
                "reads. Of equal\n"
                "indices the last one stays.",
                [](const Array& a, const Array& indices, const Array& values,
                   const std::optional<int>& axis, Stream s) {
                  if (axis) return put_along_axis(a, indices, values, *axis, s);
                  Array flat =
                      put_along_axis(flatten(a, 0, -1, s), flatten(indices, 0, -1, s),
                                     values.rank() > 1 ? flatten(values, 0, -1, s) : values, 0, s);
                  return reshape(flat, a.shape(), s);
                });
  functions.add(
      "slice_update", "a: array, update: array, start_indices: array, axes: Sequence[int]",
      "`a` with `update` written to the block whose corner along `axes[i]` is `start_indices[i]` "
      "and 0\n"
      "elsewhere.",
      [](const Array& a, const Array& update, const Array& start, const std::vector<int>& axes,
         Stream s) { return slice_update(a, update, start, axes, s); });
}

}  // namespace

void index_ops(Registry& registry) {
  for (const Op* op :
       {&take_op, &take_along_axis_op, &gather_op, &scatter_op, &scatter_axis_op, &slice_update_op,
        &dynamic_slice_op, &dynamic_slice_update_op, &ragged_slice_update_op}) {
    registry.ops.add(*op);
  }
  add_reads(registry.functions);
  add_updates(registry.functions);
}

}  // namespace ops
}  // namespace mica
