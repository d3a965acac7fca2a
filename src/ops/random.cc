#include "ops/random.h"

#include <chrono>
#include <cmath>
#include <limits>
#include <string>

#include "ops/create.h"
#include "ops/elementwise.h"
#include "ops/index.h"
#include "ops/reduce.h"
#include "ops/registry.h"
#include "ops/rules.h"
#include "ops/shape.h"
#include "ops/sort.h"

namespace mica::random {

using namespace ops;

namespace {

Array& default_key() {
  static const uint64_t start =
      static_cast<uint64_t>(std::chrono::duration_cast<std::chrono::milliseconds>(
                                std::chrono::system_clock::now().time_since_epoch())
                                .count());
  thread_local Array own = key(start);
  return own;
}

Array next_key(Stream s) {
  Array two = split(default_key(), 2, s);
  default_key() = slice_axis(two, 0, 0, 1, s);
  default_key() = reshape(default_key(), {2}, s);
  return reshape(slice_axis(two, 0, 1, 2, s), {2}, s);
}

void check_real(const char* name, Dtype dtype) {
  if (!is_floating(dtype)) throw_value("[{}] the dtype must be floating, not {}", name, dtype);
}

Array constant(double value, Dtype dtype, Stream s) { return fill({}, value, dtype, s); }

// The largest value of a type below 1; samples stay below it.
double below_one(Dtype dtype) {
  switch (dtype) {
    case Dtype::F16: return 1 - std::ldexp(1.0, -11);
    case Dtype::BF16: return 1 - std::ldexp(1.0, -8);
    default: return 1 - std::ldexp(1.0, -24);
  }
}

// In (-1, 1), as erfinv needs it.
Array symmetric(const Shape& shape, const Array& key, Stream s) {
  double low = static_cast<double>(std::nextafter(-1.0f, 0.0f));
  return uniform(constant(low, Dtype::F32, s), constant(1, Dtype::F32, s), shape, Dtype::F32, key,
                 s);
}

}  // namespace

void seed(uint64_t value) { default_key() = key(value); }
Array state() { return default_key(); }
void set_state(const Array& key) { default_key() = key; }

Array key(uint64_t seed) {
  return Array::from<uint32_t>({static_cast<uint32_t>(seed >> 32), static_cast<uint32_t>(seed)},
                               {2});
}

Array split(const Array& key, int count, Stream s) {
  if (count < 0) throw_value("[split] {} keys", count);
  return bits({count, 2}, 4, key, s);
}

Array bits(const Shape& shape, int width, const Array& given, Stream s) {
  for (int64_t extent : shape)
    if (extent < 0) throw_value("[bits] negative extent in shape {}", shape);
  if (width != 1 && width != 2 && width != 4)
    throw_value("[bits] the width must be 1, 2 or 4 bytes, not {}", width);
  Array key = given.defined() ? given : next_key(s);
  if (key.dtype() != Dtype::U32 || !(key.shape() == Shape{2}))
    throw_value("[bits] a key is a uint32 array of shape (2,), got {} of {}", key.shape(),
                key.dtype());
  return apply(random_bits_op, {key}, RandomBitsParams{shape, width}, s);
}

Array uniform(const Array& low, const Array& high, const Shape& shape, Dtype dtype,
              const Array& key, Stream s) {
  check_real("uniform", dtype);
  Array lower = astype(low, dtype, s);
  Array range = subtract(astype(high, dtype, s), lower, s);
  if (!(broadcast_shapes(shape, range.shape(), "uniform") == shape))
    throw_value("[uniform] bounds of shape {} do not broadcast to shape {}", range.shape(), shape);
  Array unit = divide(astype(bits(shape, 4, key, s), Dtype::F32, s),
                      constant(4294967296.0, Dtype::F32, s), s);
  unit = astype(minimum(unit, constant(below_one(dtype), Dtype::F32, s), s), dtype, s);
  return add(multiply(range, unit, s), lower, s);
}

Array uniform(const Shape& shape, Dtype dtype, const Array& key, Stream s) {
  check_real("uniform", dtype);
  return uniform(constant(0, dtype, s), constant(1, dtype, s), shape, dtype, key, s);
}

Array normal(const Shape& shape, Dtype dtype, const Array& loc, const Array& scale,
             const Array& key, Stream s) {
  check_real("normal", dtype);
  Array samples = astype(erfinv(symmetric(shape, key, s), s), dtype, s);
  Array factor = constant(std::sqrt(2.0), dtype, s);
  if (scale.defined()) factor = multiply(factor, astype(scale, dtype, s), s);
  samples = multiply(factor, samples, s);
  return loc.defined() ? add(astype(loc, dtype, s), samples, s) : samples;
}

Array truncated_normal(const Array& lower, const Array& upper, const Shape& shape, Dtype dtype,
                       const Array& key, Stream s) {
  check_real("truncated_normal", dtype);
  Array root = constant(std::sqrt(2.0), dtype, s);
  Array low = astype(lower, dtype, s), high = astype(upper, dtype, s);
  Array u =
      uniform(erf(divide(low, root, s), s), erf(divide(high, root, s), s), shape, dtype, key, s);
  return maximum(minimum(high, multiply(root, erfinv(u, s), s), s), low, s);
}

Array gumbel(const Shape& shape, Dtype dtype, const Array& key, Stream s) {
  return negative(log(negative(log(uniform(shape, dtype, key, s), s), s), s), s);
}

Array laplace(const Shape& shape, Dtype dtype, double loc, double scale, const Array& key,
              Stream s) {
  check_real("laplace", dtype);
  Array u = symmetric(shape, key, s);
  Array samples = multiply(sign(u, s), log1p(negative(abs(u, s), s), s), s);
  samples = astype(samples, dtype, s);
  if (scale != 1) samples = multiply(samples, scale, s);
  return loc == 0 ? samples : add(samples, loc, s);
}

Array randint(const Array& low, const Array& high, const Shape& shape, Dtype dtype,
              const Array& key, Stream s) {
  if (is_floating(dtype))
    throw_value("[randint] the dtype must be an integer or bool, not {}", dtype);
  Array drawn = astype(floor(uniform(low, high, shape, Dtype::F32, key, s), s), dtype, s);
  // Bounds that float32 does not hold may have been rounded outwards.
  Array last = astype(subtract(high, 1, s), dtype, s);
  return maximum(minimum(drawn, last, s), astype(low, dtype, s), s);
}

Array bernoulli(const Array& p, const Shape& shape, const Array& key, Stream s) {
  if (!is_floating(p.dtype()))
    throw_value("[bernoulli] the probability must be floating, not {}", p.dtype());
  if (!(broadcast_shapes(p.shape(), shape, "bernoulli") == shape))
    throw_value("[bernoulli] a probability of shape {} does not broadcast to shape {}", p.shape(),
                shape);
  // Just above 2^32: a probability of 1 is above all 32-bit numbers.
  Array scale = constant(4294967808.0, Dtype::F32, s);
  return less(astype(bits(shape, 4, key, s), Dtype::F32, s), multiply(p, scale, s), s);
}

namespace {

Shape without(Shape shape, int axis) {
  shape.erase(static_cast<size_t>(axis));
  return shape;
}

// Of one distribution: memory for the samples and the logits, not for their product.
Array inverse_cdf(const Array& logits, const Shape& shape, const Array& key, Stream s) {
  Array x = astype(logits, promote(logits.dtype(), Dtype::F32), s);
  Array most = max(x, {}, false, s);
  // Where the largest is infinite, the distribution is uniform over all that are.
  Array weights = where(isinf(most, s), astype(equal(x, most, s), x.dtype(), s),
                        exp(subtract(x, most, s), s), s);
  Array before = cumsum(weights, 0, false, false, s);
  Array u = multiply(uniform(shape, Dtype::F32, key, s), sum(weights, {}, false, s), s);
  Array reached = less_equal(before, expand_dims(u, {-1}, s), s);
  return astype(subtract(sum(reached, {{-1}}, false, s), 1, s), Dtype::U32, s);
}

Array draw(const Array& logits, int axis, const Shape& shape, const Array& key, Stream s) {
  int64_t count = logits.shape(axis);
  if (count > 0 && logits.size() == count && !shape.empty())
    return inverse_cdf(reshape(logits, {count}, s), shape, key, s);
  int place = axis + static_cast<int>(shape.size()) - static_cast<int>(logits.rank()) + 1;
  Shape noise_shape = shape;
  noise_shape.insert(static_cast<size_t>(place), count);
  return argmax(add(gumbel(noise_shape, Dtype::F32, key, s), logits, s), place, false, s);
}

}  // namespace

Array categorical(const Array& logits, int axis, const Array& key, Stream s) {
  int place = normalize_axis(axis, logits.rank(), "categorical");
  return draw(logits, place, without(logits.shape(), place), key, s);
}

Array categorical(const Array& logits, int axis, const Shape& shape, const Array& key, Stream s) {
  int place = normalize_axis(axis, logits.rank(), "categorical");
  Shape places = without(logits.shape(), place);
  if (!(broadcast_shapes(shape, places, "categorical") == shape))
    throw_value("[categorical] distributions of shape {} do not broadcast to shape {}", places,
                shape);
  return draw(logits, place, shape, key, s);
}

Array categorical_samples(const Array& logits, int axis, int64_t samples, const Array& key,
                          Stream s) {
  if (samples < 0) throw_value("[categorical] {} samples", samples);
  int place = normalize_axis(axis, logits.rank(), "categorical");
  Array column = expand_dims(logits, {-1}, s);
  Shape shape = without(column.shape(), place);
  shape.back() = samples;
  return draw(column, place, shape, key, s);
}

Array permutation(int64_t count, const Array& key, Stream s) {
  if (count < 0) throw_value("[permutation] of {} elements", count);
  return argsort(bits({count}, 4, key, s), -1, s);
}

Array permutation(const Array& a, int axis, const Array& key, Stream s) {
  int place = normalize_axis(axis, a.rank(), "permutation");
  return take(a, permutation(a.shape(place), key, s), place, s);
}

}  // namespace mica::random

