#include "ops/quantized.h"

#include <algorithm>
#include <cmath>

#include "ops/create.h"
#include "ops/elementwise.h"
#include "ops/matmul.h"
#include "ops/reduce.h"
#include "ops/registry.h"
#include "ops/rules.h"
#include "ops/shape.h"

namespace mica {

using namespace ops;

Arrays quantize(const Array& w, int group_size, int bits, std::string_view mode, Stream s) {
  QuantizationParams p = check_quantization("quantize", group_size, bits, mode);
  if (!is_floating(w.dtype()))
    throw_value("[quantize] only floating arrays can be quantized, got {}", w.dtype());
  if (w.rank() < 2)
    throw_value("[quantize] the array must have two axes or more, got shape {}", w.shape());
  if (w.shape(-1) % group_size != 0)
    throw_value("[quantize] the last dimension of {} is not a multiple of the group size {}",
                w.shape(), group_size);
  if (w.shape(-1) * bits % 32 != 0)
    throw_value("[quantize] rows of {} elements of {} bits do not fill 32-bit words", w.shape(-1),
                bits);
  return apply_many(quantize_op, std::span<const Array>(&w, 1), p, s);
}

Array dequantize(const Array& w, const Array& scales, const Array& biases, int group_size, int bits,
                 std::string_view mode, std::optional<Dtype> dtype, Stream s) {
  const char* name = "dequantize";
  QuantizationParams p = check_quantization(name, group_size, bits, mode);
  check_quantized(name, w, scales, biases, p);
  if (dtype && !is_floating(*dtype))
    throw_value("[dequantize] the result must be floating, not {}", *dtype);
  Dtype own = promote(scales.dtype(), biases.dtype());
  Array dense = apply(dequantize_op, {w, astype(scales, own, s), astype(biases, own, s)}, p, s);
  return astype(dense, dtype.value_or(own), s);
}

Array quantized_matmul(const Array& x, const Array& w, const Array& scales, const Array& biases,
                       bool transpose, int group_size, int bits, std::string_view mode, Stream s,
                       int activation_bits) {
  const char* name = "quantized_matmul";
  QuantizationParams p = check_quantization(name, group_size, bits, mode);
  int64_t columns = check_quantized(name, w, scales, biases, p);
  Dtype dtype = quantized_dtype(name, x, scales, biases);
  if (x.rank() == 0) throw_value("[{}] x needs at least one axis", name);
  if (x.shape(-1) != (transpose ? columns : w.shape(-2)))
    throw_value("[{}] inner dimensions differ: x {} and a {}matrix of {} rows and {} columns", name,
                x.shape(), transpose ? "transposed " : "", w.shape(-2), columns);
  int rounded = rounded_activations(name, activation_bits, p, dtype);
  if (!transpose) rounded = 0;
  Array rows = product_operand(x.rank() == 1 ? expand_dims(x, {0}, s) : x, dtype, s);
  Array product = apply(quantized_matmul_op, {rows, w, scales, biases},
                        QuantizedMatmulParams{group_size, bits, transpose, dtype, rounded}, s);
  return x.rank() == 1 ? squeeze(product, {-2}, s) : product;
}

namespace ops {

QuantizationParams check_quantization(const char* name, int group_size, int bits,
                                      std::string_view mode) {
  if (mode != "affine")
    throw_unsupported("[{}] quantization mode '{}' is not supported; supported: affine", name,
                      mode);
  if (group_size != 16 && group_size != 32 && group_size != 64 && group_size != 128)
    throw_value("[{}] group size {} is not supported; supported: 16, 32, 64, 128", name,
                group_size);
  if (bits < 2 || bits > 8 || bits == 7)
    throw_value("[{}] {} bits are not supported; supported: 2, 3, 4, 5, 6, 8", name, bits);
  return {group_size, bits};
}

int rounded_activations(const char* name, int wanted, QuantizationParams p, Dtype dtype) {
  if (wanted != 0 && wanted != 8)
    throw_value("[{}] activation_bits must be 0 or 8, not {}", name, wanted);
  bool served = (p.bits == 4 || p.bits == 8) && p.group_size >= 32 && dtype != Dtype::F64;
  return served ? wanted : 0;
}

Array rounded_activation(const Array& x, int group_size, Stream s) {
  Shape shape = x.shape();
  shape.back() /= group_size;
  shape.push_back(group_size);
  Array groups = reshape(astype(x, Dtype::F32, s), shape, s);
  Array most = max(abs(groups, s), {{-1}}, true, s);
  Array odd = logical_or(logical_not(isfinite(most, s), s),
                         logical_and(less(most, kSmallestRounded, s), not_equal(most, 0, s), s), s);
  Array any_odd = any(odd, {{-2, -1}}, true, s);
  Array integers = round(groups * divide(127, most, s), 0, s);
  Array rounded = where(equal(most, 0, s), groups, integers * divide(most, 127, s), s);
  Array change = where(any_odd, 0, rounded - groups, s);
  return x + astype(stop_gradient(reshape(change, x.shape(), s), s), x.dtype(), s);
}

int64_t check_quantized(const char* name, const Array& w, const Array& scales, const Array& biases,
                        QuantizationParams p) {
  if (w.dtype() != Dtype::U32)
    throw_value("[{}] packed matrices are uint32, got {}", name, w.dtype());
  if (!is_floating(scales.dtype()) || !is_floating(biases.dtype()))
    throw_value("[{}] scales and biases must be floating, got {} and {}", name, scales.dtype(),
                biases.dtype());
  if (!(scales.shape() == biases.shape()))
    throw_value("[{}] scales and biases have different shapes: {} and {}", name, scales.shape(),
                biases.shape());
  if (w.rank() < 2 || w.rank() != scales.rank() ||
      !std::equal(w.shape().begin(), w.shape().end() - 1, scales.shape().begin()))
    throw_value("[{}] packed {} and scales {} do not fit each other", name, w.shape(),
                scales.shape());
  int64_t columns = scales.shape(-1) * p.group_size;
  if (w.shape(-1) * 32 != columns * p.bits)
    throw_value("[{}] packed {} and scales {} do not fit group size {} and {} bits", name,
                w.shape(), scales.shape(), p.group_size, p.bits);
  return columns;
}

Array needed_biases(const std::optional<Array>& biases, const char* name, std::string_view mode) {
  check_quantization(name, 64, 4, mode);
  if (!biases) throw_value("[{}] affine quantization needs biases", name);
  return *biases;
}

Dtype quantized_dtype(const char* name, const Array& x, const Array& scales, const Array& biases) {
  if (x.dtype() == Dtype::Bool) throw_value("[{}] x must be a number, got {}", name, x.dtype());
  return promote(x.dtype(), promote(scales.dtype(), biases.dtype()));
}

GroupScale::GroupScale(float low, float high, int bits) {
  // The end of larger magnitude is represented exactly, and so is zero.
  float bins = static_cast<float>((1 << bits) - 1);
  bool negative = std::fabs(low) > std::fabs(high);
  scale = std::max((high - low) / bins, 1e-7f);
  if (!negative) scale = -scale;
  float edge = negative ? low : high;
  float steps = std::rint(edge / scale);
  bias = 0;
  if (steps != 0) {
    scale = edge / steps;
    bias = edge;
  }
}

uint32_t GroupScale::quantize(float value, int bits) const {
  float steps = std::rint((value - bias) / scale);
  float bins = static_cast<float>((1 << bits) - 1);
  return static_cast<uint32_t>(std::min(std::max(0.0f, steps), bins));
}

Array quantized_integers(const Array& w, QuantizationParams p, Dtype dtype, Stream s) {
  Shape groups = w.shape();
  groups.back() = w.shape(-1) * 32 / p.bits / p.group_size;
  return dequantize(w, ones(groups, dtype, s), zeros(groups, dtype, s), p.group_size, p.bits,
                    "affine", {}, s);
}

namespace {

// [..., K] as [..., K / group, group].
Array grouped(const Array& a, QuantizationParams p) {
  return unflatten(a, -1, {a.shape(-1) / p.group_size, p.group_size});
}

}  // namespace

Array scales_cotangent(const Array& dense, const Array& w, QuantizationParams p, Dtype dtype) {
  Array q = quantized_integers(w, p, dense.dtype(), {});
  return astype(sum(grouped(dense * q, p), {{-1}}), dtype);
}
Array biases_cotangent(const Array& dense, QuantizationParams p, Dtype dtype) {
  return astype(sum(grouped(dense, p), {{-1}}), dtype);
}

namespace {

Dtype widened_dtype(Dtype dtype) { return is_half(dtype) ? Dtype::F32 : dtype; }

QuantizationParams format_of(const Application& app) {
  const auto& p = app.as<QuantizedMatmulParams>();
  return {p.group_size, p.bits};
}

void quantize_infer(const Application& app, std::span<OutputSpec> outputs) {
  const auto& p = app.as<QuantizationParams>();
  const Array& w = app.inputs[0];
  Shape packed = w.shape(), groups = w.shape();
  packed.back() = w.shape(-1) * p.bits / 32;
  groups.back() = w.shape(-1) / p.group_size;
  outputs[0] = {packed, Dtype::U32};
  outputs[1] = outputs[2] = {groups, w.dtype()};
}

// Rows are independent.
Batched quantize_vmap(const Application& app, std::span<const int> axes) {
  Array first = moveaxis(app.inputs[0], axes[0], 0, app.stream);
  const auto& p = app.as<QuantizationParams>();
  return {quantize(first, p.group_size, p.bits), {0, 0, 0}};
}

void dequantize_infer(const Application& app, std::span<OutputSpec> outputs) {
  const auto& p = app.as<QuantizationParams>();
  Shape shape = app.inputs[1].shape();
  shape.back() *= p.group_size;
  outputs[0] = {shape, app.inputs[1].dtype()};
}

Arrays dequantize_vjp(const Application& app, Given cotangents, const std::vector<bool>& wanted) {
  const auto& p = app.as<QuantizationParams>();
  Dtype dtype = app.inputs[1].dtype();
  Array dense = astype(cotangents[0], widened_dtype(dtype));
  Arrays result(3);
  if (wanted[1]) result[1] = scales_cotangent(dense, app.inputs[0], p, dtype);
  if (wanted[2]) result[2] = biases_cotangent(dense, p, dtype);
  return result;
}

Arrays dequantize_jvp(const Application& app, Given tangents) {
  const auto& p = app.as<QuantizationParams>();
  return {dequantize(app.inputs[0], tangent_or_zeros(tangents[1], app.inputs[1], app.stream),
                     tangent_or_zeros(tangents[2], app.inputs[2], app.stream), p.group_size,
                     p.bits)};
}

Batched dequantize_vmap(const Application& app, std::span<const int> axes) {
  int64_t batch = batch_extent(app.inputs, axes);
  Array in[3];
  for (size_t i = 0; i < 3; ++i) in[i] = batched(app.inputs[i], axes[i], batch, app.stream);
  const auto& p = app.as<QuantizationParams>();
  return {{dequantize(in[0], in[1], in[2], p.group_size, p.bits)}, {0}};
}

Shape batch_of(const Shape& shape) {
  Shape batch = shape;
  batch.resize(shape.size() - 2);
  return batch;
}

void matmul_infer(const Application& app, std::span<OutputSpec> outputs) {
  const auto& p = app.as<QuantizedMatmulParams>();
  const Array& x = app.inputs[0];
  const Array& w = app.inputs[1];
  Shape shape = broadcast_shapes(batch_of(x.shape()), batch_of(w.shape()), "quantized_matmul");
  shape.push_back(x.shape(-2));
  shape.push_back(p.transpose ? w.shape(-2) : app.inputs[2].shape(-1) * p.group_size);
  outputs[0] = {shape, p.dtype};
}

// The product of other operands with the same parameters, in another dtype.
Array product(const Application& app, const Array& x, const Array& scales, const Array& biases,
              bool transpose, Dtype dtype) {
  QuantizedMatmulParams p = app.as<QuantizedMatmulParams>();
  p.activation_bits = 0;
  p.transpose = transpose;
  p.dtype = x.dtype() == Dtype::F64 ? Dtype::F64 : dtype;
  return astype(apply(quantized_matmul_op, {x, app.inputs[1], scales, biases}, p, app.stream),
                dtype);
}

// The cotangent of the dequantized matrix: what x and g give together, summed over the batches.
Array dense_cotangent(const Array& x, const Array& g, const Array& w, bool transpose, Dtype dtype) {
  Array left = transpose ? g : x, right = transpose ? x : g;
  if (w.rank() == 2) {
    left = flatten(left, 0, -2);
    right = flatten(right, 0, -2);
  }
  Array dense = matmul_as(swapaxes(left, -1, -2), right, dtype, {});
  Shape shape = batch_of(w.shape());
  shape.push_back(dense.shape(-2));
  shape.push_back(dense.shape(-1));
  return sum_to_shape(dense, shape);
}

Arrays matmul_vjp(const Application& app, Given cotangents, const std::vector<bool>& wanted) {
  const Array &x = app.inputs[0], &w = app.inputs[1], &scales = app.inputs[2],
              &biases = app.inputs[3], &g = cotangents[0];
  const auto& p = app.as<QuantizedMatmulParams>();
  Arrays result(4);
  if (wanted[0]) {
    Dtype wide = g.shape() == x.shape() || w.rank() == 2 ? x.dtype() : widened_dtype(x.dtype());
    Array dx = product(app, g, scales, biases, !p.transpose, wide);
    result[0] = astype(sum_to_shape(dx, x.shape()), x.dtype());
  }
  if (!wanted[2] && !wanted[3]) return result;
  Array dense = dense_cotangent(x, g, w, p.transpose, widened_dtype(g.dtype()));
  if (wanted[2]) result[2] = scales_cotangent(dense, w, format_of(app), scales.dtype());
  if (wanted[3]) result[3] = biases_cotangent(dense, format_of(app), biases.dtype());
  return result;
}

Arrays matmul_jvp(const Application& app, Given tangents) {
  const Array &x = app.inputs[0], &scales = app.inputs[2], &biases = app.inputs[3];
  const auto& p = app.as<QuantizedMatmulParams>();
  Array total;
  auto add_term = [&](const Array& term) { total = total.defined() ? total + term : term; };
  if (tangents[0].defined())
    add_term(product(app, tangents[0], scales, biases, p.transpose, p.dtype));
  if (tangents[2].defined() || tangents[3].defined())
    add_term(product(app, x, tangent_or_zeros(tangents[2], scales, app.stream),
                     tangent_or_zeros(tangents[3], biases, app.stream), p.transpose, p.dtype));
  return {total};
}

Batched matmul_vmap(const Application& app, std::span<const int> axes) {
  const auto& p = app.as<QuantizedMatmulParams>();
  bool matrix_batched = axes[1] >= 0 || axes[2] >= 0 || axes[3] >= 0;
  size_t rank = 2;
  for (size_t i = 0; i < 2; ++i) rank = std::max(rank, app.inputs[i].rank() - (axes[i] >= 0));
  int64_t batch = batch_extent(app.inputs, axes);
  Array in[4];
  in[0] = axes[0] < 0 ? app.inputs[0] : batch_first(app.inputs[0], axes[0], rank, app.stream);
  for (size_t i = 1; i < 4; ++i) {
    in[i] = app.inputs[i];
    if (!matrix_batched) continue;
    in[i] = batched(in[i], axes[i], batch, app.stream);
    in[i] = batch_first(in[i], 0, rank, app.stream);
  }
  return {{apply(quantized_matmul_op, {in[0], in[1], in[2], in[3]}, p, app.stream)}, {0}};
}

Sample::Input packed_input(Shape shape) {
  return {.shape = std::move(shape),
          .low = 0,
          .high = 4294967295.0,
          .differentiable = false,
          .dtype = Dtype::U32,
          .fixed_dtype = true};
}

std::vector<Sample> quantize_samples() {
  auto of = [](const char* label, Shape shape, int group, int bits) {
    return Sample{.label = label,
                  .inputs = {{.shape = std::move(shape), .differentiable = false}},
                  .apply = [=](Given in) { return quantize(in[0], group, bits); }};
  };
  return {of("4 bits", {3, 128}, 64, 4), of("3 bits", {2, 2, 64}, 32, 3),
          of("8 bits", {2, 64}, 16, 8), of("6 bits", {1, 128}, 128, 6),
          of("no rows", {0, 64}, 64, 4)};
}

std::vector<Sample> dequantize_samples() {
  auto of = [](const char* label, Shape batch, int64_t columns, int group, int bits) {
    Shape words = batch, groups = batch;
    words.push_back(columns * bits / 32);
    groups.push_back(columns / group);
    return Sample{
        .label = label,
        .inputs = {packed_input(words), {.shape = groups}, {.shape = groups}},
        .apply = [=](Given in) { return Arrays{dequantize(in[0], in[1], in[2], group, bits)}; },
        .tolerance = 4};
  };
  return {of("4 bits", {3}, 128, 64, 4), of("3 bits", {2, 2}, 64, 32, 3),
          of("8 bits", {2}, 64, 16, 8),  of("6 bits", {1}, 128, 128, 6),
          of("5 bits", {3}, 32, 16, 5),  of("no rows", {0}, 64, 64, 4)};
}

std::vector<Sample> matmul_samples() {
  auto of = [](const char* label, Shape x, Shape batch, int64_t columns, int group, int bits,
               bool transpose, int activation_bits = 0) {
    Shape words = batch, groups = batch;
    words.push_back(columns * bits / 32);
    groups.push_back(columns / group);
    return Sample{.label = label,
                  // Differences of what is rounded are not its derivatives.
                  .inputs = {{.shape = std::move(x), .differentiable = activation_bits == 0},
                             packed_input(words),
                             {.shape = groups,
                              .low = -0.1,
                              .high = 0.1,
                              .differentiable = activation_bits == 0},
                             {.shape = groups, .differentiable = activation_bits == 0}},
                  .apply =
                      [=](Given in) {
                        return Arrays{quantized_matmul(in[0], in[1], in[2], in[3], transpose, group,
                                                       bits, "affine", {}, activation_bits)};
                      },
                  // Compared with float64, where nothing is rounded.
                  .tolerance = activation_bits == 0 ? 8.0 : 3000.0};
  };
  return {of("4 bits", {3, 128}, {5}, 128, 64, 4, true),
          of("many rows", {37, 64}, {6}, 64, 32, 4, true),
          of("not transposed", {3, 5}, {5}, 64, 32, 4, false),
          of("8 bits", {2, 3, 64}, {7}, 64, 64, 8, true),
          of("3 bits", {1, 64}, {4}, 64, 16, 3, true),
          of("vector", {32}, {3}, 32, 32, 6, true),
          of("batched matrices", {2, 3, 64}, {2, 4}, 64, 32, 5, true),
          of("broadcast batches", {2, 1, 2, 32}, {3, 4}, 32, 32, 2, true),
          of("batched, not transposed", {2, 3, 4}, {2, 4}, 32, 32, 4, false),
          of("rounded activations", {3, 128}, {5}, 128, 64, 4, true, 8),
          of("rounded activations, 8 bits", {2, 1, 96}, {19}, 96, 32, 8, true, 8),
          of("activations that stay exact", {2, 64}, {3}, 64, 32, 3, true, 8),
          of("no rows", {0, 64}, {3}, 64, 64, 4, true),
          of("no outputs", {2, 64}, {0}, 64, 64, 4, true)};
}

}  // namespace

const Op quantize_op{.name = "quantize",
                     .params = &params_type<QuantizationParams>,
                     .outputs = 3,
                     .infer = &quantize_infer,
                     .vmap = &quantize_vmap,
                     .samples = &quantize_samples};
const Op dequantize_op{.name = "dequantize",
                       .params = &params_type<QuantizationParams>,
                       .infer = &dequantize_infer,
                       .vjp = &dequantize_vjp,
                       .jvp = &dequantize_jvp,
                       .vmap = &dequantize_vmap,
                       .samples = &dequantize_samples};
const Op quantized_matmul_op{.name = "quantized_matmul",
                             .params = &params_type<QuantizedMatmulParams>,
                             .infer = &matmul_infer,
                             .vjp = &matmul_vjp,
                             .jvp = &matmul_jvp,
                             .vmap = &matmul_vmap,
                             .samples = &matmul_samples};

void quantized_ops(Registry& registry) {
  registry.ops.add(quantize_op);
  registry.ops.add(dequantize_op);
  registry.ops.add(quantized_matmul_op);
  registry.functions.add(
      "quantize",
      "w: array, /, group_size: int | None = None, bits: int | None = None, mode: str = 'affine'",
      "Quantize a matrix: {packed uint32, scales, biases}.\n\n"
      "Each group of `group_size` (default 64; 16, 32, 64, 128) elements of a row shares a scale\n"
      "and a bias; elements take `bits` (default 4; 2, 3, 4, 5, 6, 8) bits. Scales and biases "
      "have\n"
      "w's dtype. ValueError if the last dimension is not a multiple of the group size.",
      [](const Array& w, const std::optional<int>& group_size, const std::optional<int>& bits,
         const std::string& mode,
         Stream s) { return quantize(w, group_size.value_or(64), bits.value_or(4), mode, s); },
      "list[array]");
  registry.functions.add(
      "dequantize",
      "w: array, /, scales: array, biases: array | None = None, group_size: int | None = None, "
      "bits: int | None = None, mode: str = 'affine', dtype: Dtype | None = None",
      "The matrix that a quantized one stands for: scale * q + bias.\n\n"
      "The result has the dtype of scales and biases, or `dtype`.",
      [](const Array& w, const Array& scales, const std::optional<Array>& biases,
         const std::optional<int>& group_size, const std::optional<int>& bits,
         const std::string& mode, const std::optional<Dtype>& dtype, Stream s) {
        return dequantize(w, scales, needed_biases(biases, "dequantize", mode),
                          group_size.value_or(64), bits.value_or(4), mode, dtype, s);
      });
  registry.functions.add(
      "quantized_matmul",
      "x: array, w: array, /, scales: array, biases: array | None = None, transpose: bool = True, "
      "group_size: int | None = None, bits: int | None = None, mode: str = 'affine', "
      "activation_bits: int = 0",
      "x times a quantized matrix (its transpose unless `transpose` is False), read as stored.\n\n"
      "x is not quantized; sums are float32. The result has the promoted dtype of x, scales and\n"
      "biases. With `activation_bits` 8, products with 4-bit and 8-bit matrices round x to\n"
      "integers, per group, which is faster. ValueError if shapes do not fit.",
      [](const Array& x, const Array& w, const Array& scales, const std::optional<Array>& biases,
         bool transpose, const std::optional<int>& group_size, const std::optional<int>& bits,
         const std::string& mode, int activation_bits, Stream s) {
        return quantized_matmul(x, w, scales, needed_biases(biases, "quantized_matmul", mode),
                                transpose, group_size.value_or(64), bits.value_or(4), mode, s,
                                activation_bits);
      });
}

}  // namespace ops
}  // namespace mica
