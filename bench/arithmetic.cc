// Inline assembly, so that no compiler folds a loop whose results nobody reads. Twelve chains cover
// the latency of every unit; their contents are zeros, which take no longer or shorter.
#include "bench/arithmetic.h"

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#include <sys/auxv.h>
#endif

namespace mica::bench {
namespace {

constexpr int kChains = 12;

// A function `name`: kChains chains of `code` on registers of type `vector`; %0 is a chain, %1 a
// constant.
#define MICA_CHAINS(name, features, vector, constraint, code)                  \
  [[gnu::target(features)]] void name(int64_t steps) {                         \
    vector chains[kChains] = {};                                               \
    vector constant = {};                                                      \
    for (int64_t i = 0; i < steps; ++i) {                                      \
      _Pragma("GCC unroll 12") for (int k = 0; k < kChains; ++k) asm volatile( \
          code : "+" constraint(chains[k]) : constraint(constant));            \
    }                                                                          \
  }

#if defined(__x86_64__)

MICA_CHAINS(fma_512, "avx512f", __m512, "v", "vfmadd231ps %1, %1, %0")
MICA_CHAINS(fma_256, "avx2,fma", __m256, "x", "vfmadd231ps %1, %1, %0")
MICA_CHAINS(fma_128, "sse2", __m128, "x", "mulps %1, %0\n\taddps %1, %0")
MICA_CHAINS(vnni_512, "avx512f,avx512vnni", __m512i, "v", "vpdpbusd %1, %1, %0")
MICA_CHAINS(vnni_256, "avx512f,avx512vl,avx512vnni", __m256i, "v", "vpdpbusd %1, %1, %0")
MICA_CHAINS(avx_vnni_256, "avx2,avxvnni", __m256i, "x", "%{vex%} vpdpbusd %1, %1, %0")
MICA_CHAINS(maddubs_256, "avx2", __m256i, "x",
            "vpmaddubsw %1, %1, %%ymm15\n\tvpmaddwd %1, %%ymm15, %%ymm15\n\tvpaddd %%ymm15, %0, %0")
MICA_CHAINS(bf16_512, "avx512f,avx512bf16", __m512, "v", "vdpbf16ps %1, %1, %0")
MICA_CHAINS(bf16_256, "avx512f,avx512vl,avx512bf16", __m256, "v", "vdpbf16ps %1, %1, %0")
#define MICA_CPU(feature) [] { return __builtin_cpu_supports(feature) != 0; }
#if defined(__GNUC__) && !defined(__clang__) && __GNUC__ >= 12
MICA_CHAINS(f16_512, "avx512fp16", __m512i, "v", "vfmadd231ph %1, %1, %0")
#endif

#elif defined(__aarch64__)

MICA_CHAINS(fma_128, "+simd", float32x4_t, "w", "fmla %0.4s, %1.4s, %1.4s")
MICA_CHAINS(dot_128, "+dotprod", int32x4_t, "w", "sdot %0.4s, %1.16b, %1.16b")
MICA_CHAINS(f16_128, "+fp16", uint16x8_t, "w", "fmla %0.8h, %1.8h, %1.8h")
MICA_CHAINS(bf16_128, "+bf16", float32x4_t, "w", "bfdot %0.4s, %1.8h, %1.8h")
bool hwcap(unsigned long bit) { return (getauxval(AT_HWCAP) & bit) != 0; }
bool hwcap2(unsigned long bit) { return (getauxval(AT_HWCAP2) & bit) != 0; }

#endif

}  // namespace

// Work per step: chains × lanes × operations of a lane.
const std::vector<ArithmeticWay>& arithmetic_ways() {
  static const std::vector<ArithmeticWay> ways = {
#if defined(__x86_64__)
      {"f32", "vfmadd231ps, 512 bits", MICA_CPU("avx512f"), fma_512, kChains * 16 * 2, true},
      {"f32", "vfmadd231ps, 256 bits", MICA_CPU("fma"), fma_256, kChains * 8 * 2, false},
      {"f32", "mulps and addps, 128 bits", MICA_CPU("sse2"), fma_128, kChains * 4 * 2, false},
      {"int8", "vpdpbusd, 512 bits", MICA_CPU("avx512vnni"), vnni_512, kChains * 64 * 2, true},
      {"int8", "vpdpbusd, 256 bits",
       [] { return __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512vl"); },
       vnni_256, kChains * 32 * 2, true},
      {"int8", "vpdpbusd (AVX-VNNI), 256 bits", MICA_CPU("avxvnni"), avx_vnni_256, kChains * 32 * 2,
       true},
      {"int8", "vpmaddubsw, vpmaddwd and vpaddd, 256 bits", MICA_CPU("avx2"), maddubs_256,
       kChains * 32 * 2, false},
      {"bf16", "vdpbf16ps, 512 bits", MICA_CPU("avx512bf16"), bf16_512, kChains * 32 * 2, true},
      {"bf16", "vdpbf16ps, 256 bits",
       [] { return __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512vl"); },
       bf16_256, kChains * 16 * 2, true},
#if defined(__GNUC__) && !defined(__clang__) && __GNUC__ >= 12
      {"f16", "vfmadd231ph, 512 bits", MICA_CPU("avx512fp16"), f16_512, kChains * 32 * 2, true},
#endif
#elif defined(__aarch64__)
      {"f32", "fmla, 128 bits", [] { return true; }, fma_128, kChains * 4 * 2, false},
      {"int8", "sdot, 128 bits", [] { return hwcap(1UL << 20); }, dot_128, kChains * 16 * 2, false},
      {"f16", "fmla .8h, 128 bits", [] { return hwcap(1UL << 10); }, f16_128, kChains * 8 * 2,
       false},
      {"bf16", "bfdot, 128 bits", [] { return hwcap2(1UL << 14); }, bf16_128, kChains * 8 * 2,
       false},
#endif
  };
  return ways;
}

}  // namespace mica::bench
