#include "ops/attention_rules.h"

#include "ops/create.h"
#include "ops/elementwise.h"
#include "ops/matmul.h"
#include "ops/precision.h"
#include "ops/reduce.h"
#include "ops/rules.h"
#include "ops/shape.h"

namespace mica::ops {

namespace {

const std::vector<int> kLast = {-1};

// The inputs after q, k, v (and the cotangent): undefined where absent.
struct Extras {
  Extras(const AttentionParams& params, Given inputs, size_t first) {
    if (params.offsets) offsets = inputs[first++];
    if (params.lengths) lengths = inputs[first++];
    if (params.mask) mask = inputs[first];
  }
  Array offsets, lengths, mask;
};

// The operation written out, with the matrix of scores. Arrays have five axes: batch, key heads,
// query heads of one key head, queries, keys (or features); all are float32 or float64.
struct WrittenOut {
  WrittenOut(const Application& app, size_t extra)
      : params(app.as<AttentionParams>()),
        B(app.inputs[0].shape(0)),
        H(app.inputs[0].shape(1)),
        L(app.inputs[0].shape(2)),
        G(app.inputs[1].shape(1)),
        S(app.inputs[1].shape(2)),
        extras(params, app.inputs, extra) {
    make_visible();
    q = by_query_head(app.inputs[0]) * params.scale;
    k = by_key_head(app.inputs[1]);
    v = by_key_head(app.inputs[2]);
    capped = matmul(q, swapaxes(k, -1, -2));
    if (params.softcap > 0) capped = tanh(capped / params.softcap) * params.softcap;
    Array scores = capped;
    if (extras.mask.defined() && extras.mask.dtype() != Dtype::Bool)
      scores = scores + five_axes(widened(extras.mask));
    // A row that sees nothing must not become NaN, nor may one that adds -inf.
    Array seen = logical_and(visible, greater(scores, kFloor));
    scores = where(seen, scores, kFloor);
    Array terms = where(seen, exp(scores - stop_gradient(max_of(scores))), 0.0f);
    weights = terms / maximum(sum(terms, kLast, true), 1e-30f);
  }

  Array by_query_head(const Array& a) const {
    return reshape(widened(a), {B, G, G == 0 ? 1 : H / G, L, a.shape(3)});
  }
  // Slots that hold nothing may hold NaN.
  Array by_key_head(const Array& a) const {
    Array rows = expand_dims(widened(a), {2});
    return known.defined() ? where(known, rows, 0.0f) : rows;
  }
  Array five_axes(const Array& mask) const {
    const Shape& m = mask.shape();
    if (m[1] == 1) return expand_dims(mask, {2});
    return reshape(mask, {m[0], G, H / G, m[2], m[3]});
  }
  Array joined(const Array& a) const { return reshape(a, {B, H, L, a.shape(-1)}); }

  // Cotangents of scores (before scale) for those of the weights.
  Array through_softmax(const Array& slope) const {
    return weights * (slope - sum(weights * slope, kLast, true));
  }
  Array through_cap(const Array& slope) const {
    return params.softcap > 0 ? slope * (1.0f - square(capped / params.softcap)) : slope;
  }

  static constexpr double kFloor = -1e30;
  const AttentionParams& params;
  int64_t B, H, L, G, S;
  Extras extras;
  Array visible;  // by position and by a boolean mask, broadcastable to the scores
  Array known;    // slots that hold something, [B, 1, 1, S, 1]; undefined if all do
  Array q, k, v;  // q is scaled
  Array capped, weights;

 private:
  Array max_of(const Array& scores) const {
    return S == 0 ? sum(scores, kLast, true) : max(scores, kLast, true);
  }
  static Array by_batch(const Array& a) { return reshape(a, {a.shape(0), 1, 1, 1, 1}); }

