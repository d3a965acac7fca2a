#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backends/cpu/quantized_pairs_kernels.cc"
#include "backends/cpu/highway_targets.h"
//
#include <hwy/foreach_target.h>  // IWYU pragma: keep
//
#include <algorithm>
#include <array>
#include <bit>
#include <type_traits>
#include <utility>

#include "backends/cpu/known_from_here.h"
#include "backends/cpu/pairs-inl.h"
#include "backends/cpu/quantized_pairs.h"
#include "backends/cpu/quantized_scales-inl.h"

HWY_BEFORE_NAMESPACE();
namespace mica::cpu {
namespace HWY_NAMESPACE {

#if HWY_ARCH_X86 && HWY_MAX_BYTES == 64

// Products and sums of larger numbers might not be finite; of smaller ones pairs lose bits.
constexpr float kLargest = 1e30f, kSmallest = 1e-30f;

bool sum(const PairFormat& f, const bfloat16_t* x, float* sums) {
  const F32 d;
  const hn::Rebind<int32_t, F32> d32;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  for (int64_t g = 0; g < f.groups; ++g, x += f.group_size) {
    auto total = hn::Zero(d);
    auto most = hn::Zero(d32);  // as bits, whose order is that of magnitudes
    for (int64_t i = 0; i < f.group_size; i += lanes) {
      const auto v = load(d, x + i);
      most = hn::Max(most, hn::BitCast(d32, hn::Abs(v)));
      total = hn::Add(total, v);
    }
    const float largest = std::bit_cast<float>(hn::GetLane(hn::MaxOfLanes(d32, most)));
    if (largest != 0 && !(largest >= kSmallest && largest <= kLargest)) return false;
    sums[g] = sum_lanes(d, total);
  }
  std::fill(sums + f.groups, sums + f.padded_groups, 0.0f);
  return true;
}

// What 64 packed bytes hold. Each of their 16-bit words becomes kParts numbers 2^7 * (1 + i / 2^7)
// by a mask and the bits of 2^7; what is added up is then (q + kOffset) * x / kFactor.
template <int kBits>
struct Line;
template <>
struct Line<4> {
  static constexpr int kParts = 4, kElements = 128, kOffset = 16;
  static constexpr float kFactor = 0.125f;
};
template <>
struct Line<8> {
  static constexpr int kParts = 2, kElements = 64, kOffset = 256;
  static constexpr float kFactor = 1;
};

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

// Of each eight numbers i and i + 4 side by side, as one word of packed fours holds them. `count`
// is a multiple of 32.
void pair_up(const bfloat16_t* from, int64_t count, uint16_t* to) {
  alignas(64) static constexpr auto kPlaces = [] {
    std::array<uint16_t, 32> places{};
    for (size_t i = 0; i < 32; ++i)
      places[i] = static_cast<uint16_t>(i / 8 * 8 + i % 8 / 2 + i % 2 * 4);
    return places;
  }();
  const __m512i places = _mm512_load_si512(kPlaces.data());
  for (int64_t i = 0; i < count; i += 32)
    _mm512_storeu_si512(to + i, _mm512_permutexvar_epi16(places, _mm512_loadu_si512(from + i)));
}

// The bits of `words` under a mask, as the last ones of numbers from 2^7 on.
HWY_INLINE VF32 numbers(__m512i words, __m512i mask) {
  const __m512i base = _mm512_set1_epi16(0x4300);
  return VF32{_mm512_castsi512_ps(_mm512_ternarylogic_epi64(words, mask, base, 0xea))};
}

// Part i of what a line holds: numbers of part i * kParts / 4 of x.
template <int kBits>
HWY_INLINE VF32 part_of(__m512i words, int i) {
  if (kBits == 4) {
    const __m512i mask = _mm512_set1_epi16(0x78);
    const int from = 4 * i - 3;
    return numbers(
        from < 0 ? _mm512_slli_epi16(words, 3) : _mm512_srli_epi16(words, std::max(0, from)), mask);
  }
  // The highest bit doubles the number: it adds 2^7, too.
  return numbers(i < 2 ? words : _mm512_srli_epi16(words, 8),
                 _mm512_set1_epi16(i % 2 == 0 ? 0x7f : 0x80));
}

// Adds the products of a line of R rows with M rows of x, x[m][part]. Products that wait for one
// another stand apart.
template <int kBits, int R, int M>
HWY_INLINE void add_line(const __m512i (&words)[R], const VF32 (&x)[M][Line<kBits>::kParts],
                         VF32 (&sum)[R][M]) {
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i)
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) {
      const VF32 q = part_of<kBits>(words[r], i);
#pragma GCC unroll 4
      for (int m = 0; m < M; ++m)
        sum[r][m] = add_pairs(q, x[m][i * Line<kBits>::kParts / 4], sum[r][m]);
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
template <class S>
HWY_INLINE VF32 read_groups(const std::byte* row, int64_t g0, int64_t groups) {
  const S* from = reinterpret_cast<const S*>(row) + g0;
  const auto present = static_cast<__mmask16>((1 << groups) - 1);
  if constexpr (std::is_same_v<S, float>)
    return VF32{_mm512_maskz_loadu_ps(present, from)};
  else if constexpr (std::is_same_v<S, float16_t>)
    return VF32{_mm512_cvtph_ps(_mm256_maskz_loadu_epi16(present, from))};
  else
    return hn::BitCast(F32(), hn::ShiftLeft<16>(hn::Vec<hn::Rebind<uint32_t, F32>>{
                                  _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(present, from))}));
}

// A line of R rows; the part that is there.
template <int R>
HWY_INLINE void load_line(const PairRows<R>& rows, int64_t line, __mmask16 present,
                          __m512i (&words)[R]) {
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r) {
    __m512i loaded = _mm512_maskz_loadu_epi32(present, rows.packed[r] + line * 64);
    asm("" : "+v"(loaded));  // or it would be loaded for each part
    words[r] = loaded;
  }
}

