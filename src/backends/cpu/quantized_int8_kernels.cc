#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backends/cpu/quantized_int8_kernels.cc"
#include "backends/cpu/highway_targets.h"
//
#include <hwy/foreach_target.h>  // IWYU pragma: keep
//
#include <algorithm>
#include <cstring>

#include "backends/cpu/known_from_here.h"
#include "backends/cpu/quantized_int8.h"
#include "backends/cpu/quantized_int8_few-inl.h"
#include "backends/cpu/quantized_int8_prepare-inl.h"
#include "backends/cpu/quantized_panels-inl.h"

HWY_BEFORE_NAMESPACE();
namespace mica::cpu {
namespace HWY_NAMESPACE {

// Groups whose integer sums are kept at a time.
constexpr int64_t kChunk = 64;

#if HWY_TARGET != HWY_SCALAR

// The faster bytes are multiplied, the more is forgotten.
template <class W, int M, int kGroup>
constexpr int dots_times() {
  if (!W::kFast) return 1;
  if (W::kBits == 4) return M == 1 ? 2 : 1;
  return std::max(1, (kGroup == 2 ? 6 : 7) - 2 * M);
}
template <class W, int M, int kGroup>
using DotsAhead = AheadAgain<dots_times<W, M, kGroup>(), W::kBits == 4 ? 4096 : 2048>;

// Vectors of a tile's rows.
constexpr int kRowVectors = kInt8Rows / kLanes;

// One vector load(r) of four packed rows, from byte `at` of each, times M rows of x.
template <class W, int M, class Load>
HWY_INLINE void dot_rows(const Load& load, int64_t at, const int8_t* const* x, VI32 (&sum)[M][4]) {
  const I8 d8;
  for (int r = 0; r < 4; ++r) {
    auto bytes = load(r);
    keep_loaded(bytes);
    if constexpr (W::kBits == 8) {
      for (int m = 0; m < M; ++m) sum[m][r] = dot4<W>(sum[m][r], bytes, hn::LoadU(d8, x[m] + at));
    } else {
      const auto low = lower_halves(bytes), high = upper_halves(bytes);
      for (int m = 0; m < M; ++m) {
        const int8_t* even = x[m] + opposite<4>(at);
        sum[m][r] =
            dot4_of_two<W>(sum[m][r], low, hn::LoadU(d8, even), high, hn::LoadU(d8, even + 64));
      }
    }
  }
}

// Vectors of four rows that lie in memory only in part, the rest zeros.
struct LastBytes {
#if HWY_MAX_BYTES == 64
  LastBytes(const uint8_t* const* packed, int64_t at, int64_t count)
      : rows(packed), from(at), mask((uint64_t{1} << count) - 1) {}
  HWY_INLINE VU8 load(int r) const { return VU8{_mm512_maskz_loadu_epi8(mask, rows[r] + from)}; }

  const uint8_t* const* rows;
  int64_t from;
  uint64_t mask;
#else
  LastBytes(const uint8_t* const* packed, int64_t at, int64_t count) {
    for (int r = 0; r < 4; ++r) std::memcpy(bytes[r], packed[r] + at, static_cast<size_t>(count));
  }
  HWY_INLINE VU8 load(int r) const { return hn::Load(U8(), bytes[r]); }

