// What the products of blocked attention multiply: floats, or pairs of bfloat16 numbers where a
// processor has an instruction for them. A 32-bit place then holds two numbers that follow each
// other along the summed axis, the first in its lower half; places are handled as floats, whose
// value means nothing.
//
// A product of pairs adds both exact products to a float32 sum, rounding to nearest even; numbers
// and sums below 2^-126 are zero. Whether that is faster than widening, bfloat16_pair_kernels()
// says (gemm_kernels.h).
//
//   VF32 sum = add_product<Operands::Pairs>(left, right, sum);
#if defined(MICA_CPU_ATTENTION_OPERANDS_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef MICA_CPU_ATTENTION_OPERANDS_INL_H
#undef MICA_CPU_ATTENTION_OPERANDS_INL_H
#else
#define MICA_CPU_ATTENTION_OPERANDS_INL_H
#endif

#include <cstring>

#include "backends/cpu/lanes-inl.h"
#include "backends/cpu/pairs-inl.h"

#undef MICA_PAIRS
#if HWY_ARCH_X86 && HWY_MAX_BYTES == 64
#define MICA_PAIRS 1
#else
#define MICA_PAIRS 0
#endif

HWY_BEFORE_NAMESPACE();
namespace mica::cpu {
namespace HWY_NAMESPACE {

// What an element of a product's operands is.
enum class Operands : uint8_t { Floats, Pairs };

// Pairs are aligned to one number only.
template <Operands kOperands>
HWY_INLINE VF32 element_in_all(F32 d, const float* p) {
  if constexpr (kOperands == Operands::Floats) return hn::Set(d, *p);
  float value;
  std::memcpy(&value, p, sizeof(float));
  return hn::Set(d, value);
}

template <Operands kOperands>
HWY_INLINE VF32 add_product(VF32 left, VF32 right, VF32 sum) {
#if MICA_PAIRS
  if constexpr (kOperands == Operands::Pairs) return add_pairs(left, right, sum);
#endif
  return hn::MulAdd(left, right, sum);
}

#if MICA_PAIRS
// 16 numbers, rounded to nearest even, and 16 more after them.
HWY_INLINE VF32 rounded_halves(VF32 first, VF32 second) {
  VF32 both;
  asm("vcvtne2ps2bf16 %1, %2, %0" : "=v"(both.raw) : "v"(first.raw), "v"(second.raw));
  return both;
}
// Halves of 16 numbers as 16 pairs of a number of each.
HWY_INLINE VF32 paired_halves(VF32 both) {
  alignas(64) static constexpr uint16_t kPairs[] = {0,  16, 1,  17, 2,  18, 3,  19, 4,  20, 5,
                                                    21, 6,  22, 7,  23, 8,  24, 9,  25, 10, 26,
                                                    11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
  return VF32{_mm512_castsi512_ps(
      _mm512_permutexvar_epi16(_mm512_load_si512(kPairs), _mm512_castps_si512(both.raw)))};
}

// The first `n` of 32 numbers.
HWY_INLINE __mmask32 first_numbers(int64_t n) { return n >= 32 ? ~0u : n <= 0 ? 0 : (1u << n) - 1; }

// Rows of bfloat16 numbers paired with the rows that follow them: `to` takes width pairs, and as
// many more as fill two vectors. Without a second row its numbers are zeros.
HWY_INLINE void pair_rows(const bfloat16_t* first, const bfloat16_t* second, int64_t width,
                          float* to) {
  alignas(64) static constexpr uint16_t kLower[] = {0,  32, 1,  33, 2,  34, 3,  35, 4,  36, 5,
                                                    37, 6,  38, 7,  39, 8,  40, 9,  41, 10, 42,
                                                    11, 43, 12, 44, 13, 45, 14, 46, 15, 47};
  const __m512i lower = _mm512_load_si512(kLower);
  const __m512i upper = _mm512_add_epi16(lower, _mm512_set1_epi16(16));
  for (int64_t i = 0; i < width; i += 32) {
    const __mmask32 present = first_numbers(width - i);
    const __m512i a = _mm512_maskz_loadu_epi16(present, first + i);
    const __m512i b =
        second ? _mm512_maskz_loadu_epi16(present, second + i) : _mm512_setzero_si512();
    _mm512_storeu_si512(to + i, _mm512_permutex2var_epi16(a, lower, b));
    _mm512_storeu_si512(to + i + 16, _mm512_permutex2var_epi16(a, upper, b));
  }
}

// 16 pairs of a row from its number `at` on; those beyond `width` numbers are zeros.
HWY_INLINE VF32 load_pairs(const bfloat16_t* row, int64_t at, int64_t width) {
  return VF32{_mm512_castsi512_ps(_mm512_maskz_loadu_epi16(first_numbers(width - at), row + at))};
}
#endif

}  // namespace HWY_NAMESPACE
}  // namespace mica::cpu
HWY_AFTER_NAMESPACE();

#endif