// Up to 16 groups of R rows from group g0 on; kLaneGroup: lanes of a group.
template <int kBits, int kLaneGroup, class S, int R, int M>
HWY_INLINE void add_groups(const PairRows<R>& rows, int64_t g0, int64_t groups,
                           const float* const* x_sums, const uint16_t* const* x, Ahead& ahead,
                           VF32 (&total)[R][M]) {
  using L = Line<kBits>;
  const F32 d;
  VF32 scale[R], result[R][M];
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r) {
    scale[r] = read_groups<S>(rows.scales[r], g0, groups);
    const auto bias =
        hn::NegMulAdd(hn::Set(d, L::kOffset), scale[r], read_groups<S>(rows.biases[r], g0, groups));
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
    const auto present =
        static_cast<__mmask16>(lanes - lane >= 16 ? 0xffff : (1 << (lanes - lane)) - 1);
    VF32 parts[M][L::kParts];
#pragma GCC unroll 4
    for (int m = 0; m < M; ++m)
#pragma GCC unroll 4
      for (int i = 0; i < L::kParts; ++i)
        parts[m][i] = hn::BitCast(
            d, hn::LoadU(hn::ScalableTag<uint16_t>(), x[m] + line * L::kElements + i * 32));
    for (int64_t i = 0; i < R; ++i) prefetch_far(ahead.next + 4096 + i * 64);
    ahead.fetch(R);
    __m512i words[R];
    load_line(rows, line, present, words);
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

template <int kBits, int kLaneGroup, class S, int M>
void dots_of(const PairFormat& f, const QuantizedMatrix& w, int64_t first, int count,
             const std::byte* const* x, float* out, const Int8Place& next) {
  const F32 d;
  constexpr int R = kRowsAtOnce<M>;
  const float* sums[M];
  const uint16_t* words[M];
  for (int m = 0; m < M; ++m) sums[m] = f.sums(x[m]), words[m] = f.words(x[m]);
  Ahead ahead{next.packed()}, scales_ahead{next.scales()}, biases_ahead{next.biases()};
  constexpr int64_t kScaleLines = R * 16 * sizeof(S) / 64;
  for (int r0 = 0; r0 < kInt8Rows; r0 += R) {
    const PairRows<R> rows(w, first + std::min(r0, count - 1), std::max(1, count - r0));
    VF32 total[R][M];
    for (int r = 0; r < R; ++r)
      for (int m = 0; m < M; ++m) total[r][m] = hn::Zero(d);
    int64_t g = 0;
    for (; g + 16 <= f.groups; g += 16) {
      scales_ahead.fetch(kScaleLines);
      biases_ahead.fetch(kScaleLines);
      add_groups<kBits, kLaneGroup, S>(rows, g, 16, sums, words, ahead, total);
    }
    if (g < f.groups)
      add_groups<kBits, kLaneGroup, S>(rows, g, f.groups - g, sums, words, ahead, total);
    for (int r = 0; r < R; ++r)
      for (int m = 0; m < M; ++m) out[m * kInt8Rows + r0 + r] = sum_lanes(d, total[r][m]);
  }
}

template <int kBits, int kLaneGroup, int M>
void dots_of_rows(const PairFormat& f, const QuantizedMatrix& w, int64_t first, int rows,
                  const std::byte* const* x, float* out, const Int8Place& next) {
  switch (w.scales_dtype) {
    case Dtype::F16:
      return dots_of<kBits, kLaneGroup, float16_t, M>(f, w, first, rows, x, out, next);
    case Dtype::BF16:
      return dots_of<kBits, kLaneGroup, bfloat16_t, M>(f, w, first, rows, x, out, next);
    default: return dots_of<kBits, kLaneGroup, float, M>(f, w, first, rows, x, out, next);
  }
}

template <int M>
void dots_of_format(const PairFormat& f, const QuantizedMatrix& w, int64_t first, int rows,
                    const std::byte* const* x, float* out, const Int8Place& next) {
  switch (f.group_size + f.bits) {
    case 36: return dots_of_rows<4, 4, M>(f, w, first, rows, x, out, next);
    case 68: return dots_of_rows<4, 8, M>(f, w, first, rows, x, out, next);
    case 132: return dots_of_rows<4, 16, M>(f, w, first, rows, x, out, next);
    case 40: return dots_of_rows<8, 8, M>(f, w, first, rows, x, out, next);
    case 72: return dots_of_rows<8, 16, M>(f, w, first, rows, x, out, next);
    default: return dots_of_rows<8, 32, M>(f, w, first, rows, x, out, next);
  }
}

void dots(const PairFormat& f, const QuantizedMatrix& w, int64_t first, int rows,
          const std::byte* const* x, int count, float* out, const Int8Place& next) {
  static_assert(kPairRows == 4);
  switch (count) {
    case 1: return dots_of_format<1>(f, w, first, rows, x, out, next);
    case 2: return dots_of_format<2>(f, w, first, rows, x, out, next);
    case 3: return dots_of_format<3>(f, w, first, rows, x, out, next);
    default: return dots_of_format<4>(f, w, first, rows, x, out, next);
  }
}

constexpr int kTileRows = 7, kTileVectors = 2, kTileColumns = 16 * kTileVectors;

HWY_INLINE __m512 number_of(__m512i numbers, __m512i places) {
  return _mm512_castsi512_ps(_mm512_permutexvar_epi16(places, numbers));
}

// Where pair p of the vectors lies in a panel.
struct PanelPlaces {
  PanelPlaces(const PairFormat& f, int64_t g0, int64_t groups, float* panel)
      : g0(g0), groups(groups), pairs(f.group_size / 2), panel(panel) {}
  float* at(int64_t pair) const { return panel + (pair + pair / pairs * 2) * kTileColumns; }
  float* scales(int64_t group) const {
    return panel + (group * (pairs + 2) + pairs) * kTileColumns;
  }

  int64_t g0, groups, pairs;
  float* panel;
};

// Rows of four bits: words of 16 rows are turned, and their halves are found in a table.
void unpack_fours(const QuantizedMatrix& w, int64_t first, int count, const PanelPlaces& places) {
  alignas(64) static const auto kNumbers = [] {
    std::array<bfloat16_t, 32> numbers{};
    for (size_t i = 0; i < 32; ++i) numbers[i] = bfloat16_t(static_cast<float>(i % 16) - 8);
    return numbers;
  }();
  const F32 d;
  const __m512i numbers = _mm512_load_si512(kNumbers.data());
  const int64_t words = places.groups * places.pairs / 4;
  for (int v = 0; v < kTileVectors; ++v) {
    const float* rows[16];
    for (int i = 0; i < 16; ++i)
      rows[i] =
          reinterpret_cast<const float*>(w.packed_row(first + std::min(v * 16 + i, count - 1))) +
          places.g0 * places.pairs / 4;
    for (int64_t at = 0; at < words; at += 16) {
      const auto some = static_cast<size_t>(std::min<int64_t>(16, words - at));
      VF32 turned[16];
      for (int i = 0; i < 16; ++i) turned[i] = hn::MaskedLoad(hn::FirstN(d, some), d, rows[i] + at);
      transpose(turned);
      for (size_t i = 0; i < some; ++i) {
        const __m512i word = _mm512_castps_si512(turned[i].raw);
        float* to = places.at(4 * (at + static_cast<int64_t>(i))) + v * 16;
        _mm512_store_ps(to, number_of(numbers, word));
        _mm512_store_ps(to + kTileColumns, number_of(numbers, _mm512_srli_epi16(word, 4)));
        _mm512_store_ps(to + 2 * kTileColumns, number_of(numbers, _mm512_srli_epi16(word, 8)));
        _mm512_store_ps(to + 3 * kTileColumns, number_of(numbers, _mm512_srli_epi16(word, 12)));
      }
    }
  }
}

// Rows of any bits, group by group.
void unpack_groups(const PairFormat& f, const QuantizedMatrix& w, int64_t first, int count,
                   const PanelPlaces& places) {
  HWY_ALIGN uint16_t numbers[kTileColumns * 128];
  const std::byte* vectors[kTileColumns];
  for (int i = 0; i < count; ++i)
    vectors[i] = reinterpret_cast<const std::byte*>(numbers + i * f.group_size);
  for (int64_t g = 0; g < places.groups; ++g) {
    for (int i = 0; i < count; ++i) {
      bfloat16_t row[128];
      unpack_centred(w, first + i, (places.g0 + g) * f.group_size, f.group_size, row);
      pair_up(row, f.group_size, numbers + i * f.group_size);
    }
    bfloat16_pair_kernels()->pack({vectors, count, Dtype::BF16, 1, false}, kTileColumns, 0,
                                  places.pairs, places.at(g * places.pairs));
  }
}

void unpack(const PairFormat& f, const QuantizedMatrix& w, int64_t first, int count, int64_t g0,
            int64_t groups, float* panel) {
  const F32 d;
  const PanelPlaces places(f, g0, groups, panel);
  f.bits == 4 ? unpack_fours(w, first, count, places) : unpack_groups(f, w, first, count, places);
  const std::byte *scales[kTileColumns], *biases[kTileColumns];
  for (int i = 0; i < kTileColumns; ++i) {
    scales[i] = w.scales_row(first + std::min(i, count - 1));
    biases[i] = w.biases_row(first + std::min(i, count - 1));
  }
  const int64_t stride = (places.pairs + 2) * kTileColumns;
  for (int i = 0; i < kTileColumns; i += kInt8Rows) {
    float* to = places.scales(0) + i;
    read_scales(scales + i, w.scales_dtype, g0, groups, to, stride);
    read_scales(biases + i, w.biases_dtype, g0, groups, to + kTileColumns, stride);
  }
  const auto centre = hn::Set(d, static_cast<float>(1 << (f.bits - 1)));
  for (int64_t g = 0; g < groups; ++g)
    for (int i = 0; i < kTileColumns; i += 16) {
      float *scale = places.scales(g) + i, *bias = scale + kTileColumns;
      hn::StoreU(hn::MulAdd(centre, hn::LoadU(d, scale), hn::LoadU(d, bias)), d, bias);
    }
}

// Adds the sums of a group's pairs, times the scales, and the sums of x times the biases.
template <int R>
HWY_INLINE void add_group(const float* HWY_RESTRICT a, int64_t a_stride, const float* b,
                          int64_t pairs, VF32 (&total)[R][kTileVectors]) {
  const F32 d;
  VF32 sum[R][kTileVectors];
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < kTileVectors; ++v) sum[r][v] = hn::Zero(d);
  for (int64_t p = 0; p < pairs; ++p, a += a_stride, b += kTileColumns) {
    const VF32 row[kTileVectors] = {hn::LoadU(d, b), hn::LoadU(d, b + 16)};
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      const auto left = hn::Set(d, a[r]);
#pragma GCC unroll 4
      for (int v = 0; v < kTileVectors; ++v) sum[r][v] = add_pairs(left, row[v], sum[r][v]);
    }
  }
  const float* x_sums = a + a_stride;
