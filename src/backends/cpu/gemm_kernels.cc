#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backends/cpu/gemm_kernels.cc"
#include "backends/cpu/highway_targets.h"
//
#include <hwy/foreach_target.h>  // IWYU pragma: keep
//
#include "backends/cpu/gemm_kernels.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <type_traits>
#include <utility>

#include "backends/cpu/known_from_here.h"
#include "backends/cpu/lanes-inl.h"
#include "backends/cpu/pairs-inl.h"
#include "backends/cpu/transpose-inl.h"

HWY_BEFORE_NAMESPACE();
namespace mica::cpu {
namespace HWY_NAMESPACE {

template <class T>
using Tag = hn::ScalableTag<T>;
HWY_INLINE hn::Vec<Tag<double>> load(Tag<double> d, const double* p) { return hn::LoadU(d, p); }
template <class T>
constexpr int kLanes = static_cast<int>(hn::MaxLanes(Tag<T>()));

// Accumulators, the row of b and one element of a fill the registers: 32 of them with AVX-512 and
// on Arm, 16 elsewhere.
#undef MICA_GEMM_ROWS
#undef MICA_GEMM_VECTORS
#if HWY_MAX_BYTES == 64
#define MICA_GEMM_ROWS 14
#define MICA_GEMM_VECTORS 2
#elif HWY_ARCH_ARM_A64
#define MICA_GEMM_ROWS 6
#define MICA_GEMM_VECTORS 4
#elif HWY_TARGET == HWY_SCALAR
#define MICA_GEMM_ROWS 2
#define MICA_GEMM_VECTORS 4
#else
#define MICA_GEMM_ROWS 6
#define MICA_GEMM_VECTORS 2
#endif
constexpr int kRows = MICA_GEMM_ROWS;
constexpr int kVectors = MICA_GEMM_VECTORS;

// What an element of a panel is: a number, or two of bfloat16 that follow each other along k.
enum class Terms { Numbers, Pairs };

template <Terms kTerms, class V>
HWY_INLINE V add_product(V left, V right, V sum) {
#if HWY_ARCH_X86 && HWY_MAX_BYTES == 64
  if constexpr (kTerms == Terms::Pairs) return add_pairs(left, right, sum);
#endif
  return hn::MulAdd(left, right, sum);
}

// Rows of bfloat16 pairs are aligned to one number only.
template <class T>
HWY_INLINE T element(const T* p) {
  T value;
  std::memcpy(&value, p, sizeof(T));
  return value;
}

// Adds the products of one k.
template <class T, class S, int R, int V, Terms kTerms, class Left>
HWY_INLINE void add_products(const S* HWY_RESTRICT b, Left&& left_at,
                             hn::Vec<Tag<T>> (&sum)[R][V]) {
  const Tag<T> d;
  hn::Vec<Tag<T>> row[V];
#pragma GCC unroll 4
  for (int v = 0; v < V; ++v) row[v] = load(d, b + v * kLanes<T>);
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
    const auto left = hn::Set(d, left_at(r));
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) sum[r][v] = add_product<kTerms>(left, row[v], sum[r][v]);
  }
}

// Sums of left(r, k) * b[v] over k, half of which are added when `midway` is called. S: the type of
// b's elements. Here and below loops over sums are unrolled by pragmas: unrolled later by the
// optimizer, they would leave the sums in memory.
template <class T, class S, int R, int V, Lie kLie, Terms kTerms = Terms::Numbers, class Midway>
HWY_INLINE void sum_products(int64_t kc, const T* HWY_RESTRICT a, int64_t stride,
                             const S* HWY_RESTRICT b, int64_t ldb, GemmAhead& ahead, Midway midway,
                             hn::Vec<Tag<T>> (&sum)[R][V]) {
  // A pointer for every three rows: the addresses of the others need no register.
  const T* rows[(R + 2) / 3];
  for (int i = 0; i < (R + 2) / 3; ++i) rows[i] = known_from_here(a + 3 * i * stride);
  const int64_t half = kc / 2;
  for (int64_t k = 0; k < kc;) {
    const int64_t end = std::min(k < half ? half : kc, k + ahead.left);
    ahead.left -= end - k;
    const std::byte* at = ahead.at;
    for (; k < end; ++k) {
      prefetch_far(at);
      at += ahead.step;
      add_products<T, S, R, V, kTerms>(
          b,
          [&](int r) __attribute__((always_inline)) {
            return kLie == Lie::Rows ? element(rows[r / 3] + r % 3 * stride + k) : a[r];
          },
          sum);
      a += stride;
      b += ldb;
    }
    ahead.at = at;
    if (ahead.left == 0) ahead.next_run();
    if (k == half) midway();
  }
}

