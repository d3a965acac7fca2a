// Products of tiles of x with rows of a quantized matrix that are turned so that a vector holds the
// same four columns of several rows: sums need no adding across lanes, and scales apply lane by
// lane. Included by kernel files once per vector instruction set (Highway's foreach_target).
#if defined(MICA_CPU_QUANTIZED_PANELS_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef MICA_CPU_QUANTIZED_PANELS_INL_H
#undef MICA_CPU_QUANTIZED_PANELS_INL_H
#else
#define MICA_CPU_QUANTIZED_PANELS_INL_H
#endif

#include <algorithm>
#include <cstring>
#include <type_traits>

#include "backends/cpu/int8_lanes-inl.h"
#include "backends/cpu/quantized_int8.h"
#include "backends/cpu/quantized_scales-inl.h"

HWY_BEFORE_NAMESPACE();
namespace mica::cpu {
namespace HWY_NAMESPACE {

// Rows of scales that are read together.
constexpr int kScaleGroups = 16;

// Where the integers of x lie that a packed byte is multiplied with (4 bits: its lower half).
template <int kBits>
HWY_INLINE int64_t opposite(int64_t byte) {
  return kBits == 8 ? byte : byte / 64 * 128 + byte % 64;
}

struct PackedRows {
  // Beyond the last row the last one again.
  PackedRows(const QuantizedMatrix& matrix, int64_t first, int rows) {
    packed[0] = reinterpret_cast<const uint8_t*>(matrix.packed_row(first));
    scales[0] = matrix.scales_row(first);
    biases[0] = matrix.biases_row(first);
    const int64_t packed_bytes = 4 * matrix.packed_stride,
                  scales_bytes = matrix.scales_stride * size_of(matrix.scales_dtype),
                  biases_bytes = matrix.biases_stride * size_of(matrix.biases_dtype);
    for (int i = 1; i < kInt8Rows; ++i) {
      packed[i] = packed[i - 1] + (i < rows ? packed_bytes : 0);
      scales[i] = scales[i - 1] + (i < rows ? scales_bytes : 0);
      biases[i] = biases[i - 1] + (i < rows ? biases_bytes : 0);
    }
  }
  const uint8_t* packed[kInt8Rows];
  const std::byte *scales[kInt8Rows], *biases[kInt8Rows];
};

#if HWY_TARGET != HWY_SCALAR

constexpr int kLanes = static_cast<int>(hn::MaxLanes(I32()));
constexpr int kBytes = 4 * kLanes;

HWY_INLINE VU8 lower_halves(VU8 bytes) { return hn::And(bytes, hn::Set(U8(), 15)); }
HWY_INLINE VU8 upper_halves(VU8 bytes) {
  const hn::Repartition<uint16_t, U8> d16;
  return lower_halves(hn::BitCast(U8(), hn::ShiftRight<4>(hn::BitCast(d16, bytes))));
}

#endif  // HWY_TARGET != HWY_SCALAR

// The place in a tile of `count` rows of the words that `at` packed bytes of a row and one half of
// them (8 bits: all) are multiplied with.
HWY_INLINE int64_t place_of_words(const Int8Format& f, int64_t at, int half, int count) {
  const int64_t group = at / f.group_bytes(), words = at % f.group_bytes() / 4 * (8 / f.bits);
  return count * (group * f.tile_group_bytes() + (words + half) * 4);
}

#if HWY_MAX_BYTES == 64
// Sixteen words of all rows at a time; there are at most 16 rows.
inline void interleave_integers(const Int8Format& f, const std::byte* const* x, int count,
                                std::byte* to) {
  const F32 d;
  const auto rows = hn::FirstN(d, static_cast<size_t>(count));
  const int halves = 8 / f.bits;
  const int64_t bytes = f.groups * f.group_bytes();
  for (int64_t begin = 0; begin < bytes; begin += 64)
    for (int half = 0; half < halves; ++half) {
      VF32 v[16];
      for (int m = 0; m < 16; ++m) {
        const int8_t* row = f.integers(x[std::min(m, count - 1)]) + begin * halves + half * 64;
        v[m] = hn::LoadU(d, reinterpret_cast<const float*>(row));
      }
      transpose(v);
      for (int64_t i = 0, at = begin; i < 16 && at < bytes; ++i, at += 4) {
        std::byte* place = to + place_of_words(f, at, half, count);
        hn::BlendedStore(v[i], rows, d, reinterpret_cast<float*>(place));
      }
    }
}
#else
inline void interleave_integers(const Int8Format& f, const std::byte* const* x, int count,
                                std::byte* to) {
  const int halves = 8 / f.bits;
  for (int64_t at = 0; at < f.groups * f.group_bytes(); at += 4)
    for (int half = 0; half < halves; ++half) {
      std::byte* place = to + place_of_words(f, at, half, count);
      const int64_t from = f.bits == 8 ? opposite<8>(at) : opposite<4>(at) + half * 64;
      for (int m = 0; m < count; ++m, place += 4) std::memcpy(place, f.integers(x[m]) + from, 4);
    }
}
#endif

inline void interleave(const Int8Format& f, const std::byte* const* x, int count, std::byte* to) {
  interleave_integers(f, x, count, to);
  for (int64_t g = 0; g < f.groups; ++g) {
    std::byte* group = to + count * (g * f.tile_group_bytes() + f.group_size);
    float* steps = reinterpret_cast<float*>(group);
    for (int m = 0; m < count; ++m) {
      steps[m] = f.steps(x[m])[g];
      steps[count + m] = f.sums(x[m])[g];
    }
  }
}

#if HWY_TARGET != HWY_SCALAR

// A tile of x as it is read, group by group.
template <int M>
struct TileReader {
  // The words of all rows at one place.
  HWY_INLINE const int32_t* words() {
    const int32_t* at = next;
    next += M;
    return at;
  }
  HWY_INLINE const float* floats() { return reinterpret_cast<const float*>(words()); }
  const int32_t* next;
};

// Adds what a group's sums of integers mean: kVectors vectors of rows of the matrix. The steps and
// sums of x are next in the tile.
template <int M, int kVectors>
HWY_INLINE void add_group(const VI32 (&sum)[M][kVectors], const float* scales, const float* biases,
                          TileReader<M>& x, VF32 (&total)[M][kVectors]) {
  const F32 d;
  const float *steps = x.floats(), *x_sums = x.floats();
  for (int v = 0; v < kVectors; ++v) {
    const auto scale = hn::Load(d, scales + v * kLanes), bias = hn::Load(d, biases + v * kLanes);
    for (int m = 0; m < M; ++m) {
      const auto factor = hn::Mul(scale, hn::Set(d, steps[m]));
      total[m][v] = hn::MulAdd(hn::ConvertTo(d, sum[m][v]), factor, total[m][v]);
      total[m][v] = hn::MulAdd(bias, hn::Set(d, x_sums[m]), total[m][v]);
    }
  }
}

// Rows of a panel, and rows of x that are multiplied with it at once, so that the sums fill the
// registers.
#if HWY_MAX_BYTES == 64
constexpr int kPanelRows = 32, kTile = 6;
#else
constexpr int kPanelRows = 16, kTile = 3;
#endif
constexpr int kPanelVectors = kPanelRows / kLanes;
// Bytes of a panel for four columns.
constexpr int64_t kQuads = 4 * kPanelRows;

// One vector of each of kLanes rows, transposed: words of all rows to quads + i * kQuads.
template <int kBits>
HWY_INLINE void unpack_words(const uint8_t* const* from, int64_t at, int64_t words,
                             uint8_t* quads) {
  const F32 d;
  const U8 d8;
  VF32 v[kLanes];
  for (int i = 0; i < kLanes; ++i) v[i] = hn::BitCast(d, hn::LoadU(d8, from[i] + at));
  transpose(v);
  for (int64_t i = 0; i < words; ++i) {
    const auto bytes = hn::BitCast(d8, v[i]);
    if constexpr (kBits == 8) {
      hn::StoreU(bytes, d8, quads + i * kQuads);
    } else {
      hn::StoreU(lower_halves(bytes), d8, quads + 2 * i * kQuads);
      hn::StoreU(upper_halves(bytes), d8, quads + (2 * i + 1) * kQuads);
    }
  }
}

template <int kBits>
void unpack_rows(const uint8_t* const* rows, int64_t begin, int64_t bytes, uint8_t* quads) {
  const int64_t whole = bytes / kBytes * kBytes;
  constexpr int64_t kGrowth = kPanelRows * 8 / kBits;
  for (int64_t at = 0; at < whole; at += kBytes)
    unpack_words<kBits>(rows, begin + at, kLanes, quads + at * kGrowth);
  if (whole == bytes) return;
  HWY_ALIGN uint8_t last[kLanes][kBytes] = {};
  const uint8_t* copies[kLanes];
  for (int i = 0; i < kLanes; ++i) {
    std::memcpy(last[i], rows[i] + begin + whole, static_cast<size_t>(bytes - whole));
    copies[i] = last[i];
  }
  unpack_words<kBits>(copies, 0, (bytes - whole) / 4, quads + whole * kGrowth);
}

void unpack(const Int8Format& f, const QuantizedMatrix& w, int64_t first, int rows, int64_t g0,
            int64_t groups, const Int8Panel& panel) {
  for (int r = 0; r < kPanelRows; r += kInt8Rows) {
    int some = std::clamp(rows - r, 1, kInt8Rows);
    const PackedRows from(w, first + std::min(r, rows - 1), some);
    read_scales(from.scales, w.scales_dtype, g0, groups, panel.scales + r, kPanelRows);
    read_scales(from.biases, w.biases_dtype, g0, groups, panel.biases + r, kPanelRows);
    for (int v = 0; v < kInt8Rows; v += kLanes) {
      int64_t begin = g0 * f.group_bytes(), bytes = groups * f.group_bytes();
      uint8_t* quads = panel.quads + (r + v) * 4;
      if (f.bits == 4)
        unpack_rows<4>(from.packed + v, begin, bytes, quads);
      else
        unpack_rows<8>(from.packed + v, begin, bytes, quads);
    }
  }
}

HWY_INLINE VI8 broadcast(const int32_t* quad) { return hn::BitCast(I8(), hn::Set(I32(), *quad)); }

// What a panel is made from, fetched group by group.
struct RowsAhead {
  RowsAhead(const Int8Format& f, const Int8Place& place, int rows)
      : packed{place.packed()},
        scales{place.scales()},
        biases{place.biases()},
        lines(rows * f.group_bytes() / 64),
        groups_per_line(64 / (rows * size_of(place.matrix->scales_dtype))) {}
  HWY_INLINE void fetch(int64_t group) {
    packed.fetch(lines);
    if (groups_per_line > 1 && group % groups_per_line != 0) return;
    scales.fetch(1);
    biases.fetch(1);
  }
  Ahead packed, scales, biases;
  int64_t lines, groups_per_line;
};

// Calls f(m, v, row, quad) for the next `count` quads of a panel and of M rows of x.
template <int M, class F>
HWY_INLINE void for_each_quad(const uint8_t* quads, int64_t count, TileReader<M>& x, F&& f) {
  const U8 d;
  for (int64_t q = 0; q < count; ++q, quads += kQuads) {
    VU8 rows[kPanelVectors];
    for (int v = 0; v < kPanelVectors; ++v) rows[v] = hn::Load(d, quads + v * kBytes);
    const int32_t* words = x.words();
    for (int m = 0; m < M; ++m) {
      const auto quad = broadcast(words + m);
      for (int v = 0; v < kPanelVectors; ++v) f(m, v, rows[v], quad);
    }
  }
}

// The integer sums of a group.
template <class W, int M>
HWY_INLINE void sum_quads(const uint8_t* quads, int64_t count, TileReader<M>& x,
                          VI32 (&sum)[M][kPanelVectors]) {
  for (int m = 0; m < M; ++m)
    for (int v = 0; v < kPanelVectors; ++v) sum[m][v] = hn::Zero(I32());
#if HWY_ARCH_X86 && HWY_MAX_BYTES >= 32
  if constexpr (kHasShortSums<W>) {
    for (int64_t q = 0; q < count; q += kShortSums) {
      VI16 part[M][kPanelVectors];
      for (int m = 0; m < M; ++m)
        for (int v = 0; v < kPanelVectors; ++v) part[m][v] = hn::Zero(I16());
      for_each_quad<M>(
          quads + q * kQuads, kShortSums, x,
          [&](int m, int v, VU8 row, VI8 quad) HWY_ATTR
          __attribute__((always_inline)) { add_short_products(part[m][v], row, quad); });
      for (int m = 0; m < M; ++m)
        for (int v = 0; v < kPanelVectors; ++v)
          sum[m][v] = hn::Add(sum[m][v], widened_sums(part[m][v]));
    }
    return;
  }
#endif
  for_each_quad<M>(quads, count, x,
                   [&](int m, int v, VU8 row, VI8 quad) HWY_ATTR
                   __attribute__((always_inline)) { sum[m][v] = dot4<W>(sum[m][v], row, quad); });
}

template <class W, int M>
void multiply_tile(const Int8Format& f, const Int8Panel& panel, int64_t groups,
                   const std::byte* tile, float* out, bool continues, RowsAhead* ahead) {
  const F32 d;
  const int64_t quads_of_group = f.group_size / 4;
  TileReader<M> x{reinterpret_cast<const int32_t*>(tile)};
  VF32 total[M][kPanelVectors];
  for (int m = 0; m < M; ++m)
    for (int v = 0; v < kPanelVectors; ++v)
      total[m][v] = continues ? hn::Load(d, out + m * kPanelRows + v * kLanes) : hn::Zero(d);
  const uint8_t* quads = panel.quads;
  for (int64_t g = 0; g < groups; ++g) {
    VI32 sum[M][kPanelVectors];
    sum_quads<W, M>(quads, quads_of_group, x, sum);
    quads += quads_of_group * kQuads;
    if (ahead) ahead->fetch(g);
    add_group<M, kPanelVectors>(sum, panel.scales + g * kPanelRows, panel.biases + g * kPanelRows,
                                x, total);
  }
  for (int m = 0; m < M; ++m)
    for (int v = 0; v < kPanelVectors; ++v)
      hn::Store(total[m][v], d, out + m * kPanelRows + v * kLanes);
}

template <class W, int M = kTile>
void multiply_rest(const Int8Format& f, const Int8Panel& panel, int64_t groups,
                   const std::byte* tile, int64_t m, float* out, bool continues, RowsAhead* ahead) {
  if (m == M) return multiply_tile<W, M>(f, panel, groups, tile, out, continues, ahead);
  if constexpr (M > 1) multiply_rest<W, M - 1>(f, panel, groups, tile, m, out, continues, ahead);
}

template <bool kFast>
void multiply(const Int8Format& f, const Int8Panel& panel, int64_t groups, const std::byte* tile,
              int64_t m, float* out, bool continues, const Int8Place* next) {
  const auto run =
      f.bits == 4 ? &multiply_rest<Weights<4, kFast>> : &multiply_rest<Weights<8, kFast>>;
  if (!next) return run(f, panel, groups, tile, m, out, continues, nullptr);
  RowsAhead ahead(f, *next, kPanelRows);
  run(f, panel, groups, tile, m, out, continues, &ahead);
}

#endif

}  // namespace HWY_NAMESPACE
}  // namespace mica::cpu
HWY_AFTER_NAMESPACE();

#endif
