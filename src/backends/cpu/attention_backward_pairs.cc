// Derivatives of attention of bfloat16 inputs, products adding pairs of numbers. As in
// attention_backward.cc a task is one key head, whose cotangents no other task touches, and walks
// over panels of its query rows. Weights and cotangents of scores are rounded to bfloat16 for the
// products with them: a cotangent errs by 2^-8 times the sum of its terms' magnitudes at most (and
// what float32 errs by) before it is rounded itself.
//
// Panels are walked over in groups, as many as leave the group's rounded weights in the
// second-level cache: what keys and values get from a group is one product over all its rows.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backends/cpu/attention_backward_pairs.cc"
#include <algorithm>

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

#if MICA_PAIRS

constexpr int64_t kBlockKeys = 128;
// Keys of this many slots are packed once for all panels.
constexpr int64_t kWholeSlots = 512;
// Weights and cotangents of scores of a group.
constexpr int64_t kGroupBytes = 512 << 10;
// Slots that a group is multiplied for at a time: so few that little is multiplied that a causal
// mask hides, whole tiles of products.
constexpr int64_t kChunk = 16;

// Scratch of one key head. Matrices over keys are [keys seen][width], keys in the order of the
// blocks, each of which takes an even number of rows.
struct Pass {
  const AttentionJob& job;
  const AttentionCotangents& cotangents;
  int64_t b, g;
  Sequence sequence;
  int64_t group_places = 0;             // pairs of a group's lanes
  Left all_keys = {}, all_values = {};  // of all slots; without data where there are too many
  Left all_across = {};  // keys as pairs of neighbours, of a first run that begins at slot 0
  float *key_rows = nullptr, *value_rows = nullptr, *key_pairs = nullptr, *block_pairs = nullptr;
  // Of a panel: pairs along its rows, in columns.
  float *queries = nullptr, *given = nullptr;
  int32_t* positions = nullptr;
  int64_t* vector_positions = nullptr;
  // Of a group: pairs of neighbouring rows.
  float *query_pairs = nullptr, *given_pairs = nullptr;
  // Of a panel; slopes of a soft cap only.
  float *weights = nullptr, *scores = nullptr, *slopes = nullptr;
  // [slots][group_places]: rounded.
  float *group_weights = nullptr, *group_scores = nullptr;
  float *query_sums = nullptr, *rows = nullptr;
  // [slots][k_size or v_size rounded up to vectors], of the key head.
  float *k_sums = nullptr, *v_sums = nullptr;

  static int64_t panels_of_group(const AttentionJob& job) {
    const int64_t fit = kGroupBytes / (std::max<int64_t>(job.slots, 1) * kPanelLanes * 4);
    const int64_t panels = (job.rows() + kPanelLanes - 1) / kPanelLanes;
    return std::max<int64_t>(1, std::min(fit, panels));
  }
  int64_t k_places() const { return pair_places(job.k_size); }
  int64_t v_places() const { return pair_places(job.v_size); }

  Left keys_of(const KeyBlock& block) const { return along(all_keys, job.k, block, key_rows); }
  Left values_of(const KeyBlock& block) const {
    return along(all_values, job.v, block, value_rows);
  }
  Left along(const Left& all, const View& view, const KeyBlock& block, float* buffer) const {
    if (all.data) return {all.data + block.begin * all.stride, all.stride};
    return pairs_along(view, b, g, block.begin, block.count, buffer);
  }
  // The keys of a block in pairs; beside the last of an odd number are zeros.
  Left keys_across(const KeyBlock& block) const {
    const bool ends = block.count % 2 == 0 || block.begin + block.count == sequence.runs[0].end;
    if (all_across.data && block.begin % 2 == 0 && ends)
      return {all_across.data + block.begin / 2 * all_across.stride, all_across.stride};
    return pairs_across(job.k, b, g, block.begin, block.count, block_pairs);
  }

  template <class F>
  void for_each(const Panel& panel, F&& f) const {
    int64_t done = 0;
    for_each_block(job, sequence, positions[0], positions[panel.rows - 1], kBlockKeys,
                   [&](const KeyBlock& block) {
                     f(block, done);
                     done += (block.count + 1) / 2 * 2;
                   });
  }
};

