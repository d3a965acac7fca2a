// Places of extrema. Rows of floats are searched in two steps: the best of a block by vector code,
// its place only where the block's best is better than what came before.
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

// The largest (smallest) of `count` elements, a multiple of all vector widths; NaN if there is one.
template <class T>
float best_value(const T* row, int64_t count, bool largest) {
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
      best[k] = largest ? hn::Max(best[k], x) : hn::Min(best[k], x);
      odd[k] = hn::Or(odd[k], hn::VecFromMask(d, hn::IsNaN(x)));
    }
  }
  VF32 any_odd = hn::Or(hn::Or(odd[0], odd[1]), hn::Or(odd[2], odd[3]));
  if (!hn::AllFalse(d, hn::IsNaN(any_odd))) return std::numeric_limits<float>::quiet_NaN();
  if (largest) return max_lanes(d, hn::Max(hn::Max(best[0], best[1]), hn::Max(best[2], best[3])));
  VF32 least = hn::Min(hn::Min(best[0], best[1]), hn::Min(best[2], best[3]));
  return hn::GetLane(hn::MinOfLanes(d, least));
}

float best_lanes(const void* row, Dtype dtype, int64_t count, bool largest) {
  return dispatch_lanes(dtype, [&](auto tag) {
    return best_value(static_cast<const typename decltype(tag)::type*>(row), count, largest);
  });
}

}  // namespace mica::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace mica::cpu {

HWY_EXPORT(best_lanes);

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
  constexpr int64_t kBlock = 1024;
  int64_t at = 0, i = 1;
  C best = static_cast<C>(row[0]);
  auto search = [&](int64_t end) {
    for (; i < end; ++i) {
      if (!beats<largest>(static_cast<C>(row[i]), best)) continue;
      best = static_cast<C>(row[i]);
      at = i;
    }
  };
  if constexpr (std::is_same_v<C, float>) {
    auto best_of_block = HWY_DYNAMIC_DISPATCH(best_lanes);
    while (i + kBlock <= count) {
      if (beats<largest>(best_of_block(row + i, dtype_of<T>, kBlock, largest), best))
        search(i + kBlock);
      else
        i += kBlock;
    }
  }
  search(count);
  return static_cast<uint32_t>(at);
}

template <bool largest, class T>
void best_of_columns(const T* from, uint32_t* to, const Extents& e, int64_t columns) {
  using C = Compared<T>;
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
