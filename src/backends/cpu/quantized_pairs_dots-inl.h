// A few rows of bfloat16 numbers times the packed rows of a quantized matrix (quantized_pairs.h).
// Included by kernel files once per vector instruction set (Highway's foreach_target).
#if defined(MICA_CPU_QUANTIZED_PAIRS_DOTS_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef MICA_CPU_QUANTIZED_PAIRS_DOTS_INL_H
#undef MICA_CPU_QUANTIZED_PAIRS_DOTS_INL_H
#else
#define MICA_CPU_QUANTIZED_PAIRS_DOTS_INL_H
#endif

#include <algorithm>
#include <bit>

#include "backends/cpu/bits-inl.h"
#include "backends/cpu/pairs-inl.h"
#include "backends/cpu/quantized_pairs.h"

HWY_BEFORE_NAMESPACE();
namespace mica::cpu {
namespace HWY_NAMESPACE {

#if HWY_ARCH_X86 && HWY_MAX_BYTES == 64

// What packed bytes that are taken together hold: kElements columns for kParts vectors of x. Of
// their 16-bit words numbers 2^7 * (1 + i / 2^7) are made by a mask and the bits of 2^7, in kSteps
// steps; what is added up is then (q + kOffset) * x / kFactor.
template <int kBits>
struct Line {  // 2, 3, 5 and 6 bits: one number in each byte, up to bit 6, once they are unpacked
  static constexpr int kParts = 2, kSteps = 2, kElements = 64, kOffset = 1 << kBits;
  static constexpr int kAt = 7 - kBits;
  static constexpr float kFactor = 1.0f / (1 << kAt);
};
template <>
struct Line<4> {
  static constexpr int kParts = 4, kSteps = 4, kElements = 128, kOffset = 16;
  static constexpr float kFactor = 0.125f;
};
template <>
struct Line<8> {
  static constexpr int kParts = 2, kSteps = 4, kElements = 64, kOffset = 256;
  static constexpr float kFactor = 1;
};
template <int kBits>
constexpr int64_t kLineBytes = Line<kBits>::kElements * kBits / 8;

// Element kParts * i + j to words[32 * j + i], line by line.
template <int kBits>
void arrange_lines(const PairFormat& f, const bfloat16_t* x, uint16_t* words) {
  constexpr int64_t kElements = Line<kBits>::kElements;
  const hn::ScalableTag<uint16_t> d;
  const auto* from = reinterpret_cast<const uint16_t*>(x);
  uint16_t last[kElements] = {};
  for (int64_t k = 0; k < f.k; k += kElements, from += kElements, words += kElements) {
    if (f.k - k < kElements) {
      std::copy_n(from, f.k - k, last);
      from = last;
    }
    hn::Vec<decltype(d)> v[4];
    if constexpr (kBits == 4)
      hn::LoadInterleaved4(d, from, v[0], v[1], v[2], v[3]);
    else
      hn::LoadInterleaved2(d, from, v[0], v[1]);
    for (int j = 0; j < Line<kBits>::kParts; ++j) hn::StoreU(v[j], d, words + 32 * j);
  }
}

void arrange(const PairFormat& f, const bfloat16_t* x, uint16_t* words) {
  f.bits == 4 ? arrange_lines<4>(f, x, words) : arrange_lines<8>(f, x, words);
}

// The bits of `words` under a mask, as the last ones of numbers from 2^7 on.
HWY_INLINE VF32 numbers(__m512i words, __m512i mask) {
  const __m512i base = _mm512_set1_epi16(0x4300);
  return VF32{_mm512_castsi512_ps(_mm512_ternarylogic_epi64(words, mask, base, 0xea))};
}

// Step i: numbers for part i * kParts / kSteps of x.
template <int kBits>
HWY_INLINE VF32 numbers_of_step(__m512i words, int i) {
  if constexpr (kBits == 4) {
    const __m512i mask = _mm512_set1_epi16(0x78);
    const int from = 4 * i - 3;
    return numbers(
        from < 0 ? _mm512_slli_epi16(words, 3) : _mm512_srli_epi16(words, std::max(0, from)), mask);
  } else if constexpr (kBits == 8) {
    // The highest bit doubles the number: it adds 2^7, too.
    return numbers(i < 2 ? words : _mm512_srli_epi16(words, 8),
                   _mm512_set1_epi16(i % 2 == 0 ? 0x7f : 0x80));
  } else {
    return numbers(i == 0 ? words : _mm512_srli_epi16(words, 8),
                   _mm512_set1_epi16(((1 << kBits) - 1) << Line<kBits>::kAt));
  }
}

// Adds the products of a line of R rows with M rows of x, x[m][part]. Products that wait for one
// another stand apart.
template <int kBits, int R, int M>
HWY_INLINE void add_line(const __m512i (&words)[R], const VF32 (&x)[M][Line<kBits>::kParts],
                         VF32 (&sum)[R][M]) {
  using L = Line<kBits>;
#pragma GCC unroll 4
  for (int i = 0; i < L::kSteps; ++i)
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) {
      const VF32 q = numbers_of_step<kBits>(words[r], i);
#pragma GCC unroll 4
      for (int m = 0; m < M; ++m)
        sum[r][m] = add_pairs(q, x[m][i * L::kParts / L::kSteps], sum[r][m]);
    }
}

// Rows of the matrix whose lines are multiplied in turn, with as many parts of x as fit the
// registers.
template <int M>
constexpr int kRowsAtOnce = M <= 2 ? 4 : 2;

template <int R>
struct PairRows {
  PairRows(const QuantizedMatrix& w, int64_t first, int rows) {
    for (int r = 0; r < R; ++r) {
      const int64_t row = first + std::min(r, rows - 1);
      packed[r] = reinterpret_cast<const std::byte*>(w.packed_row(row));
      scales[r] = w.scales_row(row);
      biases[r] = w.biases_row(row);
    }
  }
  const std::byte *packed[R], *scales[R], *biases[R];
};

// Scales or biases of up to 16 groups of a row, zeros beyond.
HWY_INLINE VF32 read_groups(const std::byte* row, Dtype dtype, int64_t g0, int64_t groups) {
  const auto present = static_cast<__mmask16>((1 << groups) - 1);
  const std::byte* from = row + g0 * size_of(dtype);
  if (dtype == Dtype::F32) return VF32{_mm512_maskz_loadu_ps(present, from)};
  const __m256i halves = _mm256_maskz_loadu_epi16(present, from);
  if (dtype == Dtype::F16) return VF32{_mm512_cvtph_ps(halves)};
  return VF32{_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16))};
}

