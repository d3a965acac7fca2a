// Attention against its definition, in double, for any device.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "core/device.h"
#include "ops/attention.h"
#include "ops/create.h"
#include "ops/elementwise.h"
#include "ops/shape.h"

namespace mica::attention_test {

struct Case {
  int64_t B = 1, H = 1, G = 1, L = 1, S = 1, K = 16, V = 16;
  AttentionOptions options = {};
  std::vector<int32_t> offsets = {}, lengths = {};  // empty: defaults
  Shape mask = {};                                  // empty: none
  bool bool_mask = false;
  Dtype mask_dtype = Dtype::F32;  // of others
  Dtype dtype = Dtype::F32, cache_dtype = Dtype::F32;
  bool poison = true;  // NaN in slots that hold nothing

  int64_t length(int64_t b) const { return lengths.empty() ? S : lengths[b]; }
  int64_t offset(int64_t b) const { return offsets.empty() ? length(b) - L : offsets[b]; }
  std::string name() const {
    return fmt::format("B{} H{} G{} L{} S{} K{} V{} causal {} window {} ring {} cap {} {} {}", B, H,
                       G, L, S, K, V, options.causal, options.window, options.ring, options.softcap,
                       dtype_name(dtype), dtype_name(cache_dtype));
  }
};

// Inputs of a case: arrays, and the same values as doubles. Made on the reference device, so that
// only attention itself is under test.
struct Inputs {
  Array q, k, v;
  std::vector<double> q_values, k_values, v_values, mask_values;
  AttentionOptions options;

  explicit Inputs(const Case& c, unsigned seed = 1) : options(c.options) {
    StreamScope on_ref(default_stream({DeviceKind::Ref}));
    std::mt19937_64 random(seed);
    q = drawn({c.B, c.H, c.L, c.K}, c.dtype, random);
    k = drawn({c.B, c.G, c.S, c.K}, c.cache_dtype, random);
    v = drawn({c.B, c.G, c.S, c.V}, c.cache_dtype, random);
    q_values = q.to_vector<double>();
    k_values = k.to_vector<double>();
    v_values = v.to_vector<double>();
    if (!c.offsets.empty()) options.offsets = Array::from<int32_t>(c.offsets);
    if (!c.lengths.empty()) options.lengths = Array::from<int32_t>(c.lengths);
    if (!c.mask.empty()) make_mask(c, random);
    if (!c.poison || c.lengths.empty()) return;
    Array held =
        less(reshape(arange(c.S), {1, 1, c.S, 1}), reshape(options.lengths, {c.B, 1, 1, 1}));
    k = where(held, k, std::nan("")).eval();
    v = where(held, v, std::nan("")).eval();
  }

  static Array drawn(const Shape& shape, Dtype dtype, std::mt19937_64& random) {
    std::normal_distribution<double> normal;
    std::vector<double> values(static_cast<size_t>(elements(shape)));
    for (double& x : values) x = normal(random);
    return astype(Array::from<double>(values, shape), dtype).eval();
  }

 private:
  void make_mask(const Case& c, std::mt19937_64& random) {
    options.mask = drawn(c.mask, c.mask_dtype, random);
    if (c.bool_mask) options.mask = greater(options.mask, -0.3f);
    Shape full{c.B, c.H, c.L, c.S};
    mask_values = astype(broadcast_to(options.mask, full), Dtype::F64).to_vector<double>();
    options.mask.eval();
  }
};

// Scores of row (b * H + h) * L + i, -infinity where a key is not seen.
inline std::vector<double> scores_of(const Case& c, const Inputs& in, int64_t row) {
  const AttentionOptions& o = c.options;
  const int64_t i = row % c.L, h = row / c.L % c.H, b = row / c.L / c.H, g = h / (c.H / c.G);
  std::vector<double> scores(static_cast<size_t>(c.S), -std::numeric_limits<double>::infinity());
  for (int64_t s = 0; s < c.S; ++s) {
    int64_t p = s, n = c.length(b), own = c.offset(b) + i;
    while (o.ring && p + c.S < n) p += c.S;
    if (p >= n || (o.causal && p > own) || (o.window > 0 && own - p >= o.window)) continue;
    double score = 0;
    for (int64_t d = 0; d < c.K; ++d)
      score += in.q_values[row * c.K + d] * in.k_values[((b * c.G + g) * c.S + s) * c.K + d];
    score *= o.scale;
    if (o.softcap > 0) score = o.softcap * std::tanh(score / o.softcap);
    if (!in.mask_values.empty()) {
      const double m = in.mask_values[row * c.S + s];
      if (c.bool_mask && m == 0) continue;
      if (!c.bool_mask) score += m;
    }
    scores[s] = score;
  }
  return scores;
}

// Softmax of a row's scores; zeros for a row that sees nothing.
inline std::vector<double> weights_of(const Case& c, const Inputs& in, int64_t row) {
  std::vector<double> weights = scores_of(c, in, row);
  const double largest = *std::max_element(weights.begin(), weights.end());
  if (std::isinf(largest)) return std::vector<double>(weights.size(), 0.0);
  double total = 0;
  for (double& x : weights) total += x = std::exp(x - largest);
  for (double& x : weights) x /= total;
  return weights;
}

// The definition, element by element. `spread`, if given, takes the weighted means of the values'
// distances from the result.
inline std::vector<double> expected(const Case& c, const Inputs& in,
                                    std::vector<double>* spread = nullptr) {
  std::vector<double> out(static_cast<size_t>(c.B * c.H * c.L * c.V), 0.0);
  if (spread) spread->assign(out.size(), 0.0);
  for (int64_t row = 0; row < c.B * c.H * c.L; ++row) {
    const int64_t h = row / c.L % c.H, b = row / c.L / c.H, g = h / (c.H / c.G);
    const std::vector<double> weights = weights_of(c, in, row);
    auto value = [&](int64_t s, int64_t d) {
      return in.v_values[((b * c.G + g) * c.S + s) * c.V + d];
    };
    for (int64_t s = 0; s < c.S; ++s)
      for (int64_t d = 0; weights[s] > 0 && d < c.V; ++d)
        out[row * c.V + d] += weights[s] * value(s, d);
    for (int64_t s = 0; spread && s < c.S; ++s)
      for (int64_t d = 0; weights[s] > 0 && d < c.V; ++d)
        (*spread)[row * c.V + d] += weights[s] * std::abs(value(s, d) - out[row * c.V + d]);
  }
  return out;
}

inline double tolerance_of(Dtype dtype) {
  switch (dtype) {
    case Dtype::F64: return 1e-13;
    case Dtype::F32: return 4e-6;
    case Dtype::F16: return 2e-3;
    default: return 1.6e-2;
  }
}

inline void expect_close(const Array& out, const std::vector<double>& wanted, const Case& c) {
  ASSERT_EQ(out.shape(), (Shape{c.B, c.H, c.L, c.V})) << c.name();
  std::vector<double> values = out.to_vector<double>();
  const double tolerance = tolerance_of(out.dtype());
  for (size_t i = 0; i < values.size(); ++i)
    ASSERT_NEAR(values[i], wanted[i], tolerance * (1 + std::abs(wanted[i])))
        << c.name() << " at " << i;
}

inline void check(const Case& c) {
  Inputs in(c);
  expect_close(attention(in.q, in.k, in.v, in.options), expected(c, in), c);
}

}  // namespace mica::attention_test
