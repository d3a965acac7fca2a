// Attention of many query rows: blocks of rows against blocks of keys, with a running maximum and
// sum for each row (flash attention). A task is one block of rows; it owns its rows of the result.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backends/cpu/attention_prefill.cc"
#include <algorithm>
#include <array>
#include <optional>

#include "backends/cpu/highway_targets.h"

#include <hwy/foreach_target.h>

#include "backends/cpu/attention.h"
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
  float* largest;  // [width]
  float* total;    // [width]: sum of the weights
};

// Turns a block's scores into weights, relative to the largest so far; what was summed before is
// rescaled.
void weigh(const Running& running, int64_t count, float* scores) {
  const F32 d;
  const int64_t width = running.panel.width, v_size = running.panel.job.v_size;
  for (int64_t lane = 0; lane < width; lane += kLanes) {
    const auto before = hn::LoadU(d, running.largest + lane);
    const auto largest = largest_score(d, before, scores + lane, width, count);
    const auto base = finite_base(d, largest);
    const auto factor = exp_negative(d, hn::Sub(before, base));
    const auto sum = weigh_scores(d, base, scores + lane, width, count);
    const auto total = hn::MulAdd(hn::LoadU(d, running.total + lane), factor, sum);
    hn::StoreU(total, d, running.total + lane);
    hn::StoreU(largest, d, running.largest + lane);
    if (hn::AllTrue(d, hn::Eq(factor, hn::Set(d, 1.0f)))) continue;
    for (int64_t i = 0; i < v_size; ++i) {
      float* p = running.sums + i * width + lane;
      hn::StoreU(hn::Mul(hn::LoadU(d, p), factor), d, p);
    }
  }
}

// Rows that saw nothing are zeros. `row` takes one row.
void store_rows(const Running& running, float* row) {
  const Panel& panel = running.panel;
  const AttentionJob& job = panel.job;
  for (int64_t lane = 0; lane < panel.rows; ++lane) {
    const float factor = running.total[lane] == 0 ? 0 : 1 / running.total[lane];
    for (int64_t i = 0; i < job.v_size; ++i) row[i] = running.sums[i * panel.width + lane] * factor;
    store_row(row, job.v_size, job.out,
              AttentionJob::offset_of(job.out, panel.b, panel.head_of(lane), panel.query_of(lane)));
  }
}

Running make_panel(const AttentionJob& job, int64_t b, int64_t g, int64_t first, int64_t rows,
                   int64_t offset, Scratch& scratch, float* row) {
  const int64_t width = padded_to_lanes(rows);
  float* queries = scratch.take(job.k_size * width);
  auto* positions = reinterpret_cast<int32_t*>(scratch.take(width));
  Running running{{job, b, g, first, rows, width, queries, positions},
                  scratch.take(job.v_size * width),
                  scratch.take(width),
                  scratch.take(width)};
  pack_queries(running.panel, offset, row);
  std::fill_n(running.sums, job.v_size * width, 0.0f);
  std::fill_n(running.largest, width, kMinusInfinity);
  std::fill_n(running.total, width, 0.0f);
  return running;
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

int64_t prefill_block_rows() { return kBlockRows; }

// Rows first … first + count - 1 of key head g of sequence b.
void prefill_block(const AttentionJob& job, int64_t b, int64_t g, int64_t first, int64_t count) {
  const int64_t longest = padded_to_lanes(std::max(job.k_size, job.v_size));
  Scratch scratch(Scratch::padded(kBlockKeys * job.k_size) +
                  Scratch::padded(kBlockKeys * job.v_size) +
                  Scratch::padded(kBlockKeys * kPanelLanes) + Scratch::padded(longest) +
                  kBlockPanels * Scratch::padded(kPanelLanes) * (job.k_size + job.v_size + 3));
  float* keys = scratch.take(kBlockKeys * job.k_size);
  float* values = scratch.take(kBlockKeys * job.v_size);
  float* scores = scratch.take(kBlockKeys * kPanelLanes);
  float* row = scratch.take(longest);
  const Sequence sequence = job.sequence(b);
  std::array<std::optional<Running>, kBlockPanels> panels;
  for (int64_t row0 = 0, i = 0; row0 < count; row0 += kPanelLanes, ++i)
    panels[static_cast<size_t>(i)].emplace(make_panel(job, b, g, first + row0,
                                                      std::min(kPanelLanes, count - row0),
                                                      sequence.offset, scratch, row));
  const int64_t oldest = sequence.offset + first / job.ratio;
  const int64_t newest = sequence.offset + (first + count - 1) / job.ratio;
  for_each_block(job, sequence, oldest, newest, kBlockKeys, [&](const KeyBlock& block) {
    const Left k = float_rows(job.k, b, g, block.begin, block.count, keys);
    const Left v = float_rows(job.v, b, g, block.begin, block.count, values);
    for (const auto& panel : panels) {
      if (!panel) continue;
      const Running& running = *panel;
      const int64_t width = running.panel.width;
      const KeyBlock own = seen_by_panel(running.panel, sequence.offset, block);
      if (own.count <= 0) continue;
      const int64_t skipped = own.begin - block.begin;
      score_block(running.panel, own, {k.data + skipped * k.stride, k.stride}, scores, nullptr);
      weigh(running, own.count, scores);
      multiply<Side::Transposed>(job.v_size, width, own.count,
                                 {v.data + skipped * v.stride, v.stride}, {scores, width},
                                 {running.sums, width}, true);
    }
  });
  for (const auto& panel : panels)
    if (panel) store_rows(*panel, row);
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
  ThreadPool::shared().parallel_for(heads * blocks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      // Late blocks see the most keys under a causal mask: they go first.
      const int64_t head = i % heads, first = (blocks - 1 - i / heads) * step;
      HWY_DYNAMIC_DISPATCH(prefill_block)
      (job, head / job.kv_heads, head % job.kv_heads, first, std::min(step, job.rows() - first));
    }
  });
}

}  // namespace mica::cpu
#endif
