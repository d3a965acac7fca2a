#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backends/cpu/quantized_int8_kernels.cc"
#include "backends/cpu/highway_targets.h"
//
#include <hwy/foreach_target.h>  // IWYU pragma: keep
//
#include <algorithm>
#include <cmath>
#include <cstring>

#include "backends/cpu/int8_lanes-inl.h"
#include "backends/cpu/quantized_int8.h"
#include "backends/cpu/quantized_scales-inl.h"

HWY_BEFORE_NAMESPACE();
namespace mica::cpu {
namespace HWY_NAMESPACE {

// A step of a smaller largest value might not be a normal number.
constexpr float kSmallest = 1e-30f;
// Groups whose integer sums are kept at a time.
constexpr int64_t kChunk = 64;
// Rows of scales that are read together.
constexpr int kScaleGroups = 16;

// The integers of a group, in signed digits, highest first, to[digit * 128 + i], and their sum.
template <int kDigits>
HWY_INLINE void prepare_group(const float* x, int64_t n, float inverse, int8_t* to, int32_t* sum) {
  const F32 d;
  const hn::Rebind<int32_t, F32> d32;
  const hn::Rebind<int8_t, F32> d8;
  const auto factor = hn::Set(d, inverse);
  const auto half = hn::Set(d32, 128);
  auto total = hn::Zero(d32);
  for (int64_t i = 0; i < n; i += static_cast<int64_t>(hn::Lanes(d))) {
    auto v = hn::NearestInt(hn::Mul(hn::LoadU(d, x + i), factor));
    total = hn::Add(total, v);
    for (int digit = kDigits - 1; digit > 0; --digit) {
      const auto rest = hn::ShiftRight<8>(hn::Add(v, half));
      hn::StoreU(hn::DemoteTo(d8, hn::Sub(v, hn::ShiftLeft<8>(rest))), d8, to + digit * 128 + i);
      v = rest;
    }
    hn::StoreU(hn::DemoteTo(d8, v), d8, to + i);
  }
  *sum = hn::GetLane(hn::SumOfLanes(d32, total));
}

HWY_INLINE float largest_of(const float* x, int64_t n, float* sum) {
  const F32 d;
  auto most = hn::Zero(d), total = hn::Zero(d);
  for (int64_t i = 0; i < n; i += static_cast<int64_t>(hn::Lanes(d))) {
    const auto v = hn::LoadU(d, x + i);
    most = hn::Max(most, hn::Abs(v));  // may lose a NaN, which the sum keeps
    total = hn::Add(total, hn::Mul(v, hn::Zero(d)));
  }
  *sum = sum_lanes(d, total);
  return max_lanes(d, most);
}

// The even of n elements to `even`, the odd ones to even + 64.
HWY_INLINE void split_pairs(const int8_t* from, int64_t n, int8_t* even) {
#if HWY_TARGET == HWY_SCALAR
  for (int64_t i = 0; i < n / 2; ++i) {
    even[i] = from[2 * i];
    even[64 + i] = from[2 * i + 1];
  }
#else
  const hn::CappedTag<int8_t, 16> d;
  for (int64_t i = 0; i < n / 2; i += 16) {
    hn::Vec<decltype(d)> a, b;
    hn::LoadInterleaved2(d, from + 2 * i, a, b);
    hn::StoreU(a, d, even + i);
    hn::StoreU(b, d, even + 64 + i);
  }
#endif
}

template <int kDigits>
bool prepare_digits(const Int8Format& f, const float* x, std::byte* row) {
  // The highest digit is at most 127.
  constexpr float kLargest = kDigits == 1 ? 127 : 127 * 65536.0f;
  std::fill(row, row + kDigits * f.row_bytes, std::byte{0});
  HWY_ALIGN int8_t group[kDigits * 128];
  for (int64_t g = 0; g < f.groups; ++g, x += f.group_size) {
    float zero, most = largest_of(x, f.group_size, &zero);
    if (!(zero == 0) || (most != 0 && most < kSmallest)) return false;
    if (most == 0) continue;
    int32_t sum = 0;
    prepare_group<kDigits>(x, f.group_size, kLargest / most, group, &sum);
    const int64_t place = g * f.group_size;
    float step = most / kLargest;
    f.sums_of(row)[g] = step * static_cast<float>(sum);
    for (int digit = kDigits - 1; digit >= 0; --digit, step *= 256) {
      std::byte* to = row + digit * f.row_bytes;
      f.steps_of(to)[g] = step;
      if (f.bits == 8)
        std::memcpy(f.integers_of(to) + place, group + digit * 128,
                    static_cast<size_t>(f.group_size));
      else
        split_pairs(group + digit * 128, f.group_size,
                    f.integers_of(to) + place / 128 * 128 + place % 128 / 2);
    }
  }
  return true;
}

bool prepare(const Int8Format& f, const float* x, std::byte* row) {
  return f.digits == 1 ? prepare_digits<1>(f, x, row) : prepare_digits<3>(f, x, row);
}

// Where the integers of x lie that a packed byte is multiplied with (4 bits: its lower half).
template <int kBits>
HWY_INLINE int64_t opposite(int64_t byte) {
  return kBits == 8 ? byte : byte / 64 * 128 + byte % 64;
}

struct PackedRows {
  PackedRows(const QuantizedMatrix& matrix, int64_t first, int rows) {
    for (int i = 0; i < kInt8Rows; ++i) {
      int64_t row = first + std::min(i, rows - 1);
      packed[i] = reinterpret_cast<const uint8_t*>(matrix.packed_row(row));
      scales[i] = matrix.scales_row(row);
      biases[i] = matrix.biases_row(row);
    }
  }
  const uint8_t* packed[kInt8Rows];
  const std::byte *scales[kInt8Rows], *biases[kInt8Rows];
};

#if HWY_TARGET != HWY_SCALAR

constexpr int kLanes = static_cast<int>(hn::MaxLanes(I32()));
constexpr int kBytes = 4 * kLanes;
// Vectors of a tile's rows.
constexpr int kRowVectors = kInt8Rows / kLanes;

HWY_INLINE VU8 lower_halves(VU8 bytes) { return hn::And(bytes, hn::Set(U8(), 15)); }
HWY_INLINE VU8 upper_halves(VU8 bytes) {
  const hn::Repartition<uint16_t, U8> d16;
  return lower_halves(hn::BitCast(U8(), hn::ShiftRight<4>(hn::BitCast(d16, bytes))));
}

// One vector of four packed rows, at byte `at` of the row, times M rows of x.
template <class W, int M>
HWY_INLINE void dot_rows(const uint8_t* const* packed, int64_t at, const int8_t* const* x,
                         int64_t x_at, VI32 (&sum)[M][4]) {
  const U8 d;
  const I8 d8;
  for (int r = 0; r < 4; ++r) {
    auto bytes = hn::LoadU(d, packed[r] + at);
    keep_loaded(bytes);
    if constexpr (W::kBits == 8) {
      for (int m = 0; m < M; ++m) sum[m][r] = dot4<W>(sum[m][r], bytes, hn::LoadU(d8, x[m] + x_at));
    } else {
      const auto low = lower_halves(bytes), high = upper_halves(bytes);
      for (int m = 0; m < M; ++m) {
        const int8_t* even = x[m] + opposite<4>(x_at);
        sum[m][r] = dot4<W>(sum[m][r], low, hn::LoadU(d8, even));
        sum[m][r] = dot4<W>(sum[m][r], high, hn::LoadU(d8, even + 64));
      }
    }
  }
}

// Integer sums of groups g0 … g0 + n of four packed rows, sums[(m * kChunk + g) * kInt8Rows].
// kGroup: 128-bit blocks of a group.
template <class W, int M, int kGroup>
HWY_INLINE void sum_groups(const Int8Format& f, const uint8_t* const* packed, Ahead& ahead,
                           const std::byte* const* x, int64_t g0, int64_t n, int32_t* sums) {
  constexpr int kBlocks = std::min(kGroup, kLanes / 4);         // of a vector that are one group's
  constexpr int kVectors = std::max(1, kGroup / (kLanes / 4));  // of a group
  constexpr int kGroups = std::max(1, kLanes / 4 / kGroup);     // of a vector
  const I32 d32;
  const int8_t* integers[M];
  for (int m = 0; m < M; ++m) integers[m] = f.integers(x[m]);
  for (int64_t g = 0; g < n; g += kGroups) {
    VI32 sum[M][4];
    for (int m = 0; m < M; ++m)
      for (int r = 0; r < 4; ++r) sum[m][r] = hn::Zero(d32);
    const int64_t at = (g0 + g) * kGroup * 16;
    if (n - g >= kGroups) {
      for (int v = 0; v < kVectors; ++v) {
        ahead.fetch(3 * kBytes / 64);
        dot_rows<W>(packed, at + v * kBytes, integers, at + v * kBytes, sum);
      }
    } else {  // the last vector is not whole
      HWY_ALIGN uint8_t last[4][kBytes] = {};
      const uint8_t* rows[4] = {last[0], last[1], last[2], last[3]};
      for (int r = 0; r < 4; ++r)
        std::memcpy(last[r], packed[r] + at, static_cast<size_t>((n - g) * kGroup * 16));
      dot_rows<W>(rows, 0, integers, at, sum);
    }
    for (int m = 0; m < M; ++m)
      store_blocks<kBlocks>(
          add_blocks<kBlocks>(block_sums(sum[m][0], sum[m][1], sum[m][2], sum[m][3])), n - g,
          sums + (m * kChunk + g) * kInt8Rows, kInt8Rows);
  }
}

template <class W, int M, int kGroup>
void dots_of(const Int8Format& f, const QuantizedMatrix& w, int64_t first, int count,
             const std::byte* const* x, float* out, const Int8Place& next) {
  const F32 d;
  const I32 d32;
  HWY_ALIGN int32_t sums[M * kChunk * kInt8Rows];
  HWY_ALIGN float scales[kScaleGroups * kInt8Rows], biases[kScaleGroups * kInt8Rows];
  const PackedRows rows(w, first, count);
  // A quarter of the packed bytes is left to the loop over groups.
  Ahead ahead{next.packed()}, scales_ahead{next.scales()}, biases_ahead{next.biases()};
  constexpr int64_t kLines = kGroup * 16 * kInt8Rows / 64 / 4;
  VF32 total[M][kRowVectors];
  for (int m = 0; m < M; ++m)
    for (int v = 0; v < kRowVectors; ++v) total[m][v] = hn::Zero(d);
  for (int64_t g0 = 0; g0 < f.groups; g0 += kChunk) {
    const int64_t n = std::min(kChunk, f.groups - g0);
    for (int r = 0; r < kInt8Rows; r += 4)
      sum_groups<W, M, kGroup>(f, rows.packed + r, ahead, x, g0, n, sums + r);
    for (int64_t g = 0; g < n; ++g) {
      if (g % kScaleGroups == 0) {
        int64_t some = std::min<int64_t>(kScaleGroups, n - g);
        read_scales(rows.scales, w.scales_dtype, g0 + g, some, scales, kInt8Rows);
        read_scales(rows.biases, w.biases_dtype, g0 + g, some, biases, kInt8Rows);
      }
      ahead.fetch(kLines);
      if (g % 2 == 0) {
        scales_ahead.fetch(1);
        biases_ahead.fetch(1);
      }
      for (int m = 0; m < M; ++m) {
        const std::byte* row = x[m];
        const auto step = hn::Set(d, f.steps(row)[g0 + g]), sum = hn::Set(d, f.sums(row)[g0 + g]);
        for (int v = 0; v < kRowVectors; ++v) {
          const int64_t place = g % kScaleGroups * kInt8Rows + v * kLanes;
          const auto integer =
              hn::ConvertTo(d, hn::Load(d32, sums + (m * kChunk + g) * kInt8Rows + v * kLanes));
          total[m][v] =
              hn::MulAdd(integer, hn::Mul(hn::Load(d, scales + place), step), total[m][v]);
          total[m][v] = hn::MulAdd(hn::Load(d, biases + place), sum, total[m][v]);
        }
      }
    }
  }
  for (int m = 0; m < M; ++m)
    for (int v = 0; v < kRowVectors; ++v)
      hn::StoreU(total[m][v], d, out + m * kInt8Rows + v * kLanes);
}

template <bool kFast, int M>
void dots_of_rows(const Int8Format& f, const QuantizedMatrix& w, int64_t first, int rows,
                  const std::byte* const* x, float* out, const Int8Place& next) {
  using W4 = Weights<4, kFast>;
  using W8 = Weights<8, kFast>;
  switch (f.group_bytes() / 16 + (f.bits == 8 ? 100 : 0)) {
    case 1: return dots_of<W4, M, 1>(f, w, first, rows, x, out, next);
    case 2: return dots_of<W4, M, 2>(f, w, first, rows, x, out, next);
    case 4: return dots_of<W4, M, 4>(f, w, first, rows, x, out, next);
    case 102: return dots_of<W8, M, 2>(f, w, first, rows, x, out, next);
    case 104: return dots_of<W8, M, 4>(f, w, first, rows, x, out, next);
    default: return dots_of<W8, M, 8>(f, w, first, rows, x, out, next);
  }
}

template <bool kFast>
void dots(const Int8Format& f, const QuantizedMatrix& w, int64_t first, int rows,
          const std::byte* const* x, int count, float* out, const Int8Place& next) {
  static_assert(kInt8FewRows == 3);
  if (count == 1) return dots_of_rows<kFast, 1>(f, w, first, rows, x, out, next);
  if (count == 2) return dots_of_rows<kFast, 2>(f, w, first, rows, x, out, next);
  dots_of_rows<kFast, 3>(f, w, first, rows, x, out, next);
}

// Rows of a panel; rows of x that are multiplied with it at once, so that the sums fill the
// registers; whether integers of four bits stay packed, two in a byte.
template <int kRowsOfOne, int kRowsOfX, bool kStaysPacked>
struct PanelShape {
  static constexpr int kRows = kRowsOfOne, kTile = kRowsOfX, kVectors = kRows / kLanes;
  static constexpr bool kPacked = kStaysPacked;
  // Bytes of the panel per packed byte of a row.
  template <int kBits>
  static constexpr int64_t kGrowth = kRows * (kBits == 4 && !kPacked ? 2 : 1);
};
#if HWY_MAX_BYTES == 64
using ManyRows = PanelShape<32, 6, false>;
using FewRows = PanelShape<16, 12, true>;
#else
using ManyRows = PanelShape<16, HWY_MAX_BYTES == 32 ? 2 : 3, false>;
using FewRows = ManyRows;
#endif

// One vector of each of kLanes rows, transposed: word i of all rows to quads + i * step.
template <class P, int kBits>
HWY_INLINE void unpack_words(const uint8_t* const* from, int64_t at, int64_t words,
                             uint8_t* quads) {
  const F32 d;
  const U8 d8;
  VF32 v[kLanes];
  for (int i = 0; i < kLanes; ++i) v[i] = hn::BitCast(d, hn::LoadU(d8, from[i] + at));
  transpose(v);
  constexpr int64_t kStep = P::kRows * 4;
  for (int64_t i = 0; i < words; ++i) {
    const auto bytes = hn::BitCast(d8, v[i]);
    if constexpr (kBits == 8 || P::kPacked) {
      hn::StoreU(bytes, d8, quads + i * kStep);
    } else {
      hn::StoreU(lower_halves(bytes), d8, quads + 2 * i * kStep);
      hn::StoreU(upper_halves(bytes), d8, quads + (2 * i + 1) * kStep);
    }
  }
}

template <class P, int kBits>
void unpack_rows(const uint8_t* const* rows, int64_t begin, int64_t bytes, uint8_t* quads) {
  const int64_t whole = bytes / kBytes * kBytes;
  constexpr int64_t kGrowth = P::template kGrowth<kBits>;
  for (int64_t at = 0; at < whole; at += kBytes)
    unpack_words<P, kBits>(rows, begin + at, kLanes, quads + at * kGrowth);
  if (whole == bytes) return;
  HWY_ALIGN uint8_t last[kLanes][kBytes] = {};
  const uint8_t* copies[kLanes];
  for (int i = 0; i < kLanes; ++i) {
    std::memcpy(last[i], rows[i] + begin + whole, static_cast<size_t>(bytes - whole));
    copies[i] = last[i];
  }
  unpack_words<P, kBits>(copies, 0, (bytes - whole) / 4, quads + whole * kGrowth);
}

template <class P>
void unpack(const Int8Format& f, const QuantizedMatrix& w, int64_t first, int rows, int64_t g0,
            int64_t groups, const Int8Panel& panel) {
  for (int r = 0; r < P::kRows; r += kInt8Rows) {
    int some = std::clamp(rows - r, 1, kInt8Rows);
    const PackedRows from(w, first + std::min(r, rows - 1), some);
    read_scales(from.scales, w.scales_dtype, g0, groups, panel.scales + r, P::kRows);
    read_scales(from.biases, w.biases_dtype, g0, groups, panel.biases + r, P::kRows);
    for (int v = 0; v < kInt8Rows; v += kLanes) {
      int64_t begin = g0 * f.group_bytes(), bytes = groups * f.group_bytes();
      uint8_t* quads = panel.quads + (r + v) * 4;
      if (f.bits == 4)
        unpack_rows<P, 4>(from.packed + v, begin, bytes, quads);
      else
        unpack_rows<P, 8>(from.packed + v, begin, bytes, quads);
    }
  }
}

HWY_INLINE VI8 broadcast(const int8_t* quad) {
  int32_t bits;
  std::memcpy(&bits, quad, sizeof(bits));
  return hn::BitCast(I8(), hn::Set(I32(), bits));
}

// Adds the products of one quad of each row of the panel with that of M rows of x, at `at`.
template <class W, int M, int kVectors>
HWY_INLINE void add_quads(const VU8 (&rows)[kVectors], const int8_t* const* x, int64_t at,
                          VI32 (&sum)[M][kVectors]) {
  for (int m = 0; m < M; ++m) {
    const auto quad = broadcast(x[m] + at);
    for (int v = 0; v < kVectors; ++v) sum[m][v] = dot4<W>(sum[m][v], rows[v], quad);
  }
}

// The integer sums of one group; `words`: of a packed row.
template <class P, class W, int M>
HWY_INLINE void sum_panel_group(const uint8_t* quads, const int8_t* const* x, int64_t at,
                                int64_t words, VI32 (&sum)[M][P::kVectors]) {
  const U8 d8;
  for (int m = 0; m < M; ++m)
    for (int v = 0; v < P::kVectors; ++v) sum[m][v] = hn::Zero(I32());
  for (int64_t w = 0; w < words; ++w, at += 4, quads += P::template kGrowth<W::kBits> * 4) {
    VU8 rows[P::kVectors], upper[P::kVectors];
    for (int v = 0; v < P::kVectors; ++v) {
      rows[v] = hn::Load(d8, quads + v * kBytes);
      if constexpr (W::kBits == 4 && P::kPacked) {
        upper[v] = upper_halves(rows[v]);
        rows[v] = lower_halves(rows[v]);
      } else if constexpr (W::kBits == 4) {
        upper[v] = hn::Load(d8, quads + P::kRows * 4 + v * kBytes);
      }
    }
    add_quads<W>(rows, x, at, sum);
    if constexpr (W::kBits == 4) add_quads<W>(upper, x, at + 64, sum);
  }
}

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

template <class P, class W, int M>
void multiply_tile(const Int8Format& f, const Int8Panel& panel, int64_t g0, int64_t groups,
                   const std::byte* const* x, float* out, bool continues, RowsAhead* ahead) {
  const F32 d;
  const int64_t words = f.group_bytes() / 4;
  const int8_t* integers[M];
  VF32 total[M][P::kVectors];
  for (int m = 0; m < M; ++m) {
    integers[m] = f.integers(x[m]);
    for (int v = 0; v < P::kVectors; ++v)
      total[m][v] = continues ? hn::Load(d, out + m * P::kRows + v * kLanes) : hn::Zero(d);
  }
  const uint8_t* quads = panel.quads;
  for (int64_t g = 0; g < groups; ++g) {
    VI32 sum[M][P::kVectors];
    const int64_t at = opposite<W::kBits>((g0 + g) * f.group_bytes());
    sum_panel_group<P, W>(quads, integers, at, words, sum);
    quads += words * P::template kGrowth<W::kBits> * 4;
    if (ahead) ahead->fetch(g);
    for (int v = 0; v < P::kVectors; ++v) {
      const auto scale = hn::Load(d, panel.scales + g * P::kRows + v * kLanes);
      const auto bias = hn::Load(d, panel.biases + g * P::kRows + v * kLanes);
      for (int m = 0; m < M; ++m) {
        const std::byte* row = x[m];
        const auto step = hn::Set(d, f.steps(row)[g0 + g]), x_sum = hn::Set(d, f.sums(row)[g0 + g]);
        total[m][v] = hn::MulAdd(hn::ConvertTo(d, sum[m][v]), hn::Mul(scale, step), total[m][v]);
        total[m][v] = hn::MulAdd(bias, x_sum, total[m][v]);
      }
    }
  }
  for (int m = 0; m < M; ++m)
    for (int v = 0; v < P::kVectors; ++v)
      hn::Store(total[m][v], d, out + m * P::kRows + v * kLanes);
}

template <class P, class W, int M = P::kTile>
void multiply_rest(const Int8Format& f, const Int8Panel& panel, int64_t g0, int64_t groups,
                   const std::byte* const* x, int64_t m, float* out, bool continues,
                   RowsAhead* ahead) {
  if (m == M) return multiply_tile<P, W, M>(f, panel, g0, groups, x, out, continues, ahead);
  if constexpr (M > 1)
    multiply_rest<P, W, M - 1>(f, panel, g0, groups, x, m, out, continues, ahead);
}

template <class P, bool kFast>
void multiply(const Int8Format& f, const Int8Panel& panel, int64_t g0, int64_t groups,
              const std::byte* const* x, int64_t m, float* out, bool continues,
              const Int8Place& next) {
  RowsAhead ahead(f, next, P::kRows);
  // Nearly equal tiles.
  int64_t tiles = (m + P::kTile - 1) / P::kTile, done = 0;
  for (int64_t i = 0; i < tiles; ++i) {
    int64_t end = m * (i + 1) / tiles;
    auto run =
        f.bits == 4 ? &multiply_rest<P, Weights<4, kFast>> : &multiply_rest<P, Weights<8, kFast>>;
    run(f, panel, g0, groups, x + done, end - done, out + done * P::kRows, continues,
        i == 0 && g0 == 0 ? &ahead : nullptr);
    done = end;
  }
}

#else  // one element after the other

constexpr int kPanelRows = kInt8Rows;

float scale_of(const std::byte* row, Dtype dtype, int64_t g) {
  return dispatch_floating(dtype, "quantized_matmul", [&](auto tag) {
    return static_cast<float>(reinterpret_cast<const typename decltype(tag)::type*>(row)[g]);
  });
}
// The integer of element i of a group whose packed bytes begin at `packed`.
int32_t integer_of(const uint8_t* packed, int64_t i, int bits) {
  return bits == 8 ? packed[i] : packed[i / 2] >> (i % 2 * 4) & 15;
}

// Where element k of x lies.
int64_t place_of(const Int8Format& f, int64_t k) {
  return f.bits == 8 ? k : k / 128 * 128 + k % 128 / 2 + k % 2 * 64;
}

void dots(const Int8Format& f, const QuantizedMatrix& w, int64_t first, int rows,
          const std::byte* const* x, int count, float* out, const Int8Place&) {
  const PackedRows from(w, first, rows);
  for (int m = 0; m < count; ++m)
    for (int r = 0; r < rows; ++r) {
      float total = 0;
      for (int64_t g = 0; g < f.groups; ++g) {
        int32_t sum = 0;
        for (int64_t i = 0; i < f.group_size; ++i) {
          sum += integer_of(from.packed[r] + g * f.group_bytes(), i, f.bits) *
                 f.integers(x[m])[place_of(f, g * f.group_size + i)];
        }
        total += static_cast<float>(sum) *
                 (scale_of(from.scales[r], w.scales_dtype, g) * f.steps(x[m])[g]);
        total += scale_of(from.biases[r], w.biases_dtype, g) * f.sums(x[m])[g];
      }
      out[m * kInt8Rows + r] = total;
    }
}

// A panel keeps bytes in the order of x.
void unpack(const Int8Format& f, const QuantizedMatrix& w, int64_t first, int rows, int64_t g0,
            int64_t groups, const Int8Panel& panel) {
  const PackedRows from(w, first, rows);
  for (int r = 0; r < kPanelRows; ++r)
    for (int64_t g = 0; g < groups; ++g) {
      panel.scales[g * kPanelRows + r] = scale_of(from.scales[r], w.scales_dtype, g0 + g);
      panel.biases[g * kPanelRows + r] = scale_of(from.biases[r], w.biases_dtype, g0 + g);
      for (int64_t i = 0; i < f.group_size; ++i)
        panel.quads[(r * groups + g) * f.group_size + i] = static_cast<uint8_t>(
            integer_of(from.packed[r] + (g0 + g) * f.group_bytes(), i, f.bits));
    }
}

void multiply(const Int8Format& f, const Int8Panel& panel, int64_t g0, int64_t groups,
              const std::byte* const* x, int64_t m, float* out, bool continues, const Int8Place&) {
  for (; m > 0; --m, ++x, out += kPanelRows)
    for (int r = 0; r < kPanelRows; ++r) {
      float total = continues ? out[r] : 0;
      for (int64_t g = 0; g < groups; ++g) {
        int32_t sum = 0;
        for (int64_t i = 0; i < f.group_size; ++i)
          sum += panel.quads[(r * groups + g) * f.group_size + i] *
                 f.integers(*x)[place_of(f, (g0 + g) * f.group_size + i)];
        total += static_cast<float>(sum) * (panel.scales[g * kPanelRows + r] * f.steps(*x)[g0 + g]);
        total += panel.biases[g * kPanelRows + r] * f.sums(*x)[g0 + g];
      }
      out[r] = total;
    }
}

#endif

#if HWY_TARGET != HWY_SCALAR
template <bool kFast>
constexpr Int8Kernels table_of() {
  return {&prepare,
          &dots<kFast>,
          kFast,
          FewRows::kTile,
          {FewRows::kRows, &unpack<FewRows>, &multiply<FewRows, kFast>},
          {ManyRows::kRows, &unpack<ManyRows>, &multiply<ManyRows, kFast>}};
}
#endif

const Int8Kernels* kernels([[maybe_unused]] bool fast) {
#if HWY_TARGET == HWY_SCALAR
  static constexpr Int8PanelKernels panels = {kPanelRows, &unpack, &multiply};
  static constexpr Int8Kernels table = {&prepare, &dots, false, 1, panels, panels};
  return &table;
#else
  static constexpr Int8Kernels tables[] = {table_of<false>(), table_of<true>()};
  return &tables[fast && has_fast_dots() ? 1 : 0];
#endif
}

}  // namespace HWY_NAMESPACE
}  // namespace mica::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace mica::cpu {

HWY_EXPORT(kernels);

namespace {
bool disabled_for_test = false;
}

const Int8Kernels& int8_kernels() { return *HWY_DYNAMIC_DISPATCH(kernels)(!disabled_for_test); }
void disable_byte_products(bool disabled) { disabled_for_test = disabled; }

}  // namespace mica::cpu
#endif