#if HWY_ARCH_X86 && HWY_MAX_BYTES == 64
// Rounded as by bfloat16_t, but numbers below 2^-126 are zero, as where pairs are added.
HWY_INLINE void store_bfloat16(VF32 v, std::byte* to) {
  const hn::Rebind<uint16_t, F32> d16;
  hn::Vec<decltype(d16)> rounded;
  asm("vcvtneps2bf16 %1, %0" : "=v"(rounded.raw) : "v"(v.raw));
  hn::StoreU(rounded, d16, reinterpret_cast<uint16_t*>(to));
}
template <int R, int V>
HWY_INLINE void store_bfloat16_sums(const GemmTile<float>& tile, const float* c, std::byte* to,
                                    const VF32 (&sum)[R][V]) {
  const F32 d;
  constexpr int L = kLanes<float>;
  const int64_t ldc = tile.accumulate ? tile.ldc : 0;
  c = known_from_here(c);
  to = known_from_here(to);
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r, c += ldc, to += tile.rounded_stride)
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v)
      store_bfloat16(tile.accumulate ? hn::Add(hn::LoadU(d, c + v * L), sum[r][v]) : sum[r][v],
                     to + v * L * 2);
}
#endif

template <class T, int R, int V>
HWY_INLINE void store_sums(const GemmTile<T>& tile, T* c, const hn::Vec<Tag<T>> (&sum)[R][V]) {
  const Tag<T> d;
  constexpr int L = kLanes<T>;
  const int64_t ldc = tile.ldc;
  const bool accumulate = tile.accumulate;
  c = known_from_here(c);
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r, c += ldc)
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) {
      T* place = c + v * L;
      hn::StoreU(accumulate ? hn::Add(hn::LoadU(d, place), sum[r][v]) : sum[r][v], d, place);
    }
}

// The start of a tile runs while products of the one before are still being added, if it is short:
// hence a loop over tiles here, and where their sums go is fetched after half of the products.
// Loads of several members at once would wait for the stores of these, and all stores before them.
template <class T, Terms kTerms, Lie kLie, int R, int V>
void multiply_block(const GemmTile<T>& tile) {
  const Tag<T> d;
  const GemmAhead& next = tile.ahead;
  GemmAhead ahead{known_from_here(next.at),     known_from_here(next.step),
                  known_from_here(next.length), known_from_here(next.jump),
                  known_from_here(next.runs),   known_from_here(next.left)};
  const T* a = known_from_here(tile.a);
  T* c = known_from_here(tile.c);
  std::byte* rounded = known_from_here(tile.rounded);
  const bool rounds = rounded != nullptr;
  for (int64_t i = 0; i < tile.count; ++i) {
    hn::Vec<Tag<T>> sum[R][V];
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) sum[r][v] = hn::Zero(d);
    // Not inlined, it would be dropped: to the compiler it does nothing.
    const auto fetch_places = [&]() __attribute__((always_inline)) {
      for (int r = 0; r < R; ++r) {
        if (rounds) prefetch_far(rounded + r * tile.rounded_stride);
        for (int v = 0; v < V && (tile.accumulate || !rounds); ++v)
          prefetch_far(c + r * tile.ldc + v * kLanes<T>);
      }
    };
    sum_products<T, T, R, V, kLie, kTerms>(tile.kc, a, tile.a_stride, tile.b, tile.ldb, ahead,
                                           fetch_places, sum);
    bool stored = false;
#if HWY_ARCH_X86 && HWY_MAX_BYTES == 64
    if constexpr (kTerms == Terms::Pairs) {
      stored = rounds;
      if (stored) store_bfloat16_sums(tile, c, rounded, sum);
    }
#endif
    if (!stored) store_sums(tile, c, sum);
    a += tile.a_step;
    if (c) c += tile.c_step;
    if (rounds) rounded += tile.rounded_step;
  }
}

