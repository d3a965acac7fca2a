#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backends/cpu/quantized_pairs_kernels.cc"
#include "backends/cpu/highway_targets.h"
//
#include <hwy/foreach_target.h>  // IWYU pragma: keep
//
#include <algorithm>
#include <bit>

#include "backends/cpu/quantized_pairs.h"
#include "backends/cpu/quantized_pairs_dots-inl.h"
#include "backends/cpu/quantized_pairs_panels-inl.h"

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

const PairKernels* kernels() {
  static constexpr PairKernels table = {
      &sum,  &arrange, &pair_up,
      &dots, &unpack,  {kTileRows, kTileColumns, nullptr, &multiply, nullptr}};
  return has_fast_pairs() && has_byte_shifts() ? &table : nullptr;
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
