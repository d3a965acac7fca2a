// Square blocks of floats (or of any 32-bit elements, cast) transposed in registers. Included by
// kernel files once per vector instruction set (Highway's foreach_target).
//
//   VF32 v[kFloatLanes];   // v[i] is row i
//   transpose(v);          // v[i] is column i
#if defined(MICA_CPU_TRANSPOSE_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef MICA_CPU_TRANSPOSE_INL_H
#undef MICA_CPU_TRANSPOSE_INL_H
#else
#define MICA_CPU_TRANSPOSE_INL_H
#endif

#include "backends/cpu/lanes-inl.h"

HWY_BEFORE_NAMESPACE();
namespace mica::cpu {
namespace HWY_NAMESPACE {

#if HWY_TARGET != HWY_SCALAR
template <class V>
HWY_INLINE void transpose_blocks(V* v) {
  // Within each 128-bit block: 4 x 4.
  const F32 d;
  const hn::RepartitionToWide<F32> wide;
  for (size_t g = 0; g < hn::MaxLanes(d); g += 4) {
    const auto low01 = hn::BitCast(wide, hn::InterleaveLower(d, v[g], v[g + 1]));
    const auto high01 = hn::BitCast(wide, hn::InterleaveUpper(d, v[g], v[g + 1]));
    const auto low23 = hn::BitCast(wide, hn::InterleaveLower(d, v[g + 2], v[g + 3]));
    const auto high23 = hn::BitCast(wide, hn::InterleaveUpper(d, v[g + 2], v[g + 3]));
    v[g] = hn::BitCast(d, hn::InterleaveLower(wide, low01, low23));
    v[g + 1] = hn::BitCast(d, hn::InterleaveUpper(wide, low01, low23));
    v[g + 2] = hn::BitCast(d, hn::InterleaveLower(wide, high01, high23));
    v[g + 3] = hn::BitCast(d, hn::InterleaveUpper(wide, high01, high23));
  }
}
HWY_INLINE void transpose(VF32* v) {
  [[maybe_unused]] const F32 d;
  transpose_blocks(v);
#if HWY_MAX_BYTES == 32
  for (int i = 0; i < 4; ++i) {
    const auto low = v[i], high = v[4 + i];
    v[i] = hn::ConcatLowerLower(d, high, low);
    v[4 + i] = hn::ConcatUpperUpper(d, high, low);
  }
#elif HWY_MAX_BYTES == 64
  // The same again with the blocks as elements.
  for (int i = 0; i < 4; ++i) {
    const auto v0 = v[i], v1 = v[4 + i], v2 = v[8 + i], v3 = v[12 + i];
    const auto even01 = hn::OddEvenBlocks(hn::SwapAdjacentBlocks(v1), v0);
    const auto odd01 = hn::OddEvenBlocks(v1, hn::SwapAdjacentBlocks(v0));
    const auto even23 = hn::OddEvenBlocks(hn::SwapAdjacentBlocks(v3), v2);
    const auto odd23 = hn::OddEvenBlocks(v3, hn::SwapAdjacentBlocks(v2));
    v[i] = hn::ConcatLowerLower(d, even23, even01);
    v[4 + i] = hn::ConcatLowerLower(d, odd23, odd01);
    v[8 + i] = hn::ConcatUpperUpper(d, even23, even01);
    v[12 + i] = hn::ConcatUpperUpper(d, odd23, odd01);
  }
#endif
}
#endif

}  // namespace HWY_NAMESPACE
}  // namespace mica::cpu
HWY_AFTER_NAMESPACE();

#endif