template <class T, class S, int R>
void stream_block(int64_t kc, const T* HWY_RESTRICT a, const std::byte* b, int64_t ldb,
                  T* HWY_RESTRICT c, int64_t ldc, bool continues, bool fetches) {
  const Tag<T> d;
  constexpr int L = kLanes<T>;
  constexpr int64_t kBytes = kVectors * L * sizeof(S);
  const int64_t row_bytes = ldb * static_cast<int64_t>(sizeof(S));
  const std::byte* next = b + kc * row_bytes;
  // Of narrower panels a row is one line or less, which is not worth it.
  for (int64_t k = 0; HWY_MAX_BYTES == 64 && fetches && k < kc; ++k, next += row_bytes)
    for (int64_t i = 0; i < kBytes; i += 64) prefetch_far(next + i);
  hn::Vec<Tag<T>> sum[R][kVectors];
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v)
      sum[r][v] = continues ? hn::LoadU(d, c + r * ldc + v * L) : hn::Zero(d);
  const S* row = reinterpret_cast<const S*>(b);
  for (int64_t k = 0; k < kc; ++k, a += kRows, row += ldb)
    add_products<T, S, R, kVectors, Terms::Numbers>(
        row, [&](int r) __attribute__((always_inline)) { return a[r]; }, sum);
  T* to = known_from_here(c);
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r, to += ldc)
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) hn::StoreU(sum[r][v], d, to + v * L);
}

template <class T>
using Block = void (*)(const GemmTile<T>&);
template <class T, Terms kTerms, Lie kLie, int... I>
constexpr std::array<Block<T>, sizeof...(I)> blocks(std::integer_sequence<int, I...>) {
  return {&multiply_block<T, kTerms, kLie, I / kVectors + 1, I % kVectors + 1>...};
}

void round_row(const float* from, int n, Dtype dtype, std::byte* to);
inline void round_row(const double*, int, Dtype, std::byte*) {}
#if HWY_ARCH_X86 && HWY_MAX_BYTES == 64
inline void round_row_of_pairs(const float* from, int n, std::byte* to) {
  constexpr int L = kLanes<float>;
  for (int i = 0; i < n; i += L) {
    std::byte part[L * 2];
    store_bfloat16(hn::LoadU(F32(), from + i), part);
    std::memcpy(to + i * 2, part, static_cast<size_t>(std::min(L, n - i)) * 2);
  }
}
#endif

// From a tile of sums, `ld` apart, to where they go.
template <class T, Terms kTerms>
void store_aside(const GemmTile<T>& tile, T* sums, int ld) {
  for (int r = 0; r < tile.m; ++r) {
    T* from = sums + r * ld;
    if (tile.accumulate) {
      const T* before = tile.c + r * tile.ldc;
      for (int j = 0; j < tile.n; ++j) from[j] = before[j] + from[j];
    }
    if (!tile.rounded) {
      std::copy_n(from, tile.n, tile.c + r * tile.ldc);
      continue;
    }
    std::byte* row = tile.rounded + r * tile.rounded_stride;
#if HWY_ARCH_X86 && HWY_MAX_BYTES == 64
    if constexpr (kTerms == Terms::Pairs) {
      if (tile.dtype == Dtype::BF16) {
        round_row_of_pairs(from, tile.n, row);
        continue;
      }
    }
#endif
    round_row(from, tile.n, tile.dtype, row);
  }
}

// Columns that do not fill the last vector, and sums that are rounded, pass through a tile of their
// own.
template <class T, Terms kTerms>
HWY_NOINLINE void multiply_aside(Block<T> block, int vectors, const GemmTile<T>& first) {
  HWY_ALIGN T sums[kRows * kVectors * kLanes<T>];
  GemmTile<T> tile = first, aside = first;
  aside.count = 1;
  aside.c = sums;
  aside.ldc = vectors * kLanes<T>;
  aside.accumulate = false;
  aside.rounded = nullptr;
  for (int64_t i = 0; i < first.count; ++i, tile.advance()) {
    aside.a = tile.a;
    block(aside);
    store_aside<T, kTerms>(tile, sums, static_cast<int>(aside.ldc));
    aside.ahead.skip(tile.kc);
  }
}