// A line of R rows, of which so many lanes are there.
template <int kBits, int R>
HWY_INLINE void load_line(const PairRows<R>& rows, int64_t line, int64_t lanes,
                          __m512i (&words)[R]) {
  const auto present = ~__mmask64{0} >> (64 - lanes * kLineBytes<kBits> / 16);
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r) {
    __m512i loaded = _mm512_maskz_loadu_epi8(present, rows.packed[r] + line * kLineBytes<kBits>);
    asm("" : "+v"(loaded));  // or it would be loaded for each step
    if constexpr (kLineBytes<kBits> == 64)
      words[r] = loaded;
    else
      words[r] = unpacked_line<kBits, Columns::InOrder, Line<kBits>::kAt>(loaded);
  }
}

// Up to 16 groups of R rows from group g0 on; kLaneGroup: lanes of a group.
template <int kBits, int kLaneGroup, int R, int M>
HWY_INLINE void add_groups(const PairRows<R>& rows, Dtype dtype, int64_t g0, int64_t groups,
                           const float* const* x_sums, const uint16_t* const* x, PackedAhead& ahead,
                           VF32 (&total)[R][M]) {
  using L = Line<kBits>;
  const F32 d;
  VF32 scale[R], result[R][M];
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r) {
    scale[r] = read_groups(rows.scales[r], dtype, g0, groups);
    const auto bias = hn::NegMulAdd(hn::Set(d, L::kOffset), scale[r],
                                    read_groups(rows.biases[r], dtype, g0, groups));
#pragma GCC unroll 4
    for (int m = 0; m < M; ++m)
      result[r][m] = hn::MulAdd(bias, hn::LoadU(d, x_sums[m] + g0), total[r][m]);
    scale[r] = hn::Mul(scale[r], hn::Set(d, L::kFactor));
  }
  const int64_t lanes = groups * kLaneGroup, line0 = g0 * kLaneGroup / 16;
  const __m512i places = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  __m512i group = _mm512_srli_epi32(places, std::min(4, std::countr_zero(unsigned{kLaneGroup})));
  for (int64_t lane = 0; lane < lanes; lane += 16) {
    const int64_t line = line0 + lane / 16;
    VF32 parts[M][L::kParts];
#pragma GCC unroll 4
    for (int m = 0; m < M; ++m)
#pragma GCC unroll 4
      for (int i = 0; i < L::kParts; ++i)
        parts[m][i] = hn::BitCast(
            d, hn::LoadU(hn::ScalableTag<uint16_t>(), x[m] + line * L::kElements + i * 32));
    constexpr int64_t kBytes = R * kLineBytes<kBits>, kLines = (kBytes + 63) / 64;
    ahead.fetch(kLines);
    ahead.next -= kLines * 64 - kBytes;
    __m512i words[R];
    load_line<kBits>(rows, line, std::min<int64_t>(16, lanes - lane), words);
    VF32 sum[R][M];
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
      for (int m = 0; m < M; ++m) sum[r][m] = hn::Zero(d);
    add_line<kBits, R, M>(words, parts, sum);
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) {
      const VF32 of_lane{_mm512_permutexvar_ps(group, scale[r].raw)};
#pragma GCC unroll 4
      for (int m = 0; m < M; ++m) result[r][m] = hn::MulAdd(sum[r][m], of_lane, result[r][m]);
    }
    if (kLaneGroup <= 16 || (lane + 16) % kLaneGroup == 0)
      group = _mm512_add_epi32(group, _mm512_set1_epi32(std::max(1, 16 / kLaneGroup)));
  }
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (int m = 0; m < M; ++m) total[r][m] = result[r][m];
}

