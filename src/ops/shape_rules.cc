// The view operations: layouts, derivatives, batching.
#include <algorithm>
#include <numeric>

#include "base/error.h"
#include "core/view.h"
#include "ops/create.h"
#include "ops/elementwise.h"
#include "ops/index.h"
#include "ops/reduce.h"
#include "ops/rules.h"
#include "ops/shape.h"

namespace mica::ops {

namespace {

void infer_same(const Application& app, std::span<OutputSpec> outputs) {
  outputs[0] = {app.inputs[0].shape(), app.inputs[0].dtype()};
}

bool same_layout(const Application&, const Shape&, ViewLayout&) { return true; }

// The tangent of an operation that is linear in its only input.
template <const Op& op, class P>
Arrays linear_jvp(const Application& app, Given tangents) {
  return {apply(op, {tangents[0]}, app.as<P>(), app.stream)};
}

// An operation of one input that treats the batch axis like any other.
template <const Op& op>
Batched same_vmap(const Application& app, std::span<const int> axes) {
  return {{apply(op, {app.inputs[0]}, app.stream)}, {axes[0]}};
}

Shape with_batch(int64_t batch, const Shape& shape) {
  Shape result = shape;
  result.insert(0, batch);
  return result;
}

// --- reshape

// Strides of `to` over the same elements, if the axes of `from` can be merged and split so.
bool reshape_strides(const Shape& from, const Strides& strides, const Shape& to, Strides& result) {
  result = row_major(to);
  if (elements(to) == 0) return true;
  size_t old_axis = 0, new_axis = 0;
  int64_t next = 1;  // stride of unit axes
  while (true) {
    while (old_axis < from.size() && from[old_axis] == 1) ++old_axis;
    if (old_axis == from.size()) break;
    // The shortest runs of old and new axes with as many elements.
    size_t old_end = old_axis + 1, new_end = new_axis + 1;
    int64_t old_count = from[old_axis], new_count = to[new_axis];
    int64_t inner = strides[old_axis];
    while (old_count != new_count) {
      if (new_count < old_count) {
        new_count *= to[new_end++];
        continue;
      }
      if (from[old_end] != 1) {
        if (inner != from[old_end] * strides[old_end]) return false;
        inner = strides[old_end];
        old_count *= from[old_end];
      }
      ++old_end;
    }
    next = inner;
    for (size_t i = new_end; i-- > new_axis;) {
      result[i] = next;
      next *= to[i];
    }
    next = inner;
    old_axis = old_end;
    new_axis = new_end;
  }
  for (; new_axis < to.size(); ++new_axis) result[new_axis] = next;
  return true;
}

void reshape_infer(const Application& app, std::span<OutputSpec> outputs) {
  const Array& a = app.inputs[0];
  const Shape& to = app.as<ShapeParams>().shape;
  if (elements(to) != a.size()) {
    throw_value("[reshape] {} has {} elements, {} has {}", a.shape(), a.size(), to, elements(to));
  }
  outputs[0] = {to, a.dtype()};
}

bool reshape_view(const Application&, const Shape& output, ViewLayout& layout) {
  Strides strides;
  if (!reshape_strides(layout.shape, layout.strides, output, strides)) return false;
  layout.shape = output;
  layout.strides = strides;
  return true;
}

Arrays reshape_vjp(const Application& app, Given cotangents, const std::vector<bool>&) {
  return {reshape(cotangents[0], app.inputs[0].shape(), app.stream)};
}

Batched reshape_vmap(const Application& app, std::span<const int> axes) {
  Array a = moveaxis(app.inputs[0], axes[0], 0, app.stream);
  return {{reshape(a, with_batch(a.shape(0), app.as<ShapeParams>().shape), app.stream)}, {0}};
}

std::vector<Sample> reshape_samples() {
  auto to = [](const char* label, const Shape& from, const Shape& shape) {
    return Sample{label, {{from}}, [shape](Given in) { return Arrays{reshape(in[0], shape)}; }};
  };
  return {to("merge", {2, 3, 4}, {6, 4}),
          to("split", {6, 4}, {2, 3, 2, 2}),
          to("regroup", {4, 6}, {3, 8}),
          to("infer", {2, 3, 4}, {4, -1}),
          to("unit axes", {2, 1, 3}, {1, 2, 3, 1}),
          to("scalar", {1, 1}, {}),
          to("empty", {0, 3}, {3, 0, 2})};
}

// --- broadcast

bool broadcast_view(const Application&, const Shape& output, ViewLayout& layout) {
  layout.strides = broadcast_strides(layout.shape, layout.strides, output);
  layout.shape = output;
  return true;
}

void broadcast_infer(const Application& app, std::span<OutputSpec> outputs) {
  const Shape& to = app.as<ShapeParams>().shape;
  if (broadcast_shapes(app.inputs[0].shape(), to, "broadcast_to") != to) {
    throw_value("[broadcast_to] shape {} does not broadcast to {}", app.inputs[0].shape(), to);
  }
  outputs[0] = {to, app.inputs[0].dtype()};
}

Arrays broadcast_vjp(const Application& app, Given cotangents, const std::vector<bool>&) {
  return {sum_to_shape(cotangents[0], app.inputs[0].shape(), app.stream)};
}

Batched broadcast_vmap(const Application& app, std::span<const int> axes) {
  const Shape& to = app.as<ShapeParams>().shape;
  Array a = batch_first(app.inputs[0], axes[0], to.size(), app.stream);
  return {{broadcast_to(a, with_batch(a.shape(0), to), app.stream)}, {0}};
}

std::vector<Sample> broadcast_samples() {
  auto to = [](const char* label, const Shape& from, const Shape& shape) {
    return Sample{
        label, {{from}}, [shape](Given in) { return Arrays{broadcast_to(in[0], shape)}; }};
  };
  return {to("rows", {3}, {2, 3}), to("columns", {2, 1}, {2, 4}),
          to("middle", {2, 1, 3}, {4, 2, 5, 3}), to("scalar", {}, {2, 2}),
          to("empty", {1, 3}, {0, 3})};
}

// --- transpose

void transpose_infer(const Application& app, std::span<OutputSpec> outputs) {
  Shape shape;
  for (int axis : app.as<TransposeParams>().axes) shape.push_back(app.inputs[0].shape()[axis]);
  outputs[0] = {shape, app.inputs[0].dtype()};
}

bool transpose_view(const Application& app, const Shape& output, ViewLayout& layout) {
  Strides strides;
  for (int axis : app.as<TransposeParams>().axes) strides.push_back(layout.strides[axis]);
  layout.shape = output;
  layout.strides = strides;
  return true;
}

Arrays transpose_vjp(const Application& app, Given cotangents, const std::vector<bool>&) {
  const auto& axes = app.as<TransposeParams>().axes;
  std::vector<int> inverse(axes.size());
  for (size_t i = 0; i < axes.size(); ++i) inverse[axes[i]] = static_cast<int>(i);
  return {transpose(cotangents[0], inverse, app.stream)};
}

Batched transpose_vmap(const Application& app, std::span<const int> axes) {
  std::vector<int> order{axes[0]};
  for (int axis : app.as<TransposeParams>().axes) order.push_back(axis + (axis >= axes[0]));
  return {{transpose(app.inputs[0], order, app.stream)}, {0}};
}

std::vector<Sample> transpose_samples() {
  auto by = [](const char* label, const Shape& from, const std::vector<int>& axes) {
    return Sample{label, {{from}}, [axes](Given in) { return Arrays{transpose(in[0], axes)}; }};
  };
  return {by("matrix", {2, 3}, {1, 0}), by("heads", {2, 3, 2, 4}, {0, 2, 1, 3}),
          by("cycle", {2, 3, 4}, {2, 0, 1}), by("empty", {0, 3}, {1, 0})};
}

// --- slice

void slice_infer(const Application& app, std::span<OutputSpec> outputs) {
  const auto& params = app.as<SliceParams>();
  const Array& a = app.inputs[0];
  MICA_ASSERT(params.shape.size() == a.rank());
  for (size_t i = 0; i < a.rank(); ++i) {
    int64_t last = params.start[i] + (params.shape[i] - 1) * params.stride[i];
    bool inside = params.start[i] < a.shape()[i] && last >= 0 && last < a.shape()[i];
    if (params.shape[i] > 0 && !inside) {
      throw_value("[slice] places {} to {} of axis {} do not exist in {}", params.start[i], last, i,
                  a.shape());
    }
  }
  outputs[0] = {params.shape, a.dtype()};
}

bool slice_view(const Application& app, const Shape& output, ViewLayout& layout) {
  const auto& params = app.as<SliceParams>();
  for (size_t i = 0; i < output.size(); ++i) {
    layout.offset += params.start[i] * layout.strides[i];
    layout.strides[i] *= params.stride[i];
  }
  layout.shape = output;
  return true;
}

Arrays slice_vjp(const Application& app, Given cotangents, const std::vector<bool>&) {
  const auto& params = app.as<SliceParams>();
  Array target = zeros_like(app.inputs[0], app.stream);
  return {apply(slice_update_op, {target, cotangents[0]},
                SliceUpdateParams{params.start, params.stride}, app.stream)};
}

Batched slice_vmap(const Application& app, std::span<const int> axes) {
  Array a = moveaxis(app.inputs[0], axes[0], 0, app.stream);
  SliceParams params = app.as<SliceParams>();
  params.start.insert(0, 0);
  params.stride.insert(0, 1);
  params.shape.insert(0, a.shape(0));
  return {{apply(slice_op, {a}, std::move(params), app.stream)}, {0}};
}

std::vector<Sample> slice_samples() {
  auto of = [](const char* label, const Shape& from, const Shape& start, const Shape& stop,
               const Shape& strides) {
    return Sample{
        label, {{from}}, [=](Given in) { return Arrays{slice(in[0], start, stop, strides)}; }};
  };
  return {of("inner", {4, 5}, {1, 2}, {3, 5}, {}), of("steps", {7, 5}, {0, 1}, {7, 5}, {3, 2}),
          of("reversed", {4, 3}, {3, 2}, {-5, -4}, {-1, -2}),
          of("none", {4, 3}, {2, 0}, {2, 3}, {}), of("vector", {6}, {-4}, {-1}, {})};
}

// --- as_strided: elements of a row-major input

void as_strided_infer(const Application& app, std::span<OutputSpec> outputs) {
  const auto& params = app.as<AsStridedParams>();
  const Array& a = app.inputs[0];
  if (params.shape.size() != params.strides.size()) {
    throw_value("[as_strided] shape {} and strides {} differ in length", params.shape,
                params.strides);
  }
  __int128 lowest = params.offset, highest = params.offset;
  for (size_t i = 0; i < params.shape.size(); ++i) {
    if (params.shape[i] < 0) throw_value("[as_strided] negative extent in {}", params.shape);
    __int128 reach = static_cast<__int128>(params.shape[i] - 1) * params.strides[i];
    (reach < 0 ? lowest : highest) += reach;
  }
  if (elements(params.shape) > 0 && (lowest < 0 || highest >= a.size())) {
    throw_value("[as_strided] shape {}, strides {} and offset {} reach outside of {} elements",
                params.shape, params.strides, params.offset, a.size());
  }
  outputs[0] = {params.shape, a.dtype()};
}

bool as_strided_view(const Application& app, const Shape& output, ViewLayout& layout) {
  const auto& params = app.as<AsStridedParams>();
  layout = {output, params.strides, layout.offset + params.offset};
  return true;
}

// The row-major places of the elements that as_strided reads.
Array strided_places(const AsStridedParams& params, Stream s) {
  Array places = fill({}, params.offset, Dtype::I64, s);
  for (size_t i = 0; i < params.shape.size(); ++i) {
    Shape along(params.shape.size(), 1);
    along[i] = params.shape[i];
    Array steps = multiply(arange(params.shape[i], Dtype::I64, s), params.strides[i], s);
    places = add(places, reshape(steps, along, s), s);
  }
  return broadcast_to(places, params.shape, s);
}

Arrays as_strided_vjp(const Application& app, Given cotangents, const std::vector<bool>&) {
  const Array& a = app.inputs[0];
  Array places = reshape(strided_places(app.as<AsStridedParams>(), app.stream), {-1}, app.stream);
  Array updates = reshape(cotangents[0], {places.size(), 1}, app.stream);
  Array sums = scatter(zeros({a.size()}, a.dtype(), app.stream), {places}, updates, {0},
                       ScatterMode::Add, app.stream);
  return {reshape(sums, a.shape(), app.stream)};
}

Batched as_strided_vmap(const Application& app, std::span<const int> axes) {
  Array a = contiguous(moveaxis(app.inputs[0], axes[0], 0, app.stream), app.stream);
  AsStridedParams params = app.as<AsStridedParams>();
  int64_t batch = a.shape(0);
  params.strides.insert(0, batch ? a.size() / batch : 0);
  params.shape.insert(0, batch);
  return {{apply(as_strided_op, {a}, std::move(params), app.stream)}, {0}};
}

Arrays as_strided_jvp(const Application& app, Given tangents) {
  return {apply(as_strided_op, {contiguous(tangents[0], app.stream)}, app.as<AsStridedParams>(),
                app.stream)};
}

std::vector<Sample> as_strided_samples() {
  auto of = [](const char* label, const Shape& from, const Shape& shape, const Strides& strides,
               int64_t offset) {
    return Sample{label, {{from}}, [=](Given in) {
                    return Arrays{as_strided(in[0], shape, strides, offset)};
                  }};
  };
  return {of("windows", {8}, {3, 4}, {2, 1}, 0), of("diagonal", {4, 4}, {4}, {5}, 0),
          of("backward", {2, 3}, {3, 2}, {-1, 3}, 2), of("none", {4}, {0, 2}, {1, 1}, 0)};
}

// --- view as another dtype

void view_infer(const Application& app, std::span<OutputSpec> outputs) {
  const Array& a = app.inputs[0];
  Dtype to = app.as<ViewDtypeParams>().dtype;
  Shape shape = a.shape();
  if (size_of(a.dtype()) != size_of(to)) {
    int64_t bytes = shape.empty() ? 0 : shape.back() * size_of(a.dtype());
    if (shape.empty() || bytes % size_of(to) != 0) {
      throw_value("[view] the last axis of {} {} does not hold a whole number of {}", shape,
                  a.dtype(), to);
    }
    shape.back() = bytes / size_of(to);
  }
  outputs[0] = {shape, to};
}

bool view_dtype_view(const Application& app, const Shape& output, ViewLayout& layout) {
  int from = size_of(app.inputs[0].dtype()), to = size_of(app.as<ViewDtypeParams>().dtype);
  if (from != to) {
    if (layout.shape.back() != 1 && layout.strides.back() != 1) return false;
    auto rescale = [&](int64_t& count) {
      bool whole = count * from % to == 0;
      count = count * from / to;
      return whole;
    };
    if (!rescale(layout.offset)) return false;
    for (size_t i = 0; i + 1 < output.size(); ++i) {
      if (!rescale(layout.strides[i])) return false;
    }
    layout.strides.back() = 1;
  }
  layout.shape = output;
  return true;
}

Arrays no_cotangent(const Application& app, Given, const std::vector<bool>&) {
  return Arrays(app.inputs.size());
}

Batched view_vmap(const Application& app, std::span<const int> axes) {
  Array a = moveaxis(app.inputs[0], axes[0], 0, app.stream);
  if (a.rank() == 1) a = expand_dims(a, {1}, app.stream);  // scalars have no axis to grow
  Array out = view(a, app.as<ViewDtypeParams>().dtype, app.stream);
  return {{app.inputs[0].rank() == 1 ? squeeze(out, {1}, app.stream) : out}, {0}};
}

std::vector<Sample> view_samples() {
  auto of = [](const char* label, const Shape& shape, Dtype from, Dtype to) {
    return Sample{label,
                  {{.shape = shape,
                    .low = 0,
                    .high = 100,
                    .differentiable = false,
                    .dtype = from,
                    .fixed_dtype = true}},
                  [to](Given in) { return Arrays{view(in[0], to)}; }};
  };
  return {of("same size", {2, 3}, Dtype::I32, Dtype::U32),
          of("narrower", {2, 3}, Dtype::I32, Dtype::U8), of("wider", {3, 4}, Dtype::U8, Dtype::I16),
          of("empty", {0, 4}, Dtype::U8, Dtype::I16)};
}

// --- contiguous, stop_gradient, depends

bool contiguous_view(const Application&, const Shape&, ViewLayout& layout) {
  return is_row_major(layout.shape, layout.strides);
}

Arrays pass_cotangent(const Application& app, Given cotangents, const std::vector<bool>&) {
  Arrays result(app.inputs.size());
  result[0] = cotangents[0];
  return result;
}

Arrays contiguous_jvp(const Application& app, Given tangents) {
  return {contiguous(tangents[0], app.stream)};
}

Arrays stop_gradient_jvp(const Application& app, Given) {
  return {zeros_like(app.inputs[0], app.stream)};
}

Batched depends_vmap(const Application& app, std::span<const int> axes) {
  Arrays on(app.inputs.begin() + 1, app.inputs.end());
  return {{depends(app.inputs[0], on, app.stream)}, {axes[0]}};
}

Arrays depends_jvp(const Application& app, Given tangents) {
  return {tangents[0].defined() ? tangents[0] : zeros_like(app.inputs[0], app.stream)};
}

std::vector<Sample> contiguous_samples() {
  return {{"transposed", {{{3, 4}}}, [](Given in) { return Arrays{contiguous(transpose(in[0]))}; }},
          {"already", {{{2, 3}}}, [](Given in) { return Arrays{contiguous(in[0])}; }},
          {"empty", {{{0, 3}}}, [](Given in) { return Arrays{contiguous(in[0])}; }}};
}

std::vector<Sample> stop_gradient_samples() {
  // Its derivative differs from that of its values on purpose, so nothing is compared to
  // differences.
  return {{"matrix", {{.shape = {2, 3}, .differentiable = false}}, [](Given in) {
             return Arrays{stop_gradient(in[0])};
           }}};
}

std::vector<Sample> depends_samples() {
  return {{"two", {{{2, 3}}, {{4}}}, [](Given in) { return Arrays{depends(in[0], {in[1]})}; }}};
}

}  // namespace

const Op reshape_op{.name = "reshape",
                    .params = &params_type<ShapeParams>,
                    .view = &reshape_view,
                    .infer = &reshape_infer,
                    .vjp = &reshape_vjp,
                    .jvp = &linear_jvp<reshape_op, ShapeParams>,
                    .vmap = &reshape_vmap,
                    .samples = &reshape_samples};

const Op broadcast_op{.name = "broadcast_to",
                      .params = &params_type<ShapeParams>,
                      .view = &broadcast_view,
                      .infer = &broadcast_infer,
                      .vjp = &broadcast_vjp,
                      .jvp = &linear_jvp<broadcast_op, ShapeParams>,
                      .vmap = &broadcast_vmap,
                      .samples = &broadcast_samples};

const Op transpose_op{.name = "transpose",
                      .params = &params_type<TransposeParams>,
                      .view = &transpose_view,
                      .infer = &transpose_infer,
                      .vjp = &transpose_vjp,
                      .jvp = &linear_jvp<transpose_op, TransposeParams>,
                      .vmap = &transpose_vmap,
                      .samples = &transpose_samples};

const Op slice_op{.name = "slice",
                  .params = &params_type<SliceParams>,
                  .view = &slice_view,
                  .infer = &slice_infer,
                  .vjp = &slice_vjp,
                  .jvp = &linear_jvp<slice_op, SliceParams>,
                  .vmap = &slice_vmap,
                  .samples = &slice_samples};

const Op as_strided_op{.name = "as_strided",
                       .params = &params_type<AsStridedParams>,
                       .view = &as_strided_view,
                       .infer = &as_strided_infer,
                       .vjp = &as_strided_vjp,
                       .jvp = &as_strided_jvp,
                       .vmap = &as_strided_vmap,
                       .samples = &as_strided_samples};

const Op view_op{.name = "view",
                 .params = &params_type<ViewDtypeParams>,
                 .view = &view_dtype_view,
                 .infer = &view_infer,
                 .vjp = &no_cotangent,
                 .vmap = &view_vmap,
                 .samples = &view_samples};

const Op contiguous_op{.name = "contiguous",
                       .view = &contiguous_view,
                       .infer = &infer_same,
                       .vjp = &pass_cotangent,
                       .jvp = &contiguous_jvp,
                       .vmap = &same_vmap<contiguous_op>,
                       .samples = &contiguous_samples};

const Op stop_gradient_op{.name = "stop_gradient",
                          .view = &same_layout,
                          .infer = &infer_same,
                          .vjp = &no_cotangent,
                          .jvp = &stop_gradient_jvp,
                          .vmap = &same_vmap<stop_gradient_op>,
                          .samples = &stop_gradient_samples};

const Op depends_op{.name = "depends",
                    .view = &same_layout,
                    .infer = &infer_same,
                    .vjp = &pass_cotangent,
                    .jvp = &depends_jvp,
                    .vmap = &depends_vmap,
                    .samples = &depends_samples};

}  // namespace mica::ops