template <class T, Terms kTerms = Terms::Numbers>
void multiply(const GemmTile<T>& tile) {
  using Sizes = std::make_integer_sequence<int, kRows * kVectors>;
  static constexpr std::array<decltype(blocks<T, kTerms, Lie::Rows>(Sizes())), 2> table = {
      blocks<T, kTerms, Lie::Panel>(Sizes()), blocks<T, kTerms, Lie::Rows>(Sizes())};
  const int vectors = (tile.n + kLanes<T> - 1) / kLanes<T>;
  const auto place = static_cast<size_t>((tile.m - 1) * kVectors + vectors - 1);
  const Block<T> block = table[static_cast<size_t>(tile.lie)][place];
  const bool stored = !tile.rounded || (kTerms == Terms::Pairs && tile.dtype == Dtype::BF16);
  if (tile.n == vectors * kLanes<T> && stored) return block(tile);
  multiply_aside<T, kTerms>(block, vectors, tile);
}

template <class T>
using Stream = void (*)(int64_t, const T*, const std::byte*, int64_t, T*, int64_t, bool, bool);
template <class T, class S, int... I>
constexpr std::array<Stream<T>, sizeof...(I)> streams(std::integer_sequence<int, I...>) {
  return {&stream_block<T, S, I + 1>...};
}
template <class T, class S>
Stream<T> stream_of(int m) {
  static constexpr auto table = streams<T, S>(std::make_integer_sequence<int, kRows>());
  return table[static_cast<size_t>(m - 1)];
}

void stream_float(int m, int64_t kc, const float* a, const std::byte* b, Dtype dtype, int64_t ldb,
                  float* c, int64_t ldc, bool continues, bool fetches) {
  Stream<float> stream = dtype == Dtype::F16    ? stream_of<float, float16_t>(m)
                         : dtype == Dtype::BF16 ? stream_of<float, bfloat16_t>(m)
                                                : stream_of<float, float>(m);
  stream(kc, a, b, ldb, c, ldc, continues, fetches);
}
void stream_double(int m, int64_t kc, const double* a, const std::byte* b, Dtype, int64_t ldb,
                   double* c, int64_t ldc, bool continues, bool fetches) {
  stream_of<double, double>(m)(kc, a, b, ldb, c, ldc, continues, fetches);
}

// Any layout, element by element.
template <class S, class T>
void pack_each(const PanelSource& source, int width, int64_t k0, int64_t kc, T* panel) {
  for (int i = 0; i < width; ++i) {
    const std::byte* vector = source.dense ? source.vectors[0] + i * sizeof(S)
                                           : source.vectors[std::min(i, source.count - 1)];
    const S* from = reinterpret_cast<const S*>(vector) + k0 * source.stride;
    for (int64_t k = 0; k < kc; ++k)
      panel[k * width + i] = i < source.count ? static_cast<T>(from[k * source.stride]) : T(0);
  }
}

// Vectors dense along k: square blocks are transposed in registers. Where one block is wider than
// the panel, a store runs over the panel's row, and the next row, stored later, puts that right.
template <class S>
void pack_along(const PanelSource& source, int width, int64_t k0, int64_t kc, float* panel) {
#if HWY_TARGET == HWY_SCALAR
  pack_each<S>(source, width, k0, kc, panel);
#else
  const F32 d;
  constexpr int L = kLanes<float>;
  static_assert(L <= kPanelSlack);
  const int64_t whole = kc / L * L;
  for (int first = 0; first < width; first += L) {
    // Vectors beyond count are read from the last one and then cleared.
    const S* from[L];
    for (int i = 0; i < L; ++i)
      from[i] =
          reinterpret_cast<const S*>(source.vectors[std::min(first + i, source.count - 1)]) + k0;
    const auto present = hn::FirstN(d, static_cast<size_t>(std::clamp(source.count - first, 0, L)));
    for (int64_t k = 0; k < whole; k += L) {
      VF32 v[L];
      for (int i = 0; i < L; ++i) v[i] = load(d, from[i] + k);
      transpose(v);
      float* to = panel + k * width + first;
      for (int i = 0; i < L; ++i) {
        const auto column = hn::IfThenElseZero(present, v[i]);
        if (first == 0 || first + L <= width)
          hn::StoreU(column, d, to + i * width);
        else
          hn::BlendedStore(column, hn::FirstN(d, static_cast<size_t>(width - first)), d,
                           to + i * width);
      }
    }
  }
  pack_each<S>(source, width, k0 + whole, kc - whole, panel + whole * width);
#endif
}

