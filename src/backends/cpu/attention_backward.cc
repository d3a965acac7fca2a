// Derivatives of attention. A task is one key head: it walks over panels of its query rows,
// recomputes their weights for all keys they see (so scratch memory is linear in the number of
// slots), and adds to the cotangents of its keys and values, which no other task touches: the sums
// have one order.
//
//   P = softmax(S), S = scale Q K^T      dV = P^T dO      dP = dO V^T
//   dS = P * (dP - sum(P * dP))          dQ = scale dS K  dK = scale dS^T Q
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backends/cpu/attention_backward.cc"
#include <algorithm>

#include "backends/cpu/highway_targets.h"

#include <hwy/foreach_target.h>

#include "backends/cpu/attention.h"
#include "backends/cpu/attention_tiles-inl.h"
#include "base/thread_pool.h"

HWY_BEFORE_NAMESPACE();
namespace mica::cpu {
namespace HWY_NAMESPACE {
namespace {

constexpr int64_t kBlockKeys = 128;
// Keys and values of this many slots stay in the second-level cache as floats, for all panels.
constexpr int64_t kWholeSlots = 512;

// One panel's scratch. Matrices over keys are [keys seen][width], keys in the order of the blocks.
struct Pass {
  Panel panel;
  const AttentionCotangents& cotangents;
  Sequence sequence;
  int64_t k_width, v_width;  // k_size and v_size rounded up to vectors
  Left keys, values;         // of all slots; without data where there are too many
  float *key_rows, *value_rows, *row;
  float* weights;
  float* slopes;           // of the soft cap; null without one
  float* scores;           // cotangents of the weights, then of the scores
  float* given;            // [v_size][width]: cotangents of the result, zeros beyond the last row
  float* given_rows;       // [width][v_width]: the same
  float* query_rows;       // [width][k_width], scaled
  float* query_sums;       // [k_size][width]: cotangents of the queries
  float *k_sums, *v_sums;  // [slots][k_width or v_width], of the key head

  Left keys_of(const KeyBlock& block) const { return rows_of(keys, panel.job.k, block, key_rows); }
  Left values_of(const KeyBlock& block) const {
    return rows_of(values, panel.job.v, block, value_rows);
  }
  Left rows_of(const Left& all, const View& view, const KeyBlock& block, float* rows) const {
    if (all.data) return {all.data + block.begin * all.stride, all.stride};
    return float_rows(view, panel.b, panel.g, block.begin, block.count, rows);
  }

