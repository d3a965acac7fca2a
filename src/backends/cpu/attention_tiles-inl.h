// What the blocked attention kernels share: products with query rows in the lanes of vectors, and
// masks on their scores.
//
// Query rows are packed side by side into panels, feature by feature: panel[feature * width + row].
// Keys and values are used row by row as they lie in memory, each element broadcast to all lanes.
// Scores come out as scores[key * width + row], so that maximum and sum over keys need no shuffles,
// and the same layout feeds the product with the values.
#if defined(MICA_CPU_ATTENTION_TILES_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef MICA_CPU_ATTENTION_TILES_INL_H
#undef MICA_CPU_ATTENTION_TILES_INL_H
#else
#define MICA_CPU_ATTENTION_TILES_INL_H
#endif

#include <hwy/contrib/math/math-inl.h>

#include <algorithm>
#include <limits>

#include "backends/cpu/attention_job.h"
#include "backends/cpu/attention_operands-inl.h"
#include "backends/cpu/known_from_here.h"
#include "backends/cpu/lanes-inl.h"
#include "backends/cpu/rows.h"
#include "backends/cpu/scratch.h"
#include "backends/cpu/transpose-inl.h"

HWY_BEFORE_NAMESPACE();
namespace mica::cpu {
namespace HWY_NAMESPACE {

constexpr int64_t kLanes = hn::MaxLanes(F32());
constexpr int kPanelVectors = 3;
constexpr int64_t kPanelLanes = kPanelVectors * kLanes;
// Rows of a register tile: as many as leave room for the panel's vectors and one broadcast.
#if HWY_MAX_BYTES == 64 || HWY_ARCH_ARM
constexpr int kTileRows = 8;
#else
constexpr int kTileRows = 4;
#endif

constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();

constexpr int64_t padded_to_lanes(int64_t n) { return (n + kLanes - 1) / kLanes * kLanes; }

// The left side of a product: element (i, k) is at data[i * stride + k], or transposed at
// data[k * stride + i].
enum class Side { AsStored, Transposed };
struct Left {
  const float* data;
  int64_t stride;
};
// Rows of floats: the right side of a product, and its result.
template <class T>
struct Rows {
  T* data;
  int64_t stride;
};

// c[i][...] = (or +=) sum over k of a(i, k) * b[k][...]: kRows rows of kVectors vectors.
template <int kRows, int kVectors, Side kSide, Operands kOperands>
HWY_INLINE void multiply_tile(int64_t inner, Left a, Rows<const float> b, Rows<float> c,
                              bool accumulate) {
  const F32 d;
  VF32 sums[kRows][kVectors];
  const float* before = known_from_here(c.data);
#pragma GCC unroll 8
  for (int i = 0; i < kRows; ++i, before += c.stride)
#pragma GCC unroll 4
    for (int j = 0; j < kVectors; ++j)
      sums[i][j] = accumulate ? hn::LoadU(d, before + j * kLanes) : hn::Zero(d);
  // The next rows of the left side, while these are multiplied.
  const auto* ahead = reinterpret_cast<const std::byte*>(a.data + kRows * a.stride);
  const int64_t ahead_step = kSide == Side::AsStored ? kRows * 4 : 0;
  // A pointer for every three rows: the addresses of the others need no register.
  const float* rows[(kRows + 2) / 3];
  for (int i = 0; i < (kRows + 2) / 3; ++i) rows[i] = a.data + 3 * i * a.stride;
  for (int64_t k = 0; k < inner; ++k, b.data += b.stride) {
    if (kSide == Side::AsStored) prefetch_far(ahead + k * ahead_step);
    VF32 right[kVectors];
#pragma GCC unroll 4
    for (int j = 0; j < kVectors; ++j) right[j] = hn::LoadU(d, b.data + j * kLanes);
#pragma GCC unroll 8
    for (int i = 0; i < kRows; ++i) {
      const float* p = kSide == Side::AsStored ? rows[i / 3] + i % 3 * a.stride + k : a.data + i;
      const VF32 left = element_in_all<kOperands>(d, p);
#pragma GCC unroll 4
      for (int j = 0; j < kVectors; ++j)
        sums[i][j] = add_product<kOperands>(left, right[j], sums[i][j]);
    }
    if (kSide == Side::Transposed) a.data += a.stride;
  }
  float* to = known_from_here(c.data);
#pragma GCC unroll 8
  for (int i = 0; i < kRows; ++i, to += c.stride)
#pragma GCC unroll 4
    for (int j = 0; j < kVectors; ++j) hn::StoreU(sums[i][j], d, to + j * kLanes);
}

template <int kRows, int kVectors, Side kSide, Operands kOperands>
void multiply_rest(int64_t rows, int64_t inner, Left a, Rows<const float> b, Rows<float> c,
                   bool accumulate) {
  if constexpr (kRows > 0) {
    if (rows == kRows)
      return multiply_tile<kRows, kVectors, kSide, kOperands>(inner, a, b, c, accumulate);
    multiply_rest<kRows - 1, kVectors, kSide, kOperands>(rows, inner, a, b, c, accumulate);
  }
}

// The same for any number of rows.
template <int kVectors, Side kSide, Operands kOperands>
void multiply_panel(int64_t rows, int64_t inner, Left a, Rows<const float> b, Rows<float> c,
                    bool accumulate) {
  constexpr int kRows = kVectors > kPanelVectors ? kTileRows * 3 / 4 : kTileRows;
  const int64_t step = kSide == Side::AsStored ? a.stride : 1;
  for (; rows >= kRows; rows -= kRows) {
    multiply_tile<kRows, kVectors, kSide, kOperands>(inner, a, b, c, accumulate);
    a.data += kRows * step;
    c.data += kRows * c.stride;
  }
  multiply_rest<kRows - 1, kVectors, kSide, kOperands>(rows, inner, a, b, c, accumulate);
}

// The same for any number of columns, rounded up to vectors: rows of b and c are padded to that.
template <Side kSide, Operands kOperands = Operands::Floats>
void multiply(int64_t rows, int64_t columns, int64_t inner, Left a, Rows<const float> b,
              Rows<float> c, bool accumulate) {
  constexpr int64_t kWide = (kPanelVectors + 1) * kLanes;
  const int64_t step = columns % kWide == 0 ? kWide : kPanelLanes;
  for (; columns > 0; columns -= step) {
    if (step == kWide)
      multiply_panel<kPanelVectors + 1, kSide, kOperands>(rows, inner, a, b, c, accumulate);
    else if (columns > 2 * kLanes)
      multiply_panel<3, kSide, kOperands>(rows, inner, a, b, c, accumulate);
    else if (columns > kLanes)
      multiply_panel<2, kSide, kOperands>(rows, inner, a, b, c, accumulate);
    else
      multiply_panel<1, kSide, kOperands>(rows, inner, a, b, c, accumulate);
    b.data += step;
    c.data += step;
  }
}

// Rows of one head lie apart where heads are interleaved: hardware does not foresee the next.
constexpr int64_t kRowsAhead = 8;
template <class T>
HWY_INLINE void fetch_row(const T* row, int64_t width) {
  for (int64_t i = 0; i < width; i += 64 / static_cast<int64_t>(sizeof(T))) hwy::Prefetch(row + i);
}

// Rows begin … begin + count - 1 of one head as floats: in place if they are that and lie close
// together, else converted into `buffer` (count * width floats).
inline Left float_rows(const View& view, int64_t b, int64_t h, int64_t begin, int64_t count,
                       float* buffer) {
  const int64_t width = view.shape[3], stride = view.strides[2];
  const int64_t start = AttentionJob::offset_of(view, b, h, begin);
  // Rows a large power of two apart would compete for the same cache lines.
  if (view.dtype == Dtype::F32 && stride <= 2 * width) return {view.as<float>() + start, stride};
  dispatch_lanes(view.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    const F32 d;
    for (int64_t row = 0; row < count; ++row) {
      const T* from = view.as<T>() + start + row * stride;
      float* to = buffer + row * width;
      fetch_row(from + std::min(kRowsAhead, count - 1 - row) * stride, width);
      int64_t i = 0;
      for (; i + kLanes <= width; i += kLanes) store(d, load(d, from + i), to + i);
      for (; i < width; ++i) to[i] = static_cast<float>(from[i]);
    }
  });
  return {buffer, width};
}

// Rounds `size` floats, readable to whole vectors, to a row of a view.
inline void store_row(const float* from, int64_t size, const View& view, int64_t offset) {
  const F32 d;
  dispatch_lanes(view.dtype, [&](auto tag) {
    auto* to = view.as<typename decltype(tag)::type>() + offset;
    int64_t i = 0;
    for (; i + kLanes <= size; i += kLanes) store(d, hn::LoadU(d, from + i), to + i);
    if (i < size) store_part(d, hn::LoadU(d, from + i), to + i, static_cast<size_t>(size - i));
  });
}

// Columns lane … lane + kLanes - 1 of `size` rows of floats, `width` apart, times `factor`, as rows
// of `stride` floats each. Both sides have room for sizes rounded up to vectors.
inline void columns_to_rows(const float* columns, int64_t width, int64_t size, VF32 factor,
                            float* rows, [[maybe_unused]] int64_t stride) {
  [[maybe_unused]] const F32 d;
#if HWY_TARGET == HWY_SCALAR
  for (int64_t i = 0; i < size; ++i) rows[i] = hn::GetLane(factor) * columns[i * width];
#else
  for (int64_t i = 0; i < size; i += kLanes) {
    VF32 block[kLanes];
    for (int64_t j = 0; j < kLanes; ++j)
      block[j] = hn::Mul(hn::LoadU(d, columns + (i + j) * width), factor);
    transpose(block);
    for (int64_t j = 0; j < kLanes; ++j) hn::StoreU(block[j], d, rows + j * stride + i);
  }
#endif
}

// Up to kPanelLanes query rows of key head g of sequence b. Lanes beyond the last row repeat it.
struct Panel {
  const AttentionJob& job;
  int64_t b, g;
  int64_t first, rows;
  int64_t width;       // rows rounded up to vectors
  float* queries;      // [k_size][width], scaled; or pairs: [pair_places(k_size)][width]
  int32_t* positions;  // [width]

