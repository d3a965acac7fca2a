// Scales of 16 rows of a quantized matrix, group by group: the transpose of how they lie. Included
// by kernel files once per vector instruction set (Highway's foreach_target).
#if defined(MICA_CPU_QUANTIZED_SCALES_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef MICA_CPU_QUANTIZED_SCALES_INL_H
#undef MICA_CPU_QUANTIZED_SCALES_INL_H
#else
#define MICA_CPU_QUANTIZED_SCALES_INL_H
#endif

#include <type_traits>

#include "backends/cpu/quantized_int8.h"
#include "backends/cpu/transpose-inl.h"

HWY_BEFORE_NAMESPACE();
namespace mica::cpu {
namespace HWY_NAMESPACE {

#if HWY_TARGET != HWY_SCALAR

constexpr int kFloats = static_cast<int>(hn::MaxLanes(F32()));

template <class S>
HWY_INLINE void transposed_scales(const std::byte* const* rows, int64_t g0, int64_t n, float* to,
                                  int64_t stride) {
  const F32 d;
  for (int first = 0; first < kInt8Rows; first += kFloats)
    for (int64_t g = 0; g < n; g += kFloats) {
      VF32 v[kFloats];
      for (int i = 0; i < kFloats; ++i) {
        const S* from = reinterpret_cast<const S*>(rows[first + i]) + g0 + g;
        v[i] = n - g >= kFloats ? load(d, from) : load_part(d, from, static_cast<size_t>(n - g));
      }
      transpose(v);
      int64_t groups = std::min<int64_t>(kFloats, n - g);
      for (int64_t i = 0; i < groups; ++i) hn::StoreU(v[i], d, to + (g + i) * stride + first);
    }
}

#if HWY_MAX_BYTES == 64
// Up to 16 half-precision numbers of 16 rows, two of them in a 32-bit word: eight words are
// transposed.
template <class S>
HWY_INLINE void transposed_halves(const std::byte* const* rows, int64_t g0, int64_t n, float* to,
                                  int64_t stride) {
  __m512i z[8], t[8];
  const auto mask = static_cast<__mmask16>((1 << n) - 1);
  for (int i = 0; i < 8; ++i) {
    auto half = [&](int row) HWY_ATTR {
      return _mm256_maskz_loadu_epi16(mask, reinterpret_cast<const S*>(rows[row]) + g0);
    };
    z[i] = _mm512_inserti64x4(_mm512_castsi256_si512(half(i)), half(i + 8), 1);
  }
  for (int i = 0; i < 8; i += 2) {
    t[i] = _mm512_unpacklo_epi32(z[i], z[i + 1]);
    t[i + 1] = _mm512_unpackhi_epi32(z[i], z[i + 1]);
  }
  for (int i = 0; i < 8; i += 4)
    for (int j = 0; j < 2; ++j) {  // z[i + word]: words 0 … 3 of rows i …, in 128-bit blocks
      z[i + 2 * j] = _mm512_unpacklo_epi64(t[i + j], t[i + j + 2]);
      z[i + 2 * j + 1] = _mm512_unpackhi_epi64(t[i + j], t[i + j + 2]);
    }
  const __m512i even = _mm512_set_epi64(13, 12, 5, 4, 9, 8, 1, 0);
  const __m512i odd = _mm512_set_epi64(15, 14, 7, 6, 11, 10, 3, 2);
  for (int64_t w = 0; 2 * w < n; ++w) {
    __m512i words = _mm512_permutex2var_epi64(z[w % 4], w < 4 ? even : odd, z[w % 4 + 4]);
    __m512 low, high;
    if constexpr (std::is_same_v<S, bfloat16_t>) {
      low = _mm512_castsi512_ps(_mm512_slli_epi32(words, 16));
      high = _mm512_castsi512_ps(_mm512_and_si512(words, _mm512_set1_epi32(-65536)));
    } else {
      low = _mm512_cvtph_ps(_mm512_cvtepi32_epi16(words));
      high = _mm512_cvtph_ps(_mm512_cvtepi32_epi16(_mm512_srli_epi32(words, 16)));
    }
    _mm512_storeu_ps(to + 2 * w * stride, low);
    if (2 * w + 1 < n) _mm512_storeu_ps(to + (2 * w + 1) * stride, high);
  }
}
#endif

template <class S>
HWY_INLINE void transposed(const std::byte* const* rows, int64_t g0, int64_t n, float* to,
                           int64_t stride) {
#if HWY_MAX_BYTES == 64
  if constexpr (sizeof(S) == 2)
    for (int64_t end = g0 + n; g0 < end; g0 += 16, to += 16 * stride)
      transposed_halves<S>(rows, g0, std::min<int64_t>(16, end - g0), to, stride);
  else
#endif
    transposed_scales<S>(rows, g0, n, to, stride);
}

// Scales g0 … g0 + n of 16 rows: that of row r and group g0 + g to to[g * stride + r].
inline void read_scales(const std::byte* const* rows, Dtype dtype, int64_t g0, int64_t n, float* to,
                        int64_t stride) {
  switch (dtype) {
    case Dtype::F16: return transposed<float16_t>(rows, g0, n, to, stride);
    case Dtype::BF16: return transposed<bfloat16_t>(rows, g0, n, to, stride);
    default: return transposed<float>(rows, g0, n, to, stride);
  }
}

#endif

}  // namespace HWY_NAMESPACE
}  // namespace mica::cpu
HWY_AFTER_NAMESPACE();

#endif