  HWY_ALIGN uint8_t bytes[4][kBytes] = {};
#endif
};

// Integer sums of groups g0 … g0 + n of four packed rows, sums[(m * kChunk + g) * kInt8Rows].
// kGroup: 128-bit blocks of a group.
template <class W, int M, int kGroup>
HWY_INLINE void sum_groups(const Int8Format& f, const uint8_t* const* packed,
                           DotsAhead<W, M, kGroup>& ahead, const std::byte* const* x, int64_t g0,
                           int64_t n, int32_t* sums) {
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
        const int64_t place = at + v * kBytes;
        dot_rows<W>([&](int r) HWY_ATTR { return hn::LoadU(U8(), packed[r] + place); }, place,
                    integers, sum);
      }
    } else {  // the last vector is not whole
      ahead.fetch(3 * kBytes / 64);
      const LastBytes last(packed, at, (n - g) * kGroup * 16);
      dot_rows<W>([&](int r) HWY_ATTR { return last.load(r); }, at, integers, sum);
    }
    for (int m = 0; m < M; ++m)
      store_blocks<kBlocks>(add_blocks<kBlocks>(block_sums_of<W>(sum[m])), n - g,
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
  DotsAhead<W, M, kGroup> ahead{next.packed()};
  ScalesAhead scales_ahead{next.scales()}, biases_ahead{next.biases()};
  constexpr int64_t kLines = kGroup * 16 * kInt8Rows / 64 / 4;
  VF32 total[M][kRowVectors];
  for (int m = 0; m < M; ++m)
    for (int v = 0; v < kRowVectors; ++v) total[m][v] = hn::Zero(d);
  for (int64_t g0 = 0; g0 < f.groups; g0 += kChunk) {
    const int64_t n = std::min(kChunk, f.groups - g0);
    for (int r = 0; r < kInt8Rows; r += 4)
      sum_groups<W, M, kGroup>(f, known_from_here(rows.packed + r), ahead, x, g0, n, sums + r);
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
  static_assert(kInt8DotRows == 3);
  if (count == 1) return dots_of_rows<kFast, 1>(f, w, first, rows, x, out, next);
  if (count == 2) return dots_of_rows<kFast, 2>(f, w, first, rows, x, out, next);
  dots_of_rows<kFast, 3>(f, w, first, rows, x, out, next);
}

#else  // one element after the other

constexpr int kPanelRows = kInt8Rows, kTile = 1;

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

// Where element i of a group lies in a tile of one row.
int64_t place_in_tile(const Int8Format& f, int64_t i) {
  return f.bits == 8 ? i : i / 8 * 8 + i % 2 * 4 + i % 8 / 2;
}

void multiply(const Int8Format& f, const Int8Panel& panel, int64_t groups, const std::byte* tile,
              int64_t, float* out, bool continues, const Int8Place*) {
  for (int r = 0; r < kPanelRows; ++r) {
    float total = continues ? out[r] : 0;
    for (int64_t g = 0; g < groups; ++g) {
      const std::byte* x = tile + g * f.tile_group_bytes();
      int32_t sum = 0;
      for (int64_t i = 0; i < f.group_size; ++i)
        sum += panel.quads[(r * groups + g) * f.group_size + i] *
               reinterpret_cast<const int8_t*>(x)[place_in_tile(f, i)];
      const float* steps = reinterpret_cast<const float*>(x + f.group_size);
      total += static_cast<float>(sum) * (panel.scales[g * kPanelRows + r] * steps[0]);
      total += panel.biases[g * kPanelRows + r] * steps[1];
    }
    out[r] = total;
  }
}

#endif

#if HWY_TARGET != HWY_SCALAR
template <bool kFast>
constexpr Int8Kernels table_of() {
#if HWY_MAX_BYTES == 64
  constexpr Int8FewKernels few = {kMostOfFew, kFast ? 2 * kMostOfFew : 0, &multiply_few<>};
#else
  constexpr Int8FewKernels few = {};
#endif
  return {&prepare,
          &interleave,
          kFast,
          &dots<kFast>,
          few.most > 0 ? 2 : kInt8DotRows,
          few,
          {kPanelRows, kTile, &unpack, &multiply<kFast>}};
}
#endif

const Int8Kernels* kernels([[maybe_unused]] bool fast) {
#if HWY_TARGET == HWY_SCALAR
  static constexpr Int8Kernels table = {&prepare,
                                        &interleave,
                                        false,
                                        &dots,
                                        kInt8DotRows,
                                        {},
                                        {kPanelRows, kTile, &unpack, &multiply}};
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