// Weights of a panel and the derivative of softmax, kVectors of lanes at once.
template <int kVectors>
struct Softmax {
  static constexpr int64_t kWidth = kVectors * kLanes;
  VF32 factor[kVectors];  // 1 / sum of the weights
  VF32 mean[kVectors];    // of the weights' cotangents, by weights

  // `weights`: scores of `count` keys, still to be multiplied by `scale`; weights take their place,
  // not yet multiplied by `factor`. `scores`: cotangents of the weights.
  void weigh(float* weights, const float* scores, int64_t count, float scale) {
    const F32 d;
    const auto to_powers = hn::Set(d, scale * kLog2E);
    VF32 base[kVectors], sums[kVectors], means[kVectors];
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      sums[v] = means[v] = hn::Zero(d);
      base[v] = largest_score(d, hn::Set(d, kMinusInfinity), weights + v * kLanes, kWidth, count);
      base[v] = finite_base(d, hn::Mul(base[v], to_powers));
    }
    for (int64_t i = 0; i < count * kWidth; i += kWidth)
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) {
        float* p = weights + i + v * kLanes;
        const auto w = power_of_two(d, hn::MulSub(hn::LoadU(d, p), to_powers, base[v]));
        hn::StoreU(w, d, p);
        sums[v] = hn::Add(sums[v], w);
        means[v] = hn::MulAdd(w, hn::LoadU(d, scores + i + v * kLanes), means[v]);
      }
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      const auto nothing = hn::Eq(sums[v], hn::Zero(d));
      factor[v] = hn::IfThenZeroElse(nothing, hn::Div(hn::Set(d, 1.0f), sums[v]));
      mean[v] = hn::Mul(means[v], factor[v]);
    }
  }

  // Of two keys: rounded weights to rows weight_rows[0] and [1], cotangents of the scores to those
  // of score_rows and, as pairs, to `pairs`.
  HWY_INLINE void round(const float* weights, const float* scores, const float* slopes,
                        float* const (&weight_rows)[2], float* const (&score_rows)[2],
                        float* pairs) const {
    const F32 d;
    VF32 p[2][kVectors], ds[2][kVectors];
#pragma GCC unroll 2
    for (int i = 0; i < 2; ++i)
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) {
        const int64_t at = i * kWidth + v * kLanes;
        p[i][v] = hn::Mul(hn::LoadU(d, weights + at), factor[v]);
        ds[i][v] = hn::Mul(p[i][v], hn::Sub(hn::LoadU(d, scores + at), mean[v]));
        if (slopes) ds[i][v] = hn::Mul(ds[i][v], hn::LoadU(d, slopes + at));
      }
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      store_halves(rounded_halves(p[0][v], p[1][v]), v, weight_rows);
      const VF32 both = rounded_halves(ds[0][v], ds[1][v]);
      store_halves(both, v, score_rows);
      hn::StoreU(paired_halves(both), d, pairs + v * kLanes);
    }
  }

 private:
  static HWY_INLINE void store_halves(VF32 both, int v, float* const (&rows)[2]) {
    const __m512i bits = _mm512_castps_si512(both.raw);
    auto to = [&](int i) { return reinterpret_cast<__m256i*>(rows[i] + v * kLanes / 2); };
    _mm256_storeu_si256(to(0), _mm512_castsi512_si256(bits));
    _mm256_storeu_si256(to(1), _mm512_extracti64x4_epi64(bits, 1));
  }
};

// Rounded weights and cotangents of scores, of all blocks of the panel whose lanes begin at pair
// `place` of the group.
template <int kVectors>
void differentiate(const Pass& pass, const Panel& panel, int64_t place, int64_t count,
                   float scale) {
  constexpr int64_t kWidth = kVectors * kLanes;
  Softmax<kVectors> softmax;
  softmax.weigh(pass.weights, pass.scores, count, scale);
  alignas(64) float unused[kPanelLanes / 2];
  pass.for_each(panel, [&](const KeyBlock& block, int64_t at) {
    for (int64_t key = 0; key < block.count; key += 2) {
      const int64_t row = (block.begin + key) * pass.group_places + place;
      const bool two = key + 1 < block.count;
      float* weight = pass.group_weights + row;
      float* score = pass.group_scores + row;
      const int64_t from = (at + key) * kWidth;
      softmax.round(pass.weights + from, pass.scores + from,
                    pass.slopes ? pass.slopes + from : nullptr,
                    {weight, two ? weight + pass.group_places : unused},
                    {score, two ? score + pass.group_places : unused}, pass.scores + from / 2);
    }
  });
}

