#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backends/cpu/dots.cc"
#include "backends/cpu/highway_targets.h"
//
#include <hwy/foreach_target.h>  // IWYU pragma: keep
//
#include "backends/cpu/dots.h"

#include <algorithm>
#include <cstring>
#include <type_traits>

#include "backends/cpu/lanes-inl.h"
#include "backends/cpu/pairs-inl.h"
#include "backends/cpu/tile_stream.h"

HWY_BEFORE_NAMESPACE();
namespace mica::cpu {
namespace HWY_NAMESPACE {

template <class T>
using DotTag = hn::ScalableTag<T>;
HWY_INLINE hn::Vec<DotTag<double>> load(DotTag<double> d, const double* p) {
  return hn::LoadU(d, p);
}
HWY_INLINE hn::Vec<DotTag<double>> load_part(DotTag<double> d, const double* p, size_t n) {
  HWY_ALIGN double part[hn::MaxLanes(DotTag<double>())] = {};
  std::copy_n(p, n, part);
  return hn::Load(d, part);
}

// Vectors that rows of S are multiplied with are in pairs of this many elements, the even ones
// first: both halves of a word of two bfloat16 numbers are numbers in one instruction.
template <class T, class S>
constexpr int64_t kPairs = std::is_same_v<S, bfloat16_t> && HWY_TARGET != HWY_SCALAR
                               ? static_cast<int64_t>(hn::MaxLanes(DotTag<T>()))
                               : 0;

#if HWY_TARGET != HWY_SCALAR
// Elements 0, 2, 4 … and 1, 3, 5 … of a vector twice as long.
HWY_INLINE void load_pairs(F32 d, const bfloat16_t* p, VF32& even, VF32& odd) {
  const hn::Rebind<uint32_t, F32> du;
  const auto words = hn::LoadU(du, reinterpret_cast<const uint32_t*>(p));
  even = hn::BitCast(d, hn::ShiftLeft<16>(words));
  odd = hn::BitCast(d, hn::And(words, hn::Set(du, 0xffff0000u)));
}

template <int R, int C>
void dots_of_pairs(const DotBlock<float>& block) {
  const F32 d;
  constexpr int64_t L = kPairs<float, bfloat16_t>, kLines = R * L * 4 / 64;
  VF32 sum[R][C];
  for (int r = 0; r < R; ++r)
    for (int c = 0; c < C; ++c) sum[r][c] = hn::Zero(d);
  Ahead ahead{block.ahead};
  auto add = [&](int64_t k, auto&& row_at) {
    VF32 even[R], odd[R];
    for (int r = 0; r < R; ++r) load_pairs(d, row_at(r), even[r], odd[r]);
    for (int c = 0; c < C; ++c) {
      const float* vector = block.vectors + c * block.stride + k;
      const auto x_even = hn::LoadU(d, vector), x_odd = hn::LoadU(d, vector + L);
      for (int r = 0; r < R; ++r)
        sum[r][c] = hn::MulAdd(odd[r], x_odd, hn::MulAdd(even[r], x_even, sum[r][c]));
    }
  };
  const bfloat16_t* rows[R];
  for (int r = 0; r < R; ++r) rows[r] = reinterpret_cast<const bfloat16_t*>(block.rows[r]);
  int64_t k = 0;
  for (; k + 2 * L <= block.k; k += 2 * L) {
    if (block.ahead) ahead.fetch(kLines);
    add(k, [&](int r) { return rows[r] + k; });
  }
  if (k < block.k) {
    bfloat16_t last[R][2 * L] = {};
    for (int r = 0; r < R; ++r) std::copy(rows[r] + k, rows[r] + block.k, last[r]);
    add(k, [&](int r) { return last[r]; });
  }
  for (int r = 0; r < R; ++r)
    for (int c = 0; c < C; ++c) block.out[r * kDotVectors + c] = sum_lanes(d, sum[r][c]);
}
#endif

#if HWY_ARCH_X86 && HWY_MAX_BYTES == 64
// Of bfloat16 rows and vectors.
template <int R, int C>
void dots_of_words(const DotBlock<float>& block) {
  const F32 d;
  constexpr int64_t L = kPairs<float, bfloat16_t>;
  VF32 sum[R][C];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (int c = 0; c < C; ++c) sum[r][c] = hn::Zero(d);
  auto add = [&](int64_t k, auto&& row_at) __attribute__((always_inline)) {
    VF32 row[R];
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) row[r] = hn::LoadU(d, reinterpret_cast<const float*>(row_at(r)));
#pragma GCC unroll 4
    for (int c = 0; c < C; ++c) {
      const auto vector = hn::LoadU(d, block.vectors + c * block.stride + k / 2);
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) sum[r][c] = add_pairs(row[r], vector, sum[r][c]);
    }
  };
  Ahead ahead{block.ahead};
  int64_t k = 0;
  for (; k + 2 * L <= block.k; k += 2 * L) {
    // Lines come in pairs.
    for (int i = 0; block.ahead && i < R; i += 2, ahead.next += 128) prefetch_far(ahead.next);
    add(k, [&](int r) { return block.rows[r] + 2 * k; });
  }
  if (k < block.k) {
    bfloat16_t last[R][2 * L] = {};
    for (int r = 0; r < R; ++r)
      std::memcpy(static_cast<void*>(last[r]), block.rows[r] + 2 * k,
                  static_cast<size_t>(block.k - k) * 2);
    add(k, [&](int r) { return reinterpret_cast<const std::byte*>(last[r]); });
  }
  for (int r = 0; r < R; ++r)
    for (int c = 0; c < C; ++c) block.out[r * kDotVectors + c] = sum_lanes(d, sum[r][c]);
}
#endif

