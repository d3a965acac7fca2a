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
#include "base/thread_pool.h"

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

template <class T, class S, int R, int C>
void dots_of(const DotBlock<T>& block) {
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
  for (; k + lanes <= block.k; k += lanes) {
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

void dot_block(const DotBlock<float>& block) { HWY_DYNAMIC_DISPATCH(dots_float)(block); }
void dot_block(const DotBlock<double>& block) { HWY_DYNAMIC_DISPATCH(dots_double)(block); }

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
        padded((g.k + 15) / 16 * 16) {}
  static bool few(int64_t count, int64_t k, const GemmOperand& vectors, const GemmOperand& rows) {
    return count <= kMaxDots && k >= kDotDepth * count && rows.inner_stride == 1 && !rows.fill &&
           !vectors.fill;
  }

  bool swapped;  // the rows are the left operand's
  const GemmOperand &rows, &vectors;
  int64_t row_count, vector_count;
  int64_t padded;  // length of a vector in the workspace
};

template <class T>
void dots_of_block(const Gemm<T>& g, const Sides<T>& sides, const T* vectors, int64_t row0,
                   int row_count) {
  const std::byte* rows[kDotRows];
  for (int r = 0; r < row_count; ++r) rows[r] = sides.rows.vector(row0 + r);
  T out[kDotRows * kDotVectors];
  for (int64_t v = 0; v < sides.vector_count; v += kDotVectors) {
    int count = static_cast<int>(std::min<int64_t>(kDotVectors, sides.vector_count - v));
    dot_block({rows, row_count, sides.rows.dtype, vectors + v * sides.padded, sides.padded, count,
               g.k, out});
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
  widen_vectors(sides.vectors, sides.vector_count, g.k, sides.padded, vectors);
  // A grain of some 20,000 products is a few microseconds' work.
  int64_t grain = std::max<int64_t>(1, 20000 / (g.k * sides.vector_count)) * kDotRows;
  ThreadPool::shared().parallel_for(sides.row_count, grain, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; row += kDotRows)
      dots_of_block(g, sides, vectors, row,
                    static_cast<int>(std::min<int64_t>(kDotRows, end - row)));
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
