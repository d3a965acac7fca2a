// Instruction sets that vector code is compiled for: AVX-512, AVX2 and the baseline on x86
// (processors between the last two run the baseline), NEON on Arm; what Highway finds elsewhere.
// Include before hwy/foreach_target.h; a file that gains nothing from AVX-512 defines
// MICA_WITHOUT_AVX512 first.
#pragma once

#include <hwy/detect_targets.h>

#undef HWY_DISABLED_TARGETS
#if HWY_ARCH_X86 && defined(MICA_WITHOUT_AVX512)
#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_SSE4 | HWY_AVX3 | HWY_AVX3_DL)
#elif HWY_ARCH_X86
#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_SSE4)
#elif HWY_ARCH_ARM
// Kernels keep vectors in arrays, which those of SVE cannot be.
#define HWY_DISABLED_TARGETS (HWY_SVE | HWY_SVE2 | HWY_SVE_256 | HWY_SVE2_128)
#else
#define HWY_DISABLED_TARGETS 0
#endif
