// Places of extrema. Rows of floats are searched in two steps: the first block with the best
// element is found, then its place in that block. Columns are compared side by side, several rows
// at a time.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backends/cpu/sort_extrema.cc"
#include "backends/cpu/highway_targets.h"

#include <hwy/foreach_target.h>

#include <algorithm>
#include <limits>

#include "backends/cpu/lanes-inl.h"
#include "backends/cpu/lines.h"
#include "backends/cpu/rows.h"
#include "ops/sort.h"

HWY_BEFORE_NAMESPACE();
namespace mica::cpu::HWY_NAMESPACE {

// True where x takes the place of `best`: it is better, or the first NaN.
template <bool kLargest>
HWY_INLINE hn::Mask<F32> beats(VF32 x, VF32 best) {
  const auto better = hn::Not(kLargest ? hn::Le(x, best) : hn::Ge(x, best));
  return hn::And(better, hn::Eq(best, best));
}

// The largest (smallest) of `count` elements, a multiple of all vector widths; NaN if there is one.
template <bool kLargest, class T>
float best_value(const T* row, int64_t count) {
  const F32 d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  VF32 best[4], odd[4];
  for (int k = 0; k < 4; ++k) {
    best[k] = load(d, row + k * lanes);
    odd[k] = hn::Zero(d);
  }
  for (int64_t i = 0; i < count; i += 4 * lanes) {
    for (int k = 0; k < 4; ++k) {
      VF32 x = load(d, row + i + k * lanes);
      best[k] = kLargest ? hn::Max(best[k], x) : hn::Min(best[k], x);
      odd[k] = hn::Or(odd[k], hn::VecFromMask(d, hn::IsNaN(x)));
    }
  }
  VF32 any_odd = hn::Or(hn::Or(odd[0], odd[1]), hn::Or(odd[2], odd[3]));
  if (!hn::AllFalse(d, hn::IsNaN(any_odd))) return std::numeric_limits<float>::quiet_NaN();
  if (kLargest) return max_lanes(d, hn::Max(hn::Max(best[0], best[1]), hn::Max(best[2], best[3])));
  VF32 least = hn::Min(hn::Min(best[0], best[1]), hn::Min(best[2], best[3]));
  return hn::GetLane(hn::MinOfLanes(d, least));
}

// The first place of the best of `count` elements, a multiple of all vector widths, and their best.
template <bool kLargest, class T>
int64_t best_place(const T* row, int64_t count, float& best) {
  constexpr int64_t kBlock = 1024;
  const F32 d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  int64_t at = 0;
  best = best_value<kLargest>(row, std::min(kBlock, count));
  for (int64_t start = kBlock; start < count; start += kBlock) {
    const float value = best_value<kLargest>(row + start, std::min(kBlock, count - start));
    const bool better = !(kLargest ? value <= best : value >= best);
    if (!better || best != best) continue;
    best = value;
    at = start;
  }
  for (;; at += lanes) {
    const auto x = load(d, row + at);
    const auto here = best == best ? hn::Eq(x, hn::Set(d, best)) : hn::IsNaN(x);
    const auto lane = hn::FindFirstTrue(d, here);
    if (lane >= 0) return at + static_cast<int64_t>(lane);
  }
}

int64_t row_lanes(const void* row, Dtype dtype, int64_t count, bool largest, float& best) {
  return dispatch_lanes(dtype, [&](auto tag) {
    auto* x = static_cast<const typename decltype(tag)::type*>(row);
    return largest ? best_place<true>(x, count, best) : best_place<false>(x, count, best);
  });
}

// kRows rows, from row i on, against the best before them; the rows behind them are fetched.
template <bool kLargest, int kRows, class T>
HWY_INLINE void compare_rows(const T* from, int64_t i, int64_t stride, int64_t columns, float* best,
                             uint32_t* to) {
  const F32 d;
  const hn::Rebind<uint32_t, F32> du;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  for (int64_t c = 0; c < columns; c += lanes) {
    auto most = hn::LoadU(d, best + c);
    auto place = hn::LoadU(du, to + c);
    for (int r = 0; r < kRows; ++r) {
      const T* row = from + (i + r) * stride + c;
      if (kRows > 1) prefetch_far(row + kRows * stride);
      const auto x = load(d, row);
      const auto better = beats<kLargest>(x, most);
      most = hn::IfThenElse(better, x, most);
      place = hn::IfThenElse(hn::RebindMask(du, better), hn::Set(du, static_cast<uint32_t>(i + r)),
                             place);
    }
    hn::StoreU(most, d, best + c);
    hn::StoreU(place, du, to + c);
  }
}

// Places of the best of columns; returns how many columns that were, whole vectors of them.
template <bool kLargest, class T>
int64_t best_columns(const T* from, int64_t rows, int64_t stride, int64_t columns, uint32_t* to) {
  constexpr int kAbreast = 8;
  const F32 d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  columns = columns / lanes * lanes;
  HWY_ALIGN float best[kColumns];
  for (int64_t c = 0; c < columns; c += lanes) hn::StoreU(load(d, from + c), d, best + c);
  std::fill_n(to, columns, 0u);
  int64_t i = 1;
  for (; i + kAbreast <= rows; i += kAbreast)
    compare_rows<kLargest, kAbreast>(from, i, stride, columns, best, to);
  for (; i < rows; ++i) compare_rows<kLargest, 1>(from, i, stride, columns, best, to);
  return columns;
}

int64_t columns_lanes(const void* from, Dtype dtype, int64_t rows, int64_t stride, int64_t columns,
                      bool largest, uint32_t* to) {
  return dispatch_lanes(dtype, [&](auto tag) {
    auto* x = static_cast<const typename decltype(tag)::type*>(from);
    return largest ? best_columns<true>(x, rows, stride, columns, to)
                   : best_columns<false>(x, rows, stride, columns, to);
  });
}

}  // namespace mica::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace mica::cpu {

