// Attention of few query rows, as in decoding: bound by memory. The slots of a key head are cut
// into chunks; a task takes one chunk, streams its keys and values once for all query rows of the
// head, and leaves their largest score, sum of weights and weighted values, which are combined in
// order at the end. Chunks are multiples of kDecodeSlots, so that results depend on nothing but the
// sequence.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backends/cpu/attention_decode.cc"
#include <algorithm>

#include "backends/cpu/highway_targets.h"

#include <hwy/foreach_target.h>

#include "backends/cpu/attention.h"
#include "backends/cpu/attention_tiles-inl.h"
#include "base/thread_pool.h"

#ifndef MICA_CPU_ATTENTION_DECODE_ONCE
#define MICA_CPU_ATTENTION_DECODE_ONCE
namespace mica::cpu {

// What a chunk leaves of one query row: floats [largest, total, weighted values].
inline int64_t partial_size(const AttentionJob& job) { return job.v_size + 2; }

}  // namespace mica::cpu
#endif

HWY_BEFORE_NAMESPACE();
namespace mica::cpu {
namespace HWY_NAMESPACE {
namespace {

// A chunk's slots are one or two runs (a ring has two ages in one chunk).
struct Task {
  const AttentionJob& job;
  int64_t b, g, rows;
  Sequence sequence;
  KeyRun runs[2];
  float* queries;  // [padded rows][padded k_size], scaled; zeros where padded
  float* scores;   // [padded rows][kDecodeSlots]
};

#if HWY_TARGET != HWY_SCALAR
// The sums of kLanes vectors, as one vector in their order: each step adds the halves of pairs of
// vectors that are half the number apart.
template <int kCount>
HWY_INLINE VF32 sums_of(VF32* v) {
  const F32 d;
  if constexpr (kCount == 1) {
    return v[0];
  } else {
    constexpr int half = kCount / 2;
#pragma GCC unroll 8
    for (int i = 0; i < half; ++i) {
      const VF32 a = v[i], b = v[i + half];
      if constexpr (kCount == 16) {
        v[i] = hn::Add(hn::ConcatLowerLower(d, b, a), hn::ConcatUpperUpper(d, b, a));
      } else if constexpr (kCount == 8 && kLanes == 16) {
        v[i] = hn::Add(hn::OddEvenBlocks(b, a), hn::SwapAdjacentBlocks(hn::OddEvenBlocks(a, b)));
      } else if constexpr (kCount == 8) {
        v[i] = hn::Add(hn::ConcatLowerLower(d, b, a), hn::ConcatUpperUpper(d, b, a));
      } else if constexpr (kCount == 4) {
        const hn::Repartition<double, F32> dd;
        const auto wide_a = hn::BitCast(dd, a), wide_b = hn::BitCast(dd, b);
        v[i] = hn::Add(hn::BitCast(d, hn::InterleaveLower(dd, wide_a, wide_b)),
                       hn::BitCast(d, hn::InterleaveUpper(dd, wide_a, wide_b)));
      } else {
        v[i] = hn::Add(hn::OddEven(b, a), hn::Shuffle2301(hn::OddEven(a, b)));
      }
    }
    return sums_of<half>(v);
  }
}
#else
template <int kCount>
HWY_INLINE VF32 sums_of(VF32* v) {
  return v[0];
}
#endif

// Scores of kKeys keys (those beyond `count` repeat the last) with kRows query rows.
template <int kRows, class T>
HWY_INLINE void score_keys(const T* keys, int64_t stride, int64_t count, const float* queries,
                           int64_t size, float* scores) {
  constexpr int kKeys = static_cast<int>(kLanes) / kRows;
  const F32 d;
  const int64_t query_stride = padded_to_lanes(size);
  const T* key[kKeys];
  for (int j = 0; j < kKeys; ++j) key[j] = keys + std::min<int64_t>(j, count - 1) * stride;
  // A few keys at a time, so that memory is read nearly in order: hardware follows few streams.
  constexpr int kMost = sizeof(T) == 4 ? 1 : 4, kTogether = kKeys < kMost ? kKeys : kMost;
  VF32 sums[kRows * kKeys];
  for (int first = 0; first < kKeys; first += kTogether) {
    VF32 part[kRows][kTogether];
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 4
      for (int j = 0; j < kTogether; ++j) part[r][j] = hn::Zero(d);
    const auto add = [&](int64_t k, auto&& load_key) {
      VF32 row[kRows];
#pragma GCC unroll 8
      for (int r = 0; r < kRows; ++r) row[r] = hn::LoadU(d, queries + r * query_stride + k);
#pragma GCC unroll 4
      for (int j = 0; j < kTogether; ++j) {
        const VF32 x = load_key(key[first + j] + k);
#pragma GCC unroll 8
        for (int r = 0; r < kRows; ++r) part[r][j] = hn::MulAdd(x, row[r], part[r][j]);
      }
    };
    int64_t k = 0;
    for (; k + kLanes <= size; k += kLanes) add(k, [&](const T* p) { return load(d, p); });
    if (k < size)
      add(k, [&](const T* p) { return load_part(d, p, static_cast<size_t>(size - k)); });
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 4
      for (int j = 0; j < kTogether; ++j) sums[r * kKeys + first + j] = part[r][j];
  }
  HWY_ALIGN float result[kLanes];
  hn::Store(sums_of<static_cast<int>(kLanes)>(sums), d, result);
  for (int r = 0; r < kRows; ++r)
    std::copy_n(result + r * kKeys, std::min<int64_t>(kKeys, count), scores + r * kDecodeSlots);
}

// Scores of a run of keys, from `scores` on in every row.
template <int kRows, class T>
void score_run(const Task& task, const KeyRun& run, int64_t first_row, float* scores) {
  constexpr int64_t kKeys = kLanes / kRows;
  const View& k = task.job.k;
  const int64_t stride = k.strides[2], size = task.job.k_size;
  const T* keys = k.as<T>() + AttentionJob::offset_of(k, task.b, task.g, run.begin);
  const float* queries = task.queries + first_row * padded_to_lanes(size);
  float* to = scores + first_row * kDecodeSlots;
  for (int64_t j = 0; j < run.end - run.begin; j += kKeys)
    score_keys<kRows>(keys + j * stride, stride, run.end - run.begin - j, queries, size, to + j);
}

// All query rows at once where the registers hold that many.
template <class T>
void score_rows(const Task& task, const KeyRun& run, float* scores) {
  int64_t row = 0;
  if constexpr (kLanes >= 8)
    for (; task.rows - row > 4; row += 8) score_run<8, T>(task, run, row, scores);
  if constexpr (kLanes >= 4)
    for (; task.rows - row > 2; row += 4) score_run<4, T>(task, run, row, scores);
  if constexpr (kLanes >= 2)
    for (; task.rows - row > 1; row += 2) score_run<2, T>(task, run, row, scores);
  for (; row < task.rows; ++row) score_run<1, T>(task, run, row, scores);
}

// Soft cap, masks, and what single rows do not see of the run.
void adjust_scores(const Task& task, const KeyRun& run, float* scores) {
  const AttentionJob& job = task.job;
  const double cap = job.params->softcap;
  for (int64_t r = 0; r < task.rows; ++r) {
    float* row = scores + r * kDecodeSlots;
    const int64_t i = r / job.ratio, position = task.sequence.offset + i;
    const KeyRun own = job.seen_by_any(run, position, position);
    for (int64_t slot = run.begin; slot < run.end; ++slot) {
      float& score = row[slot - run.begin];
      if (slot < own.begin || slot >= own.end) {
        score = kMinusInfinity;
        continue;
      }
      if (cap > 0) score = static_cast<float>(cap * std::tanh(static_cast<double>(score) / cap));
      if (job.mask.data)
        score += static_cast<float>(job.mask_at(task.b, job.head_of(task.g, r), i, slot));
    }
  }
}

// Turns a row's scores into weights; returns their largest score and sum.
void weigh_row(float* scores, int64_t count, float* partial) {
  const F32 d;
  auto m = hn::Set(d, kMinusInfinity);
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) m = hn::Max(m, hn::LoadU(d, scores + i));
  for (int64_t j = i; j < padded_to_lanes(count); ++j)
    if (j >= count) scores[j] = kMinusInfinity;
  if (i < count) m = hn::Max(m, hn::LoadU(d, scores + i));
  const float largest = max_lanes(d, m);
  const auto base = hn::Set(d, largest == kMinusInfinity ? 0 : largest);
  auto sum = hn::Zero(d);
  for (i = 0; i < count; i += kLanes) {
    const auto w = exp_negative(d, hn::Sub(hn::LoadU(d, scores + i), base));
    hn::StoreU(w, d, scores + i);
    sum = hn::Add(sum, w);
  }
  partial[0] = largest;
  partial[1] = sum_lanes(d, sum);
}

// sums[r][column ...] += weights[r][j] * values[j][column ...], kVectors vectors of columns.
template <int kRows, int kVectors, class T>
HWY_INLINE void add_values(const T* values, int64_t stride, int64_t count, const float* weights,
                           float* sums, int64_t sums_stride) {
  const F32 d;
  VF32 total[kRows][kVectors];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 8
    for (int c = 0; c < kVectors; ++c)
      total[r][c] = hn::LoadU(d, sums + r * sums_stride + c * kLanes);
  for (int64_t j = 0; j < count; ++j, values += stride) {
    VF32 x[kVectors];
#pragma GCC unroll 8
    for (int c = 0; c < kVectors; ++c) x[c] = load(d, values + c * kLanes);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      const VF32 w = hn::Set(d, weights[r * kDecodeSlots + j]);
#pragma GCC unroll 8
      for (int c = 0; c < kVectors; ++c) total[r][c] = hn::MulAdd(w, x[c], total[r][c]);
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 8
    for (int c = 0; c < kVectors; ++c)
      hn::StoreU(total[r][c], d, sums + r * sums_stride + c * kLanes);
}

// Columns that fill no vector.
template <class T>
void add_values_rest(const T* values, int64_t stride, int64_t count, int64_t columns, int64_t rows,
                     const float* weights, float* sums, int64_t sums_stride) {
  for (int64_t j = 0; j < count; ++j)
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t c = 0; c < columns; ++c)
        sums[r * sums_stride + c] +=
            weights[r * kDecodeSlots + j] * static_cast<float>(values[j * stride + c]);
}

template <int kRows, class T>
int64_t add_some_rows(const T* values, int64_t stride, int64_t count, int64_t size,
                      const float* weights, float* sums, int64_t sums_stride) {
  constexpr int kRegisters = HWY_MAX_BYTES == 64 || HWY_ARCH_ARM ? 16 : 8;
  constexpr int kWide = kRegisters / kRows < 8 ? kRegisters / kRows : 8;
  int64_t c = 0;
  for (; c + kWide * kLanes <= size; c += kWide * kLanes)
    add_values<kRows, kWide>(values + c, stride, count, weights, sums + c, sums_stride);
  for (; c + kLanes <= size; c += kLanes)
    add_values<kRows, 1>(values + c, stride, count, weights, sums + c, sums_stride);
  if (c < size)
    add_values_rest(values + c, stride, count, size - c, kRows, weights, sums + c, sums_stride);
  return kRows;
}

// The weighted values of a run. Blocks of keys are small enough that their values, read once from
// memory, stay in the first-level cache for all passes.
template <class T>
void add_run(const Task& task, const KeyRun& run, const float* weights, float* partials) {
  constexpr int64_t kBlock = 64 / sizeof(T);
  const View& v = task.job.v;
  const int64_t stride = v.strides[2], size = task.job.v_size, step = partial_size(task.job);
  const T* values = v.as<T>() + AttentionJob::offset_of(v, task.b, task.g, run.begin);
  const int64_t total = run.end - run.begin;
  for (int64_t j = 0; j < total; j += kBlock) {
    const int64_t count = std::min(kBlock, total - j);
    for (int64_t r = 0; r < task.rows;) {
      const float* w = weights + r * kDecodeSlots + j;
      float* sums = partials + r * step + 2;
      const T* from = values + j * stride;
      const int64_t left = task.rows - r;
      if (left >= 8)
        r += add_some_rows<8>(from, stride, count, size, w, sums, step);
      else if (left >= 4)
        r += add_some_rows<4>(from, stride, count, size, w, sums, step);
      else if (left >= 2)
        r += add_some_rows<2>(from, stride, count, size, w, sums, step);
      else
        r += add_some_rows<1>(from, stride, count, size, w, sums, step);
    }
  }
}

void pack_queries(Task& task) {
  const AttentionJob& job = task.job;
  const int64_t width = padded_to_lanes(job.k_size);
  const float scale = static_cast<float>(job.params->scale);
  std::fill_n(task.queries, kDecodeRows * width, 0.0f);
  for (int64_t r = 0; r < task.rows; ++r) {
    const int64_t from =
        AttentionJob::offset_of(job.q, task.b, job.head_of(task.g, r), r / job.ratio);
    dispatch_lanes(job.q.dtype, [&](auto tag) {
      const auto* q = job.q.as<typename decltype(tag)::type>() + from;
      for (int64_t k = 0; k < job.k_size; ++k)
        task.queries[r * width + k] = static_cast<float>(q[k]) * scale;
    });
  }
}

// Slots from `begin` on of key head g of sequence b. Writes one partial for each query row.
void chunk_lanes(const AttentionJob& job, int64_t b, int64_t g, int64_t begin, float* partials) {
  Scratch scratch(kDecodeRows * (padded_to_lanes(job.k_size) + kDecodeSlots) + 64);
  Task task{job, b, g, job.rows(), job.sequence(b), {}, nullptr, nullptr};
  task.queries = scratch.take(kDecodeRows * padded_to_lanes(job.k_size));
  task.scores = scratch.take(kDecodeRows * kDecodeSlots);
  const int64_t oldest = task.sequence.offset, newest = oldest + job.queries - 1;
  int64_t count = 0;
  for (int i = 0; i < 2; ++i) {
    KeyRun run = job.seen_by_any(task.sequence.runs[i], oldest, newest);
    run.begin = std::max(run.begin, begin);
    run.end = std::min(run.end, begin + kDecodeSlots);
    task.runs[i] = run;
    if (run.begin >= run.end) continue;
    if (count == 0) pack_queries(task);
    dispatch_lanes(job.k.dtype, [&](auto tag) {
      score_rows<typename decltype(tag)::type>(task, run, task.scores + count);
    });
    if (job.queries > 1 || job.params->softcap > 0 || job.mask.data)
      adjust_scores(task, run, task.scores + count);
    count += run.end - run.begin;
  }
  for (int64_t r = 0; r < task.rows; ++r) {
    float* partial = partials + r * partial_size(job);
    std::fill_n(partial + 2, job.v_size, 0.0f);
    weigh_row(task.scores + r * kDecodeSlots, count, partial);
  }
  count = 0;
  for (const KeyRun& run : task.runs) {
    if (run.begin >= run.end) continue;
    dispatch_lanes(job.v.dtype, [&](auto tag) {
      add_run<typename decltype(tag)::type>(task, run, task.scores + count, partials);
    });
    count += run.end - run.begin;
  }
}

// Combines the partials of one query row, `step` floats apart, and stores the result.
void combine_lanes(const AttentionJob& job, int64_t b, int64_t g, int64_t r, int64_t chunks,
                   const float* partials, int64_t step) {
  float largest = kMinusInfinity, total = 0;
  for (int64_t c = 0; c < chunks; ++c) largest = std::max(largest, partials[c * step]);
  Scratch scratch(Scratch::padded(job.v_size));
  float* sums = scratch.take(job.v_size);
  std::fill_n(sums, job.v_size, 0.0f);
  for (int64_t c = 0; c < chunks; ++c) {
    const float* partial = partials + c * step;
    if (partial[1] == 0) continue;  // saw nothing
    const float factor = std::exp(partial[0] - largest);
    total += partial[1] * factor;
    for (int64_t i = 0; i < job.v_size; ++i) sums[i] += partial[2 + i] * factor;
  }
  const float inverse = total == 0 ? 0 : 1 / total;
  const int64_t to = AttentionJob::offset_of(job.out, b, job.head_of(g, r), r / job.ratio);
  dispatch_lanes(job.out.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    for (int64_t i = 0; i < job.v_size; ++i) job.out.as<T>()[to + i] = T(sums[i] * inverse);
  });
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace mica::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace mica::cpu {
namespace {

HWY_EXPORT(chunk_lanes);
HWY_EXPORT(combine_lanes);

int64_t chunks_of(int64_t slots) { return (slots + kDecodeSlots - 1) / kDecodeSlots; }

}  // namespace

size_t attention_decode_workspace(const AttentionJob& job) {
  return static_cast<size_t>(job.batch * job.kv_heads * chunks_of(job.slots) * job.rows() *
                             partial_size(job)) *
         sizeof(float);
}

void attention_decode(const AttentionJob& job, std::span<std::byte> workspace) {
  // The chunks in which any sequence has something to see: capacity costs nothing.
  int64_t first = job.slots, last = 0;
  for (int64_t b = 0; b < job.batch; ++b) {
    const Sequence sequence = job.sequence(b);
    for (const KeyRun& run : sequence.runs) {
      KeyRun seen = job.seen_by_any(run, sequence.offset, sequence.offset + job.queries - 1);
      if (seen.begin >= seen.end) continue;
      first = std::min(first, seen.begin);
      last = std::max(last, seen.end);
    }
  }
  first = first / kDecodeSlots * kDecodeSlots;
  const int64_t chunks = last > first ? chunks_of(last - first) : 0;
  const int64_t heads = job.batch * job.kv_heads, rows = job.rows();
  const int64_t step = rows * partial_size(job);
  auto* partials = reinterpret_cast<float*>(workspace.data());
  const auto combine = [&](int64_t head) {
    for (int64_t r = 0; r < rows; ++r) HWY_DYNAMIC_DISPATCH(combine_lanes)
    (job, head / job.kv_heads, head % job.kv_heads, r, chunks,
     partials + head * chunks * step + r * partial_size(job), step);
  };
  ThreadPool::shared().parallel_for(heads * chunks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t head = i / chunks;
      HWY_DYNAMIC_DISPATCH(chunk_lanes)
      (job, head / job.kv_heads, head % job.kv_heads, first + i % chunks * kDecodeSlots,
       partials + i * step);
      if (chunks == 1) combine(head);
    }
  });
  if (chunks == 1) return;
  ThreadPool::shared().parallel_for(heads, 4, [&](int64_t begin, int64_t end) {
    for (int64_t head = begin; head < end; ++head) combine(head);
  });
}

}  // namespace mica::cpu
#endif
