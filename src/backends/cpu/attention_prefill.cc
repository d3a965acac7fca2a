// Attention of many query rows: blocks of rows against blocks of keys, with a running maximum and
// sum for each row (flash attention). A task is one block of rows; it owns its rows of the result.
//
// Where pairs of bfloat16 numbers are multiplied faster (attention_operands-inl.h), weights are
// rounded to bfloat16 for their product with the values. They are divided by the sum of what they
// were rounded to: a result is a mean of values, and errs by at most 2^-8 times the mean of |value
// - result| (and what float32 scores err by) before it is rounded itself.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backends/cpu/attention_prefill.cc"
#include <algorithm>
#include <array>
#include <optional>

#include "backends/cpu/highway_targets.h"

#include <hwy/foreach_target.h>

#include "backends/cpu/attention.h"
#include "backends/cpu/attention_pairs-inl.h"
#include "backends/cpu/attention_tiles-inl.h"
#include "base/thread_pool.h"

HWY_BEFORE_NAMESPACE();
namespace mica::cpu {
namespace HWY_NAMESPACE {
namespace {

constexpr int kBlockPanels = 4;
constexpr int64_t kBlockRows = kBlockPanels * kPanelLanes;
constexpr int64_t kBlockKeys = 128;

// A panel and what is known of its rows so far.
struct Running {
  Panel panel;
  float* sums;     // [v_size][width]: weighted values
  float* largest;  // [width]: the largest score; of pairs, what weights are relative to
  float* total;    // [width]: sum of the weights
};

// What was summed so far of one lane vector, rescaled.
void rescale(const Running& running, int64_t lane, VF32 factor) {
  const F32 d;
  const int64_t width = running.panel.width;
  if (hn::AllTrue(d, hn::Eq(factor, hn::Set(d, 1.0f)))) return;
  for (int64_t i = 0; i < running.panel.job.v_size; ++i) {
    float* p = running.sums + i * width + lane;
    hn::StoreU(hn::Mul(hn::LoadU(d, p), factor), d, p);
  }
}

// Turns a block's scores into weights, relative to the largest so far; what was summed before is
// rescaled.
void weigh(const Running& running, int64_t count, float* scores) {
  const F32 d;
  const int64_t width = running.panel.width;
  for (int64_t lane = 0; lane < width; lane += kLanes) {
    const auto before = hn::LoadU(d, running.largest + lane);
    const auto largest = largest_score(d, before, scores + lane, width, count);
    const auto base = finite_base(d, largest);
    const auto factor = exp_negative(d, hn::Sub(before, base));
    const auto sum = weigh_scores(d, base, scores + lane, width, count);
    const auto total = hn::MulAdd(hn::LoadU(d, running.total + lane), factor, sum);
    hn::StoreU(total, d, running.total + lane);
    hn::StoreU(largest, d, running.largest + lane);
    rescale(running, lane, factor);
  }
}

// The keys of a block that any row of the panel sees.
KeyBlock seen_by_panel(const Panel& panel, int64_t offset, const KeyBlock& block) {
  const int64_t oldest = offset + panel.query_of(0),
                newest = offset + panel.query_of(panel.rows - 1);
  const KeyRun run{block.begin, block.begin + block.count, block.shift};
  const KeyRun any = panel.job.seen_by_any(run, oldest, newest);
  const KeyRun all = panel.job.seen_by_all(run, oldest, newest);
  return {any.begin, any.end - any.begin, block.shift,
          any.begin >= all.begin && any.end <= all.end};
}

// How blocks are multiplied: as floats, converted where they are not.
struct ByFloats {
  static void pack(const Panel& panel, int64_t offset, float* row) {
    pack_queries(panel, offset, row);
  }
  static Left keys(const View& k, int64_t b, int64_t g, const KeyBlock& block, float* buffer) {
    return float_rows(k, b, g, block.begin, block.count, buffer);
  }
  static Left values(const View& v, int64_t b, int64_t g, const KeyBlock& block, float* buffer) {
    return float_rows(v, b, g, block.begin, block.count, buffer);
  }
  // Adds what the panel sees of a block whose keys and values are given.
  static void add(const Running& running, int64_t offset, const KeyBlock& block, Left k, Left v,
                  float* scores) {
    const Panel& panel = running.panel;
    const KeyBlock own = seen_by_panel(panel, offset, block);
    if (own.count <= 0) return;
    const int64_t skipped = own.begin - block.begin;
    score_block(panel, own, {k.data + skipped * k.stride, k.stride}, scores, nullptr);
    weigh(running, own.count, scores);
    multiply<Side::Transposed>(panel.job.v_size, panel.width, own.count,
                               {v.data + skipped * v.stride, v.stride}, {scores, panel.width},
                               {running.sums, panel.width}, true);
  }
};

#if MICA_PAIRS
// Weights grow to 2 to this power at most before what they are relative to follows.
constexpr float kPowersAbove = 8;

// As weigh(), of scores that are still to be multiplied by `scale`. Weights are powers of two,
// relative to a whole power, so that nothing is rounded when that changes.
void weigh_by_pairs(const Running& running, int64_t count, float scale, float* scores) {
  const F32 d;
  const int64_t width = running.panel.width;
  const auto factor = hn::Set(d, scale * kLog2E);
  const auto none = hn::Set(d, kMinusInfinity);
  for (int64_t lane = 0; lane < width; lane += kLanes) {
    float *base = running.largest + lane, *total = running.total + lane;
    const auto top = hn::Mul(largest_score(d, none, scores + lane, width, count), factor);
    const auto before = hn::LoadU(d, base);
    const auto grown = hn::Gt(top, hn::Add(before, hn::Set(d, kPowersAbove)));
    if (!hn::AllFalse(d, grown)) {
      const auto now = hn::IfThenElse(grown, hn::Ceil(top), before);
      const auto change =
          hn::IfThenElse(grown, power_of_two(d, hn::Sub(before, now)), hn::Set(d, 1.0f));
      hn::StoreU(now, d, base);
      hn::StoreU(hn::Mul(hn::LoadU(d, total), change), d, total);
      rescale(running, lane, change);
    }
    const auto sum =
        weigh_pairs(d, factor, finite_base(d, hn::LoadU(d, base)), scores + lane, width, count);
    hn::StoreU(hn::Add(hn::LoadU(d, total), sum), d, total);
  }
}

// Scores and weighted values by pairs of bfloat16 numbers.
struct ByPairs {
  static void pack(const Panel& panel, int64_t offset, float*) {
    pack_pairs(panel, panel.job.q, panel.queries);
    place_queries(panel, offset);
  }
  static Left keys(const View& k, int64_t b, int64_t g, const KeyBlock& block, float* buffer) {
    return pairs_along(k, b, g, block.begin, block.count, buffer);
  }
  static Left values(const View& v, int64_t b, int64_t g, const KeyBlock& block, float* buffer) {
    return pairs_across(v, b, g, block.begin, block.count, buffer);
  }
  static void add(const Running& running, int64_t offset, const KeyBlock& block, Left k, Left v,
                  float* scores) {
    const Panel& panel = running.panel;
    KeyBlock own = seen_by_panel(panel, offset, block);
    if (own.count <= 0) return;
    if ((own.begin - block.begin) % 2 != 0) {  // pairs of keys begin at even places of the block
      --own.begin, ++own.count;
      own.all_seen = false;
    }
    const int64_t skipped = own.begin - block.begin;
    const float rest =
        score_pairs(panel, own, {k.data + skipped * k.stride, k.stride}, scores, nullptr);
    weigh_by_pairs(running, own.count, rest, scores);
    multiply<Side::Transposed, Operands::Pairs>(panel.job.v_size, panel.width, (own.count + 1) / 2,
                                                {v.data + skipped / 2 * v.stride, v.stride},
                                                {scores, panel.width}, {running.sums, panel.width},
                                                true);
  }
};
#endif

template <class By>
Running make_panel(const AttentionJob& job, int64_t b, int64_t g, int64_t first, int64_t rows,
                   int64_t offset, Scratch& scratch, float* row) {
  const int64_t width = padded_to_lanes(rows), v_size = padded_to_lanes(job.v_size);
  float* queries = scratch.take(padded_to_lanes(job.k_size) * width);
  auto* positions = reinterpret_cast<int32_t*>(scratch.take(width));
  Running running{{job, b, g, first, rows, width, queries, positions},
                  scratch.take(v_size * width),
                  scratch.take(width),
                  scratch.take(width)};
  By::pack(running.panel, offset, row);
  std::fill_n(running.sums, v_size * width, 0.0f);
  std::fill_n(running.largest, width, kMinusInfinity);
  std::fill_n(running.total, width, 0.0f);
  return running;
}

// Rows that saw nothing are zeros. `rows` takes kLanes rows.
void store_rows(const Running& running, float* rows) {
  const F32 d;
  const Panel& panel = running.panel;
  const AttentionJob& job = panel.job;
  const int64_t stride = padded_to_lanes(job.v_size);
  for (int64_t lane = 0; lane < panel.rows; lane += kLanes) {
    const auto total = hn::LoadU(d, running.total + lane);
    const auto nothing = hn::Eq(total, hn::Zero(d));
    const auto factor = hn::IfThenZeroElse(nothing, hn::Div(hn::Set(d, 1.0f), total));
    columns_to_rows(running.sums + lane, panel.width, job.v_size, factor, rows, stride);
    for (int64_t i = 0; i < std::min(kLanes, panel.rows - lane); ++i)
      store_row(rows + i * stride, job.v_size, job.out,
                AttentionJob::offset_of(job.out, panel.b, panel.head_of(lane + i),
                                        panel.query_of(lane + i)));
  }
}

int64_t prefill_block_rows() { return kBlockRows; }

// Rows first … first + count - 1 of key head g of sequence b.
template <class By>
void prefill_rows(const AttentionJob& job, int64_t b, int64_t g, int64_t first, int64_t count) {
  const int64_t k_size = padded_to_lanes(job.k_size), v_size = padded_to_lanes(job.v_size);
  const int64_t rows = kLanes * std::max(k_size, v_size);
  Scratch scratch(Scratch::padded(kBlockKeys * k_size) + Scratch::padded(kBlockKeys * v_size) +
                  Scratch::padded(kBlockKeys * kPanelLanes) + Scratch::padded(rows) +
                  kBlockPanels * Scratch::padded(kPanelLanes) * (k_size + v_size + 3));
  float* keys = scratch.take(kBlockKeys * k_size);
  float* values = scratch.take(kBlockKeys * v_size);
  float* scores = scratch.take(kBlockKeys * kPanelLanes);
  float* some_rows = scratch.take(rows);
  const Sequence sequence = job.sequence(b);
  std::array<std::optional<Running>, kBlockPanels> panels;
  for (int64_t row0 = 0, i = 0; row0 < count; row0 += kPanelLanes, ++i)
    panels[static_cast<size_t>(i)].emplace(make_panel<By>(job, b, g, first + row0,
                                                          std::min(kPanelLanes, count - row0),
                                                          sequence.offset, scratch, some_rows));
  const int64_t oldest = sequence.offset + first / job.ratio;
  const int64_t newest = sequence.offset + (first + count - 1) / job.ratio;
  for_each_block(job, sequence, oldest, newest, kBlockKeys, [&](const KeyBlock& block) {
    const Left k = By::keys(job.k, b, g, block, keys), v = By::values(job.v, b, g, block, values);
    for (const auto& panel : panels)
      if (panel) By::add(*panel, sequence.offset, block, k, v, scores);
  });
  for (const auto& panel : panels)
    if (panel) store_rows(*panel, some_rows);
}

void prefill_block(const AttentionJob& job, int64_t b, int64_t g, int64_t first, int64_t count,
                   [[maybe_unused]] bool by_pairs) {
#if MICA_PAIRS
  if (by_pairs) return prefill_rows<ByPairs>(job, b, g, first, count);
#endif
  prefill_rows<ByFloats>(job, b, g, first, count);
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace mica::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace mica::cpu {
namespace {
HWY_EXPORT(prefill_block_rows);
HWY_EXPORT(prefill_block);
}  // namespace

void attention_prefill(const AttentionJob& job) {
  const int64_t step = HWY_DYNAMIC_DISPATCH(prefill_block_rows)();
  const int64_t blocks = (job.rows() + step - 1) / step, heads = job.batch * job.kv_heads;
  const bool by_pairs = multiplies_pairs(job);
  ThreadPool::shared().parallel_for(heads * blocks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      // Late blocks see the most keys under a causal mask: they go first.
      const int64_t head = i % heads, first = (blocks - 1 - i / heads) * step;
      const int64_t count = std::min(step, job.rows() - first);
      HWY_DYNAMIC_DISPATCH(prefill_block)
      (job, head / job.kv_heads, head % job.kv_heads, first, count, by_pairs);
    }
  });
}

}  // namespace mica::cpu
#endif