HWY_EXPORT(row_lanes);
HWY_EXPORT(columns_lanes);

namespace {

template <class T>
using Compared = std::conditional_t<is_half(dtype_of<T>), float, T>;

// True if x takes the place of `best`: it is better, or the first NaN. Without branches, so that
// loops over it become vector code.
template <bool largest, class C>
bool beats(C x, C best) {
  if constexpr (std::is_integral_v<C>)
    return largest ? x > best : x < best;
  else
    return (largest ? x > best : x < best) | ((x != x) & (best == best));
}

// The first place of the best element of a dense row.
template <bool largest, class T>
uint32_t best_of_row(const T* row, int64_t count) {
  using C = Compared<T>;
  constexpr int64_t kWhole = 64;  // a multiple of what vector code takes
  int64_t at = 0, i = 1;
  C best = static_cast<C>(row[0]);
  if constexpr (std::is_same_v<C, float>) {
    if (count >= kWhole) {
      i = count / kWhole * kWhole;
      at = HWY_DYNAMIC_DISPATCH(row_lanes)(row, dtype_of<T>, i, largest, best);
    }
  }
  for (; i < count; ++i) {
    if (!beats<largest>(static_cast<C>(row[i]), best)) continue;
    best = static_cast<C>(row[i]);
    at = i;
  }
  return static_cast<uint32_t>(at);
}

template <bool largest, class T>
void best_of_columns(const T* from, uint32_t* to, const Extents& e, int64_t columns) {
  using C = Compared<T>;
  if constexpr (std::is_same_v<C, float>) {
    int64_t done = HWY_DYNAMIC_DISPATCH(columns_lanes)(from, dtype_of<T>, e.extent, e.after,
                                                       columns, largest, to);
    from += done, to += done, columns -= done;
    if (columns == 0) return;
  }
  C best[kColumns];
  for (int64_t c = 0; c < columns; ++c) best[c] = static_cast<C>(from[c]);
  std::fill_n(to, columns, 0u);
  for (int64_t i = 1; i < e.extent; ++i) {
    for (int64_t c = 0; c < columns; ++c) {
      C x = static_cast<C>(from[i * e.after + c]);
      bool better = beats<largest>(x, best[c]);
      best[c] = better ? x : best[c];
      to[c] = better ? static_cast<uint32_t>(i) : to[c];
    }
  }
}

template <bool largest, class T>
void arg_reduce_array(const KernelCall& call, int axis) {
  const View& a = call.inputs[0];
  Extents e(a.shape, axis);
  auto* out = call.outputs[0].as<uint32_t>();
  for_each_tile(e, [&](int64_t at, int64_t columns) {
    uint32_t* to = out + at / (e.extent * e.after) * e.after + at % e.after;
    if (e.after == 1)
      *to = best_of_row<largest>(a.as<T>() + at, e.extent);
    else
      best_of_columns<largest>(a.as<T>() + at, to, e, columns);
  });
}

void arg_reduce(const KernelCall& call) {
  auto [axis, largest] = call.as<ops::ArgReduceParams>();
  dispatch(call.inputs[0].dtype, [&, axis = axis, largest = largest](auto tag) {
    using T = typename decltype(tag)::type;
    if (largest)
      arg_reduce_array<true, T>(call, axis);
    else
      arg_reduce_array<false, T>(call, axis);
  });
}

}  // namespace

void sort_extrema_kernels(KernelTable& registry) {
  registry.add(ops::arg_reduce_op, {.run = &arg_reduce});
}

}  // namespace mica::cpu
#endif
