// What the row kernels (softmax, norms, rope, attention) share: float lanes loaded from and stored
// to float32, float16 and bfloat16 memory, and the exponential that softmax needs. Included by each
// kernel file once per vector instruction set (Highway's foreach_target).
//
//   const F32 d;
//   auto x = load(d, row + i);             // row: const float*, float16_t* or bfloat16_t*
//   store(d, exp_negative(d, x), out + i); // rounded to nearest even
#if defined(MICA_CPU_LANES_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef MICA_CPU_LANES_INL_H
#undef MICA_CPU_LANES_INL_H
#else
#define MICA_CPU_LANES_INL_H
#endif

#include <hwy/cache_control.h>
#include <hwy/highway.h>

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "backends/cpu/tables-inl.h"
#include "core/dtype.h"

HWY_BEFORE_NAMESPACE();
namespace mica::cpu {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using F32 = hn::ScalableTag<float>;
using VF32 = hn::Vec<F32>;

#undef MICA_HAVE_F16
// Targets whose float16 conversions are exact instructions; Highway's emulation truncates.
#if HWY_ARCH_ARM || (HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX2)
#define MICA_HAVE_F16 1
#else
#define MICA_HAVE_F16 0
#endif
#undef MICA_LANES_HALF
#if HWY_TARGET == HWY_SCALAR || HWY_TARGET == HWY_EMU128
#define MICA_LANES_HALF 0
#else
#define MICA_LANES_HALF 1
#endif

HWY_INLINE VF32 load(F32 d, const float* p) { return hn::LoadU(d, p); }
HWY_INLINE void store(F32 d, VF32 v, float* p) { hn::StoreU(v, d, p); }

// Element by element, for targets without the instructions.
template <class T>
HWY_INLINE VF32 load_each(F32 d, const T* p) {
  HWY_ALIGN float wide[hn::MaxLanes(F32())];
  for (size_t i = 0; i < hn::Lanes(d); ++i) wide[i] = static_cast<float>(p[i]);
  return hn::Load(d, wide);
}
template <class T>
HWY_INLINE void store_each(F32 d, VF32 v, T* p) {
  HWY_ALIGN float wide[hn::MaxLanes(F32())];
  hn::Store(v, d, wide);
  for (size_t i = 0; i < hn::Lanes(d); ++i) p[i] = T(wide[i]);
}

HWY_INLINE VF32 load(F32 d, const bfloat16_t* p) {
#if MICA_LANES_HALF
  const hn::Rebind<uint32_t, F32> du32;
  const hn::Rebind<uint16_t, F32> du16;
  auto bits = hn::LoadU(du16, reinterpret_cast<const uint16_t*>(p));
  return hn::BitCast(d, hn::ShiftLeft<16>(hn::PromoteTo(du32, bits)));
#else
  return load_each(d, p);
#endif
}
#if MICA_TABLES
// A value with the precision of bfloat16. Without `any_nan`, a NaN must be quiet and one of
// bfloat16, as those are that operations on bfloat16 give.
template <bool any_nan>
HWY_INLINE VF32 rounded_bfloat16(VF32 v) {
  const __m512i bits = _mm512_castps_si512(v.raw);
  const __mmask16 odd = _mm512_test_epi32_mask(bits, _mm512_set1_epi32(0x10000));
  __m512i sum = _mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff));
  sum = _mm512_mask_add_epi32(sum, odd, sum, _mm512_set1_epi32(1));
  if (any_nan) {
    const __mmask16 nan = _mm512_cmp_ps_mask(v.raw, v.raw, _CMP_UNORD_Q);
    sum = _mm512_mask_or_epi32(sum, nan, bits, _mm512_set1_epi32(0x400000));
  }
  return VF32{_mm512_castsi512_ps(_mm512_and_si512(sum, _mm512_set1_epi32(-0x10000)))};
}
#endif
#if MICA_LANES_HALF
// The bits of bfloat16, one in each 32-bit lane.
HWY_INLINE hn::Vec<hn::Rebind<uint32_t, F32>> bfloat16_bits([[maybe_unused]] F32 d, VF32 v) {
  const hn::Rebind<uint32_t, F32> du32;
#if MICA_TABLES
  return hn::ShiftRight<16>(hn::BitCast(du32, rounded_bfloat16<true>(v)));
#else
  auto bits = hn::BitCast(du32, v);
  auto upper = hn::ShiftRight<16>(bits);
  auto odd = hn::And(upper, hn::Set(du32, 1));
  auto rounded = hn::ShiftRight<16>(hn::Add(bits, hn::Add(odd, hn::Set(du32, 0x7fff))));
  auto quiet = hn::Or(upper, hn::Set(du32, 0x40));
  return hn::IfThenElse(hn::RebindMask(du32, hn::IsNaN(v)), quiet, rounded);
#endif
}
#endif
HWY_INLINE void store(F32 d, VF32 v, bfloat16_t* p) {
#if MICA_LANES_HALF
  const hn::Rebind<int32_t, F32> di32;
  const hn::Rebind<uint16_t, F32> du16;
  auto bits = hn::BitCast(di32, bfloat16_bits(d, v));
  hn::StoreU(hn::DemoteTo(du16, bits), du16, reinterpret_cast<uint16_t*>(p));
#else
  store_each(d, v, p);
#endif
}
#if MICA_TABLES
// 32 numbers of bfloat16 as floats.
HWY_INLINE void widened(__m512i both, VF32& first, VF32& second) {
  alignas(64) static constexpr uint16_t kFirst[] = {0,  0,  1,  1,  2,  2,  3,  3,  4,  4,  5,
                                                    5,  6,  6,  7,  7,  8,  8,  9,  9,  10, 10,
                                                    11, 11, 12, 12, 13, 13, 14, 14, 15, 15};
  const __mmask32 upper = 0xaaaaaaaa;  // of each lane; its lower half is zero
  const __m512i from = _mm512_load_si512(kFirst);
  const __m512i then = _mm512_add_epi16(from, _mm512_set1_epi16(16));
  first = VF32{_mm512_castsi512_ps(_mm512_maskz_permutexvar_epi16(upper, from, both))};
  second = VF32{_mm512_castsi512_ps(_mm512_maskz_permutexvar_epi16(upper, then, both))};
}
#endif

