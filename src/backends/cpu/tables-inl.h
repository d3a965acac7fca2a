// Functions by tables of sixteen floats that lie in vector registers (AVX-512), which polynomials
// of a low degree take over from: what the exponentials of vector_math-inl.h and lanes-inl.h share.
// Where MICA_TABLES is 0 there are none, and longer polynomials are used.
//
//   V y = lookup(d, shifted, kPowers);  // y[i] = kPowers[last four bits of shifted[i]]
#if defined(MICA_CPU_TABLES_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef MICA_CPU_TABLES_INL_H
#undef MICA_CPU_TABLES_INL_H
#else
#define MICA_CPU_TABLES_INL_H
#endif

#include <hwy/highway.h>

#include <cstdint>

#undef MICA_TABLES
#if HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX3
#define MICA_TABLES 1
#else
#define MICA_TABLES 0
#endif

HWY_BEFORE_NAMESPACE();
namespace mica::cpu::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

#if MICA_TABLES

struct alignas(64) Table {
  float values[16];
};

// Highway's own lookup refuses indices of more than four bits in debug builds.
template <class D, class V = hn::Vec<D>>
HWY_INLINE V lookup(D, V indices, const Table& table) {
  static_assert(sizeof(V) == sizeof(Table));
  return V{_mm512_permutexvar_ps(_mm512_castps_si512(indices.raw), _mm512_load_ps(table.values))};
}

// A polynomial of t whose coefficients, from the highest power down, differ from lane to lane. For
// index 0, a function with f(0) = 0 and the first coefficient less 1: the first term would
// otherwise be rounded twice. `zero` is what `indices` is there.
template <class D, size_t N, class V = hn::Vec<D>>
HWY_INLINE V piecewise(D d, V indices, V zero, V t, const Table (&coefficients)[N]) {
  V sum = lookup(d, indices, coefficients[0]);
#pragma GCC unroll 8
  for (size_t i = 1; i + 1 < N; ++i) sum = hn::MulAdd(sum, t, lookup(d, indices, coefficients[i]));
  V rest = lookup(d, indices, coefficients[N - 1]);
  return hn::MulAdd(sum, t, hn::IfThenElse(hn::Eq(indices, zero), t, rest));
}

// Added to it, a float is rounded to a sixteenth, whose number then stands in the last bits.
inline constexpr float kSixteenths = 786432;  // 1.5 * 2^19

// 2^(j / 16), and what was lost when it was rounded, relative to it.
inline constexpr Table kPowers = {{1.0f, 1.04427373f, 1.09050775f, 1.13878858f, 1.18920708f,
                                   1.24185777f, 1.29683959f, 1.35425556f, 1.41421354f, 1.47682619f,
                                   1.54221082f, 1.61049032f, 1.68179286f, 1.75625217f, 1.8340081f,
                                   1.91520655f}};
inline constexpr Table kPowersLost = {
    {0.0f, 4.62854715e-08f, -1.19921575e-08f, 4.72978243e-08f, 3.19341815e-08f, 3.62105723e-08f,
     -3.09907193e-08f, -7.47521334e-09f, 1.71142709e-08f, -3.04768335e-08f, 5.23333421e-09f,
     6.10759177e-09f, -1.47196051e-08f, -5.25879518e-09f, -6.12825968e-09f, 5.14060927e-09f}};

// The bits of 2^(j / 16) less j * 2^19: with the bits of a number of sixteenths, shifted left by
// 19, they add up to 2 to its power.
struct alignas(64) BitTable {
  int32_t values[16];
};
inline constexpr BitTable kPowerBits = {{0x3f800000, 0x3f7daac3, 0x3f7b95c2, 0x3f79c3d3, 0x3f7837f0,
                                         0x3f76f532, 0x3f75fed7, 0x3f75583f, 0x3f7504f3, 0x3f7508a4,
                                         0x3f75672a, 0x3f76248c, 0x3f7744fd, 0x3f78ccdf, 0x3f7ac0c7,
                                         0x3f7d257d}};
// 2 to the power of the sixteenths that a float was rounded to by kSixteenths.
template <class D, class V = hn::Vec<D>>
HWY_INLINE V power_of_sixteenths(D d, V shifted) {
  const hn::RebindToSigned<D> di;
  const auto bits = hn::BitCast(di, shifted);
  const decltype(bits) start{
      _mm512_permutexvar_epi32(bits.raw, _mm512_load_si512(kPowerBits.values))};
  return hn::BitCast(d, hn::Add(start, hn::ShiftLeft<19>(bits)));
}

#endif

}  // namespace mica::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // MICA_CPU_TABLES_INL_H
