#include "ops/rope.h"

#include "base/error.h"
#include "ops/elementwise.h"
#include "ops/join.h"
#include "ops/registry.h"
#include "ops/rules.h"
#include "ops/shape.h"

namespace mica {

using namespace ops;

namespace {

void check_positions(const Array& x, const Array& positions) {
  const Shape& shape = positions.shape();
  bool fits = shape.size() <= 2 && (shape.size() < 1 || shape[0] == x.shape(0)) &&
              (shape.size() < 2 || shape[1] == x.shape(-2));
  if (!is_integer(positions.dtype()))
    throw_value("[rope] positions must be integers, got {}", dtype_name(positions.dtype()));
  if (!fits)
    throw_value("[rope] positions must have shape (), ({},) or ({}, {}) beside {}; got {}",
                x.shape(0), x.shape(0), x.shape(-2), x.shape(), shape);
}

}  // namespace

Array rope(const Array& x, const Array& positions, const RopeOptions& options, Stream s) {
  if (x.rank() < 3)
    throw_value("[rope] x needs at least three axes (B, ..., L, D), got {}", x.shape());
  if (!is_floating(x.dtype()))
    throw_value("[rope] x must be floating, got {}", dtype_name(x.dtype()));
  if (options.dims <= 0 || options.dims % 2 != 0 || options.dims > x.shape(-1))
    throw_value("[rope] dims must be even and in 2 ... {}, got {}", x.shape(-1), options.dims);
  check_positions(x, positions);
  Arrays inputs{x, astype(positions, Dtype::I32, s)};
  RopeFrequencies kind = RopeFrequencies::Base;
  for (const Array& given : {options.freqs, options.inv_freqs}) {
    if (!given.defined()) continue;
    if (kind != RopeFrequencies::Base) throw_value("[rope] freqs and inv_freqs exclude each other");
    if (given.shape() != Shape{options.dims / 2})
      throw_value("[rope] frequencies must have shape ({},), got {}", options.dims / 2,
                  given.shape());
    inputs.push_back(astype(given, Dtype::F32, s));
    kind = options.freqs.defined() ? RopeFrequencies::Wavelengths : RopeFrequencies::Given;
  }
  RopeParams params{options.dims,  options.traditional, false, kind, options.base,
                    options.scale, options.magnitude};
  return apply(rope_op, std::span<const Array>(inputs), params, s);
}

namespace ops {

namespace {

void rope_infer(const Application& app, std::span<OutputSpec> outputs) {
  outputs[0] = {app.inputs[0].shape(), app.inputs[0].dtype()};
}

// The same rotation of another array, or the one back.
Array turned(const Application& app, const Array& x, bool back) {
  RopeParams params = app.as<RopeParams>();
  params.backward = params.backward != back;
  Arrays inputs(app.inputs.begin(), app.inputs.end());
  inputs[0] = x;
  return apply(rope_op, std::span<const Array>(inputs), params, app.stream);
}

Arrays rope_vjp(const Application& app, Given cotangents, const std::vector<bool>& wanted) {
  Arrays result(app.inputs.size());
  if (wanted[0]) result[0] = turned(app, cotangents[0], true);
  return result;
}

Arrays rope_jvp(const Application& app, Given tangents) {
  return {turned(app, tangent_or_zeros(tangents[0], app.inputs[0], app.stream), false)};
}

// The batch axis is folded into that of the sequences.
Batched rope_vmap(const Application& app, std::span<const int> axes) {
  int64_t batch = batch_extent(app.inputs, axes);
  Stream s = app.stream;
  Array x = batched(app.inputs[0], axes[0], batch, s);
  const Shape shape = x.shape();
  const int64_t sequences = shape[1];
  Array positions = app.inputs[1];
  if (axes[1] >= 0 || positions.rank() > 0) {
    positions = batched(positions, axes[1], batch, s);
    if (positions.rank() == 1)
      positions = broadcast_to(expand_dims(positions, {1}, s), {batch, sequences}, s);
    positions = flatten(positions, 0, 1, s);
  }
  if (app.inputs.size() < 3 || axes[2] < 0) {
    Arrays inputs(app.inputs.begin(), app.inputs.end());
    inputs[0] = flatten(x, 0, 1, s);
    inputs[1] = positions;
    Array y = apply(rope_op, std::span<const Array>(inputs), app.as<RopeParams>(), s);
    return {{reshape(y, shape, s)}, {0}};
  }
  if (batch == 0) return {{x}, {0}};
  // Frequencies of their own: one rotation each.
  Array frequencies = batched(app.inputs[2], axes[2], batch, s);
  Arrays results;
  for (int64_t i = 0; i < batch; ++i) {
    auto part = [&](const Array& a, int64_t from, int64_t to) {
      return slice_axis(a, 0, from, to, s);
    };
    Arrays inputs{
        squeeze(part(x, i, i + 1), {0}, s),
        positions.rank() == 0 ? positions : part(positions, i * sequences, (i + 1) * sequences),
        squeeze(part(frequencies, i, i + 1), {0}, s)};
    results.push_back(apply(rope_op, std::span<const Array>(inputs), app.as<RopeParams>(), s));
  }
  return {{stack(results, 0, s)}, {0}};
}

std::vector<Sample> rope_samples() {
  using Input = Sample::Input;
  auto positions = [](Shape shape) { return Input{shape, 0, 50, false, Dtype::I32, true, {}}; };
  auto of = [&](const char* label, Shape x, Shape at, RopeOptions options, bool freqs = false,
                bool inverse = false) {
    Sample sample{label, {{x}, positions(at)}, [=](Given in) {
                    RopeOptions all = options;
                    if (freqs) (inverse ? all.inv_freqs : all.freqs) = in[2];
                    return Arrays{rope(in[0], in[1], all)};
                  }};
    if (freqs) sample.inputs.push_back({{options.dims / 2}, 0.5, 4, false, Dtype::F32, true, {}});
    return sample;
  };
  return {of("halves", {2, 3, 4, 8}, {}, {.dims = 8}),
          of("pairs", {2, 3, 4, 8}, {2}, {.dims = 8, .traditional = true}),
          of("some features", {2, 2, 3, 10}, {2, 3}, {.dims = 6, .base = 100}),
          of("scaled", {1, 2, 36}, {1}, {.dims = 36, .scale = 0.25, .magnitude = 1.5}),
          of("wavelengths", {2, 2, 6}, {2}, {.dims = 4}, true),
          of("frequencies, pairs", {1, 2, 3, 6}, {}, {.dims = 6, .traditional = true}, true, true),
          of("five axes", {2, 1, 2, 3, 4}, {2}, {.dims = 4}),
          of("no positions", {2, 3, 0, 4}, {2}, {.dims = 4})};
}

Array rope_of_values(const Array& a, int dims, bool traditional, std::optional<double> base,
                     double scale, const Value& offset, const std::optional<Array>& freqs,
                     double magnitude, Stream s) {
  if (base.has_value() == freqs.has_value())
    throw_value("[rope] exactly one of base and freqs must be None");
  RopeOptions options{
      .dims = dims, .traditional = traditional, .scale = scale, .magnitude = magnitude};
  if (base) options.base = *base;
  if (freqs) options.freqs = *freqs;
  if (const auto* number = std::get_if<int64_t>(&offset)) {
    if (*number != static_cast<int32_t>(*number))
      throw_value("[rope] offset {} does not fit 32 bits", *number);
    return rope(a, Array::from<int32_t>({static_cast<int32_t>(*number)}, {}), options, s);
  }
  if (const auto* array = std::get_if<Array>(&offset)) return rope(a, *array, options, s);
  throw_type("rope() argument 'offset' must be int or array, got {}", value_kind(offset));
}

}  // namespace

const Op rope_op{.name = "rope",
                 .params = &params_type<RopeParams>,
                 .infer = &rope_infer,
                 .vjp = &rope_vjp,
                 .jvp = &rope_jvp,
                 .vmap = &rope_vmap,
                 .samples = &rope_samples};

void rope_ops(Registry& registry) {
  registry.ops.add(rope_op);
  registry.functions.add(
      "fast.rope",
      "a: array, dims: int, *, traditional: bool, base: float | None, scale: float, "
      "offset: int | array, freqs: array | None = None, magnitude: float = 1.0",
      "Rotary position embedding of an array (B, ..., L, D).\n\n"
      "The first `dims` features are rotated, the rest copied: feature i with i + dims/2, or if\n"
      "`traditional` 2i with 2i + 1. Row l has position offset + l; `offset` is an int or an\n"
      "integer array of shape (), (B,), or (B, L) with every position. The angle is\n"
      "position * scale * base^(-2i/dims), or with `freqs` (float32, shape (dims/2,), base None)\n"
      "position * scale / freqs[i]. Cosine and sine are multiplied by `magnitude`. Shape and\n"
      "dtype are a's. ValueError for shapes that do not fit.",
      [](const Array& a, int dims, bool traditional, std::optional<double> base, double scale,
         const Value& offset, const std::optional<Array>& freqs, double magnitude, Stream s) {
        return rope_of_values(a, dims, traditional, base, scale, offset, freqs, magnitude, s);
      });
}

}  // namespace ops
}  // namespace mica
