#include "ops/norm.h"

#include "base/error.h"
#include "ops/elementwise.h"
#include "ops/precision.h"
#include "ops/reduce.h"
#include "ops/registry.h"
#include "ops/rules.h"
#include "ops/shape.h"

namespace mica {

using namespace ops;

namespace {

void check_vector(const char* name, const char* what, const Array& x, const Array& vector) {
  if (!vector.defined()) return;
  if (vector.rank() != 1 || vector.shape(0) != x.shape(-1))
    throw_value("[{}] {} must have shape ({},), the last axis of {}; got {}", name, what,
                x.shape(-1), x.shape(), vector.shape());
}

// Checks shapes and dtypes and brings the inputs to those that the kernels take.
Array normalize(const Op& op, const Array& x, const Array& weight, const Array& bias, double eps,
                Stream s) {
  if (x.rank() == 0) throw_value("[{}] x needs at least one axis", op.name);
  check_vector(op.name, "weight", x, weight);
  check_vector(op.name, "bias", x, bias);
  Arrays inputs{x};
  for (const Array& a : {weight, bias})
    if (a.defined()) inputs.push_back(a);
  bool wide = false;
  for (const Array& a : inputs) {
    if (!is_floating(a.dtype()))
      throw_value("[{}] needs floating inputs, got {}", op.name, dtype_name(a.dtype()));
    wide = wide || a.dtype() == Dtype::F64;
  }
  Dtype affine = inputs.back().dtype();
  if (inputs.size() == 3) affine = promote(inputs[1].dtype(), affine);
  for (size_t i = 0; i < inputs.size(); ++i) {
    Dtype dtype = wide ? Dtype::F64 : i == 0 ? x.dtype() : affine;
    inputs[i] = astype(inputs[i], dtype, s);
  }
  NormParams params{eps, weight.defined(), bias.defined()};
  return apply(op, std::span<const Array>(inputs), params, s);
}

}  // namespace

Array rms_norm(const Array& x, const Array& weight, double eps, Stream s) {
  return normalize(rms_norm_op, x, weight, {}, eps, s);
}

Array layer_norm(const Array& x, const Array& weight, const Array& bias, double eps, Stream s) {
  return normalize(layer_norm_op, x, weight, bias, eps, s);
}

namespace ops {

namespace {

const std::vector<int> kLast = {-1};

// Rows without weight and bias.
struct Normal {
  Normal(const Array& x, double eps, bool centre) : centred(centre) {
    Array deviation = centred ? x - mean(x, kLast, true) : x;
    factor = rsqrt(mean(square(deviation), kLast, true) + eps);
    unit = deviation * factor;
  }

  // The derivative of `unit` is symmetric: it drops what lies along `unit` (and along the ones).
  Array project(const Array& direction) const {
    Array rest = direction - unit * mean(direction * unit, kLast, true);
    if (centred) rest = rest - mean(direction, kLast, true);
    return rest * factor;
  }

  bool centred;
  Array factor, unit;  // 1 / deviation, and the normalised row
};

// An application with its inputs told apart and widened.
struct Norm : Normal {
  Norm(const Application& app, bool centre)
      : Normal(widened(app.inputs[0]), app.as<NormParams>().eps, centre),
        params(app.as<NormParams>()) {
    if (params.weight) weight = widened(app.inputs[1]);
    if (params.bias) bias = widened(app.inputs.back());
    Dtype dtype = app.inputs[0].dtype();
    for (const Array& a : app.inputs) dtype = promote(dtype, a.dtype());
    result_dtype = dtype;
  }