  int64_t row_of(int64_t lane) const { return first + std::min(lane, rows - 1); }
  int64_t head_of(int64_t lane) const { return job.head_of(g, row_of(lane)); }
  int64_t query_of(int64_t lane) const { return row_of(lane) / job.ratio; }
};

// The row of `view` that belongs to a lane, ahead of its use.
inline void fetch_query(const Panel& panel, const View& view, int64_t lane) {
  if (lane >= panel.rows) return;
  const int64_t at =
      AttentionJob::offset_of(view, panel.b, panel.head_of(lane), panel.query_of(lane));
  const int64_t bytes = view.shape[3] * size_of(view.dtype);
  fetch_row(view.data + at * size_of(view.dtype), bytes);
}

inline void place_queries(const Panel& panel, int64_t offset) {
  for (int64_t lane = 0; lane < panel.width; ++lane)
    panel.positions[lane] = static_cast<int32_t>(offset + panel.query_of(lane));
}

// `buffer` takes one row.
inline void pack_queries(const Panel& panel, int64_t offset, float* buffer) {
  const AttentionJob& job = panel.job;
  const float scale = static_cast<float>(job.params->scale);
  for (int64_t lane = 0; lane < panel.width; ++lane) {
    const int64_t i = panel.query_of(lane);
    fetch_query(panel, job.q, lane + kRowsAhead);
    const Left from = float_rows(job.q, panel.b, panel.head_of(lane), i, 1, buffer);
    for (int64_t k = 0; k < job.k_size; ++k)
      panel.queries[k * panel.width + lane] = from.data[k] * scale;
  }
  place_queries(panel, offset);
}

// A block of keys: slots begin … begin + count - 1; if all_seen, every query sees all by position.
struct KeyBlock {
  int64_t begin, count, shift;
  bool all_seen;
};

// Calls f(block) for what queries at positions oldest … newest see, in blocks of at most `size`
// keys.
template <class F>
void for_each_block(const AttentionJob& job, const Sequence& sequence, int64_t oldest,
                    int64_t newest, int64_t size, F&& f) {
  for (const KeyRun& run : sequence.runs) {
    const KeyRun any = job.seen_by_any(run, oldest, newest);
    const KeyRun all = job.seen_by_all(run, oldest, newest);
    for (int64_t key = any.begin; key < any.end; key += size) {
      const int64_t count = std::min(size, any.end - key);
      f(KeyBlock{key, count, run.shift, key >= all.begin && key + count <= all.end});
    }
  }
}

inline void cap_scores(float* scores, int64_t count, float cap) {
  const F32 d;
  const auto c = hn::Set(d, cap), inverse = hn::Set(d, 1 / cap);
  for (int64_t i = 0; i < count; i += kLanes)
    hn::StoreU(hn::Mul(c, hn::Tanh(d, hn::Mul(hn::LoadU(d, scores + i), inverse))), d, scores + i);
}

// Scores of keys that a row does not see by position become -infinity.
inline void hide_by_position(const Panel& panel, const KeyBlock& block, float* scores) {
  const F32 d;
  const hn::Rebind<int32_t, F32> di;
  const ops::AttentionParams& params = *panel.job.params;
  const auto hidden = hn::Set(d, kMinusInfinity);
  const auto window = static_cast<int32_t>(std::min<int64_t>(params.window, INT32_MAX));
  for (int64_t key = 0; key < block.count; ++key) {
    const auto at = hn::Set(di, static_cast<int32_t>(block.begin + key + block.shift));
    for (int64_t lane = 0; lane < panel.width; lane += kLanes) {
      const auto own = hn::LoadU(di, panel.positions + lane);
      float* p = scores + key * panel.width + lane;
      auto score = hn::LoadU(d, p);
      if (params.causal) score = hn::IfThenElse(hn::RebindMask(d, hn::Gt(at, own)), hidden, score);
      if (window > 0) {
        const auto age = hn::Sub(own, at);
        score =
            hn::IfThenElse(hn::RebindMask(d, hn::Gt(age, hn::Set(di, window - 1))), hidden, score);
      }
      hn::StoreU(score, d, p);
    }
  }
}

// Numbers of a mask from offset `at` on, `stride` apart, as what is added to scores.
inline void load_mask(const View& mask, int64_t at, int64_t stride, int64_t count, float* to) {
  const F32 d;
  if (mask.dtype == Dtype::Bool) {
    const hn::Rebind<uint8_t, F32> d8;
    const hn::Rebind<int32_t, F32> d32;
    const auto* from = mask.as<uint8_t>() + at;
    int64_t i = 0;
    for (; stride == 1 && i + kLanes <= count; i += kLanes) {
      const auto hidden = hn::Eq(hn::PromoteTo(d32, hn::LoadU(d8, from + i)), hn::Zero(d32));
      hn::StoreU(hn::IfThenElseZero(hn::RebindMask(d, hidden), hn::Set(d, kMinusInfinity)), d,
                 to + i);
    }
    for (; i < count; ++i) to[i] = from[i * stride] ? 0 : kMinusInfinity;
  } else if (mask.dtype == Dtype::F64) {
    for (int64_t i = 0; i < count; ++i)
      to[i] = static_cast<float>(mask.as<double>()[at + i * stride]);
  } else {
    dispatch_lanes(mask.dtype, [&](auto tag) {
      const auto* from = mask.as<typename decltype(tag)::type>() + at;
      int64_t i = 0;
      for (; stride == 1 && i + kLanes <= count; i += kLanes) store(d, load(d, from + i), to + i);
      for (; i < count; ++i) to[i] = static_cast<float>(from[i * stride]);
    });
  }
}

// Adds a mask whose rows lie along keys to scores whose rows lie along queries, kMaskKeys at a
// time.
constexpr int64_t kMaskKeys = 64;
inline void add_mask(const Panel& panel, const KeyBlock& block, float* scores) {
  const F32 d;
  const View& mask = panel.job.mask;
  const bool same = mask.strides[1] == 0 && mask.strides[2] == 0;  // for all rows
  HWY_ALIGN float rows[kLanes * kMaskKeys];
  HWY_ALIGN float columns[kMaskKeys * kLanes];
  for (int64_t key = 0; key < block.count; key += kMaskKeys) {
    const int64_t count = std::min(kMaskKeys, block.count - key);
    for (int64_t lane = 0; lane < panel.width; lane += kLanes) {
      for (int64_t i = 0; i < (same ? 1 : kLanes); ++i) {
        const int64_t h = panel.head_of(lane + i), query = panel.query_of(lane + i);
        const int64_t at = AttentionJob::offset_of(mask, panel.b, h, query) +
                           (block.begin + key) * mask.strides[3];
        load_mask(mask, at, mask.strides[3], count, rows + i * kMaskKeys);
      }
      for (int64_t i = 0; !same && i < count; i += kLanes)
        columns_to_rows(rows + i, kMaskKeys, kLanes, hn::Set(d, 1.0f), columns + i * kLanes,
                        kLanes);
      for (int64_t i = 0; i < count; ++i) {
        float* p = scores + (key + i) * panel.width + lane;
        const auto added = same ? hn::Set(d, rows[i]) : hn::LoadU(d, columns + i * kLanes);
        hn::StoreU(hn::Add(hn::LoadU(d, p), added), d, p);
      }
    }
  }
}

// Caps and masks the scores of a panel with a block of keys, [block.count][width]. With a soft cap,
// `slopes` (if given) takes the derivative of the capped by the plain score.
inline void finish_scores(const Panel& panel, const KeyBlock& block, float* scores, float* slopes) {
  const AttentionJob& job = panel.job;
  const int64_t count = block.count * panel.width;
  if (job.params->softcap > 0) {
    const float cap = static_cast<float>(job.params->softcap);
    cap_scores(scores, count, cap);
    for (int64_t i = 0; slopes && i < count; ++i)
      slopes[i] = 1 - scores[i] / cap * (scores[i] / cap);
  }
  if (!block.all_seen) hide_by_position(panel, block, scores);
  if (job.mask.data) add_mask(panel, block, scores);
}

inline void score_block(const Panel& panel, const KeyBlock& block, Left keys, float* scores,
                        float* slopes) {
  multiply<Side::AsStored>(block.count, panel.width, panel.job.k_size, keys,
                           {panel.queries, panel.width}, {scores, panel.width}, false);
  finish_scores(panel, block, scores, slopes);
}

// Of derivatives: what a slot's key and value take in the workspace.
inline int64_t sums_width(const AttentionJob& job) {
  return padded_to_lanes(job.k_size) + padded_to_lanes(job.v_size);
}

// Where nothing was seen, any finite base gives weights of zero.
HWY_INLINE VF32 finite_base(F32 d, VF32 largest) {
  return hn::IfThenZeroElse(hn::Eq(largest, hn::Set(d, kMinusInfinity)), largest);
}

// The largest of a lane's scores and `start`, and the sum of the weights exp(score - base), which
// replace the scores. `scores` points at the lane's first vector, `width` apart from key to key.
HWY_INLINE VF32 largest_score(F32 d, VF32 start, const float* scores, int64_t width,
                              int64_t count) {
  auto m0 = start, m1 = start;
  int64_t key = 0;
  for (; key + 2 <= count; key += 2) {
    m0 = hn::Max(m0, hn::LoadU(d, scores + key * width));
    m1 = hn::Max(m1, hn::LoadU(d, scores + (key + 1) * width));
  }
  if (key < count) m0 = hn::Max(m0, hn::LoadU(d, scores + key * width));
  return hn::Max(m0, m1);
}
HWY_INLINE VF32 weigh_scores(F32 d, VF32 base, float* scores, int64_t width, int64_t count) {
  auto s0 = hn::Zero(d), s1 = s0;
  int64_t key = 0;
  for (; key + 2 <= count; key += 2) {
    float *p = scores + key * width, *q = p + width;
    const auto w0 = exp_negative(d, hn::Sub(hn::LoadU(d, p), base));
    const auto w1 = exp_negative(d, hn::Sub(hn::LoadU(d, q), base));
    hn::StoreU(w0, d, p);
    hn::StoreU(w1, d, q);
    s0 = hn::Add(s0, w0);
    s1 = hn::Add(s1, w1);
  }
  if (key < count) {
    const auto w = exp_negative(d, hn::Sub(hn::LoadU(d, scores + key * width), base));
    hn::StoreU(w, d, scores + key * width);
    s0 = hn::Add(s0, w);
  }
  return hn::Add(s0, s1);
}

}  // namespace HWY_NAMESPACE
}  // namespace mica::cpu
HWY_AFTER_NAMESPACE();

#endif
