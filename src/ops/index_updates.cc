// Writes at places that are data: shapes, derivatives, batching.
#include <algorithm>

#include "base/error.h"
#include "ops/create.h"
#include "ops/elementwise.h"
#include "ops/index.h"
#include "ops/index_samples.h"
#include "ops/rules.h"
#include "ops/shape.h"

namespace mica::ops {

namespace {

void update_infer(const Application& app, std::span<OutputSpec> outputs) {
  outputs[0] = {app.inputs[0].shape(), app.inputs[0].dtype()};
}

// --- scatter

void scatter_infer(const Application& app, std::span<OutputSpec> outputs) {
  const auto& params = app.as<ScatterParams>();
  const Array &a = app.inputs[0], &updates = app.inputs.back();
  Shape index_shape = params.axes.empty() ? Shape() : app.inputs[1].shape();
  size_t lead = index_shape.size();
  bool fits = updates.rank() == lead + a.rank();
  for (size_t i = 0; fits && i < lead; ++i) fits = updates.shape()[i] == index_shape[i];
  for (size_t i = 0; fits && i < a.rank(); ++i) fits = updates.shape()[lead + i] <= a.shape()[i];
  if (!fits) {
    throw_value(
        "[scatter] updates of shape {} do not fit indices of shape {} into an array of shape {}",
        updates.shape(), index_shape, a.shape());
  }
  update_infer(app, outputs);
}

// The blocks of `from` that the updates of this scatter go to.
Array gather_like(const Application& app, const Array& from) {
  Arrays indices(app.inputs.begin() + 1, app.inputs.end() - 1);
  const Shape& updates = app.inputs.back().shape();
  size_t lead = updates.size() - app.inputs[0].rank();
  Shape sizes(std::span(updates.data() + lead, updates.size() - lead));
  return gather(from, indices, app.as<ScatterParams>().axes, sizes, app.stream);
}

Array scatter_like(const Application& app, const Array& target, const Array& updates,
                   ScatterMode mode) {
  Arrays indices(app.inputs.begin() + 1, app.inputs.end() - 1);
  return scatter(target, indices, updates, app.as<ScatterParams>().axes, mode, app.stream);
}

Arrays scatter_vjp(const Application& app, Given cotangents, const std::vector<bool>& wanted) {
  ScatterMode mode = app.as<ScatterParams>().mode;
  const Array &g = cotangents[0], &a = app.inputs[0], &updates = app.inputs.back();
  Arrays result(app.inputs.size());
  Stream s = app.stream;
  if (mode == ScatterMode::Prod)
    throw_unsupported("[scatter] the product of updates has no derivative");
  bool extremum = mode == ScatterMode::Max || mode == ScatterMode::Min;
  if (wanted[0]) {
    if (mode == ScatterMode::Add)
      result[0] = g;
    else if (extremum)
      result[0] = where(equal(app.outputs[0], a, s), g, 0, s);
    else
      result[0] = scatter_like(app, g, zeros_like(updates, s), ScatterMode::Set);
  }
  if (wanted.back()) {
    Array blocks = gather_like(app, g);
    if (extremum) {
      Array chosen = equal(gather_like(app, app.outputs[0]), updates, s);
      blocks = where(chosen, blocks, 0, s);
    }
    result.back() = blocks;
  }
  return result;
}

Arrays scatter_jvp(const Application& app, Given tangents) {
  ScatterMode mode = app.as<ScatterParams>().mode;
  const Array &a = app.inputs[0], &updates = app.inputs.back();
  Stream s = app.stream;
  Array ta = tangent_or_zeros(tangents[0], a, s),
        tu = tangent_or_zeros(tangents.back(), updates, s);
  if (mode == ScatterMode::Add || mode == ScatterMode::Set)
    return {scatter_like(app, ta, tu, mode)};
  if (mode == ScatterMode::Prod)
    throw_unsupported("[scatter] the product of updates has no derivative");
  // Where an update is the result its tangent stands; where `a` is, that of `a`.
  Array out = scatter_like(app, a, updates, mode);
  Array kept = where(equal(out, a, s), ta, 0, s);
  Array chosen = where(equal(gather_like(app, out), updates, s), tu, 0, s);
  return {scatter_like(app, kept, chosen, ScatterMode::Add)};
}

Batched scatter_vmap(const Application& app, std::span<const int> axes) {
  const auto& params = app.as<ScatterParams>();
  Stream s = app.stream;
  int64_t batch = batch_extent(app.inputs, axes);
  size_t rank = params.axes.empty() ? 0 : app.inputs[1].rank() - (axes[1] >= 0);
  Arrays indices;
  for (size_t i = 1; i + 1 < app.inputs.size(); ++i) {
    indices.push_back(batch_first(app.inputs[i], axes[i], rank, s));
  }
  indices.push_back(batch_index(batch, rank, s));
  std::vector<int> at = shifted(params.axes);
  at.push_back(0);
  Array updates = batched(app.inputs.back(), axes.back(), batch, s);
  updates = expand_dims(updates, {static_cast<int>(rank) + 1}, s);
  return {
      {scatter(batched(app.inputs[0], axes[0], batch, s), indices, updates, at, params.mode, s)},
      {0}};
}

// --- scatter along an axis

void scatter_axis_infer(const Application& app, std::span<OutputSpec> outputs) {
  MICA_ASSERT(app.inputs[1].shape() == app.inputs[2].shape());
  update_infer(app, outputs);
}

Arrays scatter_axis_vjp(const Application& app, Given cotangents, const std::vector<bool>& wanted) {
  auto [axis, mode] = app.as<ScatterAxisParams>();
  const Array& g = cotangents[0];
  Arrays result(3);
  if (wanted[0]) {
    Array zero = zeros_like(app.inputs[2], app.stream);
    result[0] =
        mode == ScatterMode::Add ? g : put_along_axis(g, app.inputs[1], zero, axis, app.stream);
  }
  if (wanted[2]) result[2] = take_along_axis(g, app.inputs[1], axis, app.stream);
  return result;
}

Arrays scatter_axis_jvp(const Application& app, Given tangents) {
  Array ta = tangent_or_zeros(tangents[0], app.inputs[0], app.stream);
  Array tu = tangent_or_zeros(tangents[2], app.inputs[2], app.stream);
  return {apply(scatter_axis_op, {ta, app.inputs[1], tu}, app.as<ScatterAxisParams>(), app.stream)};
}

Batched scatter_axis_vmap(const Application& app, std::span<const int> axes) {
  ScatterAxisParams params = app.as<ScatterAxisParams>();
  int64_t batch = batch_extent(app.inputs, axes);
  Arrays inputs;
  for (size_t i = 0; i < 3; ++i)
    inputs.push_back(batched(app.inputs[i], axes[i], batch, app.stream));
  ++params.axis;
  return {{apply(scatter_axis_op, std::span<const Array>(inputs), params, app.stream)}, {0}};
}

// --- slice updates at places that the graph knows

void slice_update_infer(const Application& app, std::span<OutputSpec> outputs) {
  const auto& params = app.as<SliceUpdateParams>();
  const Shape &to = app.inputs[0].shape(), &update = app.inputs[1].shape();
  bool fits = update.size() == to.size() && params.start.size() == to.size();
  for (size_t i = 0; fits && i < to.size(); ++i) {
    int64_t last = params.start[i] + (update[i] - 1) * params.stride[i];
    fits = update[i] == 0 || (params.start[i] < to[i] && last >= 0 && last < to[i]);
  }
  if (!fits)
    throw_value("[slice_update] an update of shape {} at {} does not fit in {}", update,
                params.start, to);
  update_infer(app, outputs);
}

Arrays slice_update_vjp(const Application& app, Given cotangents, const std::vector<bool>& wanted) {
  const auto& params = app.as<SliceUpdateParams>();
  Arrays result(2);
  if (wanted[0]) {
    Array zero = zeros_like(app.inputs[1], app.stream);
    result[0] = apply(slice_update_op, {cotangents[0], zero}, params, app.stream);
  }
  if (wanted[1]) {
    SliceParams read{params.start, params.stride, app.inputs[1].shape()};
    result[1] = apply(slice_op, {cotangents[0]}, std::move(read), app.stream);
  }
  return result;
}

Arrays slice_update_jvp(const Application& app, Given tangents) {
  Array ta = tangent_or_zeros(tangents[0], app.inputs[0], app.stream);
  Array tu = tangent_or_zeros(tangents[1], app.inputs[1], app.stream);
  return {apply(slice_update_op, {ta, tu}, app.as<SliceUpdateParams>(), app.stream)};
}

Batched slice_update_vmap(const Application& app, std::span<const int> axes) {
  SliceUpdateParams params = app.as<SliceUpdateParams>();
  int64_t batch = batch_extent(app.inputs, axes);
  params.start.insert(0, 0);
  params.stride.insert(0, 1);
  Array a = batched(app.inputs[0], axes[0], batch, app.stream);
  Array update = batched(app.inputs[1], axes[1], batch, app.stream);
  return {{apply(slice_update_op, {a, update}, std::move(params), app.stream)}, {0}};
}

// --- slice updates at a start that is data

void dynamic_slice_update_infer(const Application& app, std::span<OutputSpec> outputs) {
  const Array &a = app.inputs[0], &update = app.inputs[1], &start = app.inputs[2];
  size_t count = app.as<DynamicSliceParams>().axes.size();
  bool fits = update.rank() == a.rank();
  for (size_t i = 0; fits && i < a.rank(); ++i) fits = update.shape()[i] <= a.shape()[i];
  if (!fits)
    throw_value("[slice_update] an update of shape {} does not fit in {}", update.shape(),
                a.shape());
  if (start.rank() > 1 || start.size() != static_cast<int64_t>(count)) {
    throw_value("[slice_update] starts of shape {} given for {} axes", start.shape(), count);
  }
  update_infer(app, outputs);
}

Arrays dynamic_slice_update_vjp(const Application& app, Given cotangents,
                                const std::vector<bool>& wanted) {
  const auto& axes = app.as<DynamicSliceParams>().axes;
  const Array &update = app.inputs[1], &start = app.inputs[2];
  Arrays result(3);
  if (wanted[0]) {
    result[0] =
        slice_update(cotangents[0], zeros_like(update, app.stream), start, axes, app.stream);
  }
  if (wanted[1]) result[1] = slice(cotangents[0], start, axes, update.shape(), app.stream);
  return result;
}

Arrays dynamic_slice_update_jvp(const Application& app, Given tangents) {
  Array ta = tangent_or_zeros(tangents[0], app.inputs[0], app.stream);
  Array tu = tangent_or_zeros(tangents[1], app.inputs[1], app.stream);
  return {slice_update(ta, tu, app.inputs[2], app.as<DynamicSliceParams>().axes, app.stream)};
}

Batched dynamic_slice_update_vmap(const Application& app, std::span<const int> axes) {
  const auto& params = app.as<DynamicSliceParams>();
  Stream s = app.stream;
  int64_t batch = batch_extent(app.inputs, axes);
  Array a = batched(app.inputs[0], axes[0], batch, s),
        update = batched(app.inputs[1], axes[1], batch, s);
  std::vector<int> at = shifted(params.axes);
  if (axes[2] < 0) return {{slice_update(a, update, app.inputs[2], at, s)}, {0}};
  Arrays indices = start_columns(app.inputs[2], axes[2], params.axes.size(), s);
  indices.push_back(batch_index(batch, 0, s));
  at.push_back(0);
  return {{scatter(a, indices, expand_dims(update, {1}, s), at, ScatterMode::Set, s)}, {0}};
}

// --- one slice update per sequence

void ragged_infer(const Application& app, std::span<OutputSpec> outputs) {
  auto [axis, ring] = app.as<RaggedParams>();
  const Array &target = app.inputs[0], &update = app.inputs[1], &starts = app.inputs[2];
  bool fits = axis > 0 && update.rank() == target.rank();
  for (size_t i = 0; fits && i < target.rank(); ++i) {
    fits = static_cast<int>(i) == axis || update.shape()[i] == target.shape()[i];
  }
  if (!fits) {
    throw_value("[ragged_slice_update] an update of shape {} does not fit in {} along axis {}",
                update.shape(), target.shape(), axis);
  }
  if (starts.rank() != 1 || starts.shape(0) != target.shape(0)) {
    throw_value("[ragged_slice_update] starts of shape {} given for {} sequences", starts.shape(),
                target.shape(0));
  }
  if (ring && target.shape(axis) == 0 && update.size() > 0) {
    throw_value("[ragged_slice_update] the ring of shape {} has no room", target.shape());
  }
  update_infer(app, outputs);
}

// The places along the axis that the rows of the update go to, [B, 1.., L, ..1].
Array ragged_places(const Application& app) {
  auto [axis, ring] = app.as<RaggedParams>();
  Stream s = app.stream;
  size_t rank = app.inputs[0].rank();
  Shape along(rank, 1), first(rank, 1);
  along[axis] = app.inputs[1].shape()[axis];
  first[0] = app.inputs[2].shape(0);
  Array rows = reshape(arange(along[axis], Dtype::I64, s), along, s);
  Array places = add(rows, reshape(astype(app.inputs[2], Dtype::I64, s), first, s), s);
  return ring ? remainder(places, app.inputs[0].shape()[axis], s) : places;
}

Arrays ragged_vjp(const Application& app, Given cotangents, const std::vector<bool>& wanted) {
  auto [axis, ring] = app.as<RaggedParams>();
  const Array &update = app.inputs[1], &starts = app.inputs[2];
  Stream s = app.stream;
  Arrays result(3);
  if (wanted[0]) {
    result[0] = ragged_slice_update(cotangents[0], zeros_like(update, s), starts, axis, ring, s);
  }
  if (!wanted[1]) return result;
  result[1] = take_along_axis(cotangents[0], ragged_places(app), axis, s);
  int64_t lost = ring ? update.shape(axis) - cotangents[0].shape(axis) : 0;
  if (lost > 0) {  // overwritten rows of a ring too small for the update
    Shape along(update.rank(), 1);
    along[axis] = update.shape(axis);
    Array row = reshape(arange(update.shape(axis), Dtype::I64, s), along, s);
    Array kept = greater_equal(row, lost, s);
    result[1] = where(kept, result[1], 0, s);
  }
  return result;
}

Arrays ragged_jvp(const Application& app, Given tangents) {
  auto [axis, ring] = app.as<RaggedParams>();
  Array ta = tangent_or_zeros(tangents[0], app.inputs[0], app.stream);
  Array tu = tangent_or_zeros(tangents[1], app.inputs[1], app.stream);
  return {ragged_slice_update(ta, tu, app.inputs[2], axis, ring, app.stream)};
}

// Two batches are one longer batch.
Batched ragged_vmap(const Application& app, std::span<const int> axes) {
  auto [axis, ring] = app.as<RaggedParams>();
  Stream s = app.stream;
  int64_t batch = batch_extent(app.inputs, axes);
  Arrays merged;
  Shape shape;
  for (size_t i = 0; i < 3; ++i) {
    Array input = batched(app.inputs[i], axes[i], batch, s);
    if (i == 0) shape = input.shape();
    merged.push_back(flatten(input, 0, 1, s));
  }
  return {{reshape(ragged_slice_update(merged[0], merged[1], merged[2], axis, ring, s), shape, s)},
          {0}};
}

}  // namespace

const Op scatter_op{.name = "scatter",
                    .params = &params_type<ScatterParams>,
                    .updates_first_input = true,
                    .infer = &scatter_infer,
                    .vjp = &scatter_vjp,
                    .jvp = &scatter_jvp,
                    .vmap = &scatter_vmap,
                    .samples = &scatter_samples};

const Op scatter_axis_op{.name = "scatter_axis",
                         .params = &params_type<ScatterAxisParams>,
                         .updates_first_input = true,
                         .infer = &scatter_axis_infer,
                         .vjp = &scatter_axis_vjp,
                         .jvp = &scatter_axis_jvp,
                         .vmap = &scatter_axis_vmap,
                         .samples = &scatter_axis_samples};

const Op slice_update_op{.name = "slice_update",
                         .params = &params_type<SliceUpdateParams>,
                         .updates_first_input = true,
                         .infer = &slice_update_infer,
                         .vjp = &slice_update_vjp,
                         .jvp = &slice_update_jvp,
                         .vmap = &slice_update_vmap,
                         .samples = &slice_update_samples};

const Op dynamic_slice_update_op{.name = "dynamic_slice_update",
                                 .params = &params_type<DynamicSliceParams>,
                                 .updates_first_input = true,
                                 .infer = &dynamic_slice_update_infer,
                                 .vjp = &dynamic_slice_update_vjp,
                                 .jvp = &dynamic_slice_update_jvp,
                                 .vmap = &dynamic_slice_update_vmap,
                                 .samples = &dynamic_slice_update_samples};

const Op ragged_slice_update_op{.name = "ragged_slice_update",
                                .params = &params_type<RaggedParams>,
                                .updates_first_input = true,
                                .infer = &ragged_infer,
                                .vjp = &ragged_vjp,
                                .jvp = &ragged_jvp,
                                .vmap = &ragged_vmap,
                                .samples = &ragged_slice_update_samples};

}  // namespace mica::ops