  const NormParams& params;
  Array weight, bias;  // undefined where absent
  Dtype result_dtype;
};

Arrays norm_vjp(const Application& app, const Array& cotangent, const std::vector<bool>& wanted,
                bool centred) {
  const auto& params = app.as<NormParams>();
  const size_t last = app.inputs.size() - 1;
  const bool scale = params.weight && wanted[1], shift = params.bias && wanted[last];
  Arrays inputs(app.inputs.begin(), app.inputs.begin() + 1 + params.weight);
  inputs.push_back(cotangent);
  Arrays found = apply_many(
      norm_vjp_op, std::span<const Array>(inputs),
      NormVjpParams{params.eps, centred, params.weight, scale, shift, app.inputs[last].dtype()},
      app.stream);
  Arrays result(app.inputs.size());
  if (wanted[0]) result[0] = found[0];
  if (scale) result[1] = found[1];
  if (shift) result[last] = found.back();
  return result;
}

// The cotangents, written out; sums leave the first `kept` axes alone.
Arrays written_out(const NormVjpParams& params, const Array& x, const Array& weight,
                   const Array& given, int kept) {
  Normal normal(widened(x), params.eps, params.centred);
  Array g = widened(given);
  std::vector<int> axes;
  for (int i = kept; i + 1 < static_cast<int>(x.rank()); ++i) axes.push_back(i);
  auto over_rows = [&](const Array& a) {
    return astype(axes.empty() ? a : sum(a, axes), params.affine);
  };
  Arrays result = {astype(normal.project(params.weight ? g * weight : g), x.dtype())};
  if (params.scale) result.push_back(over_rows(g * normal.unit));
  if (params.shift) result.push_back(over_rows(g));
  return result;
}

Arrays norm_vjp_lower(const Application& app) {
  StreamScope scope(app.stream);
  const auto& params = app.as<NormVjpParams>();
  Array weight = params.weight ? widened(app.inputs[1]) : Array();
  return written_out(params, app.inputs[0], weight, app.inputs.back(), 0);
}

Batched norm_vjp_vmap(const Application& app, std::span<const int> axes) {
  StreamScope scope(app.stream);
  const auto& params = app.as<NormVjpParams>();
  int64_t batch = batch_extent(app.inputs, axes);
  Array x = batched(app.inputs[0], axes[0], batch, app.stream), weight;
  if (params.weight) {  // [batch or 1, 1, ..., 1, D]
    Array rows = batch_first(app.inputs[1], axes[1], 1, app.stream);
    Shape shape(x.rank(), 1);
    shape[0] = rows.shape(0);
    shape.back() = rows.shape(1);
    weight = widened(reshape(rows, shape));
  }
  Array g = batched(app.inputs.back(), axes.back(), batch, app.stream);
  Arrays outputs = written_out(params, x, weight, g, 1);
  std::vector<int> places(outputs.size(), 0);
  return {std::move(outputs), std::move(places)};
}

size_t norm_vjp_outputs(const Application& app) {
  const auto& params = app.as<NormVjpParams>();
  return size_t{1} + params.scale + params.shift;
}

void norm_vjp_infer(const Application& app, std::span<OutputSpec> outputs) {
  const Shape& shape = app.inputs[0].shape();
  outputs[0] = {shape, app.inputs[0].dtype()};
  for (OutputSpec& sums : outputs.subspan(1))
    sums = {{shape.back()}, app.as<NormVjpParams>().affine};
}

Arrays norm_jvp(const Application& app, Given tangents, bool centred) {
  Norm norm(app, centred);
  Array result;
  auto add = [&](const Array& a) { result = result.defined() ? result + a : a; };
  if (tangents[0].defined()) {
    Array t = norm.project(widened(tangents[0]));
    add(norm.params.weight ? t * norm.weight : t);
  }
  if (norm.params.weight && tangents[1].defined()) add(norm.unit * widened(tangents[1]));
  if (norm.params.bias && tangents.back().defined())
    add(broadcast_to(widened(tangents.back()), app.inputs[0].shape()));
  return {astype(result, norm.result_dtype)};
}

Arrays norm_lower(const Application& app, bool centred) {
  StreamScope scope(app.stream);
  Norm norm(app, centred);
  Array y = norm.unit;
  if (norm.params.weight) y = y * norm.weight;
  if (norm.params.bias) y = y + norm.bias;
  return {astype(y, norm.result_dtype)};
}

// One weight for all of the batch stays in the kernel; batched ones are applied outside of it.
Batched norm_vmap(const Op& op, const Application& app, std::span<const int> axes, bool centred) {
  const auto& params = app.as<NormParams>();
  const size_t rank = app.inputs[0].rank() - (axes[0] >= 0);
  int64_t batch = batch_extent(app.inputs, axes);
  bool shared = true;
  for (int axis : axes.subspan(1)) shared = shared && axis < 0;
  Array x = batched(app.inputs[0], axes[0], batch, app.stream);
  Arrays inputs(app.inputs.begin(), app.inputs.end());
  if (shared) {
    inputs[0] = x;
    return {{apply(op, std::span<const Array>(inputs), params, app.stream)}, {0}};
  }
  Dtype dtype = x.dtype();
  for (const Array& a : app.inputs) dtype = promote(dtype, a.dtype());
  Array y = normalize(centred ? layer_norm_op : rms_norm_op, widened(x), {}, {}, params.eps, {});
  auto affine = [&](size_t i) {  // [batch or 1, 1, ..., 1, D]
    Array rows = batch_first(inputs[i], axes[i], 1, app.stream);
    Shape shape(rank + 1, 1);
    shape[0] = rows.shape(0);
    shape.back() = rows.shape(1);
    return widened(reshape(rows, shape));
  };
  if (params.weight) y = y * affine(1);
  if (params.bias) y = y + affine(inputs.size() - 1);
  return {{astype(y, dtype)}, {0}};
}

void norm_infer(const Application& app, std::span<OutputSpec> outputs) {
  Dtype dtype = app.inputs[0].dtype();
  for (const Array& a : app.inputs) dtype = promote(dtype, a.dtype());
  outputs[0] = {app.inputs[0].shape(), dtype};
}

Arrays rms_norm_vjp(const Application& app, Given cotangents, const std::vector<bool>& wanted) {
  return norm_vjp(app, cotangents[0], wanted, false);
}
Arrays rms_norm_jvp(const Application& app, Given tangents) {
  return norm_jvp(app, tangents, false);
}
Arrays rms_norm_lower(const Application& app) { return norm_lower(app, false); }
Batched rms_norm_vmap(const Application& app, std::span<const int> axes) {
  return norm_vmap(rms_norm_op, app, axes, false);
}
Arrays layer_norm_vjp(const Application& app, Given cotangents, const std::vector<bool>& wanted) {
  return norm_vjp(app, cotangents[0], wanted, true);
}
Arrays layer_norm_jvp(const Application& app, Given tangents) {
  return norm_jvp(app, tangents, true);
}
Arrays layer_norm_lower(const Application& app) { return norm_lower(app, true); }
Batched layer_norm_vmap(const Application& app, std::span<const int> axes) {
  return norm_vmap(layer_norm_op, app, axes, true);
}

std::vector<Sample> rms_norm_samples() {
  auto of = [](const char* label, Shape shape, double eps, bool weight) {
    Sample sample{label, {{shape}}, [=](Given in) {
                    return Arrays{rms_norm(in[0], weight ? in[1] : Array(), eps)};
                  }};
    if (weight) sample.inputs.push_back({{shape.back()}});
    return sample;
  };
  return {of("rows", {3, 8}, 1e-5, true), of("odd length", {2, 2, 37}, 1e-5, true),
          of("no weight", {4, 6}, 1e-2, false), of("vector", {5}, 0.5, true),
          of("no rows", {0, 4}, 1e-5, true)};
}

std::vector<Sample> layer_norm_samples() {
  auto of = [](const char* label, Shape shape, double eps, bool weight, bool bias) {
    Sample sample{label, {{shape}}, [=](Given in) {
                    return Arrays{layer_norm(in[0], weight ? in[1] : Array(),
                                             bias ? in[in.size() - 1] : Array(), eps)};
                  }};
    for (int i = 0; i < weight + bias; ++i) sample.inputs.push_back({{shape.back()}});
    return sample;
  };
  return {
      of("rows", {3, 8}, 1e-5, true, true),         of("odd length", {2, 2, 37}, 1e-5, true, true),
      of("no bias", {4, 6}, 1e-2, true, false),     of("no weight", {4, 6}, 1e-2, false, true),
      of("neither", {2, 3, 4}, 1e-5, false, false), of("vector", {5}, 0.5, true, true),
      of("no rows", {0, 4}, 1e-5, true, true)};
}

// The operation itself has no public function: samples apply it as the derivative does.
std::vector<Sample> norm_vjp_samples() {
  auto of = [](const char* label, Shape shape, bool centred, bool weight, bool scale, bool shift) {
    Sample sample{label, {{shape}}, [=](Given in) {
                    Dtype affine = in[weight ? 1 : 0].dtype();
                    return apply_many(norm_vjp_op, in,
                                      NormVjpParams{1e-2, centred, weight, scale, shift, affine},
                                      {});
                  }};
    if (weight) sample.inputs.push_back({{shape.back()}});
    sample.inputs.push_back({{shape}});
    return sample;
  };
  return {of("layer norm", {3, 8}, true, true, true, true),
          of("odd length", {2, 7, 37}, true, true, true, true),
          of("bias only", {4, 6}, true, false, false, true),
          of("frozen weight", {4, 16}, true, true, false, false),
          of("rms norm", {2, 5, 19}, false, true, true, false),
          of("rms norm without weight", {3, 32}, false, false, false, false),
          of("vector", {5}, true, true, true, true),
          of("no rows", {0, 4}, true, true, true, true)};
}

}  // namespace

const Op norm_vjp_op{.name = "norm_vjp",
                     .params = &params_type<NormVjpParams>,
                     .count_outputs = &norm_vjp_outputs,
                     .infer = &norm_vjp_infer,
                     .vmap = &norm_vjp_vmap,
                     .lower = &norm_vjp_lower,
                     .samples = &norm_vjp_samples};

const Op rms_norm_op{.name = "rms_norm",
                     .params = &params_type<NormParams>,
                     .infer = &norm_infer,
                     .vjp = &rms_norm_vjp,
                     .jvp = &rms_norm_jvp,
                     .vmap = &rms_norm_vmap,
                     .lower = &rms_norm_lower,
                     .samples = &rms_norm_samples};
const Op layer_norm_op{.name = "layer_norm",
                       .params = &params_type<NormParams>,
                       .infer = &norm_infer,
                       .vjp = &layer_norm_vjp,
                       .jvp = &layer_norm_jvp,
                       .vmap = &layer_norm_vmap,
                       .lower = &layer_norm_lower,
                       .samples = &layer_norm_samples};

void norm_ops(Registry& registry) {
  registry.ops.add(rms_norm_op);
  registry.ops.add(layer_norm_op);
  registry.ops.add(norm_vjp_op);
  registry.functions.add(
      "fast.rms_norm", "x: array, weight: array | None, eps: float",
      "x / sqrt(mean(x^2) + eps) * weight over the last axis.\n\n"
      "`weight` has shape (D,), D the last extent of `x`, or is None. All floating; computed in\n"
      "float32 and rounded once to the promoted dtype. ValueError for other shapes.",
      [](const Array& x, const std::optional<Array>& weight, double eps, Stream s) {
        return rms_norm(x, weight.value_or(Array()), eps, s);
      });
  registry.functions.add(
      "fast.layer_norm", "x: array, weight: array | None, bias: array | None, eps: float",
      "(x - mean(x)) / sqrt(var(x) + eps) * weight + bias over the last axis.\n\n"
      "`weight` and `bias` have shape (D,), D the last extent of `x`, or are None. All floating;\n"
      "computed in float32 and rounded once to the promoted dtype. ValueError for other shapes.",
      [](const Array& x, const std::optional<Array>& weight, const std::optional<Array>& bias,
         double eps, Stream s) {
        return layer_norm(x, weight.value_or(Array()), bias.value_or(Array()), eps, s);
      });
}

}  // namespace ops
}  // namespace mica
