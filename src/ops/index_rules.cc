// Reads at places that are data: shapes, derivatives, batching.
#include <algorithm>
#include <numeric>

#include "base/error.h"
#include "ops/create.h"
#include "ops/index.h"
#include "ops/index_samples.h"
#include "ops/rules.h"
#include "ops/shape.h"

namespace mica::ops {

namespace {

Shape joined(const Shape& a, const Shape& b) {
  Shape result = a;
  for (int64_t extent : b) result.push_back(extent);
  return result;
}

// --- take

void take_infer(const Application& app, std::span<OutputSpec> outputs) {
  int axis = app.as<TakeParams>().axis;
  const Shape& from = app.inputs[0].shape();
  Shape shape(std::span(from.data(), axis));
  shape = joined(shape, app.inputs[1].shape());
  shape = joined(shape, std::span(from.data() + axis + 1, from.size() - axis - 1));
  if (from[axis] == 0 && elements(shape) > 0)
    throw_index("[take] axis {} of {} has nothing to take", axis, from);
  outputs[0] = {shape, app.inputs[0].dtype()};
}

// The order that moves `count` axes from `from` to the place `to`.
std::vector<int> moved_axes(size_t rank, size_t from, size_t count, size_t to) {
  std::vector<int> axes(rank);
  std::iota(axes.begin(), axes.end(), 0);
  if (from > to)
    std::rotate(axes.begin() + to, axes.begin() + from, axes.begin() + from + count);
  else
    std::rotate(axes.begin() + from, axes.begin() + from + count, axes.begin() + to + count);
  return axes;
}

Arrays take_vjp(const Application& app, Given cotangents, const std::vector<bool>& wanted) {
  if (!wanted[0]) return Arrays(2);
  const Array &a = app.inputs[0], &indices = app.inputs[1];
  int axis = app.as<TakeParams>().axis;
  std::vector<int> order = moved_axes(cotangents[0].rank(), axis, indices.rank(), 0);
  Array updates = transpose(cotangents[0], order, app.stream);
  updates = expand_dims(updates, {static_cast<int>(indices.rank()) + axis}, app.stream);
  return {
      scatter(zeros_like(a, app.stream), {indices}, updates, {axis}, ScatterMode::Add, app.stream),
      Array()};
}

Arrays take_jvp(const Application& app, Given tangents) {
  Array tangent = tangent_or_zeros(tangents[0], app.inputs[0], app.stream);
  return {apply(take_op, {tangent, app.inputs[1]}, app.as<TakeParams>(), app.stream)};
}

Batched take_vmap(const Application& app, std::span<const int> axes) {
  int axis = app.as<TakeParams>().axis;
  Stream s = app.stream;
  if (axes[1] < 0)
    return {{take(moveaxis(app.inputs[0], axes[0], 0, s), app.inputs[1], axis + 1, s)}, {0}};
  if (axes[0] < 0) return {{take(app.inputs[0], app.inputs[1], axis, s)}, {axis + axes[1]}};
  Array a = moveaxis(app.inputs[0], axes[0], 0, s),
        indices = moveaxis(app.inputs[1], axes[1], 0, s);
  size_t index_rank = indices.rank() - 1;
  Shape sizes = a.shape();
  sizes[0] = sizes[axis + 1] = 1;
  Array rows =
      gather(a, {batch_index(a.shape(0), index_rank, s), indices}, {0, axis + 1}, sizes, s);
  int first = static_cast<int>(indices.rank());
  Array blocks = squeeze(rows, {first, first + 1 + axis}, s);  // [B, indices, before, after]
  return {{transpose(blocks, moved_axes(blocks.rank(), 1, index_rank, 1 + axis), s)}, {0}};
}

// --- take_along_axis

void take_along_infer(const Application& app, std::span<OutputSpec> outputs) {
  int axis = app.as<TakeParams>().axis;
  const Array &a = app.inputs[0], &indices = app.inputs[1];
  Shape shape = a.shape();
  shape[axis] = indices.shape()[axis];
  MICA_ASSERT(shape == indices.shape());
  outputs[0] = {shape, a.dtype()};
}

Arrays take_along_vjp(const Application& app, Given cotangents, const std::vector<bool>& wanted) {
  if (!wanted[0]) return Arrays(2);
  Array zero = zeros_like(app.inputs[0], app.stream);
  return {
      scatter_add_axis(zero, app.inputs[1], cotangents[0], app.as<TakeParams>().axis, app.stream),
      Array()};
}

Arrays take_along_jvp(const Application& app, Given tangents) {
  Array tangent = tangent_or_zeros(tangents[0], app.inputs[0], app.stream);
  return {apply(take_along_axis_op, {tangent, app.inputs[1]}, app.as<TakeParams>(), app.stream)};
}

Batched take_along_vmap(const Application& app, std::span<const int> axes) {
  size_t rank = app.inputs[0].rank() - (axes[0] >= 0);
  Array a = batch_first(app.inputs[0], axes[0], rank, app.stream);
  Array indices = batch_first(app.inputs[1], axes[1], rank, app.stream);
  return {{take_along_axis(a, indices, app.as<TakeParams>().axis + 1, app.stream)}, {0}};
}

// --- gather

void gather_infer(const Application& app, std::span<OutputSpec> outputs) {
  const auto& params = app.as<GatherParams>();
  const Array& a = app.inputs[0];
  Shape index_shape = params.axes.empty() ? Shape() : app.inputs[1].shape();
  bool none = elements(index_shape) == 0;  // a batch of no elements has no blocks that must fit
  bool fits = params.sizes.size() == a.rank();
  for (size_t i = 0; fits && i < a.rank(); ++i)
    fits = params.sizes[i] >= 0 && (none || params.sizes[i] <= a.shape()[i]);
  if (!fits)
    throw_value("[gather] slice sizes {} do not fit an array of shape {}", params.sizes, a.shape());
  outputs[0] = {joined(index_shape, params.sizes), a.dtype()};
}

Arrays gather_vjp(const Application& app, Given cotangents, const std::vector<bool>& wanted) {
  Arrays result(app.inputs.size());
  if (!wanted[0]) return result;
  Arrays indices(app.inputs.begin() + 1, app.inputs.end());
  result[0] = scatter(zeros_like(app.inputs[0], app.stream), indices, cotangents[0],
                      app.as<GatherParams>().axes, ScatterMode::Add, app.stream);
  return result;
}

Arrays gather_jvp(const Application& app, Given tangents) {
  Arrays inputs(app.inputs.begin(), app.inputs.end());
  inputs[0] = tangent_or_zeros(tangents[0], app.inputs[0], app.stream);
  return {apply(gather_op, std::span<const Array>(inputs), app.as<GatherParams>(), app.stream)};
}

// The index arrays with the batch axis in front; `rank` is theirs without it.
Arrays batched_indices(const Application& app, std::span<const int> axes, size_t count,
                       size_t& rank) {
  Arrays indices;
  rank = count == 0 ? 0 : app.inputs[1].rank() - (axes[1] >= 0);
  for (size_t i = 1; i <= count; ++i)
    indices.push_back(batch_first(app.inputs[i], axes[i], rank, app.stream));
  return indices;
}

Batched gather_vmap(const Application& app, std::span<const int> axes) {
  GatherParams params = app.as<GatherParams>();
  Stream s = app.stream;
  bool indexed = std::any_of(axes.begin() + 1, axes.end(), [](int axis) { return axis >= 0; });
  size_t rank = 0;
  if (!indexed) {
    Array a = moveaxis(app.inputs[0], axes[0], 0, s);
    Arrays indices(app.inputs.begin() + 1, app.inputs.end());
    int place = indices.empty() ? 0 : static_cast<int>(indices[0].rank());
    params.sizes.insert(0, a.shape(0));
    return {{gather(a, indices, shifted(params.axes), params.sizes, s)}, {place}};
  }
  Arrays indices = batched_indices(app, axes, params.axes.size(), rank);
  if (axes[0] < 0) return {{gather(app.inputs[0], indices, params.axes, params.sizes, s)}, {0}};
  Array a = moveaxis(app.inputs[0], axes[0], 0, s);
  indices.push_back(batch_index(a.shape(0), rank, s));
  std::vector<int> at = shifted(params.axes);
  at.push_back(0);
  params.sizes.insert(0, 1);
  Array blocks = gather(a, indices, at, params.sizes, s);
  return {{squeeze(blocks, {static_cast<int>(rank) + 1}, s)}, {0}};
}

// --- slice at a start that is data

void dynamic_slice_infer(const Application& app, std::span<OutputSpec> outputs) {
  const auto& params = app.as<DynamicSliceParams>();
  const Array &a = app.inputs[0], &start = app.inputs[1];
  bool fits = params.sizes.size() == a.rank();
  for (size_t i = 0; fits && i < a.rank(); ++i)
    fits = params.sizes[i] >= 0 && params.sizes[i] <= a.shape()[i];
  if (!fits)
    throw_value("[slice] sizes {} do not fit an array of shape {}", params.sizes, a.shape());
  if (start.rank() > 1 || start.size() != static_cast<int64_t>(params.axes.size())) {
    throw_value("[slice] starts of shape {} given for {} axes", start.shape(), params.axes.size());
  }
  outputs[0] = {params.sizes, a.dtype()};
}

Arrays dynamic_slice_vjp(const Application& app, Given cotangents,
                         const std::vector<bool>& wanted) {
  if (!wanted[0]) return Arrays(2);
  Array zero = zeros_like(app.inputs[0], app.stream);
  return {slice_update(zero, cotangents[0], app.inputs[1], app.as<DynamicSliceParams>().axes,
                       app.stream),
          Array()};
}

Arrays dynamic_slice_jvp(const Application& app, Given tangents) {
  Array tangent = tangent_or_zeros(tangents[0], app.inputs[0], app.stream);
  return {
      apply(dynamic_slice_op, {tangent, app.inputs[1]}, app.as<DynamicSliceParams>(), app.stream)};
}

Batched dynamic_slice_vmap(const Application& app, std::span<const int> axes) {
  DynamicSliceParams params = app.as<DynamicSliceParams>();
  Stream s = app.stream;
  Array a = app.inputs[0];
  if (axes[1] < 0) {
    a = moveaxis(a, axes[0], 0, s);
    params.sizes.insert(0, a.shape(0));
    return {{slice(a, app.inputs[1], shifted(params.axes), params.sizes, s)}, {0}};
  }
  Arrays indices = start_columns(app.inputs[1], axes[1], params.axes.size(), s);
  if (axes[0] < 0) return {{gather(a, indices, params.axes, params.sizes, s)}, {0}};
  a = moveaxis(a, axes[0], 0, s);
  indices.push_back(batch_index(a.shape(0), 0, s));
  std::vector<int> at = shifted(params.axes);
  at.push_back(0);
  params.sizes.insert(0, 1);
  return {{squeeze(gather(a, indices, at, params.sizes, s), {1}, s)}, {0}};
}

}  // namespace

Arrays start_columns(const Array& starts, int axis, size_t count, Stream s) {
  Array table =
      reshape(moveaxis(starts, axis, 0, s), {starts.shape(axis), static_cast<int64_t>(count)}, s);
  Arrays columns;
  for (size_t i = 0; i < count; ++i) columns.push_back(take(table, static_cast<int64_t>(i), 1, s));
  return columns;
}

const Op take_op{.name = "take",
                 .params = &params_type<TakeParams>,
                 .infer = &take_infer,
                 .vjp = &take_vjp,
                 .jvp = &take_jvp,
                 .vmap = &take_vmap,
                 .samples = &take_samples};

const Op take_along_axis_op{.name = "take_along_axis",
                            .params = &params_type<TakeParams>,
                            .infer = &take_along_infer,
                            .vjp = &take_along_vjp,
                            .jvp = &take_along_jvp,
                            .vmap = &take_along_vmap,
                            .samples = &take_along_axis_samples};

const Op gather_op{.name = "gather",
                   .params = &params_type<GatherParams>,
                   .infer = &gather_infer,
                   .vjp = &gather_vjp,
                   .jvp = &gather_jvp,
                   .vmap = &gather_vmap,
                   .samples = &gather_samples};

const Op dynamic_slice_op{.name = "dynamic_slice",
                          .params = &params_type<DynamicSliceParams>,
                          .infer = &dynamic_slice_infer,
                          .vjp = &dynamic_slice_vjp,
                          .jvp = &dynamic_slice_jvp,
                          .vmap = &dynamic_slice_vmap,
                          .samples = &dynamic_slice_samples};

}  // namespace mica::ops