template <int kBits, int kLaneGroup, int M>
void dots_of(const PairFormat& f, const QuantizedMatrix& w, int64_t first, int count,
             const std::byte* const* x, float* out, const Int8Place& next) {
  const F32 d;
  constexpr int R = kRowsAtOnce<M>;
  const float* sums[M];
  const uint16_t* words[M];
  for (int m = 0; m < M; ++m) sums[m] = f.sums(x[m]), words[m] = f.words(x[m]);
  PackedAhead ahead{next.packed()};
  ScalesAhead scales_ahead{next.scales()}, biases_ahead{next.biases()};
  const int64_t scale_lines = R * 16 * size_of(w.scales_dtype) / 64;
  for (int r0 = 0; r0 < kInt8Rows; r0 += R) {
    const PairRows<R> rows(w, first + std::min(r0, count - 1), std::max(1, count - r0));
    VF32 total[R][M];
    for (int r = 0; r < R; ++r)
      for (int m = 0; m < M; ++m) total[r][m] = hn::Zero(d);
    int64_t g = 0;
    for (; g + 16 <= f.groups; g += 16) {
      scales_ahead.fetch(scale_lines);
      biases_ahead.fetch(scale_lines);
      add_groups<kBits, kLaneGroup>(rows, w.scales_dtype, g, 16, sums, words, ahead, total);
    }
    if (g < f.groups)
      add_groups<kBits, kLaneGroup>(rows, w.scales_dtype, g, f.groups - g, sums, words, ahead,
                                    total);
    for (int r = 0; r < R; ++r)
      for (int m = 0; m < M; ++m) out[m * kInt8Rows + r0 + r] = sum_lanes(d, total[r][m]);
  }
}

template <int kBits, int M>
void dots_of_groups(const PairFormat& f, const QuantizedMatrix& w, int64_t first, int rows,
                    const std::byte* const* x, float* out, const Int8Place& next) {
  constexpr int kLane = Line<kBits>::kElements / 16;
  switch (f.group_size) {
    case 32: return dots_of<kBits, 32 / kLane, M>(f, w, first, rows, x, out, next);
    case 64: return dots_of<kBits, 64 / kLane, M>(f, w, first, rows, x, out, next);
    default: return dots_of<kBits, 128 / kLane, M>(f, w, first, rows, x, out, next);
  }
}

template <int M>
void dots_of_bits(const PairFormat& f, const QuantizedMatrix& w, int64_t first, int rows,
                  const std::byte* const* x, float* out, const Int8Place& next) {
  switch (f.bits) {
    case 2: return dots_of_groups<2, M>(f, w, first, rows, x, out, next);
    case 3: return dots_of_groups<3, M>(f, w, first, rows, x, out, next);
    case 4: return dots_of_groups<4, M>(f, w, first, rows, x, out, next);
    case 5: return dots_of_groups<5, M>(f, w, first, rows, x, out, next);
    case 6: return dots_of_groups<6, M>(f, w, first, rows, x, out, next);
    default: return dots_of_groups<8, M>(f, w, first, rows, x, out, next);
  }
}

void dots(const PairFormat& f, const QuantizedMatrix& w, int64_t first, int rows,
          const std::byte* const* x, int count, float* out, const Int8Place& next) {
  static_assert(kPairRows == 4);
  switch (count) {
    case 1: return dots_of_bits<1>(f, w, first, rows, x, out, next);
    case 2: return dots_of_bits<2>(f, w, first, rows, x, out, next);
    case 3: return dots_of_bits<3>(f, w, first, rows, x, out, next);
    default: return dots_of_bits<4>(f, w, first, rows, x, out, next);
  }
}

#endif

}  // namespace HWY_NAMESPACE
}  // namespace mica::cpu
HWY_AFTER_NAMESPACE();

#endif