// Rows of the group's matrices that chunks of the panel read beside those of keys it sees.
void clear_around(const Pass& pass, const Panel& panel, int64_t place) {
  const int64_t oldest = pass.positions[0], newest = pass.positions[panel.rows - 1];
  auto clear = [&](int64_t begin, int64_t end) {
    for (int64_t slot = begin; slot < end; ++slot)
      for (float* matrix : {pass.group_weights, pass.group_scores})
        std::fill_n(matrix + slot * pass.group_places + place, panel.width / 2, 0.0f);
  };
  for (const KeyRun& run : pass.sequence.runs) {
    const KeyRun any = pass.job.seen_by_any(run, oldest, newest);
    if (any.begin >= any.end) continue;
    clear(any.begin / kChunk * kChunk, any.begin);
    clear(any.end, std::min((any.end + kChunk - 1) / kChunk * kChunk, pass.job.slots));
  }
}

// Cotangents of a panel's queries, and what keys and values need of it.
void add_panel(const Pass& pass, const Panel& panel, int64_t place) {
  const F32 d;
  const AttentionJob& job = pass.job;
  const View& given = pass.cotangents.result;
  const int64_t width = panel.width;
  pack_pairs(panel, job.q, panel.queries);
  pack_pairs(panel, given, pass.given);
  place_queries(panel, pass.sequence.offset);
  pack_pairs_across(panel, job.q, pass.query_pairs + place * 2 * pass.k_places(),
                    2 * pass.k_places());
  pack_pairs_across(panel, given, pass.given_pairs + place * 2 * pass.v_places(),
                    2 * pass.v_places());
  clear_around(pass, panel, place);
  int64_t count = 0;
  float scale = 1;
  pass.for_each(panel, [&](const KeyBlock& block, int64_t at) {
    float *weights = pass.weights + at * width, *scores = pass.scores + at * width;
    scale = score_pairs(panel, block, pass.keys_of(block), weights,
                        pass.slopes ? pass.slopes + at * width : nullptr);
    multiply<Side::AsStored, Operands::Pairs>(block.count, width, (job.v_size + 1) / 2,
                                              pass.values_of(block), {pass.given, width},
                                              {scores, width}, false);
    if (block.count % 2 != 0) {
      std::fill_n(weights + block.count * width, width, kMinusInfinity);
      std::fill_n(scores + block.count * width, width, 0.0f);
    }
    count = at + (block.count + 1) / 2 * 2;
  });
  if (width == 3 * kLanes)
    differentiate<3>(pass, panel, place, count, scale);
  else if (width == 2 * kLanes)
    differentiate<2>(pass, panel, place, count, scale);
  else
    differentiate<1>(pass, panel, place, count, scale);
  std::fill_n(pass.query_sums, padded_to_lanes(job.k_size) * width, 0.0f);
  pass.for_each(panel, [&](const KeyBlock& block, int64_t at) {
    multiply<Side::Transposed, Operands::Pairs>(
        job.k_size, width, (block.count + 1) / 2, pass.keys_across(block),
        {pass.scores + at / 2 * width, width}, {pass.query_sums, width}, true);
  });
  const int64_t stride = padded_to_lanes(job.k_size);
  const auto factor = hn::Set(d, static_cast<float>(job.params->scale));
  for (int64_t lane = 0; lane < panel.rows; lane += kLanes) {
    columns_to_rows(pass.query_sums + lane, width, job.k_size, factor, pass.rows, stride);
    for (int64_t i = 0; i < std::min(kLanes, panel.rows - lane); ++i)
      store_row(pass.rows + i * stride, job.k_size, pass.cotangents.q,
                AttentionJob::offset_of(pass.cotangents.q, pass.b, panel.head_of(lane + i),
                                        panel.query_of(lane + i)));
  }
}
// What rows of a group give to the cotangents of `count` keys and values from a slot on: those of
// vectors begin … end - 1.
void add_to_keys(const Pass& pass, int64_t slot, int64_t count, int64_t begin, int64_t end,
                 bool accumulate) {
  const AttentionJob& job = pass.job;
  const int64_t places = pass.group_places, place = begin * kLanes / 2;
  const int64_t inner = (end - begin) * kLanes / 2;
  const int64_t k_stride = 2 * pass.k_places(), v_stride = 2 * pass.v_places();
  const int64_t k_width = padded_to_lanes(job.k_size), v_width = padded_to_lanes(job.v_size);
  multiply<Side::AsStored, Operands::Pairs>(count, job.k_size, inner,
                                            {pass.group_scores + slot * places + place, places},
                                            {pass.query_pairs + place * k_stride, k_stride},
                                            {pass.k_sums + slot * k_width, k_width}, accumulate);
  multiply<Side::AsStored, Operands::Pairs>(count, job.v_size, inner,
                                            {pass.group_weights + slot * places + place, places},
                                            {pass.given_pairs + place * v_stride, v_stride},
                                            {pass.v_sums + slot * v_width, v_width}, accumulate);
}