// Whether loads of a part of a vector touch nothing else.
template <class S>
constexpr bool kMaskedLoads = HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX2 && std::is_same_v<S, float>;
template <class S>
HWY_INLINE VF32 load_first(F32 d, const S* from, int n) {
  if constexpr (kMaskedLoads<S>)
    return hn::MaskedLoad(hn::FirstN(d, static_cast<size_t>(n)), d, from);
  else
    return hn::Zero(d);
}

// Rows that lie far apart are not foreseen by hardware.
constexpr int64_t kRowsAhead = 16;

// Vectors that lie side by side: rows of `count` elements are copied.
template <class S>
void pack_across(const PanelSource& source, int width, int64_t k0, int64_t kc, float* panel) {
  const F32 d;
  constexpr int L = kLanes<float>;
  const S* from = reinterpret_cast<const S*>(source.vectors[0]) + k0 * source.stride;
  for (int64_t k = 0; k < kc; ++k, from += source.stride, panel += width) {
    prefetch_far(from + kRowsAhead * source.stride);
    prefetch_far(from + kRowsAhead * source.stride + source.count - 1);
    int i = 0;
    for (; i + L <= source.count; i += L) hn::StoreU(load(d, from + i), d, panel + i);
    if (kMaskedLoads<S> && i < source.count) {
      // Zeros beyond the panel's row; the next one is stored later.
      hn::StoreU(load_first(d, from + i, source.count - i), d, panel + i);
      i += L;
    }
    for (; i < source.count; ++i) panel[i] = static_cast<float>(from[i]);
    for (; i < width; ++i) panel[i] = 0;
  }
}

template <class S>
void pack_float_of(const PanelSource& source, int width, int64_t k0, int64_t kc, float* panel) {
  if (source.dense)
    pack_across<S>(source, width, k0, kc, panel);
  else if (source.stride == 1)
    pack_along<S>(source, width, k0, kc, panel);
  else
    pack_each<S>(source, width, k0, kc, panel);
}

void pack_float(const PanelSource& source, int width, int64_t k0, int64_t kc, float* panel) {
  switch (source.dtype) {
    case Dtype::F16: return pack_float_of<float16_t>(source, width, k0, kc, panel);
    case Dtype::BF16: return pack_float_of<bfloat16_t>(source, width, k0, kc, panel);
    default: return pack_float_of<float>(source, width, k0, kc, panel);
  }
}

#if HWY_ARCH_X86 && HWY_MAX_BYTES == 64
// Pairs of bfloat16 numbers, dense along k or side by side; k0 and kc count pairs.
void pack_pairs(const PanelSource& source, int width, int64_t k0, int64_t kc, float* panel) {
  if (!source.dense) return pack_along<float>(source, width, k0, kc, panel);
  const hn::ScalableTag<uint32_t> d;
  const hn::Rebind<uint16_t, decltype(d)> d16;
  constexpr int L = kLanes<float>;
  const auto* first = reinterpret_cast<const uint16_t*>(source.vectors[0]);
  auto* to = reinterpret_cast<uint32_t*>(panel);
  // Of each 32-bit lane the lower half from one vector, the upper half from the other.
  alignas(64) static constexpr uint16_t kLower[] = {0,  32, 1,  33, 2,  34, 3,  35, 4,  36, 5,
                                                    37, 6,  38, 7,  39, 8,  40, 9,  41, 10, 42,
                                                    11, 43, 12, 44, 13, 45, 14, 46, 15, 47};
  const __m512i lower = _mm512_load_si512(kLower);
  const __m512i upper = _mm512_add_epi16(lower, _mm512_set1_epi16(16));
  for (int64_t k = k0; k < k0 + kc; ++k, to += width) {
    const uint16_t *even = first + 2 * k * source.stride, *odd = even + source.stride;
    const uint16_t* ahead = even + 2 * kRowsAhead * source.stride;
    for (const uint16_t* row : {ahead, ahead + source.stride}) {
      prefetch_far(row);
      prefetch_far(row + source.count - 1);
    }
    int i = 0;
    for (; i + 2 * L <= source.count; i += 2 * L) {
      const __m512i firsts = _mm512_loadu_si512(even + i), seconds = _mm512_loadu_si512(odd + i);
      _mm512_storeu_si512(to + i, _mm512_permutex2var_epi16(firsts, lower, seconds));
      _mm512_storeu_si512(to + i + L, _mm512_permutex2var_epi16(firsts, upper, seconds));
    }
    for (; i < source.count; i += L) {
      // Zeros beyond the panel's row; the next one is stored later.
      const auto present = hn::FirstN(d16, static_cast<size_t>(source.count - i));
      hn::StoreU(hn::Or(hn::PromoteTo(d, hn::MaskedLoad(present, d16, even + i)),
                        hn::ShiftLeft<16>(hn::PromoteTo(d, hn::MaskedLoad(present, d16, odd + i)))),
                 d, to + i);
    }
    for (; i < width; ++i) to[i] = 0;
  }
}
#endif

