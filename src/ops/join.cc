#include "ops/join.h"

#include <algorithm>
#include <limits>
#include <numeric>

#include "base/error.h"
#include "ops/create.h"
#include "ops/index.h"
#include "ops/registry.h"
#include "ops/rules.h"
#include "ops/shape.h"

namespace mica {

using namespace ops;

namespace {

using Widths = std::vector<std::pair<int64_t, int64_t>>;

Arrays promoted(const Arrays& arrays, Stream s) {
  Dtype dtype = arrays[0].dtype();
  for (const Array& a : arrays) dtype = promote(dtype, a.dtype());
  Arrays result;
  for (const Array& a : arrays) result.push_back(a.dtype() == dtype ? a : astype(a, dtype, s));
  return result;
}

Widths widths_of(const Array& a, const Widths& widths) {
  Widths all = widths.size() == 1 ? Widths(a.rank(), widths[0]) : widths;
  if (all.size() != a.rank()) {
    throw_value("[pad] {} pairs of widths given for an array of {} axes", widths.size(), a.rank());
  }
  for (auto [before, after] : all) {
    if (before < 0 || after < 0) throw_value("[pad] negative width ({}, {})", before, after);
  }
  return all;
}

}  // namespace

Array concatenate(const Arrays& arrays, int axis, Stream s) {
  if (arrays.empty()) throw_value("[concatenate] no arrays given");
  int at = normalize_axis(axis, arrays[0].rank(), "concatenate");
  if (arrays.size() == 1) return arrays[0];
  Arrays inputs = promoted(arrays, s);
  return apply(concatenate_op, std::span<const Array>(inputs), ConcatenateParams{at}, s);
}

Array stack(const Arrays& arrays, int axis, Stream s) {
  if (arrays.empty()) throw_value("[stack] no arrays given");
  int at = normalize_axis(axis, arrays[0].rank() + 1, "stack");
  Arrays rows;
  for (const Array& a : arrays) {
    if (a.shape() != arrays[0].shape()) {
      throw_value("[stack] shapes differ: {} and {}", arrays[0].shape(), a.shape());
    }
    rows.push_back(expand_dims(a, {at}, s));
  }
  return concatenate(rows, at, s);
}

Arrays split(const Array& a, int parts, int axis, Stream s) {
  int at = normalize_axis(axis, a.rank(), "split");
  int64_t extent = a.shape()[at];
  if (parts <= 0 || extent % parts != 0) {
    throw_value("[split] axis {} of {} does not split into {} equal parts", axis, a.shape(), parts);
  }
  Shape places;
  for (int i = 1; i < parts; ++i) places.push_back(i * (extent / parts));
  return split(a, places, at, s);
}

Arrays split(const Array& a, const Shape& places, int axis, Stream s) {
  int at = normalize_axis(axis, a.rank(), "split");
  Arrays result;
  int64_t from = 0;
  for (int64_t place : places) {
    result.push_back(slice_axis(a, at, from, place, s));
    from = place;
  }
  result.push_back(slice_axis(a, at, from, a.shape()[at], s));
  return result;
}

Array pad(const Array& a, const Widths& widths, const Array& value, Stream s) {
  if (value.size() != 1)
    throw_value("[pad] the value must be one element, got shape {}", value.shape());
  Widths all = widths_of(a, widths);
  Shape shape = a.shape(), start(a.rank(), 0), stop = a.shape();
  for (size_t i = 0; i < all.size(); ++i) {
    shape[i] += all[i].first + all[i].second;
    start[i] = all[i].first;
    stop[i] += all[i].first;
  }
  if (shape == a.shape()) return a;
  Array background = full(shape, reshape(astype(value, a.dtype(), s), {}, s), s);
  return slice_update(background, a, start, stop, {}, s);
}

Array pad(const Array& a, const Widths& widths, Scalar value, Stream s) {
  return pad(a, widths, fill({}, value, a.dtype(), s), s);
}

namespace {

// Where the element at `place`, which may lie outside of 0 … extent - 1, comes from.
int64_t padded_place(int64_t place, int64_t extent, PadMode mode) {
  if (mode == PadMode::Edge || extent == 1) return std::clamp<int64_t>(place, 0, extent - 1);
  int64_t period = mode == PadMode::Reflect ? 2 * extent - 2 : 2 * extent;
  int64_t within = (place % period + period) % period;
  return within < extent ? within : period - within - (mode == PadMode::Symmetric);
}

}  // namespace

Array pad(const Array& a, const Widths& widths, PadMode mode, Stream s) {
  Widths all = widths_of(a, widths);
  Array result = a;
  for (int axis = 0; axis < static_cast<int>(all.size()); ++axis) {
    auto [before, after] = all[axis];
    int64_t extent = a.shape()[axis];
    if (before + after == 0) continue;
    if (extent == 0) throw_value("[pad] axis {} of {} has no elements to repeat", axis, a.shape());
    std::vector<int64_t> places;
    for (int64_t i = -before; i < extent + after; ++i)
      places.push_back(padded_place(i, extent, mode));
    result = take(result, Array::from(places), axis, s);
  }
  return result;
}

Array repeat(const Array& a, int repeats, int axis, Stream s) {
  if (repeats < 0) throw_value("[repeat] negative number of repeats {}", repeats);
  int at = normalize_axis(axis, a.rank(), "repeat");
  Shape shape = a.shape();
  shape.insert(at + 1, repeats);
  Array wide = broadcast_to(expand_dims(a, {at + 1}, s), shape, s);
  shape.erase(at + 1);
  shape[at] *= repeats;
  return reshape(wide, shape, s);
}

Array repeat(const Array& a, int repeats, Stream s) {
  return repeat(flatten(a, 0, -1, s), repeats, 0, s);
}

Array tile(const Array& a, const Shape& reps, Stream s) {
  size_t rank = std::max(a.rank(), reps.size());
  Shape spread, wide, merged;
  for (size_t i = 0; i < rank; ++i) {
    int64_t extent = i + a.rank() < rank ? 1 : a.shape()[i + a.rank() - rank];
    int64_t times = i + reps.size() < rank ? 1 : reps[i + reps.size() - rank];
    if (times < 0) throw_value("[tile] negative repetition in {}", reps);
    spread.push_back(1);
    spread.push_back(extent);
    wide.push_back(times);
    wide.push_back(extent);
    merged.push_back(times * extent);
  }
  return reshape(broadcast_to(reshape(a, spread, s), wide, s), merged, s);
}

Array roll(const Array& a, const Shape& shift, const std::vector<int>& axes, Stream s) {
  if (axes.empty()) {
    int64_t total = std::accumulate(shift.begin(), shift.end(), int64_t{0});
    return reshape(roll(flatten(a, 0, -1, s), {total}, {0}, s), a.shape(), s);
  }
  if (shift.size() != axes.size() && shift.size() != 1 && axes.size() != 1) {
    throw_value("[roll] {} shifts given for {} axes", shift.size(), axes.size());
  }
  Array result = a;
  for (size_t i = 0; i < std::max(axes.size(), shift.size()); ++i) {
    int axis = normalize_axis(axes[axes.size() == 1 ? 0 : i], a.rank(), "roll");
    int64_t extent = a.shape()[axis], by = shift[shift.size() == 1 ? 0 : i];
    if (extent == 0) continue;
    by = (by % extent + extent) % extent;
    if (by == 0) continue;
    result = concatenate({slice_axis(result, axis, extent - by, extent, s),
                          slice_axis(result, axis, 0, extent - by, s)},
                         axis, s);
  }
  return result;
}

Array flip(const Array& a, const std::vector<int>& axes, Stream s) {
  Shape start(a.rank(), 0), stop = a.shape(), strides(a.rank(), 1);
  for (int axis : normalize_axes(axes, a.rank(), "flip")) {
    start[axis] = -1;
    stop[axis] = -a.shape()[axis] - 1;
    strides[axis] = -1;
  }
  return slice(a, start, stop, strides, s);
}

Array flip(const Array& a, Stream s) {
  std::vector<int> axes(a.rank());
  std::iota(axes.begin(), axes.end(), 0);
  return flip(a, axes, s);
}

Array roll(const Array& a, int64_t shift, Stream s) { return roll(a, Shape{shift}, {}, s); }

namespace ops {

namespace {

void concatenate_infer(const Application& app, std::span<OutputSpec> outputs) {
  int axis = app.as<ConcatenateParams>().axis;
  const Array& first = app.inputs[0];
  Shape shape = first.shape();
  for (const Array& a : app.inputs.subspan(1)) {
    bool fits = a.rank() == first.rank();
    for (size_t i = 0; fits && i < shape.size(); ++i) {
      fits = static_cast<int>(i) == axis || a.shape()[i] == shape[i];
    }
    if (!fits) {
      throw_value("[concatenate] shapes {} and {} differ outside of axis {}", first.shape(),
                  a.shape(), axis);
    }
    shape[axis] += a.shape()[axis];
  }
  outputs[0] = {shape, first.dtype()};
}

Arrays concatenate_vjp(const Application& app, Given cotangents, const std::vector<bool>& wanted) {
  int axis = app.as<ConcatenateParams>().axis;
  Arrays result(app.inputs.size());
  int64_t from = 0;
  for (size_t i = 0; i < app.inputs.size(); ++i) {
    int64_t to = from + app.inputs[i].shape()[axis];
    if (wanted[i]) result[i] = slice_axis(cotangents[0], axis, from, to, app.stream);
    from = to;
  }
  return result;
}

Arrays concatenate_jvp(const Application& app, Given tangents) {
  Arrays parts;
  for (size_t i = 0; i < tangents.size(); ++i) {
    parts.push_back(tangent_or_zeros(tangents[i], app.inputs[i], app.stream));
  }
  return {concatenate(parts, app.as<ConcatenateParams>().axis, app.stream)};
}

Batched concatenate_vmap(const Application& app, std::span<const int> axes) {
  int64_t batch = batch_extent(app.inputs, axes);
  Arrays parts;
  for (size_t i = 0; i < axes.size(); ++i)
    parts.push_back(batched(app.inputs[i], axes[i], batch, app.stream));
  return {{concatenate(parts, app.as<ConcatenateParams>().axis + 1, app.stream)}, {0}};
}

std::vector<Sample> concatenate_samples() {
  auto of = [](const char* label, std::vector<Sample::Input> inputs, int axis) {
    return Sample{label, std::move(inputs), [axis](Given in) {
                    return Arrays{concatenate(Arrays(in.begin(), in.end()), axis)};
                  }};
  };
  return {of("rows", {{{2, 3}}, {{4, 3}}}, 0), of("columns", {{{2, 3}}, {{2, 1}}, {{2, 4}}}, 1),
          of("middle", {{{2, 3, 4}}, {{2, 2, 4}}}, -2),
          of("some empty", {{{0, 3}}, {{2, 3}}, {{0, 3}}}, 0),
          of("all empty", {{{2, 0}}, {{2, 0}}}, 1)};
}

Widths pairs_of(const std::vector<int64_t>& flat) {
  if (flat.size() == 1) return {{flat[0], flat[0]}};
  if (flat.size() % 2 != 0)
    throw_value("[pad] widths come in pairs (before, after), got {} numbers", flat.size());
  Widths widths;
  for (size_t i = 0; i < flat.size(); i += 2) widths.push_back({flat[i], flat[i + 1]});
  return widths;
}

Array pad_of_values(const Array& a, const std::vector<int64_t>& flat, const std::string& mode,
                    const Array& value, Stream s) {
  if (mode == "constant") return pad(a, pairs_of(flat), value, s);
  if (mode == "edge") return pad(a, pairs_of(flat), PadMode::Edge, s);
  if (mode == "reflect") return pad(a, pairs_of(flat), PadMode::Reflect, s);
  if (mode == "symmetric") return pad(a, pairs_of(flat), PadMode::Symmetric, s);
  throw_value("[pad] unknown mode '{}'; known: constant, edge, reflect, symmetric", mode);
}

Arrays split_of_values(const Array& a, const Value& how, int axis, Stream s) {
  if (const auto* parts = std::get_if<int64_t>(&how)) {
    if (*parts <= 0 || *parts > std::numeric_limits<int>::max())
      throw_value("[split] {} parts", *parts);
    return split(a, static_cast<int>(*parts), axis, s);
  }
  if (const auto* places = std::get_if<std::vector<int64_t>>(&how))
    return split(a, Shape(*places), axis, s);
  throw_type("split() argument 'indices_or_sections' must be int or list of ints, got {}",
             value_kind(how));
}

void add_joins(FunctionRegistry& functions) {
  functions.add("concatenate|concat", "arrays: Sequence[array], axis: int | None = 0",
                "The arrays one after the other along an axis; without an axis they are flattened "
                "first. Other\n"
                "extents must be equal (ValueError). dtypes are promoted to the common one.",
                [](const Arrays& arrays, const std::optional<int>& axis, Stream s) {
                  if (axis) return concatenate(arrays, *axis, s);
                  Arrays flat;
                  for (const Array& a : arrays) flat.push_back(flatten(a, 0, -1, s));
                  return concatenate(flat, 0, s);
                });
  functions.add("stack", "arrays: Sequence[array], axis: int | None = 0",
                "Arrays of one shape along a new axis. dtypes are promoted to the common one.",
                [](const Arrays& arrays, const std::optional<int>& axis, Stream s) {
                  return stack(arrays, axis.value_or(0), s);
                });
  functions.add(
      "split", "a: array, /, indices_or_sections: int | Sequence[int], axis: int = 0",
      "Parts along an axis: so many equal ones, or cut before each of the given places. Views.",
      [](const Array& a, const Value& how, int axis, Stream s) {
        return split_of_values(a, how, axis, s);
      },
      "list[array]");
}

void add_repeats(FunctionRegistry& functions) {
  functions.add(
      "pad",
      "a: array, pad_width: int | tuple[int] | tuple[int, int] | Sequence[tuple[int, int]], "
      "mode: str = 'constant', constant_values: scalar | array = 0",
      "`a` with elements added before and after each axis: a constant, or by mode 'edge' the\n"
      "outermost element, by 'reflect' and 'symmetric' the array mirrored at it or behind\n"
      "it. One width, or one pair, stands for all axes.",
      [](const Array& a, const std::vector<int64_t>& widths, const std::string& mode,
         const Array& value, Stream s) { return pad_of_values(a, widths, mode, value, s); });
  functions.add(
      "repeat", "array: array, repeats: int, axis: int | None = None",
      "Each element `repeats` times along an axis; without one the array is flattened first.",
      [](const Array& a, int repeats, const std::optional<int>& axis, Stream s) {
        return axis ? repeat(a, repeats, *axis, s) : repeat(a, repeats, s);
      });
  functions.add("tile", "a: array, reps: int | Sequence[int], /",
                "The whole array `reps[i]` times along axis i.",
                [](const Array& a, const Shape& reps, Stream s) { return tile(a, reps, s); });
  functions.add(
      "roll", "a: array, shift: int | tuple[int, ...], axis: int | tuple[int, ...] | None = None",
      "Elements shifted along axes; those that leave at the end come in at the start. Without an\n"
      "axis the flattened array is shifted.",
      [](const Array& a, const Shape& shift, const std::optional<std::vector<int>>& axes,
         Stream s) { return roll(a, shift, axes.value_or(std::vector<int>{}), s); });
  functions.add("flip", "a: array, /, axis: int | Sequence[int] | None = None",
                "The elements in reverse order along the given axes, or along all. A view.",
                [](const Array& a, const std::optional<std::vector<int>>& axes, Stream s) {
                  return axes ? flip(a, *axes, s) : flip(a, s);
                });
}

}  // namespace

const Op concatenate_op{.name = "concatenate",
                        .params = &params_type<ConcatenateParams>,
                        .infer = &concatenate_infer,
                        .vjp = &concatenate_vjp,
                        .jvp = &concatenate_jvp,
                        .vmap = &concatenate_vmap,
                        .samples = &concatenate_samples};

void join_ops(Registry& registry) {
  registry.ops.add(concatenate_op);
  add_joins(registry.functions);
  add_repeats(registry.functions);
}

}  // namespace ops
}  // namespace mica
