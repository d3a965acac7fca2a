// Sums of products of pairs of bfloat16 numbers: AVX-512 BF16, for which Highway's targets have no
// name. Included by kernel files once per vector instruction set (Highway's foreach_target).
#if defined(MICA_CPU_PAIRS_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef MICA_CPU_PAIRS_INL_H
#undef MICA_CPU_PAIRS_INL_H
#else
#define MICA_CPU_PAIRS_INL_H
#endif

#include "backends/cpu/lanes-inl.h"

HWY_BEFORE_NAMESPACE();
namespace mica::cpu {
namespace HWY_NAMESPACE {

// Products of bfloat16 run at twice the rate of float32 on AMD's processors that have them, and at
// half of it on Intel's (measured: Zen 4, Emerald Rapids).
inline bool has_fast_pairs() {
#if HWY_ARCH_X86 && HWY_MAX_BYTES == 64
  static const bool fast = __builtin_cpu_supports("avx512bf16") && __builtin_cpu_is("amd");
  return fast;
#else
  return false;
#endif
}

#if HWY_ARCH_X86 && HWY_MAX_BYTES == 64
// sum + the products of the two pairs of each lane.
HWY_INLINE VF32 add_pairs(VF32 left, VF32 right, VF32 sum) {
  asm("vdpbf16ps %2, %1, %0" : "+v"(sum.raw) : "v"(left.raw), "v"(right.raw));
  return sum;
}
#endif

}  // namespace HWY_NAMESPACE
}  // namespace mica::cpu
HWY_AFTER_NAMESPACE();

#endif