namespace mica::ops {

namespace {

void infer(const Application& app, std::span<OutputSpec> outputs) {
  const auto& p = app.as<RandomBitsParams>();
  Shape shape = app.inputs[0].shape();
  shape.resize(shape.size() - 1);
  for (int64_t extent : p.shape) shape.push_back(extent);
  outputs[0] = {shape, p.width == 1 ? Dtype::U8 : p.width == 2 ? Dtype::U16 : Dtype::U32};
}

Batched vmap(const Application& app, std::span<const int> axes) {
  Array keys = moveaxis(app.inputs[0], axes[0], 0, app.stream);
  return {{apply(random_bits_op, {keys}, app.as<RandomBitsParams>(), app.stream)}, {0}};
}

std::vector<Sample> samples() {
  auto of = [](const char* label, Shape shape, int width) {
    return Sample{.label = label,
                  .inputs = {{.shape = {2},
                              .low = 0,
                              .high = 4294967295.0,
                              .differentiable = false,
                              .dtype = Dtype::U32,
                              .fixed_dtype = true}},
                  .apply = [=](Given in) { return Arrays{random::bits(shape, width, in[0])}; }};
  };
  return {of("even", {4, 6}, 4),     of("odd", {33}, 4),   of("one", {}, 4),
          of("uint16", {3, 5}, 2),   of("uint8", {7}, 1),  of("many", {5000}, 4),
          of("one byte", {1, 1}, 1), of("none", {0, 3}, 4)};
}

}  // namespace

const Op random_bits_op{.name = "random_bits",
                        .params = &params_type<RandomBitsParams>,
                        .infer = &infer,
                        .vmap = &vmap,
                        .samples = &samples};

namespace {

using MaybeArray = std::optional<Array>;
using MaybeShape = std::optional<Shape>;

Array or_none(const MaybeArray& a) { return a.value_or(Array()); }

void add_keys(FunctionRegistry& functions) {
  functions.add(
      "random.seed", "seed: int", "Seed the default generator of this thread.",
      [](uint64_t seed, Stream) { random::seed(seed); }, "None");
  functions.add("random.key", "seed: int", "The key of a seed: uint32, shape (2,).",
                [](uint64_t seed, Stream) { return random::key(seed); });
  functions.add("random.split", "key: array, num: int = 2",
                "`num` new keys from a key, shape (num, 2).",
                [](const Array& key, int count, Stream s) { return random::split(key, count, s); });
  functions.add("random.bits",
                "shape: Sequence[int] = [], width: int = 4, key: array | None = None",
                "Uniform random integers of `width` bytes (1, 2, 4): uint8, uint16 or uint32.",
                [](const Shape& shape, int width, const MaybeArray& key, Stream s) {
                  return random::bits(shape, width, or_none(key), s);
                });
}

void add_continuous(FunctionRegistry& functions) {
  functions.add("random.uniform",
                "low: scalar | array = 0, high: scalar | array = 1, shape: Sequence[int] = [], "
                "dtype: Dtype | None = float32, key: array | None = None",
                "Uniform numbers in [low, high); bounds broadcast to `shape`.",
                [](const Array& low, const Array& high, const Shape& shape,
                   std::optional<Dtype> dtype, const MaybeArray& key, Stream s) {
                  return random::uniform(low, high, shape, dtype.value_or(Dtype::F32), or_none(key),
                                         s);
                });
  functions.add("random.normal",
                "shape: Sequence[int] = [], dtype: Dtype | None = float32, loc: scalar | array | "
                "None = None, scale: scalar | array | None = None, key: array | None = None",
                "Normal numbers with mean `loc` (0) and standard deviation `scale` (1).",
                [](const Shape& shape, std::optional<Dtype> dtype, const MaybeArray& loc,
                   const MaybeArray& scale, const MaybeArray& key, Stream s) {
                  return random::normal(shape, dtype.value_or(Dtype::F32), or_none(loc),
                                        or_none(scale), or_none(key), s);
                });
  functions.add(
      "random.truncated_normal",
      "lower: scalar | array, upper: scalar | array, shape: Sequence[int] | None = None, "
      "dtype: Dtype | None = float32, key: array | None = None",
      "Standard normal numbers between bounds, which broadcast to `shape` (by default\n"
      "to each other).",
      [](const Array& lower, const Array& upper, const MaybeShape& shape,
         std::optional<Dtype> dtype, const MaybeArray& key, Stream s) {
        return random::truncated_normal(
            lower, upper,
            shape ? *shape : broadcast_shapes(lower.shape(), upper.shape(), "truncated_normal"),
            dtype.value_or(Dtype::F32), or_none(key), s);
      });
  functions.add(
      "random.gumbel",
      "shape: Sequence[int] = [], dtype: Dtype | None = float32, key: array | None = None",
      "Numbers of the standard Gumbel distribution, whose CDF is exp(-exp(-x)).",
      [](const Shape& shape, std::optional<Dtype> dtype, const MaybeArray& key, Stream s) {
        return random::gumbel(shape, dtype.value_or(Dtype::F32), or_none(key), s);
      });
  functions.add("random.laplace",
                "shape: Sequence[int] = [], dtype: Dtype | None = float32, loc: float = 0.0, "
                "scale: float = 1.0, key: array | None = None",
                "Numbers of the Laplace distribution with mean `loc` and diversity `scale`.",
                [](const Shape& shape, std::optional<Dtype> dtype, double loc, double scale,
                   const MaybeArray& key, Stream s) {
                  return random::laplace(shape, dtype.value_or(Dtype::F32), loc, scale,
                                         or_none(key), s);
                });
}

Array categorical_of_values(const Array& logits, int axis, const MaybeShape& shape,
                            const std::optional<int>& samples, const Array& key, Stream s) {
  if (shape && samples)
    throw_value("[categorical] at most one of shape and num_samples can be given");
  if (shape) return random::categorical(logits, axis, *shape, key, s);
  if (samples) return random::categorical_samples(logits, axis, *samples, key, s);
  return random::categorical(logits, axis, key, s);
}

Array permutation_of_values(const Value& x, int axis, const Array& key, Stream s) {
  if (const auto* count = std::get_if<int64_t>(&x)) return random::permutation(*count, key, s);
  if (const auto* array = std::get_if<Array>(&x)) return random::permutation(*array, axis, key, s);
  throw_type("permutation() argument 'x' must be int or array, got {}", value_kind(x));
}

void add_discrete(FunctionRegistry& functions) {
  functions.add(
      "random.randint",
      "low: scalar | array, high: scalar | array, shape: Sequence[int] = [], dtype: Dtype "
      "| None = int32, key: array | None = None",
      "Integers in [low, high); bounds broadcast to `shape`. They are made of a float32:\n"
      "not every integer is reachable in ranges beyond 2**24.",
      [](const Array& low, const Array& high, const Shape& shape, std::optional<Dtype> dtype,
         const MaybeArray& key, Stream s) {
        return random::randint(low, high, shape, dtype.value_or(Dtype::I32), or_none(key), s);
      });
  functions.add("random.bernoulli",
                "p: scalar | array = 0.5, shape: Sequence[int] | None = None, key: array | None = "
                "None",
                "True with probability p, which broadcasts to `shape` (by default p's).",
                [](const Array& p, const MaybeShape& shape, const MaybeArray& key, Stream s) {
                  return random::bernoulli(p, shape ? *shape : p.shape(), or_none(key), s);
                });
  functions.add(
      "random.categorical",
      "logits: array, axis: int = -1, shape: Sequence[int] | None = None, num_samples: int "
      "| None = None, key: array | None = None",
      "Indices (uint32) drawn with probabilities softmax(logits) along `axis`: one for\n"
      "each place of the other axes, `shape` of them, or `num_samples` for each place\n"
      "along a new last axis. ValueError if both are given.",
      [](const Array& logits, int axis, const MaybeShape& shape, const std::optional<int>& samples,
         const MaybeArray& key, Stream s) {
        return categorical_of_values(logits, axis, shape, samples, or_none(key), s);
      });
  functions.add(
      "random.permutation", "x: int | array, axis: int = 0, key: array | None = None",
      "A random permutation of 0 ... x - 1 (uint32), or of an array's slices along `axis`.",
      [](const Value& x, int axis, const MaybeArray& key, Stream s) {
        return permutation_of_values(x, axis, or_none(key), s);
      });
}

}  // namespace

void random_ops(Registry& registry) {
  registry.ops.add(random_bits_op);
  add_keys(registry.functions);
  add_continuous(registry.functions);
  add_discrete(registry.functions);
}

}  // namespace mica::ops