void clear_sums(const Pass& pass, int64_t slot, int64_t count) {
  const int64_t k_width = padded_to_lanes(pass.job.k_size);
  const int64_t v_width = padded_to_lanes(pass.job.v_size);
  std::fill_n(pass.k_sums + slot * k_width, count * k_width, 0.0f);
  std::fill_n(pass.v_sums + slot * v_width, count * v_width, 0.0f);
}

// Positions of the oldest and the newest row of each vector of a group.
void place_vectors(const Pass& pass, int64_t first, int64_t count) {
  for (int64_t lane = 0; lane < count; lane += kLanes) {
    const int64_t last = std::min(lane + kLanes, count) - 1;
    int64_t* to = pass.vector_positions + lane / kLanes * 2;
    to[0] = pass.sequence.offset + (first + lane) / pass.job.ratio;
    to[1] = pass.sequence.offset + (first + last) / pass.job.ratio;
  }
}

bool sees(const Pass& pass, int64_t vector, int64_t slot, int64_t end) {
  const int64_t* positions = pass.vector_positions + vector * 2;
  for (const KeyRun& run : pass.sequence.runs) {
    const KeyRun any = pass.job.seen_by_any(run, positions[0], positions[1]);
    if (std::max(any.begin, slot) < std::min(any.end, end)) return true;
  }
  return false;
}

// Rows first … first + count - 1 of the key head.
void add_group(Pass& pass, int64_t first, int64_t count) {
  const AttentionJob& job = pass.job;
  pass.group_places = padded_to_lanes(count) / 2;
  for (int64_t at = 0; at < count; at += kPanelLanes) {
    const int64_t rows = std::min(kPanelLanes, count - at);
    const Panel panel{job,          pass.b,        pass.g, first + at, rows, padded_to_lanes(rows),
                      pass.queries, pass.positions};
    add_panel(pass, panel, at / 2);
  }
  place_vectors(pass, first, count);
  const int64_t vectors = padded_to_lanes(count) / kLanes;
  for (int64_t slot = 0; slot < job.slots; slot += kChunk) {
    const int64_t keys = std::min(kChunk, job.slots - slot);
    bool accumulate = first > 0;
    for (int64_t v = 0; v < vectors; ++v) {
      int64_t end = v;
      while (end < vectors && sees(pass, end, slot, slot + keys)) ++end;
      if (end == v) continue;
      add_to_keys(pass, slot, keys, v, end, accumulate);
      accumulate = true;
      v = end;
    }
    if (!accumulate) clear_sums(pass, slot, keys);
  }
}

// Keys and values of all slots, for all panels.
void prepare_whole(Pass& pass) {
  const AttentionJob& job = pass.job;
  const KeyRun& run = pass.sequence.runs[0];
  pass.all_keys = pairs_along(job.k, pass.b, pass.g, 0, job.slots, pass.key_rows);
  pass.all_values = pairs_along(job.v, pass.b, pass.g, 0, job.slots, pass.value_rows);
  if (run.begin == 0 && run.end > 0)
    pass.all_across = pairs_across(job.k, pass.b, pass.g, 0, run.end, pass.key_pairs);
}

