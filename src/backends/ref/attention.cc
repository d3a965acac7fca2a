#include "ops/attention.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "backends/ref/ref.h"

namespace mica::ref {

namespace {

// A key that a query sees: its slot, weight, and the slope of the soft cap at its score.
struct Key {
  int64_t slot;
  double weight, slope;
};

struct Attention {
  // The optional inputs start at `extra`.
  Attention(const KernelCall& call, size_t extra)
      : params(call.as<ops::AttentionParams>()),
        q(call.inputs[0]),
        k(call.inputs[1]),
        v(call.inputs[2]),
        ratio(k.shape[1] == 0 ? 1 : q.shape[1] / k.shape[1]) {
    if (params.offsets) offsets = &call.inputs[extra++];
    if (params.lengths) lengths = &call.inputs[extra++];
    if (params.mask) mask = &call.inputs[extra];
  }

  static double at(const View& view, int64_t a, int64_t b, int64_t c, int64_t d) {
    return load(view, offset(view, {a, b, c, d}));
  }

  // The position that a slot holds; -1 if none.
  int64_t position_of(int64_t b, int64_t slot) const {
    const int64_t slots = k.shape[2], length = length_of(b);
    if (slot >= length) return -1;
    return params.ring ? slot + (length - 1 - slot) / slots * slots : slot;
  }
  int64_t length_of(int64_t b) const {
    return lengths ? load<int64_t>(*lengths, b * lengths->strides[0]) : k.shape[2];
  }
  int64_t query_position(int64_t b, int64_t i) const {
    if (offsets) return load<int64_t>(*offsets, b * offsets->strides[0]) + i;
    return length_of(b) - q.shape[2] + i;
  }

  // The keys that query i of head h sees; weights sum to 1.
  std::vector<Key> keys(int64_t b, int64_t h, int64_t i) const {
    std::vector<Key> result;
    const int64_t own = query_position(b, i);
    double largest = -std::numeric_limits<double>::infinity(), total = 0;
    for (int64_t slot = 0; slot < k.shape[2]; ++slot) {
      const int64_t position = position_of(b, slot);
      if (position < 0 || (params.causal && position > own) ||
          (params.window > 0 && own - position >= params.window))
        continue;
      double score = 0, slope = 1;
      for (int64_t d = 0; d < k.shape[3]; ++d)
        score += at(q, b, h, i, d) * at(k, b, h / ratio, slot, d) * params.scale;
      if (params.softcap > 0) {
        const double t = std::tanh(score / params.softcap);
        score = params.softcap * t;
        slope = 1 - t * t;
      }
      if (mask && mask->dtype == Dtype::Bool && at(*mask, b, h, i, slot) == 0) continue;
      if (mask && mask->dtype != Dtype::Bool) score += at(*mask, b, h, i, slot);
      if (score == -std::numeric_limits<double>::infinity()) continue;
      largest = std::max(largest, score);
      result.push_back({slot, score, slope});
    }
    for (Key& key : result) total += key.weight = std::exp(key.weight - largest);
    for (Key& key : result) key.weight /= total;
    return result;
  }

  const ops::AttentionParams& params;
  const View &q, &k, &v;
  int64_t ratio;
  const View *offsets = nullptr, *lengths = nullptr, *mask = nullptr;
};

void attention(const KernelCall& call) {
  const Attention a(call, 3);
  const View& out = call.outputs[0];
  Shape rows = out.shape;
  rows.back() = 1;
  for_each(rows, [&](const Dims& row) {
    const std::vector<Key> keys = a.keys(row[0], row[1], row[2]);
    for (int64_t d = 0; d < out.shape[3]; ++d) {
      double sum = 0;
      for (const Key& key : keys)
        sum += key.weight * Attention::at(a.v, row[0], row[1] / a.ratio, key.slot, d);
      store(out, offset(out, row) + d, sum);
    }
  });
}

// Sums are kept in double until all are made.
struct Sums {
  explicit Sums(const View& view) : to(view), values(static_cast<size_t>(view.size()), 0.0) {}
  ~Sums() {
    for (size_t i = 0; i < values.size(); ++i) store(to, static_cast<int64_t>(i), values[i]);
  }
  double& operator()(int64_t a, int64_t b, int64_t c, int64_t d) {
    return values[static_cast<size_t>(offset(to, {a, b, c, d}))];
  }
  const View& to;
  std::vector<double> values;
};

void attention_vjp(const KernelCall& call) {
  const Attention a(call, 4);
  const View& given = call.inputs[3];
  Sums dq(call.outputs[0]), dk(call.outputs[1]), dv(call.outputs[2]);
  Shape rows = given.shape;
  rows.back() = 1;
  const int64_t k_size = a.k.shape[3], v_size = a.v.shape[3];
  for_each(rows, [&](const Dims& row) {
    const int64_t b = row[0], h = row[1], i = row[2], g = h / a.ratio;
    const std::vector<Key> keys = a.keys(b, h, i);
    std::vector<double> slopes(keys.size(), 0.0);
    double mean = 0;
    for (size_t j = 0; j < keys.size(); ++j) {
      for (int64_t d = 0; d < v_size; ++d)
        slopes[j] += Attention::at(given, b, h, i, d) * Attention::at(a.v, b, g, keys[j].slot, d);
      mean += slopes[j] * keys[j].weight;
    }
    for (size_t j = 0; j < keys.size(); ++j) {
      const Key& key = keys[j];
      const double slope = key.weight * (slopes[j] - mean) * key.slope * a.params.scale;
      for (int64_t d = 0; d < k_size; ++d) {
        dq(b, h, i, d) += slope * Attention::at(a.k, b, g, key.slot, d);
        dk(b, g, key.slot, d) += slope * Attention::at(a.q, b, h, i, d);
      }
      for (int64_t d = 0; d < v_size; ++d)
        dv(b, g, key.slot, d) += key.weight * Attention::at(given, b, h, i, d);
    }
  });
}

}  // namespace

void attention_kernels(KernelTable& registry) {
  constexpr Layout any = Layout::Any;
  registry.add(ops::attention_op, {.run = &attention, .layouts = {any, any, any, any, any, any}});
  registry.add(ops::attention_vjp_op,
               {.run = &attention_vjp, .layouts = {any, any, any, any, any, any}});
}

}  // namespace mica::ref