  void make_visible() {
    Array length =
        extras.lengths.defined() ? by_batch(extras.lengths) : full({1, 1, 1, 1, 1}, S, Dtype::I32);
    Array offset = extras.offsets.defined() ? by_batch(extras.offsets) : length - L;
    Array slots = arange(S), positions = slots;
    if (params.ring && S > 0) positions = slots + floor_divide(length - 1 - slots, S) * S;
    visible = less(slots, length);  // also in a ring: a slot is written by its own position first
    if (extras.lengths.defined()) known = swapaxes(visible, -1, -2);
    Array own = offset + reshape(arange(L), {L, 1});
    if (params.causal) visible = logical_and(visible, less_equal(positions, own));
    if (params.window > 0) visible = logical_and(visible, less(own - positions, params.window));
    if (extras.mask.defined() && extras.mask.dtype() == Dtype::Bool)
      visible = logical_and(visible, five_axes(extras.mask));
  }
};

Dtype result_dtype(Given inputs) {
  return promote(promote(inputs[0].dtype(), inputs[1].dtype()), inputs[2].dtype());
}

// The batch axis of vmap, folded into that of the sequences.
struct Folded {
  Folded(const Application& app, std::span<const int> axes)
      : batch(batch_extent(app.inputs, axes)) {
    const bool mask = app.as<AttentionParams>().mask;
    for (size_t i = 0; i < app.inputs.size(); ++i) {
      const Array& a = app.inputs[i];
      const bool is_mask = mask && i + 1 == app.inputs.size();
      if (is_mask && axes[i] < 0 && a.shape(0) == 1) {
        inputs.push_back(a);
        continue;
      }
      Array wide = batched(a, axes[i], batch, app.stream);
      if (i == 0) sequences = wide.shape(1);
      Shape shape = wide.shape();
      shape[1] = sequences;
      inputs.push_back(flatten(broadcast_to(wide, shape), 0, 1));
    }
  }
  Array back(const Array& a) const { return unflatten(a, 0, {batch, sequences}); }

  int64_t batch, sequences = 0;
  Arrays inputs;
};

}  // namespace

Arrays attention_lower(const Application& app) {
  StreamScope scope(app.stream);
  WrittenOut w(app, 3);
  return {astype(w.joined(matmul(w.weights, w.v)), result_dtype(app.inputs))};
}

Arrays attention_vjp_lower(const Application& app) {
  StreamScope scope(app.stream);
  WrittenOut w(app, 4);
  Array g = w.by_query_head(app.inputs[3]);
  Array slope = w.through_cap(w.through_softmax(matmul(g, swapaxes(w.v, -1, -2))));
  auto over_heads = [](const Array& a) { return sum(a, std::vector<int>{2}); };
  Array dq = w.joined(matmul(slope, w.k) * w.params.scale);
  Array dk = over_heads(matmul(swapaxes(slope, -1, -2), w.q));
  Array dv = over_heads(matmul(swapaxes(w.weights, -1, -2), g));
  return {astype(dq, app.inputs[0].dtype()), astype(dk, app.inputs[1].dtype()),
          astype(dv, app.inputs[2].dtype())};
}

Arrays attention_vjp(const Application& app, Given cotangents, const std::vector<bool>& wanted) {
  const auto& params = app.as<AttentionParams>();
  Arrays result(app.inputs.size());
  if (wanted[0] || wanted[1] || wanted[2]) {
    Arrays inputs(app.inputs.begin(), app.inputs.begin() + 3);
    inputs.push_back(cotangents[0]);
    for (const Array& extra : app.inputs.subspan(3)) inputs.push_back(extra);
    Arrays all = apply_many(attention_vjp_op, std::span<const Array>(inputs), params, app.stream);
    for (size_t i = 0; i < 3; ++i)
      if (wanted[i]) result[i] = all[i];
  }
  if (params.mask && wanted.back() && is_floating(app.inputs.back().dtype())) {
    WrittenOut w(app, 3);
    const Array& mask = app.inputs.back();
    Array g = w.by_query_head(cotangents[0]);
    Array slope = w.through_softmax(matmul(g, swapaxes(w.v, -1, -2)));
    Array full = reshape(slope, {w.B, w.H, w.L, w.S});
    result.back() = astype(sum_to_shape(full, mask.shape()), mask.dtype());
  }
  return result;
}

Arrays attention_jvp(const Application& app, Given tangents) {
  WrittenOut w(app, 3);
  const auto& params = w.params;
  Array slope, result;
  auto add = [](Array& sum, const Array& a) { sum = sum.defined() ? sum + a : a; };
  if (tangents[0].defined())
    add(slope, matmul(w.by_query_head(tangents[0]) * params.scale, swapaxes(w.k, -1, -2)));
  if (tangents[1].defined()) add(slope, matmul(w.q, swapaxes(w.by_key_head(tangents[1]), -1, -2)));
  if (slope.defined()) slope = w.through_cap(slope);
  if (params.mask && tangents.back().defined()) add(slope, w.five_axes(widened(tangents.back())));
  if (slope.defined()) add(result, matmul(w.through_softmax(slope), w.v));
  if (tangents[2].defined()) add(result, matmul(w.weights, w.by_key_head(tangents[2])));
  return {astype(w.joined(result), result_dtype(app.inputs))};
}

Batched attention_vmap(const Application& app, std::span<const int> axes) {
  Folded folded(app, axes);
  Array out = apply(attention_op, std::span<const Array>(folded.inputs), app.as<AttentionParams>(),
                    app.stream);
  return {{folded.back(out)}, {0}};
}

Batched attention_vjp_vmap(const Application& app, std::span<const int> axes) {
  Folded folded(app, axes);
  Arrays outputs = apply_many(attention_vjp_op, std::span<const Array>(folded.inputs),
                              app.as<AttentionParams>(), app.stream);
  for (Array& out : outputs) out = folded.back(out);
  return {outputs, {0, 0, 0}};
}

namespace {

using Input = Sample::Input;

// Sizes and options of one sample; the extras follow q, k and v.
struct SampleCase {
  const char* label;
  Shape q, k;
  int64_t v_size;
  AttentionOptions options;
  std::vector<double> offsets, lengths;
  Shape mask;
  bool bool_mask;

