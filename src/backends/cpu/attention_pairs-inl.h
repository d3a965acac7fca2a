// Parts of blocked attention whose products add pairs of bfloat16 numbers
// (attention_operands-inl.h), beside those of attention_tiles-inl.h: keys as pairs along the head,
// values as pairs of neighbouring keys, query rows in the lanes of vectors. Empty where there are
// no pairs.
#if defined(MICA_CPU_ATTENTION_PAIRS_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef MICA_CPU_ATTENTION_PAIRS_INL_H
#undef MICA_CPU_ATTENTION_PAIRS_INL_H
#else
#define MICA_CPU_ATTENTION_PAIRS_INL_H
#endif

#include "backends/cpu/attention_tiles-inl.h"

HWY_BEFORE_NAMESPACE();
namespace mica::cpu {
namespace HWY_NAMESPACE {
#if MICA_PAIRS

// Places of a row of numbers in pairs, rounded up to vectors.
constexpr int64_t pair_places(int64_t size) { return padded_to_lanes((size + 1) / 2); }

// Rows begin … begin + count - 1 of one head as pairs along it: in place where that is as fast,
// else copied into `buffer` (count * pair_places floats).
inline Left pairs_along(const View& view, int64_t b, int64_t h, int64_t begin, int64_t count,
                        float* buffer) {
  const int64_t size = view.shape[3], stride = view.strides[2], places = pair_places(size);
  const auto* from = view.as<bfloat16_t>() + AttentionJob::offset_of(view, b, h, begin);
  // Rows a large power of two apart would compete for the same cache lines.
  if (size % 2 == 0 && stride % 2 == 0 && stride <= 2 * size)
    return {reinterpret_cast<const float*>(from), stride / 2};
  for (int64_t row = 0; row < count; ++row, from += stride) {
    fetch_row(from + std::min(kRowsAhead, count - 1 - row) * stride, size);
    for (int64_t i = 0; i < places; i += kLanes)
      hn::StoreU(load_pairs(from, 2 * i, size), F32(), buffer + row * places + i);
  }
  return {buffer, places};
}

// The same rows as pairs of neighbours, each pair a row of `buffer` (as many floats, rounded up to
// two vectors). The last of an odd number has zeros beside it.
inline Left pairs_across(const View& view, int64_t b, int64_t h, int64_t begin, int64_t count,
                         float* buffer) {
  const int64_t size = view.shape[3], stride = view.strides[2], places = 2 * pair_places(size);
  const auto* from = view.as<bfloat16_t>() + AttentionJob::offset_of(view, b, h, begin);
  for (int64_t row = 0; row < count; row += 2, from += 2 * stride) {
    const int64_t ahead = std::min(kRowsAhead, count - 1 - row) * stride;
    fetch_row(from + ahead, size);
    fetch_row(from + std::min(ahead + stride, (count - 1 - row) * stride), size);
    pair_rows(from, row + 1 < count ? from + stride : nullptr, size, buffer + row / 2 * places);
  }
  return {buffer, places};
}

// Rows of `view` that belong to a panel's lanes as pairs along them, in columns:
// to[pair * width + lane]. Lanes beyond the last row repeat it.
inline void pack_pairs(const Panel& panel, const View& view, float* to) {
  const F32 d;
  const int64_t size = view.shape[3], places = pair_places(size);
  for (int64_t lane = 0; lane < panel.width; lane += kLanes) {
    const bfloat16_t* rows[kLanes];
    for (int64_t i = 0; i < kLanes; ++i) {
      const int64_t h = panel.head_of(lane + i), query = panel.query_of(lane + i);
      rows[i] = view.as<bfloat16_t>() + AttentionJob::offset_of(view, panel.b, h, query);
      fetch_query(panel, view, lane + kLanes + i);
    }
    for (int64_t place = 0; place < places; place += kLanes) {
      VF32 block[kLanes];
      for (int64_t i = 0; i < kLanes; ++i) block[i] = load_pairs(rows[i], 2 * place, size);
      transpose(block);
      for (int64_t i = 0; i < kLanes; ++i)
        hn::StoreU(block[i], d, to + (place + i) * panel.width + lane);
    }
  }
}

// The same rows as pairs of neighbouring lanes, each pair a row of `to`, `stride` floats apart (two
// pair_places at least). Lanes beyond the last row are zeros.
inline void pack_pairs_across(const Panel& panel, const View& view, float* to, int64_t stride) {
  const int64_t size = view.shape[3];
  auto row_of = [&](int64_t lane) {
    const int64_t h = panel.head_of(lane), query = panel.query_of(lane);
    return view.as<bfloat16_t>() + AttentionJob::offset_of(view, panel.b, h, query);
  };
  for (int64_t lane = 0; lane < panel.width; lane += 2, to += stride) {
    if (lane >= panel.rows)
      std::fill_n(to, stride, 0.0f);
    else
      pair_rows(row_of(lane), lane + 1 < panel.rows ? row_of(lane + 1) : nullptr, size, to);
  }
}

// Masked scores of a panel with a block of keys, [block.count][width], as score_block() gives them,
// but that they are still to be multiplied by the result.
inline float score_pairs(const Panel& panel, const KeyBlock& block, Left keys, float* scores,
                         float* slopes) {
  const F32 d;
  const AttentionJob& job = panel.job;
  multiply<Side::AsStored, Operands::Pairs>(block.count, panel.width, (job.k_size + 1) / 2, keys,
                                            {panel.queries, panel.width}, {scores, panel.width},
                                            false);
  const float scale = static_cast<float>(job.params->scale);
  // Caps and masks apply to scaled scores; what is hidden is -infinity, which a scale must keep.
  const bool later = scale >= 1e-30f && job.params->softcap <= 0 && !job.mask.data;
  for (int64_t i = 0; !later && i < block.count * panel.width; i += kLanes)
    hn::StoreU(hn::Mul(hn::LoadU(d, scores + i), hn::Set(d, scale)), d, scores + i);
  finish_scores(panel, block, scores, slopes);
  return later ? scale : 1;
}

constexpr float kLog2E = 1.44269504088896341f;

// 2^x for x < 127, with an error of 2e-6 of it; 0 below -127, NaN for NaN. Powers of whole numbers
// are exact.
HWY_INLINE VF32 power_of_two(F32 d, VF32 x) {
  const auto bounded = hn::Max(hn::Set(d, -127.0f), x);  // the second if there is a NaN
  const auto shifted = hn::Add(bounded, hn::Set(d, kSixteenths));
  const auto r = hn::Sub(bounded, hn::Sub(shifted, hn::Set(d, kSixteenths)));
  const auto power = power_of_sixteenths(d, shifted);
  const auto slope = hn::MulAdd(r, hn::Set(d, 0.24022651f), hn::Set(d, 0.69314718f));
  return hn::MulAdd(hn::Mul(power, r), slope, power);
}

// Turns a lane's scores, times `factor`, into weights 2^(score - base) rounded to bfloat16, in
// pairs of keys; they replace the scores, a row of pairs for every two. Returns their sum as
// rounded.
HWY_INLINE VF32 weigh_pairs(F32 d, VF32 factor, VF32 base, float* scores, int64_t width,
                            int64_t count) {
  const VF32 ones = hn::BitCast(d, hn::Set(hn::RebindToUnsigned<F32>(), 0x3f803f80));
  auto sum = hn::Zero(d);
  float* to = scores;
  int64_t key = 0;
  for (; key + 2 <= count; key += 2, scores += 2 * width, to += width) {
    const auto first = power_of_two(d, hn::MulSub(hn::LoadU(d, scores), factor, base));
    const auto second = power_of_two(d, hn::MulSub(hn::LoadU(d, scores + width), factor, base));
    const auto pair = paired_halves(rounded_halves(first, second));
    hn::StoreU(pair, d, to);
    sum = add_product<Operands::Pairs>(pair, ones, sum);
  }
  if (key == count) return sum;
  const auto last = power_of_two(d, hn::MulSub(hn::LoadU(d, scores), factor, base));
  const auto pair = paired_halves(rounded_halves(last, hn::Zero(d)));
  hn::StoreU(pair, d, to);
  return add_product<Operands::Pairs>(pair, ones, sum);
}

#endif
}  // namespace HWY_NAMESPACE
}  // namespace mica::cpu
HWY_AFTER_NAMESPACE();

#endif
