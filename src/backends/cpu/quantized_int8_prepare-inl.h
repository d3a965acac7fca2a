// Rows of x made ready for products of integers: rounded group by group. Included by kernel files
// once per vector instruction set (Highway's foreach_target).
#if defined(MICA_CPU_QUANTIZED_INT8_PREPARE_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef MICA_CPU_QUANTIZED_INT8_PREPARE_INL_H
#undef MICA_CPU_QUANTIZED_INT8_PREPARE_INL_H
#else
#define MICA_CPU_QUANTIZED_INT8_PREPARE_INL_H
#endif

#include <algorithm>
#include <cmath>
#include <cstring>

#include "backends/cpu/lanes-inl.h"
#include "backends/cpu/quantized_int8.h"

HWY_BEFORE_NAMESPACE();
namespace mica::cpu {
namespace HWY_NAMESPACE {

// A step of a smaller largest value might not be a normal number.
constexpr float kSmallest = 1e-30f;
// Of values that are in range.
HWY_INLINE hn::Vec<hn::Rebind<int32_t, F32>> nearest(VF32 v) {
#if HWY_ARCH_X86 && HWY_MAX_BYTES == 64
  return {_mm512_cvtps_epi32(v.raw)};
#elif HWY_ARCH_X86 && HWY_MAX_BYTES == 32
  return {_mm256_cvtps_epi32(v.raw)};
#else
  return hn::NearestInt(v);
#endif
}

// The integers of a group, in signed digits, highest first, to[digit * 128 + i], and their sum.
template <int kDigits>
HWY_INLINE void prepare_group(const float* x, int64_t n, float inverse, int8_t* to, int32_t* sum) {
  const F32 d;
  const hn::Rebind<int32_t, F32> d32;
  const hn::Rebind<int8_t, F32> d8;
  const auto factor = hn::Set(d, inverse);
  const auto half = hn::Set(d32, 128);
  auto total = hn::Zero(d32);
  for (int64_t i = 0; i < n; i += static_cast<int64_t>(hn::Lanes(d))) {
    auto v = nearest(hn::Mul(hn::LoadU(d, x + i), factor));
    total = hn::Add(total, v);
    for (int digit = kDigits - 1; digit > 0; --digit) {
      const auto rest = hn::ShiftRight<8>(hn::Add(v, half));
      hn::StoreU(hn::DemoteTo(d8, hn::Sub(v, hn::ShiftLeft<8>(rest))), d8, to + digit * 128 + i);
      v = rest;
    }
    hn::StoreU(hn::DemoteTo(d8, v), d8, to + i);
  }
  *sum = hn::GetLane(hn::SumOfLanes(d32, total));
}

// The largest magnitude, infinite or NaN if there is one that is not finite: as bits, whose order
// is that of magnitudes.
HWY_INLINE float largest_of(const float* x, int64_t n) {
  const F32 d;
  const hn::Rebind<int32_t, F32> d32;
  auto most = hn::Zero(d32);
  for (int64_t i = 0; i < n; i += static_cast<int64_t>(hn::Lanes(d)))
    most = hn::Max(most, hn::BitCast(d32, hn::Abs(hn::LoadU(d, x + i))));
  const int32_t bits = hn::GetLane(hn::MaxOfLanes(d32, most));
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

// The even of n elements to `even`, the odd ones to even + 64.
HWY_INLINE void split_pairs(const int8_t* from, int64_t n, int8_t* even) {
#if HWY_TARGET == HWY_SCALAR
  for (int64_t i = 0; i < n / 2; ++i) {
    even[i] = from[2 * i];
    even[64 + i] = from[2 * i + 1];
  }
#else
  const hn::CappedTag<int8_t, 16> d;
  for (int64_t i = 0; i < n / 2; i += 16) {
    hn::Vec<decltype(d)> a, b;
    hn::LoadInterleaved2(d, from + 2 * i, a, b);
    hn::StoreU(a, d, even + i);
    hn::StoreU(b, d, even + 64 + i);
  }
#endif
}

template <int kDigits>
bool prepare_digits(const Int8Format& f, const float* x, std::byte* row) {
  // The highest digit is at most 127.
  constexpr float kLargest = kDigits == 1 ? 127 : 127 * 65536.0f;
  std::fill(row, row + kDigits * f.row_bytes, std::byte{0});
  HWY_ALIGN int8_t group[kDigits * 128];
  for (int64_t g = 0; g < f.groups; ++g, x += f.group_size) {
    const float most = largest_of(x, f.group_size);
    if (!std::isfinite(most) || (most != 0 && most < kSmallest)) return false;
    if (most == 0) continue;
    int32_t sum = 0;
    prepare_group<kDigits>(x, f.group_size, kLargest / most, group, &sum);
    const int64_t place = g * f.group_size;
    float step = most / kLargest;
    f.sums_of(row)[g] = step * static_cast<float>(sum);
    for (int digit = kDigits - 1; digit >= 0; --digit, step *= 256) {
      std::byte* to = row + digit * f.row_bytes;
      f.steps_of(to)[g] = step;
      if (f.bits == 8)
        std::memcpy(f.integers_of(to) + place, group + digit * 128,
                    static_cast<size_t>(f.group_size));
      else
        split_pairs(group + digit * 128, f.group_size,
                    f.integers_of(to) + place / 128 * 128 + place % 128 / 2);
    }
  }
  return true;
}

#if HWY_MAX_BYTES == 64

// Lane i: what `op` makes of all lanes of v[i].
template <class Op>
HWY_INLINE __m512i across_lanes(const __m512i (&v)[16], const Op& op) {
  __m512i of_four[4];  // in each 128-bit block
  for (int i = 0; i < 4; ++i) {
    const __m512i* from = v + 4 * i;
    const __m512i t01 = op(_mm512_unpacklo_epi32(from[0], from[1]),
                           _mm512_unpackhi_epi32(from[0], from[1])),
                  t23 = op(_mm512_unpacklo_epi32(from[2], from[3]),
                           _mm512_unpackhi_epi32(from[2], from[3]));
    of_four[i] = op(_mm512_unpacklo_epi64(t01, t23), _mm512_unpackhi_epi64(t01, t23));
  }
  const auto joined = [&](__m512i a, __m512i b) HWY_ATTR {
    return op(_mm512_shuffle_i32x4(a, b, 0x88), _mm512_shuffle_i32x4(a, b, 0xdd));
  };
  return joined(joined(of_four[0], of_four[1]), joined(of_four[2], of_four[3]));
}

// 64 integers that fit bytes as a row has them: in order, or the even ones first, which come to
// `to`, and then the odd ones to to + 64.
HWY_INLINE void store_integers(const __m512i (&v)[4], int bits, int8_t* to) {
  // Of each block of 128 bits four from each v.
  const __m512i bytes =
      _mm512_packs_epi16(_mm512_packs_epi32(v[0], v[1]), _mm512_packs_epi32(v[2], v[3]));
  if (bits == 8) {
    const __m512i order = _mm512_set_epi32(15, 11, 7, 3, 14, 10, 6, 2, 13, 9, 5, 1, 12, 8, 4, 0);
    return _mm512_storeu_si512(to, _mm512_permutexvar_epi32(order, bytes));
  }
  // Pairs: words 0 … 3 even, 4 … 7 odd.
  const __m512i parted = _mm512_shuffle_epi8(
      bytes,
      _mm512_broadcast_i32x4(_mm_set_epi8(15, 13, 11, 9, 7, 5, 3, 1, 14, 12, 10, 8, 6, 4, 2, 0)));
  const __m512i blocks = _mm512_set1_epi64(0x0018001000080000);
  const __m512i order = _mm512_add_epi16(
      blocks, _mm512_set_epi64(0x0007000700070007, 0x0006000600060006, 0x0005000500050005,
                               0x0004000400040004, 0x0003000300030003, 0x0002000200020002,
                               0x0001000100010001, 0));
  const __m512i halves = _mm512_permutexvar_epi16(order, parted);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm512_castsi512_si256(halves));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + 64), _mm512_extracti64x4_epi64(halves, 1));
}