#pragma GCC unroll 4
  for (int v = 0; v < kTileVectors; ++v) {
    const auto scale = hn::LoadU(d, b + v * 16), bias = hn::LoadU(d, b + kTileColumns + v * 16);
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      total[r][v] = hn::MulAdd(sum[r][v], scale, total[r][v]);
      total[r][v] = hn::MulAdd(bias, hn::Set(d, x_sums[r]), total[r][v]);
    }
  }
}

template <int R>
void multiply_groups(const GemmTile<float>& tile) {
  const F32 d;
  hn::Mask<F32> present[kTileVectors];
  for (int v = 0; v < kTileVectors; ++v)
    present[v] = hn::FirstN(d, static_cast<size_t>(std::clamp(tile.n - v * 16, 0, 16)));
  VF32 total[R][kTileVectors];
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < kTileVectors; ++v)
      total[r][v] = tile.accumulate ? hn::MaskedLoad(present[v], d, tile.c + r * tile.ldc + v * 16)
                                    : hn::Zero(d);
  for (int64_t k = 0; k < tile.kc; k += tile.group)
    add_group<R>(tile.a + k * tile.a_stride, tile.a_stride, tile.b + k * tile.ldb, tile.group - 2,
                 total);
  float* c = known_from_here(tile.c);
  if (!tile.rounded) {
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r, c += tile.ldc)
#pragma GCC unroll 4
      for (int v = 0; v < kTileVectors; ++v)
        hn::BlendedStore(total[r][v], present[v], d, c + v * 16);
    return;
  }
  HWY_ALIGN float rows[R][kTileColumns];
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < kTileVectors; ++v) hn::Store(total[r][v], d, rows[r] + v * 16);
  for (int r = 0; r < R; ++r)
    store_rounded(rows[r], tile.n, tile.dtype, tile.rounded + r * tile.rounded_stride);
}

using Block = void (*)(const GemmTile<float>&);
template <int... R>
constexpr std::array<Block, sizeof...(R)> blocks(std::integer_sequence<int, R...>) {
  return {&multiply_groups<R + 1>...};
}
void multiply(const GemmTile<float>& tile) {
  static constexpr auto table = blocks(std::make_integer_sequence<int, kTileRows>());
  table[static_cast<size_t>(tile.m - 1)](tile);
}

const PairKernels* kernels() {
  static constexpr PairKernels table = {
      &sum,  &arrange, &pair_up,
      &dots, &unpack,  {kTileRows, kTileColumns, nullptr, &multiply, nullptr}};
  return has_fast_pairs() ? &table : nullptr;
}

#else

const PairKernels* kernels() { return nullptr; }

#endif

}  // namespace HWY_NAMESPACE
}  // namespace mica::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace mica::cpu {

HWY_EXPORT(kernels);
const PairKernels* pair_kernels() { return HWY_DYNAMIC_DISPATCH(kernels)(); }

}  // namespace mica::cpu
#endif