  template <class F>
  void for_each(F&& f) const {
    const int64_t oldest = panel.positions[0], newest = panel.positions[panel.rows - 1];
    int64_t done = 0;
    for_each_block(panel.job, sequence, oldest, newest, kBlockKeys, [&](const KeyBlock& block) {
      f(block, done * panel.width);
      done += block.count;
    });
  }
};

void pack(const Pass& pass) {
  const Panel& panel = pass.panel;
  const AttentionJob& job = panel.job;
  const int64_t width = panel.width;
  pack_queries(panel, pass.sequence.offset, pass.row);
  std::fill_n(pass.given, job.v_size * width, 0.0f);
  std::fill_n(pass.given_rows, width * pass.v_width, 0.0f);
  std::fill_n(pass.query_rows, width * pass.k_width, 0.0f);
  std::fill_n(pass.query_sums, job.k_size * width, 0.0f);
  for (int64_t lane = 0; lane < panel.rows; ++lane) {
    fetch_query(panel, pass.cotangents.result, lane + kRowsAhead);
    const Left from = float_rows(pass.cotangents.result, panel.b, panel.head_of(lane),
                                 panel.query_of(lane), 1, pass.row);
    for (int64_t i = 0; i < job.v_size; ++i)
      pass.given[i * width + lane] = pass.given_rows[lane * pass.v_width + i] = from.data[i];
    for (int64_t i = 0; i < job.k_size; ++i)
      pass.query_rows[lane * pass.k_width + i] = panel.queries[i * width + lane];
  }
}

// Softmax over the `count` keys seen, and the derivative of it: dS from dP.
void normalize(const Pass& pass, int64_t count) {
  const F32 d;
  const int64_t width = pass.panel.width;
  for (int64_t lane = 0; lane < width; lane += kLanes) {
    float* weights = pass.weights + lane;
    const auto largest = largest_score(d, hn::Set(d, kMinusInfinity), weights, width, count);
    const auto total = weigh_scores(d, finite_base(d, largest), weights, width, count);
    const auto nothing = hn::Eq(total, hn::Zero(d));
    const auto factor = hn::IfThenZeroElse(nothing, hn::Div(hn::Set(d, 1.0f), total));
    for (int64_t key = 0; key < count; ++key) {
      float* p = weights + key * width;
      hn::StoreU(hn::Mul(hn::LoadU(d, p), factor), d, p);
    }
  }
}

void differentiate(const Pass& pass, int64_t count) {
  const F32 d;
  const int64_t width = pass.panel.width;
  for (int64_t lane = 0; lane < width; lane += kLanes) {
    const float *weights = pass.weights + lane, *slopes = pass.slopes + lane;
    float* scores = pass.scores + lane;
    auto mean = hn::Zero(d);
    for (int64_t i = 0; i < count * width; i += width)
      mean = hn::MulAdd(hn::LoadU(d, weights + i), hn::LoadU(d, scores + i), mean);
    for (int64_t i = 0; i < count * width; i += width) {
      auto slope = hn::Mul(hn::LoadU(d, weights + i), hn::Sub(hn::LoadU(d, scores + i), mean));
      if (pass.slopes) slope = hn::Mul(slope, hn::LoadU(d, slopes + i));
      hn::StoreU(slope, d, scores + i);
    }
  }
}

void add_panel(const Pass& pass) {
  const Panel& panel = pass.panel;
  const AttentionJob& job = panel.job;
  const int64_t width = panel.width, b = panel.b;
  pack(pass);
  int64_t count = 0;
  pass.for_each([&](const KeyBlock& block, int64_t at) {
    score_block(panel, block, pass.keys_of(block), pass.weights + at,
                pass.slopes ? pass.slopes + at : nullptr);
    multiply<Side::AsStored>(block.count, width, job.v_size, pass.values_of(block),
                             {pass.given, width}, {pass.scores + at, width}, false);
    count += block.count;
  });
  normalize(pass, count);
  differentiate(pass, count);
  pass.for_each([&](const KeyBlock& block, int64_t at) {
    multiply<Side::Transposed>(job.k_size, width, block.count, pass.keys_of(block),
                               {pass.scores + at, width}, {pass.query_sums, width}, true);
    multiply<Side::AsStored>(block.count, job.k_size, width, {pass.scores + at, width},
                             {pass.query_rows, pass.k_width},
                             {pass.k_sums + block.begin * pass.k_width, pass.k_width}, true);
    multiply<Side::AsStored>(block.count, job.v_size, width, {pass.weights + at, width},
                             {pass.given_rows, pass.v_width},
                             {pass.v_sums + block.begin * pass.v_width, pass.v_width}, true);
  });
  const float scale = static_cast<float>(job.params->scale);
  for (int64_t lane = 0; lane < panel.rows; ++lane) {
    for (int64_t i = 0; i < job.k_size; ++i)
      pass.row[i] = pass.query_sums[i * width + lane] * scale;
    store_row(
        pass.row, job.k_size, pass.cotangents.q,
        AttentionJob::offset_of(pass.cotangents.q, b, panel.head_of(lane), panel.query_of(lane)));
  }
}

// All query rows of key head g of sequence b. `sums`: [slots][sums_width] floats.
void backward_head(const AttentionJob& job, const AttentionCotangents& cotangents, int64_t b,
                   int64_t g, float* sums) {
  const int64_t k_width = padded_to_lanes(job.k_size), v_width = padded_to_lanes(job.v_size);
  const int64_t longest = std::max(k_width, v_width), matrix = job.slots * kPanelLanes;
  const int matrices = job.params->softcap > 0 ? 3 : 2;
  const bool whole = job.slots <= kWholeSlots;
  const int64_t slots_at_once = whole ? job.slots : kBlockKeys;
  Scratch scratch(matrices * Scratch::padded(matrix) + Scratch::padded(longest) +
                  Scratch::padded(slots_at_once * job.k_size) +
                  Scratch::padded(slots_at_once * job.v_size) +
                  Scratch::padded(kPanelLanes) * (3 * k_width + 2 * v_width + 1));
  std::fill_n(sums, job.slots * sums_width(job), 0.0f);
  Pass pass{{job, b, g, 0, 0, 0, scratch.take(job.k_size * kPanelLanes),
             reinterpret_cast<int32_t*>(scratch.take(kPanelLanes))},
            cotangents,
            job.sequence(b),
            k_width,
            v_width,
            {},
            {},
            scratch.take(slots_at_once * job.k_size),
            scratch.take(slots_at_once * job.v_size),
            scratch.take(longest),
            scratch.take(matrix),
            matrices == 3 ? scratch.take(matrix) : nullptr,
            scratch.take(matrix),
            scratch.take(job.v_size * kPanelLanes),
            scratch.take(kPanelLanes * v_width),
            scratch.take(kPanelLanes * k_width),
            scratch.take(job.k_size * kPanelLanes),
            sums,
            sums + job.slots * k_width};
  if (whole) {
    pass.keys = float_rows(job.k, b, g, 0, job.slots, pass.key_rows);
    pass.values = float_rows(job.v, b, g, 0, job.slots, pass.value_rows);
  }
  for (int64_t first = 0; first < job.rows(); first += kPanelLanes) {
    pass.panel.first = first;
    pass.panel.rows = std::min(kPanelLanes, job.rows() - first);
    pass.panel.width = padded_to_lanes(pass.panel.rows);
    add_panel(pass);
  }
  for (int64_t slot = 0; slot < job.slots; ++slot) {
    store_row(pass.k_sums + slot * k_width, job.k_size, cotangents.k,
              AttentionJob::offset_of(cotangents.k, b, g, slot));
    store_row(pass.v_sums + slot * v_width, job.v_size, cotangents.v,
              AttentionJob::offset_of(cotangents.v, b, g, slot));
  }
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace mica::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace mica::cpu {
namespace {
HWY_EXPORT(sums_width);
HWY_EXPORT(backward_head);
}  // namespace

size_t attention_backward_workspace(const AttentionJob& job) {
  return static_cast<size_t>(job.batch * job.kv_heads * job.slots *
                             HWY_DYNAMIC_DISPATCH(sums_width)(job)) *
         sizeof(float);
}

void attention_backward(const AttentionJob& job, const AttentionCotangents& cotangents,
                        std::span<std::byte> workspace) {
  if (multiplies_pairs(job)) return attention_backward_pairs(job, cotangents, workspace);
  const int64_t size = job.slots * HWY_DYNAMIC_DISPATCH(sums_width)(job);
  auto* sums = reinterpret_cast<float*>(workspace.data());
  ThreadPool::shared().parallel_for(job.batch * job.kv_heads, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) HWY_DYNAMIC_DISPATCH(backward_head)
    (job, cotangents, i / job.kv_heads, i % job.kv_heads, sums + i * size);
  });
}

}  // namespace mica::cpu
#endif