// One digit; a group is kVectors vectors. Sixteen groups at a time: first all of their largest
// magnitudes, so that divisions are those of vectors.
template <int kVectors>
bool prepare_rows_of(const Int8Format& f, const float* x, std::byte* row) {
  constexpr int kTogether = std::max(1, 4 / kVectors);  // groups of 64 elements
  int8_t* integers = f.integers_of(row);
  if (f.k % 128 != 0) std::memset(integers + f.k / 128 * 128, 0, 128);
  for (int64_t g0 = 0; g0 < f.groups; g0 += 16, x += 16 * 16 * kVectors) {
    const int64_t n = std::min<int64_t>(16, f.groups - g0);
    __m512i of_groups[16];
    for (int64_t g = 0; g < 16; ++g) of_groups[g] = _mm512_setzero_si512();
    // The order of bits is that of magnitudes, infinite and NaN above all.
    for (int64_t g = 0; g < n; ++g)
      for (int64_t j = 0; j < kVectors; ++j) {
        const __m512i bits = _mm512_loadu_si512(x + (g * kVectors + j) * 16);
        of_groups[g] =
            _mm512_max_epi32(of_groups[g], _mm512_and_si512(bits, _mm512_set1_epi32(0x7fffffff)));
      }
    const __m512i most_bits = across_lanes(
        of_groups, [](__m512i a, __m512i b) HWY_ATTR { return _mm512_max_epi32(a, b); });
    const __m512 most = _mm512_castsi512_ps(most_bits);
    const __mmask16 some = _mm512_test_epi32_mask(most_bits, most_bits);
    const __mmask16 small = _mm512_cmp_ps_mask(most, _mm512_set1_ps(kSmallest), _CMP_LT_OQ);
    const __mmask16 odd = _mm512_cmpge_epi32_mask(most_bits, _mm512_set1_epi32(0x7f800000));
    if (odd | (small & some)) return false;
    const __m512 largest = _mm512_set1_ps(127), step = _mm512_div_ps(most, largest);
    HWY_ALIGN float inverse[16];
    _mm512_store_ps(inverse, _mm512_maskz_div_ps(some, largest, most));
    for (int64_t g = 0; g < n; g += kTogether)
      for (int64_t part = 0; part < kVectors * kTogether; part += 4) {
        __m512i v[4];
        for (int64_t j = 0; j < 4; ++j) {
          const int64_t group = g + (part + j) / kVectors;
          const bool is_first = (part + j) % kVectors == 0;
          v[j] = _mm512_setzero_si512();
          if (kTogether > 1 && group >= n) continue;
          v[j] = _mm512_cvtps_epi32(_mm512_mul_ps(
              _mm512_loadu_ps(x + (g * kVectors + part + j) * 16), _mm512_set1_ps(inverse[group])));
          of_groups[group] = is_first ? v[j] : _mm512_add_epi32(of_groups[group], v[j]);
        }
        const int64_t place = (g0 * kVectors + g * kVectors + part) * 16;
        store_integers(v, f.bits,
                       integers + (f.bits == 8 ? place : place / 128 * 128 + place % 128 / 2));
      }
    const __m512i sums = across_lanes(
        of_groups, [](__m512i a, __m512i b) HWY_ATTR { return _mm512_add_epi32(a, b); });
    _mm512_storeu_ps(f.steps_of(row) + g0, step);
    _mm512_storeu_ps(f.sums_of(row) + g0, _mm512_mul_ps(step, _mm512_cvtepi32_ps(sums)));
  }
  return true;
}

#endif  // HWY_MAX_BYTES == 64

bool prepare(const Int8Format& f, const float* x, std::byte* row) {
#if HWY_MAX_BYTES == 64
  if (f.digits == 1) {
    switch (f.group_size) {
      case 32: return prepare_rows_of<2>(f, x, row);
      case 64: return prepare_rows_of<4>(f, x, row);
      default: return prepare_rows_of<8>(f, x, row);
    }
  }
#endif
  return f.digits == 1 ? prepare_digits<1>(f, x, row) : prepare_digits<3>(f, x, row);
}

}  // namespace HWY_NAMESPACE
}  // namespace mica::cpu
HWY_AFTER_NAMESPACE();

#endif