  std::vector<Input> inputs() const {
    Shape v = k;
    v[3] = v_size;
    std::vector<Input> result{{q}, {k}, {v}};
    auto numbers = [&](const std::vector<double>& values) {
      if (values.empty()) return;
      result.push_back(
          {{static_cast<int64_t>(values.size())}, 0, 1, false, Dtype::I32, true, values});
    };
    numbers(offsets);
    numbers(lengths);
    if (mask.empty()) return result;
    if (bool_mask)
      result.push_back({mask, 0, 1, false, Dtype::Bool, true, {1, 0, 1, 1, 0}});
    else
      result.push_back({mask});
    return result;
  }
  Array apply_to(Given in) const {
    AttentionOptions all = options;
    size_t next = 3;
    if (!offsets.empty()) all.offsets = in[next++];
    if (!lengths.empty()) all.lengths = in[next++];
    if (!mask.empty()) all.mask = in[next];
    return attention(in[0], in[1], in[2], all);
  }
};

std::vector<SampleCase> sample_cases() {
  return {
      {"plain", {2, 2, 3, 4}, {2, 2, 5, 4}, 4, {.scale = 0.5}, {}, {}, {}, false},
      {"causal, grouped",
       {1, 4, 5, 8},
       {1, 2, 5, 8},
       6,
       {.scale = 0.4, .causal = true},
       {},
       {},
       {},
       false},
      {"many rows",
       {1, 4, 9, 4},
       {1, 1, 20, 4},
       3,
       {.scale = 0.5, .causal = true, .window = 7},
       {},
       {},
       {},
       false},
      {"ragged",
       {2, 2, 3, 4},
       {2, 1, 9, 4},
       4,
       {.scale = 0.5, .causal = true},
       {2, 5},
       {5, 8},
       {},
       false},
      {"ring",
       {2, 1, 2, 4},
       {2, 1, 6, 4},
       5,
       {.scale = 0.5, .causal = true, .window = 4, .ring = true},
       {9, 1},
       {11, 3},
       {},
       false},
      {"soft cap", {1, 2, 4, 4}, {1, 2, 4, 4}, 4, {.scale = 1, .softcap = 0.7}, {}, {}, {}, false},
      {"added mask", {2, 2, 3, 4}, {2, 2, 5, 4}, 4, {.scale = 0.5}, {}, {}, {2, 1, 3, 5}, false},
      {"mask of keys", {1, 2, 3, 4}, {1, 1, 5, 4}, 4, {.scale = 0.5}, {}, {}, {5}, true},
      {"no queries", {1, 2, 0, 4}, {1, 2, 3, 4}, 4, {.scale = 0.5}, {}, {}, {}, false},
      {"no keys", {1, 2, 3, 4}, {1, 2, 0, 4}, 4, {.scale = 0.5}, {}, {}, {}, false},
  };
}

}  // namespace

std::vector<Sample> attention_samples() {
  std::vector<Sample> result;
  for (const SampleCase& c : sample_cases())
    result.push_back({c.label, c.inputs(), [c](Given in) { return Arrays{c.apply_to(in)}; }});
  return result;
}

// The operation itself has no public function: samples apply it as the derivative does.
std::vector<Sample> attention_vjp_samples() {
  std::vector<Sample> result;
  for (const SampleCase& c : sample_cases()) {
    if (!c.mask.empty()) continue;
    std::vector<Input> inputs = c.inputs();
    inputs.insert(inputs.begin() + 3, Input{{c.q[0], c.q[1], c.q[2], c.v_size}});
    AttentionParams params{
        c.options.scale, c.options.causal,   c.options.window,   c.options.softcap,
        c.options.ring,  !c.offsets.empty(), !c.lengths.empty(), false};
    result.push_back({c.label, std::move(inputs),
                      [params](Given in) { return apply_many(attention_vjp_op, in, params, {}); }});
  }
  return result;
}

}  // namespace mica::ops