void pair_up(int64_t k, float* vector) {
#if HWY_TARGET != HWY_SCALAR
  const F32 d;
  constexpr int64_t L = kPairs<float, bfloat16_t>;
  for (int64_t i = 0; i < k; i += 2 * L) {
    const auto low = hn::LoadU(d, vector + i), high = hn::LoadU(d, vector + i + L);
    hn::StoreU(hn::ConcatEven(d, high, low), d, vector + i);
    hn::StoreU(hn::ConcatOdd(d, high, low), d, vector + i + L);
  }
#else
  (void)k, (void)vector;
#endif
}

template <class T, class S, int R, int C>
void dots_of(const DotBlock<T>& block) {
#if HWY_ARCH_X86 && HWY_MAX_BYTES == 64
  if constexpr (kPairs<T, S> > 0)
    if (block.pairs) return dots_of_words<R, C>(block);
#endif
#if HWY_TARGET != HWY_SCALAR
  if constexpr (kPairs<T, S> > 0) return dots_of_pairs<R, C>(block);
#endif
  const DotTag<T> d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  const S* rows[R];
  const T* vectors[C];
  hn::Vec<DotTag<T>> sum[R][C];
  for (int r = 0; r < R; ++r) rows[r] = reinterpret_cast<const S*>(block.rows[r]);
  for (int c = 0; c < C; ++c) vectors[c] = block.vectors + c * block.stride;
  for (int r = 0; r < R; ++r)
    for (int c = 0; c < C; ++c) sum[r][c] = hn::Zero(d);
  int64_t k = 0;
  Ahead ahead{block.ahead};
  constexpr int64_t kLines = R * static_cast<int64_t>(hn::MaxLanes(d) * sizeof(S)) / 64;
  for (; k + lanes <= block.k; k += lanes) {
    if (block.ahead) ahead.fetch(kLines);
    hn::Vec<DotTag<T>> row[R];
    for (int r = 0; r < R; ++r) row[r] = load(d, rows[r] + k);
    for (int c = 0; c < C; ++c) {
      const auto vector = hn::LoadU(d, vectors[c] + k);
      for (int r = 0; r < R; ++r) sum[r][c] = hn::MulAdd(row[r], vector, sum[r][c]);
    }
  }
  if (k < block.k)
    for (int r = 0; r < R; ++r) {
      const auto row = load_part(d, rows[r] + k, static_cast<size_t>(block.k - k));
      for (int c = 0; c < C; ++c)
        sum[r][c] = hn::MulAdd(row, hn::LoadU(d, vectors[c] + k), sum[r][c]);
    }
  for (int r = 0; r < R; ++r)
    for (int c = 0; c < C; ++c)
      block.out[r * kDotVectors + c] = hn::GetLane(hn::SumOfLanes(d, sum[r][c]));
}

