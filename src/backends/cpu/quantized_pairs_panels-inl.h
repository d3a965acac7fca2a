// Panels of a quantized matrix as numbers of bfloat16, and their products group by group
// (quantized_pairs.h). Included by kernel files once per vector instruction set (Highway's
// foreach_target).
#if defined(MICA_CPU_QUANTIZED_PAIRS_PANELS_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef MICA_CPU_QUANTIZED_PAIRS_PANELS_INL_H
#undef MICA_CPU_QUANTIZED_PAIRS_PANELS_INL_H
#else
#define MICA_CPU_QUANTIZED_PAIRS_PANELS_INL_H
#endif

#include <algorithm>
#include <array>
#include <utility>

#include "backends/cpu/bits-inl.h"
#include "backends/cpu/known_from_here.h"
#include "backends/cpu/pairs-inl.h"
#include "backends/cpu/quantized_pairs.h"
#include "backends/cpu/quantized_scales-inl.h"

HWY_BEFORE_NAMESPACE();
namespace mica::cpu {
namespace HWY_NAMESPACE {

#if HWY_ARCH_X86 && HWY_MAX_BYTES == 64

constexpr int kTileRows = 7, kTileVectors = 2, kTileColumns = 16 * kTileVectors;
// Columns of the matrix that are unpacked at a time, at most: whole groups.
constexpr int64_t kBlockColumns = 256;

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

// q - 2^(kBits - 1) of some columns, a multiple of 32, in the order of pairs.
template <int kBits>
HWY_INLINE void unpack_pairs(const std::byte* from, int64_t columns, uint16_t* to) {
  alignas(64) static const auto kNumbers = [] {
    std::array<bfloat16_t, 64> numbers{};
    for (size_t i = 0; i < 64; ++i)
      numbers[i] = bfloat16_t(static_cast<float>(i % (1 << kBits)) - (1 << (kBits - 1)));
    return numbers;
  }();
  const __m512i first = _mm512_load_si512(kNumbers.data()),
                second = _mm512_load_si512(kNumbers.data() + 32);
  for (int64_t i = 0; i < columns; i += 64, from += 8 * kBits) {
    const int64_t some = std::min<int64_t>(64, columns - i);
    const __m512i line = unpacked_line<kBits, Columns::InPairs>(_mm512_maskz_loadu_epi8(
        static_cast<__mmask64>((uint64_t{1} << (some * kBits / 8)) - 1), from));
    const auto store = [&](__m256i half, int64_t at) HWY_ATTR {
      // The table looks at the last six bits.
      const __m512i places =
          _mm512_and_si512(_mm512_cvtepu8_epi16(half), _mm512_set1_epi16((1 << kBits) - 1));
      _mm512_storeu_si512(to + i + at, _mm512_permutex2var_epi16(first, places, second));
    };
    store(_mm512_castsi512_si256(line), 0);
    if (some == 64) store(_mm512_extracti64x4_epi64(line, 1), 32);
  }
}

void unpack_pairs(const QuantizedMatrix& w, int64_t row, int64_t first, int64_t columns,
                  uint16_t* to) {
  const std::byte* from =
      reinterpret_cast<const std::byte*>(w.packed_row(row)) + first * w.bits / 8;
  switch (w.bits) {
    case 2: return unpack_pairs<2>(from, columns, to);
    case 3: return unpack_pairs<3>(from, columns, to);
    case 5: return unpack_pairs<5>(from, columns, to);
    case 6: return unpack_pairs<6>(from, columns, to);
    default:
      HWY_ALIGN bfloat16_t in_order[kBlockColumns];
      unpack_centred(w, row, first, columns, in_order);
      pair_up(in_order, columns, to);
  }
}

// Rows of other bits, some groups of all rows at a time.
void unpack_blocks(const PairFormat& f, const QuantizedMatrix& w, int64_t first, int count,
                   const PanelPlaces& places) {
  HWY_ALIGN uint16_t numbers[kTileColumns * kBlockColumns];
  const int64_t some = kBlockColumns / f.group_size;
  for (int64_t g0 = 0; g0 < places.groups; g0 += some) {
    const int64_t groups = std::min(some, places.groups - g0);
    for (int i = 0; i < count; ++i)
      unpack_pairs(w, first + i, (places.g0 + g0) * f.group_size, groups * f.group_size,
                   numbers + i * kBlockColumns);
    for (int64_t g = 0; g < groups; ++g) {
      const std::byte* vectors[kTileColumns];
      for (int i = 0; i < count; ++i)
        vectors[i] =
            reinterpret_cast<const std::byte*>(numbers + i * kBlockColumns + g * f.group_size);
      bfloat16_pair_kernels()->pack({vectors, count, Dtype::BF16, 1, false}, kTileColumns, 0,
                                    places.pairs, places.at((g0 + g) * places.pairs));
    }
  }
}

void unpack(const PairFormat& f, const QuantizedMatrix& w, int64_t first, int count, int64_t g0,
            int64_t groups, float* panel) {
  const F32 d;
  const PanelPlaces places(f, g0, groups, panel);
  f.bits == 4 ? unpack_fours(w, first, count, places) : unpack_blocks(f, w, first, count, places);
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

#endif

}  // namespace HWY_NAMESPACE
}  // namespace mica::cpu
HWY_AFTER_NAMESPACE();

#endif