// A value with the precision of a half type.
HWY_INLINE VF32 rounded_to([[maybe_unused]] F32 d, VF32 v, TypeTag<bfloat16_t>) {
#if MICA_TABLES
  return rounded_bfloat16<true>(v);
#elif MICA_LANES_HALF
  return hn::BitCast(d, hn::ShiftLeft<16>(bfloat16_bits(d, v)));
#else
  bfloat16_t each[hn::MaxLanes(F32())];
  store(d, v, each);
  return load(d, each);
#endif
}

HWY_INLINE VF32 load(F32 d, const float16_t* p) {
#if MICA_HAVE_F16
  const hn::Rebind<hwy::float16_t, F32> df16;
  return hn::PromoteTo(d, hn::LoadU(df16, reinterpret_cast<const hwy::float16_t*>(p)));
#else
  return load_each(d, p);
#endif
}
HWY_INLINE void store([[maybe_unused]] F32 d, VF32 v, float16_t* p) {
#if MICA_HAVE_F16
  const hn::Rebind<hwy::float16_t, F32> df16;
  hn::StoreU(hn::DemoteTo(df16, v), df16, reinterpret_cast<hwy::float16_t*>(p));
#else
  store_each(d, v, p);
#endif
}

HWY_INLINE VF32 rounded_to(F32 d, VF32 v, TypeTag<float16_t>) {
#if MICA_HAVE_F16
  const hn::Rebind<hwy::float16_t, F32> df16;
  return hn::PromoteTo(d, hn::DemoteTo(df16, v));
#else
  float16_t each[hn::MaxLanes(F32())];
  store(d, v, each);
  return load(d, each);
#endif
}

// The first n < Lanes elements; the other lanes are `fill`. Nothing beyond them is touched.
template <class T>
HWY_INLINE VF32 load_part(F32 d, const T* p, size_t n, float fill = 0) {
  T part[hn::MaxLanes(F32())];
  std::fill_n(part, hn::MaxLanes(F32()), T(fill));
  std::memcpy(static_cast<void*>(part), p, n * sizeof(T));
  return load(d, part);
}
template <class T>
HWY_INLINE void store_part(F32 d, VF32 v, T* p, size_t n) {
  T part[hn::MaxLanes(F32())];
  store(d, v, part);
  std::memcpy(static_cast<void*>(p), part, n * sizeof(T));
}