template <class T, class S, int R>
void dots_of_rows(const DotBlock<T>& block) {
  switch (block.vector_count) {
    case 1: return dots_of<T, S, R, 1>(block);
    case 2: return dots_of<T, S, R, 2>(block);
    case 3: return dots_of<T, S, R, 3>(block);
    default: return dots_of<T, S, R, 4>(block);
  }
}

// Rows that do not fill a block are taken one by one: they are few.
template <class T, class S>
void dots_of_type(const DotBlock<T>& block) {
  if (block.row_count == kDotRowsOfOne && block.vector_count == 1)
    return dots_of<T, S, kDotRowsOfOne, 1>(block);
  if (block.row_count == kDotRows) return dots_of_rows<T, S, kDotRows>(block);
  for (int r = 0; r < block.row_count; ++r) {
    DotBlock<T> one = block;
    one.rows = block.rows + r;
    one.out = block.out + r * kDotVectors;
    dots_of_rows<T, S, 1>(one);
  }
}

void dots_float(const DotBlock<float>& block) {
  switch (block.dtype) {
    case Dtype::F16: return dots_of_type<float, float16_t>(block);
    case Dtype::BF16: return dots_of_type<float, bfloat16_t>(block);
    default: return dots_of_type<float, float>(block);
  }
}
void dots_double(const DotBlock<double>& block) { dots_of_type<double, double>(block); }

}  // namespace HWY_NAMESPACE
}  // namespace mica::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace mica::cpu {

HWY_EXPORT(dots_float);
HWY_EXPORT(dots_double);
HWY_EXPORT(pair_up);

void dot_block(const DotBlock<float>& block) { HWY_DYNAMIC_DISPATCH(dots_float)(block); }
void dot_block(const DotBlock<double>& block) { HWY_DYNAMIC_DISPATCH(dots_double)(block); }
void pair_up_vector(int64_t k, float* vector) { HWY_DYNAMIC_DISPATCH(pair_up)(k, vector); }

namespace {

// The product seen as rows (many, dense) times vectors (few).
template <class T>
struct Sides {
  explicit Sides(const Gemm<T>& g)
      : swapped(!few(g.m, g.k, g.left, g.right)),
        rows(swapped ? g.left : g.right),
        vectors(swapped ? g.right : g.left),
        row_count(swapped ? g.m : g.n),
        vector_count(swapped ? g.n : g.m),
        padded((g.k + 31) / 32 * 32 / (in_pairs() ? 2 : 1) + kLineGap) {}
  // Whether products of bfloat16 pairs are added, and vectors need no conversion.
  bool in_pairs() const {
    return std::is_same_v<T, float> && rows.dtype == Dtype::BF16 && vectors.dtype == Dtype::BF16 &&
           vectors.inner_stride == 1 && bfloat16_pair_kernels() != nullptr;
  }
  static bool few(int64_t count, int64_t k, const GemmOperand& vectors, const GemmOperand& rows) {
    return count <= kMaxDots && k >= kDotDepth * count && rows.inner_stride == 1 && !rows.fill &&
           !vectors.fill;
  }

  bool swapped;  // the rows are the left operand's
  const GemmOperand &rows, &vectors;
  int64_t row_count, vector_count;
  // From vector to vector in the workspace: they would share cache sets if it was a power of two.
  static constexpr int64_t kLineGap = 64 / sizeof(T);
  int64_t padded;
};

template <class T>
void dots_of_block(const Gemm<T>& g, const Sides<T>& sides, const T* vectors, int64_t row0,
                   int row_count, const std::byte* ahead, bool pairs) {
  const std::byte* rows[kDotRowsOfOne];
  for (int r = 0; r < row_count; ++r) rows[r] = sides.rows.vector(row0 + r);
  T out[kDotRowsOfOne * kDotVectors];
  for (int64_t v = 0; v < sides.vector_count; v += kDotVectors) {
    int count = static_cast<int>(std::min<int64_t>(kDotVectors, sides.vector_count - v));
    dot_block({rows, row_count, sides.rows.dtype, vectors + v * sides.padded, sides.padded, count,
               g.k, out, ahead, pairs});
    ahead = nullptr;
    for (int r = 0; r < row_count; ++r)
      for (int c = 0; c < count; ++c) {
        T value = out[r * kDotVectors + c];
        if (sides.swapped)
          g.out.store(row0 + r, v + c, value);
        else
          g.out.store(v + c, row0 + r, value);
      }
  }
}

}  // namespace