void store_sums(const Pass& pass) {
  const F32 d;
  const AttentionJob& job = pass.job;
  const int64_t k_width = padded_to_lanes(job.k_size), v_width = padded_to_lanes(job.v_size);
  const auto scale = hn::Set(d, static_cast<float>(job.params->scale));
  for (int64_t slot = 0; slot < job.slots; ++slot) {
    float* k = pass.k_sums + slot * k_width;
    for (int64_t i = 0; i < k_width; i += kLanes)
      hn::StoreU(hn::Mul(hn::LoadU(d, k + i), scale), d, k + i);
    store_row(k, job.k_size, pass.cotangents.k,
              AttentionJob::offset_of(pass.cotangents.k, pass.b, pass.g, slot));
    store_row(pass.v_sums + slot * v_width, job.v_size, pass.cotangents.v,
              AttentionJob::offset_of(pass.cotangents.v, pass.b, pass.g, slot));
  }
}

// All query rows of key head g of sequence b. `sums`: [slots][sums_width] floats.
void backward_head(const AttentionJob& job, const AttentionCotangents& cotangents, int64_t b,
                   int64_t g, float* sums) {
  Pass pass{.job = job, .cotangents = cotangents, .b = b, .g = g, .sequence = job.sequence(b)};
  const int64_t k_places = pass.k_places(), v_places = pass.v_places();
  const int64_t k_width = padded_to_lanes(job.k_size), matrix = (job.slots + 2) * kPanelLanes;
  const bool whole = job.slots <= kWholeSlots, has_slopes = job.params->softcap > 0;
  const int64_t at_once = whole ? job.slots : kBlockKeys;
  const int64_t group_rows = Pass::panels_of_group(job) * kPanelLanes;
  const int64_t group = job.slots * group_rows / 2;
  struct Piece {
    float** to;
    int64_t size;
  };
  float *positions = nullptr, *vector_positions = nullptr;
  const Piece pieces[] = {{&pass.key_rows, at_once * k_places},
                          {&pass.value_rows, at_once * v_places},
                          {&pass.key_pairs, (at_once + 1) * k_places},
                          {&pass.block_pairs, kBlockKeys * k_places},
                          {&pass.queries, k_places * kPanelLanes},
                          {&pass.given, v_places * kPanelLanes},
                          {&positions, kPanelLanes},
                          {&vector_positions, group_rows / kLanes * 4},
                          {&pass.query_pairs, group_rows * k_places},
                          {&pass.given_pairs, group_rows * v_places},
                          {&pass.weights, matrix},
                          {&pass.scores, matrix},
                          {&pass.slopes, has_slopes ? matrix : 0},
                          {&pass.group_weights, group},
                          {&pass.group_scores, group},
                          {&pass.query_sums, k_width * kPanelLanes},
                          {&pass.rows, kLanes * k_width}};
  int64_t floats = 0;
  for (const Piece& piece : pieces) floats += Scratch::padded(piece.size);
  Scratch scratch(floats);
  for (const Piece& piece : pieces) *piece.to = scratch.take(piece.size);
  pass.positions = reinterpret_cast<int32_t*>(positions);
  pass.vector_positions = reinterpret_cast<int64_t*>(vector_positions);
  if (!has_slopes) pass.slopes = nullptr;
  pass.k_sums = sums;
  pass.v_sums = sums + job.slots * k_width;
  if (job.rows() == 0) clear_sums(pass, 0, job.slots);
  if (whole) prepare_whole(pass);
  for (int64_t first = 0; first < job.rows(); first += group_rows)
    add_group(pass, first, std::min(group_rows, job.rows() - first));
  store_sums(pass);
}
#else
void backward_head(const AttentionJob&, const AttentionCotangents&, int64_t, int64_t, float*) {}
#endif

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

void attention_backward_pairs(const AttentionJob& job, const AttentionCotangents& cotangents,
                              std::span<std::byte> workspace) {
  const int64_t size = job.slots * HWY_DYNAMIC_DISPATCH(sums_width)(job);
  auto* sums = reinterpret_cast<float*>(workspace.data());
  ThreadPool::shared().parallel_for(job.batch * job.kv_heads, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) HWY_DYNAMIC_DISPATCH(backward_head)
    (job, cotangents, i / job.kv_heads, i % job.kv_heads, sums + i * size);
  });
}

}  // namespace mica::cpu
#endif