// Into the second-level cache, which has more misses in flight than the first.
HWY_INLINE void prefetch_far(const void* p) {
#if defined(__GNUC__)
  __builtin_prefetch(p, 0, 2);
#endif
}
// Memory that will be read soon, fetched in the order in which it lies: loads alone keep too few
// lines on their way.
struct Ahead {
  const std::byte* next;
  HWY_INLINE void fetch(int64_t lines) {
    for (int64_t i = 0; i < lines; ++i, next += 64) prefetch_far(next);
  }
};

// The same, asked for kTimes times, kApart bytes apart: while too much is on its way, processors
// forget what they are asked for.
template <int kTimes, int64_t kApart>
struct AheadAgain {
  const std::byte* next;
  HWY_INLINE void fetch(int64_t lines) {
    for (int64_t i = 0; i < lines; ++i, next += 64)
      for (int64_t time = kTimes - 1; time >= 0; --time) prefetch_far(next + time * kApart);
  }
};
// Rows of quantized matrices, and their scales.
using PackedAhead = AheadAgain<2, 4096>;
using ScalesAhead = AheadAgain<2, 1024>;

// e^x for x <= 88; 0 below -87.3 (no subnormal results), NaN for NaN. Near 0 to about 1 ulp, which
// by tables grows by another for every 43 that x lies below.
HWY_INLINE VF32 exp_negative(F32 d, VF32 x) {
  const auto log2e = hn::Set(d, 1.44269504088896341f);
  const auto too_low = hn::Lt(x, hn::Set(d, -87.3f));
#if MICA_TABLES
  // 2^n e^r, n in sixteenths: a number whose bits come from a table, and (e^r - 1) / r, error
  // 1.1e-7.
  const auto shifted = hn::MulAdd(x, log2e, hn::Set(d, kSixteenths));
  const auto n = hn::Sub(shifted, hn::Set(d, kSixteenths));
  const auto r = hn::NegMulAdd(n, hn::Set(d, 0.693147182464599609375f), x);
  const auto power = power_of_sixteenths(d, shifted);
  auto q = hn::MulAdd(r, hn::Set(d, 0.16666667f), hn::Set(d, 0.50001469f));
  q = hn::MulAdd(q, r, hn::Set(d, 1.0f));
  const auto y = hn::MulAdd(hn::Mul(power, r), q, power);
#else
  // 2^n 2^f with |f| <= 1/2: n + 127 stands in the last bits of a sum with 1.5 * 2^23, where the
  // exponent of 2^n is taken from; 2^f is the polynomial of degree 6 with the least relative error
  // (2e-9) of those that are 1 at 0.
  const hn::Rebind<int32_t, F32> di;
  const auto shift = hn::Set(d, 12582912.0f + 127);
  const auto shifted = hn::MulAdd(x, log2e, shift);
  auto f = hn::MulSub(x, log2e, hn::Sub(shifted, shift));
  f = hn::MulAdd(x, hn::Set(d, 1.925963033500e-8f), f);  // what log2e lacks
  auto y = hn::Set(d, 1.53533619e-4f);
  y = hn::MulAdd(y, f, hn::Set(d, 1.33988750e-3f));
  y = hn::MulAdd(y, f, hn::Set(d, 9.61843692e-3f));
  y = hn::MulAdd(y, f, hn::Set(d, 5.55033237e-2f));
  y = hn::MulAdd(y, f, hn::Set(d, 2.40226477e-1f));
  y = hn::MulAdd(y, f, hn::Set(d, 6.93147182e-1f));
  y = hn::MulAdd(y, f, hn::Set(d, 1.0f));
  y = hn::Mul(y, hn::BitCast(d, hn::ShiftLeft<23>(hn::BitCast(di, shifted))));
#endif
  return hn::IfThenZeroElse(too_low, y);
}

HWY_INLINE float sum_lanes(F32 d, VF32 v) { return hn::GetLane(hn::SumOfLanes(d, v)); }
HWY_INLINE float max_lanes(F32 d, VF32 v) { return hn::GetLane(hn::MaxOfLanes(d, v)); }

}  // namespace HWY_NAMESPACE
}  // namespace mica::cpu
HWY_AFTER_NAMESPACE();

#endif