template <class T>
void widen_vectors(const GemmOperand& operand, int64_t count, int64_t k, int64_t stride, T* to) {
  for (int64_t i = 0; i < count; ++i, to += stride) {
    const std::byte* from = operand.vector(i);
    if (operand.inner_stride == 1 && std::is_same_v<T, float>)
      load_widened(from, operand.dtype, k, reinterpret_cast<float*>(to));
    else
      dispatch_floating(operand.dtype, "matmul", [&](auto tag) {
        auto* typed = reinterpret_cast<const typename decltype(tag)::type*>(from);
        for (int64_t j = 0; j < k; ++j) to[j] = static_cast<T>(typed[j * operand.inner_stride]);
      });
    std::fill(to + k, to + stride, T(0));
  }
}
template void widen_vectors(const GemmOperand&, int64_t, int64_t, int64_t, float*);
template void widen_vectors(const GemmOperand&, int64_t, int64_t, int64_t, double*);

// Vectors of bfloat16 as they are, zero beyond k.
template <class T>
static void copy_vectors(const GemmOperand& operand, int64_t count, int64_t k, int64_t stride,
                         T* to) {
  for (int64_t i = 0; i < count; ++i, to += stride) {
    auto* bytes = reinterpret_cast<std::byte*>(to);
    std::memcpy(bytes, operand.vector(i), static_cast<size_t>(k) * 2);
    std::fill(bytes + k * 2, reinterpret_cast<std::byte*>(to + stride), std::byte{0});
  }
}

template <class T>
bool is_dots(const Gemm<T>& g) {
  using S = Sides<T>;
  return S::few(g.m, g.k, g.left, g.right) || S::few(g.n, g.k, g.right, g.left);
}

template <class T>
size_t dots_workspace(const Gemm<T>& g) {
  Sides<T> sides(g);
  return static_cast<size_t>(sides.vector_count * sides.padded) * sizeof(T);
}

template <class T>
void run_dots(const Gemm<T>& g, std::span<std::byte> workspace) {
  Sides<T> sides(g);
  T* vectors = reinterpret_cast<T*>(workspace.data());
  const bool pairs = sides.in_pairs();
  if (pairs)
    copy_vectors(sides.vectors, sides.vector_count, g.k, sides.padded, vectors);
  else
    widen_vectors(sides.vectors, sides.vector_count, g.k, sides.padded, vectors);
  if constexpr (std::is_same_v<T, float>) {
    if (sides.rows.dtype == Dtype::BF16 && !pairs)
      for (int64_t i = 0; i < sides.vector_count; ++i)
        pair_up_vector(g.k, vectors + i * sides.padded);
  }
  // Some 20,000 products are a few microseconds' work, and worth a thread.
  const int64_t height = sides.vector_count == 1 ? kDotRowsOfOne : kDotRows;
  int64_t tiles = (sides.row_count + height - 1) / height;
  int64_t threads = sides.row_count * g.k * sides.vector_count / 20000;
  for_each_tile(tiles, threads, [&](const StreamTile& tile) {
    int64_t row = tile.index * height;
    dots_of_block(g, sides, vectors, row,
                  static_cast<int>(std::min<int64_t>(height, sides.row_count - row)),
                  tile.next < 0 ? nullptr : sides.rows.vector(tile.next * height), pairs);
  });
}

template bool is_dots(const Gemm<float>&);
template bool is_dots(const Gemm<double>&);
template size_t dots_workspace(const Gemm<float>&);
template size_t dots_workspace(const Gemm<double>&);
template void run_dots(const Gemm<float>&, std::span<std::byte>);
template void run_dots(const Gemm<double>&, std::span<std::byte>);

}  // namespace mica::cpu
#endif