void pack_double(const PanelSource& source, int width, int64_t k0, int64_t kc, double* panel) {
  pack_each<double>(source, width, k0, kc, panel);
}

template <class S>
void store_as(const float* from, int64_t n, std::byte* to) {
  const F32 d;
  constexpr int64_t L = kLanes<float>;
  S* out = reinterpret_cast<S*>(to);
  int64_t i = 0;
  for (; i + L <= n; i += L) store(d, hn::LoadU(d, from + i), out + i);
  for (; i < n; ++i) out[i] = S(from[i]);
}

void round_row(const float* from, int n, Dtype dtype, std::byte* to) {
  dtype == Dtype::F16 ? store_as<float16_t>(from, n, to) : store_as<bfloat16_t>(from, n, to);
}

void store_rounded(const float* from, int64_t n, Dtype dtype, std::byte* to) {
  switch (dtype) {
    case Dtype::F16: return store_as<float16_t>(from, n, to);
    case Dtype::BF16: return store_as<bfloat16_t>(from, n, to);
    default: std::memcpy(to, from, static_cast<size_t>(n) * sizeof(float));
  }
}

template <class S>
void load_as(const std::byte* from, int64_t n, float* to) {
  const F32 d;
  constexpr int64_t L = kLanes<float>;
  const S* in = reinterpret_cast<const S*>(from);
  int64_t i = 0;
  for (; i + L <= n; i += L) hn::StoreU(load(d, in + i), d, to + i);
  for (; i < n; ++i) to[i] = static_cast<float>(in[i]);
}

void load_widened(const std::byte* from, Dtype dtype, int64_t n, float* to) {
  switch (dtype) {
    case Dtype::F16: return load_as<float16_t>(from, n, to);
    case Dtype::BF16: return load_as<bfloat16_t>(from, n, to);
    default: std::memcpy(to, from, static_cast<size_t>(n) * sizeof(float));
  }
}

const GemmKernels<float>* float_kernels() {
  static constexpr GemmKernels<float> kernels = {
      kRows, kVectors * kLanes<float>, &pack_float, &multiply<float>, &stream_float, true};
  return &kernels;
}
const GemmKernels<float>* pair_kernels() {
#if HWY_ARCH_X86 && HWY_MAX_BYTES == 64
  static constexpr GemmKernels<float> kernels = {
      kRows, kVectors * kLanes<float>, &pack_pairs, &multiply<float, Terms::Pairs>, nullptr, true};
  return has_fast_pairs() ? &kernels : nullptr;
#else
  return nullptr;
#endif
}
const GemmKernels<double>* double_kernels() {
  static constexpr GemmKernels<double> kernels = {
      kRows, kVectors * kLanes<double>, &pack_double, &multiply<double>, &stream_double, true};
  return &kernels;
}

}  // namespace HWY_NAMESPACE
}  // namespace mica::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace mica::cpu {

HWY_EXPORT(float_kernels);
HWY_EXPORT(pair_kernels);
HWY_EXPORT(double_kernels);
HWY_EXPORT(store_rounded);
HWY_EXPORT(load_widened);

template <>
const GemmKernels<float>& gemm_kernels<float>() {
  return *HWY_DYNAMIC_DISPATCH(float_kernels)();
}
template <>
const GemmKernels<double>& gemm_kernels<double>() {
  return *HWY_DYNAMIC_DISPATCH(double_kernels)();
}
const GemmKernels<float>* bfloat16_pair_kernels() { return HWY_DYNAMIC_DISPATCH(pair_kernels)(); }

void store_rounded(const float* from, int64_t n, Dtype dtype, std::byte* to) {
  HWY_DYNAMIC_DISPATCH(store_rounded)(from, n, dtype, to);
}
void load_widened(const std::byte* from, Dtype dtype, int64_t n, float* to) {
  HWY_DYNAMIC_DISPATCH(load_widened)(from, dtype, n, to);
}

}  // namespace mica::cpu
#endif
