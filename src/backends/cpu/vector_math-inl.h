// Mathematical functions on vectors, compiled once per instruction set. Float ones are within 2
// units of the rounded result; "Wide" ones are computed in double for float arguments, and are
// right to the last bit but for rare ties. Infinities, NaN, signed zeros and domain errors give
// what <cmath> gives.
//
// Over all floats, errors in units of the last place: exp 0.97 (by tables 0.77), sigmoid 2.4,
// tanh 2.2 (1.5), erf 1.4 (1.2), log 0.9. Polynomials are Chebyshev fits; their errors are stated
// beside them.

#if defined(MICA_VECTOR_MATH_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef MICA_VECTOR_MATH_INL_H_
#undef MICA_VECTOR_MATH_INL_H_
#else
#define MICA_VECTOR_MATH_INL_H_
#endif

#include <hwy/contrib/math/math-inl.h>
#include <hwy/highway.h>

#include <cmath>
#include <limits>

#include "backends/cpu/tables-inl.h"

HWY_BEFORE_NAMESPACE();
namespace mica::cpu::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

template <class D>
using Vec = hn::Vec<D>;

// Coefficients from the highest power down.
template <class D, class V = Vec<D>, size_t N>
HWY_INLINE V polynomial(D d, V x, const double (&coefficients)[N]) {
  using T = hn::TFromD<D>;
  V sum = hn::Set(d, static_cast<T>(coefficients[0]));
#pragma GCC unroll 16
  for (size_t i = 1; i < N; ++i)
    sum = hn::MulAdd(sum, x, hn::Set(d, static_cast<T>(coefficients[i])));
  return sum;
}

template <class D, class V = Vec<D>>
HWY_INLINE V constant(D d, double value) {
  return hn::Set(d, static_cast<hn::TFromD<D>>(value));
}
template <class D, class V = Vec<D>>
HWY_INLINE V infinity(D d) {
  return hn::Set(d, std::numeric_limits<hn::TFromD<D>>::infinity());
}
template <class D, class V = Vec<D>>
HWY_INLINE V not_a_number(D d) {
  return hn::Set(d, std::numeric_limits<hn::TFromD<D>>::quiet_NaN());
}
// Not below or not above a bound; NaN stays NaN: on x86 the vector instruction gives its second
// argument if either is NaN.
template <class D, class V = Vec<D>>
HWY_INLINE V at_least(D d, V x, double low) {
  V y = hn::Max(constant(d, low), x);
#if HWY_ARCH_X86 && HWY_TARGET != HWY_SCALAR
  return y;
#else
  return hn::IfThenElse(hn::IsNaN(x), x, y);
#endif
}
template <class D, class V = Vec<D>>
HWY_INLINE V at_most(D d, V x, double high) {
  V y = hn::Min(constant(d, high), x);
#if HWY_ARCH_X86 && HWY_TARGET != HWY_SCALAR
  return y;
#else
  return hn::IfThenElse(hn::IsNaN(x), x, y);
#endif
}
template <class D, class V = Vec<D>>
HWY_INLINE V clamp(D d, V x, double low, double high) {
  return at_most(d, at_least(d, x, low), high);
}

// The larger and the smaller value; NaN wins, as in NumPy and MLX. On x86 the vector instruction
// gives y if either is NaN.
template <class D, class V = Vec<D>>
HWY_INLINE V larger(D, V x, V y) {
#if HWY_ARCH_X86 && HWY_TARGET != HWY_SCALAR
  return hn::IfThenElse(hn::IsNaN(x), x, hn::Max(x, y));
#else
  return hn::IfThenElse(hn::IsNaN(x), x, hn::IfThenElse(hn::Gt(x, y), x, y));
#endif
}
template <class D, class V = Vec<D>>
HWY_INLINE V smaller(D, V x, V y) {
#if HWY_ARCH_X86 && HWY_TARGET != HWY_SCALAR
  return hn::IfThenElse(hn::IsNaN(x), x, hn::Min(x, y));
#else
  return hn::IfThenElse(hn::IsNaN(x), x, hn::IfThenElse(hn::Lt(x, y), x, y));
#endif
}

// e^x in float for x between -104 and 89, where it becomes 0 and infinity.
template <class D, class V = Vec<D>>
HWY_INLINE V exp_bounded(D d, V x) {
#if MICA_TABLES
  // e^x = 2^n e^r, n in sixteenths: a power of two, an entry of a table, and (e^r - 1) / r, error
  // 1.1e-7 for |r| <= ln 2 / 32.
  V magic = hn::Set(d, kSixteenths);
  V shifted = hn::MulAdd(x, constant(d, 1.44269504088896341), magic);
  V n = hn::Sub(shifted, magic);
  V r = hn::NegMulAdd(n, constant(d, 0.693147182464599609375), x);
  r = hn::MulAdd(n, constant(d, 1.904654299957768e-9), r);
  V power = lookup(d, shifted, kPowers);
  V q = polynomial(d, r, {0.16666667, 0.50001469, 1.0});
  V y = hn::MulAdd(power, hn::MulAdd(r, q, lookup(d, shifted, kPowersLost)), power);
  return V{_mm512_scalef_ps(y.raw, n.raw)};  // by 2^floor(n); subnormal results are rounded once
#else
  const hn::RebindToSigned<D> di;
  // Added to 1.5 * 2^23, a float is rounded to an integer, which its bits then end in.
  V magic = constant(d, 12582912);
  V shifted = hn::MulAdd(x, constant(d, 1.44269504088896341), magic);
  V n = hn::Sub(shifted, magic);
  V r = hn::NegMulAdd(n, constant(d, 0.693359375), x);
  r = hn::NegMulAdd(n, constant(d, -2.12194440e-4), r);
  // (e^r - 1 - r) / r^2, error 1.4e-9 for |r| <= ln 2 / 2.
  V p = polynomial(d, r,
                   {0.00019890990824673654, 0.001393364999630925, 0.0083333109254809008,
                    0.041666464925285905, 0.16666666681623231, 0.50000000134658092});
  V y = hn::Add(hn::MulAdd(hn::Mul(r, r), p, r), constant(d, 1));
  // 2^n in two factors, so that subnormal results are rounded once.
  auto power = hn::Sub(hn::BitCast(di, shifted), hn::BitCast(di, magic));
  auto half = hn::ShiftRight<1>(power);
  auto scale = [&](auto e) HWY_ATTR {
    return hn::BitCast(d, hn::ShiftLeft<23>(hn::Add(e, hn::Set(di, 127))));
  };
  return hn::Mul(hn::Mul(y, scale(half)), scale(hn::Sub(power, half)));
#endif
}
template <class D, class V = Vec<D>>
HWY_INLINE V exp_float(D d, V x) {
  return exp_bounded(d, clamp(d, x, -104, 89));
}

// Logistic function in float.
template <class D, class V = Vec<D>>
HWY_INLINE V sigmoid_float(D d, V x) {
  V one = constant(d, 1);
  V e = exp_bounded(d, at_least(d, hn::Neg(hn::Abs(x)), -104));
  return hn::Div(hn::IfThenElse(hn::Lt(x, hn::Zero(d)), e, one), hn::Add(one, e));
}

#if MICA_TABLES
// tanh(u) around u = 18/31 j: coefficients of u - 18/31 j from the highest power down, for the j of
// each lane. Error 1.6e-9.
inline constexpr Table kTanh[] = {
    {{-0.0411701985f, 0.0286860391f, -0.0029380233f, -0.00203899108f, -3.40231418e-05f,
      9.62307386e-05f, 4.24608479e-05f, 1.45640197e-05f, 4.68617554e-06f, 1.47961066e-06f,
      4.64461948e-07f, 1.45534543e-07f, 4.55759945e-08f, 1.42701735e-08f, 4.46784654e-09f,
      1.39881329e-09f}},
    {{-0.00672826823f, -0.0334282964f, 0.0173488203f, 0.00223877537f, -0.000747575425f,
      -0.000437082897f, -0.000158985975f, -5.20188769e-05f, -1.65083275e-05f, -5.19030573e-06f,
      -1.62713457e-06f, -5.09636607e-07f, -1.59578633e-07f, -4.99632122e-08f, -1.56427777e-08f,
      -4.89749086e-09f}},
    {{0.134823382f, -0.0473900586f, -0.0280481335f, 0.00360101205f, 0.00366019807f, 0.00145341596f,
      0.000487230369f, 0.000155764006f, 4.90846505e-05f, 1.53987276e-05f, 4.82412497e-06f,
      1.51064648e-06f, 4.7298559e-07f, 1.4808613e-07f, 4.63633789e-08f, 1.45155648e-08f}},
    {{-0.000161367891f, 0.14933002f, -0.00214824732f, -0.0236743465f, -0.0109352563f,
      -0.00382056274f, -0.00123679021f, -0.000391255104f, -0.000122892452f, -3.85144303e-05f,
      -1.20619989e-05f, -3.77676929e-06f, -1.1824751e-06f, -3.70215218e-07f, -1.15908058e-07f,
      -3.62887569e-08f}},
    {{-0.333325177f, -0.0433393233f, 0.111046322f, 0.0636825114f, 0.0237143375f, 0.00783046987f,
      0.00249254517f, 0.000784423377f, 0.000245987176f, 7.70532279e-05f, 2.41278067e-05f,
      7.55435667e-06f, 2.36516962e-06f, 7.40495523e-07f, 2.3183614e-07f, 7.25837452e-08f}},
    {{-1.53385272e-07f, -0.379968435f, -0.267142117f, -0.108671293f, -0.0369862877f, -0.0118885413f,
      -0.00375294941f, -0.00117802434f, -0.000369117071f, -0.000115593204f, -3.61930215e-05f,
      -1.13316637e-05f, -3.54776694e-06f, -1.11074451e-06f, -3.47754337e-07f, -1.08875632e-07f}},
    {{4.69625228e-10f, 0.726330638f, 0.325203568f, 0.1155525f, 0.0377039276f, 0.0119602792f,
      0.00376002374f, 0.00117871875f, 0.000369185058f, 0.000115599832f, 3.61936582e-05f,
      1.13317228e-05f, 3.54777148e-06f, 1.11074462e-06f, 3.47754224e-07f, 1.08875589e-07f}},
    {{0.0f, 0.523134172f, 0.821459949f, 0.940450668f, 0.980966926f, 0.994001865f, 0.998118222f,
      0.99941045f, 0.999815404f, 0.999942183f, 0.99998188f, 0.999994338f, 0.999998212f,
      0.999999464f, 0.999999821f, 1.0f}}};
#endif

// Hyperbolic tangent in float.
template <class D, class V = Vec<D>>
HWY_INLINE V tanh_float(D d, V x) {
#if MICA_TABLES
  // Beyond, the result is 1.
  V u = at_most(d, hn::Abs(x), 8.9999), magic = constant(d, 12582912);
  V shifted = hn::MulAdd(u, constant(d, 31.0 / 18), magic), n = hn::Sub(shifted, magic);
  V t = hn::NegMulAdd(n, constant(d, 18.0 / 31), u);
  return hn::CopySign(piecewise(d, shifted, magic, t, kTanh), x);
#else
  // E / (E + 2) of E = e^(2|x|) - 1 = 2^n e^(2r) - 1.
  V u = at_most(d, hn::Abs(x), 10), two = constant(d, 2), magic = constant(d, 12582912 + 127);
  V shifted = hn::MulAdd(u, constant(d, 2.88539008177792681), magic);
  V n = hn::Sub(shifted, magic);
  V r = hn::NegMulAdd(n, constant(d, 0.3466796875), u);
  r = hn::NegMulAdd(n, constant(d, -1.06097220e-4), r);
  // (e^(2r) - 1 - 2r) / r^2, error 1.2e-07 for |r| <= ln 2 / 4.
  V q = polynomial(d, r,
                   {0.0889682775112, 0.267621446564, 0.666669660296, 1.3333261713, 1.99999998206});
  V rest = hn::MulAdd(hn::Mul(r, r), q, hn::Add(r, r));
  const hn::RebindToSigned<D> di;
  V scale = hn::BitCast(d, hn::ShiftLeft<23>(hn::BitCast(di, shifted)));  // 2^n
  V e = hn::MulAdd(scale, rest, hn::Sub(scale, constant(d, 1)));
  V below = hn::Add(e, two), y = hn::Div(e, below);
  // What the addition lost of a small E is made up for: 1 / (E + 2) is (1 - y) / 2.
  V lost = hn::Mul(hn::Sub(e, hn::Sub(below, two)), constant(d, 0.5));
  lost = hn::IfThenElseZero(hn::Lt(e, two), lost);
  y = hn::NegMulAdd(hn::Mul(y, lost), hn::Sub(constant(d, 1), y), y);
  return hn::CopySign(y, x);
#endif
}

// Natural logarithm, in float and in double.
template <class D, class V = Vec<D>>
HWY_INLINE V natural_log(D d, V x) {
  V zero = hn::Zero(d);
  V y = hn::Log(d, x);
  y = hn::IfThenElse(hn::Eq(x, infinity(d)), x, y);
  y = hn::IfThenElse(hn::Eq(x, zero), hn::Neg(infinity(d)), y);
  y = hn::IfThenElse(hn::Lt(x, zero), not_a_number(d), y);
  return hn::IfThenElse(hn::IsNaN(x), x, y);
}

#if MICA_TABLES
// erf(u) around u = j / 4: coefficients of u - j / 4 from the highest power down, for the j of each
// lane. Error 4.8e-10.
inline constexpr Table kErf[] = {
    {{-0.00998562295f, -0.0396681949f, -0.0497605056f, -0.026921954f, 0.00438664109f, 0.0210943129f,
      0.0192476269f, 0.00899090804f, 0.000515538326f, -0.00286920648f, -0.00278927479f,
      -0.00166041323f, -0.000742766366f, -0.000266400806f, -7.89525802e-05f, -1.96661586e-05f}},
    {{0.114235841f, 0.0796176419f, 0.00746990321f, -0.052740667f, -0.0687711835f, -0.0470815413f,
      -0.0149950329f, 0.00645918259f, 0.0129966801f, 0.0106391609f, 0.00613203645f, 0.00277343299f,
      0.00102723402f, 0.000318459439f, 8.37158441e-05f, 1.88193426e-05f}},
    {{-9.03579712e-05f, 0.126964733f, 0.183077395f, 0.15068911f, 0.0691878423f, -0.00615698285f,
      -0.0445980281f, -0.0481025539f, -0.0344456173f, -0.0190837812f, -0.00862247869f,
      -0.00325807906f, -0.00104434462f, -0.000286536932f, -6.77041608e-05f, -1.38367914e-05f}},
    {{-0.376123756f, -0.309167445f, -0.146464914f, 0.0267848764f, 0.138365939f, 0.167535022f,
      0.138753012f, 0.0901585743f, 0.0482236892f, 0.0217246991f, 0.00834997557f, 0.00276025105f,
      0.000789017125f, 0.00019577326f, 4.22829908e-05f, 7.96610493e-06f}},
    {{-2.82692731e-08f, -0.265003443f, -0.439391285f, -0.482198328f, -0.415107518f, -0.295651406f,
      -0.178395435f, -0.0923562422f, -0.0413339697f, -0.0160702169f, -0.00544571038f,
      -0.00161226257f, -0.000417759351f, -9.4864452e-05f, -1.88980448e-05f, -3.30538751e-06f}},
    {{0.128379166f, 1.06001413f, 0.87878257f, 0.642931104f, 0.415107518f, 0.236521125f,
      0.118930288f, 0.0527749918f, 0.0206669848f, 0.00714231888f, 0.00217828434f, 0.000586277514f,
      0.000139253214f, 2.91890974e-05f, 5.39945131e-06f, 1.05143906e-06f}},
    {{0.0f, 0.276326388f, 0.520499885f, 0.711155653f, 0.842700779f, 0.92290014f, 0.966105163f,
      0.986671686f, 0.995322287f, 0.998537302f, 0.999593019f, 0.999899387f, 0.999977887f,
      0.999995708f, 0.999999285f, 0.999999881f}}};
#endif

// Error function in float.
template <class D, class V = Vec<D>>
HWY_INLINE V erf_float(D d, V x) {
#if MICA_TABLES
  // Beyond, the result is 1. Added to 1.5 * 2^21, a float is rounded to a quarter.
  V u = at_most(d, hn::Abs(x), 3.8749), magic = constant(d, 3145728);
  V shifted = hn::Add(u, magic);
  V t = hn::Sub(u, hn::Sub(shifted, magic));
  return hn::CopySign(piecewise(d, shifted, magic, t, kErf), x);
#else
  // x P(x^2) up to 1, then 1 - exp(-L(x)).
  V one = constant(d, 1);
  V t = hn::Abs(x);
  V s = hn::Mul(x, x);
  // Error 1.2e-9.
  V p = polynomial(
      d, s,
      {7.8758750626854883e-05, -0.00080168642871658695, 0.005189087423433974, -0.026854212010626412,
       0.11283594715160218, -0.37612626666720331, 0.12837916584835089});
  V small = hn::MulAdd(x, p, x);
  // -log(erfc(t)), error 2.3e-8 between 1 and 4.1; beyond, the result is 1.
  V u = clamp(d, t, 1, 4.1);
  V l = polynomial(d, u,
                   {-1.59170621804357e-06, 4.518101704366554e-05, -0.00058959892853278975,
                    0.0047267249768519746, -0.026330274603214635, 0.10992448102469804,
                    0.63198706590277536, 1.1301414603887128, -0.00029793746218116451});
  V large = hn::CopySign(hn::Sub(one, exp_float(d, hn::Neg(l))), x);
  return hn::IfThenElse(hn::Lt(t, one), small, large);
#endif
}

// Double, for arguments and results of float's range.

// e^x, or with `minus_one` e^x - 1 without cancellation.
template <bool minus_one, class D, class V = Vec<D>>
HWY_INLINE V exp_wide(D d, V x) {
  const hn::RebindToSigned<D> di;
  V bounded = clamp(d, x, -320, 320);
  V magic = constant(d, 6755399441055744);  // as in exp_float: 1.5 * 2^52
  V shifted = hn::MulAdd(bounded, constant(d, 1.44269504088896341), magic);
  V n = hn::Sub(shifted, magic);
  V r = hn::NegMulAdd(n, constant(d, 0.69314718036912382), bounded);
  r = hn::NegMulAdd(n, constant(d, 1.9082149292705877e-10), r);
  // (e^r - 1) / r, error 1.3e-15.
  V q = polynomial(d, r,
                   {2.7620088445409748e-07, 2.7632655759332031e-06, 2.4801521295954375e-05,
                    0.00019841190615835852, 0.0013888888917213717, 0.0083333333673320082,
                    0.041666666666624128, 0.16666666666615606, 0.5000000000000001, 1.0});
  auto power = hn::Sub(hn::BitCast(di, shifted), hn::BitCast(di, magic));
  auto bits = hn::Add(power, hn::Set(di, int64_t{1023}));
  V scale = hn::BitCast(d, hn::ShiftLeft<52>(bits));
  V rest = minus_one ? hn::Sub(scale, constant(d, 1)) : scale;
  return hn::MulAdd(hn::Mul(scale, r), q, rest);
}

// log(1 + x).
template <class D, class V = Vec<D>>
HWY_INLINE V log1p_wide(D d, V x) {
  V one = constant(d, 1);
  V u = hn::Add(one, x);
  // What the addition lost, relative to u, makes up for the first order.
  V lost = hn::Sub(x, hn::Sub(u, one));
  V y = hn::Add(natural_log(d, u), hn::Div(lost, u));
  y = hn::IfThenElse(hn::Eq(x, infinity(d)), x, y);
  y = hn::IfThenElse(hn::Eq(u, hn::Zero(d)), hn::Neg(infinity(d)), y);
  return hn::IfThenElse(hn::Eq(x, hn::Zero(d)), x, y);
}

template <class D, class V = Vec<D>>
HWY_INLINE V sinh_wide(D d, V x) {
  V e = exp_wide<true>(d, hn::Abs(x));
  V y = hn::Mul(constant(d, 0.5), hn::Add(e, hn::Div(e, hn::Add(e, constant(d, 1)))));
  return hn::CopySign(y, x);
}
template <class D, class V = Vec<D>>
HWY_INLINE V cosh_wide(D d, V x) {
  V e = exp_wide<false>(d, hn::Abs(x));
  return hn::Mul(constant(d, 0.5), hn::Add(e, hn::Div(constant(d, 1), e)));
}

// Sine and cosine at once; |x| up to kTrigonometricLimit.
inline constexpr double kTrigonometricLimit = 1 << 20;
template <class D, class V = Vec<D>>
HWY_INLINE void sincos_wide(D d, V x, V& sine, V& cosine) {
  const hn::RebindToSigned<D> di;
  V n = hn::Round(hn::Mul(x, constant(d, 0.63661977236758134)));
  // pi/2 in three parts of which two have zeros enough for exact products.
  V r = hn::NegMulAdd(n, constant(d, 1.5707963267341256), x);
  r = hn::NegMulAdd(n, constant(d, 6.0771005063039660e-11), r);
  r = hn::NegMulAdd(n, constant(d, 2.0222662487959506e-21), r);
  V s = hn::Mul(r, r);
  V p = hn::Mul(
      r, polynomial(d, s,  // error 4.3e-15
                    {-2.4756499984297801e-08, 2.7555271077319583e-06, -0.00019841263294474436,
                     0.0083333333238705991, -0.16666666666616635, 0.99999999999999571}));
  V q = polynomial(d, s,  // error 4.8e-17
                   {2.0630405385441119e-09, -2.7555233053607963e-07, 2.4801578533318057e-05,
                    -0.0013888888869963558, 0.041666666666472112, -0.4999999999999925, 1.0});
  auto quadrant = hn::ConvertTo(di, n);
  auto bit = [&](auto value, int which) HWY_ATTR {
    return hn::RebindMask(d, hn::Ne(hn::And(value, hn::Set(di, int64_t{which})), hn::Zero(di)));
  };
  auto odd = bit(quadrant, 1);
  V s0 = hn::IfThenElse(odd, q, p), c0 = hn::IfThenElse(odd, p, q);
  sine = hn::IfThenElse(bit(quadrant, 2), hn::Neg(s0), s0);
  cosine = hn::IfThenElse(bit(hn::Add(quadrant, hn::Set(di, int64_t{1})), 2), hn::Neg(c0), c0);
}
// Calls `scalar` on every lane.
template <class D, class V = Vec<D>, class F>
HWY_NOINLINE V lanewise(D d, V x, V y, F scalar) {
  constexpr size_t kLanes = 64 / sizeof(hn::TFromD<D>);
  alignas(64) hn::TFromD<D> first[kLanes], second[kLanes];
  hn::Store(x, d, first);
  hn::Store(y, d, second);
  for (size_t i = 0; i < hn::Lanes(d); ++i) first[i] = scalar(first[i], second[i]);
  return hn::Load(d, first);
}
// x to the power y; special cases as std::pow.
template <class D, class V = Vec<D>>
HWY_INLINE V power_wide(D d, V x, V y) {
  V one = constant(d, 1), zero = hn::Zero(d), t = hn::Abs(x);
  V product = hn::Mul(y, natural_log(d, t));
  // 0 * inf: |x| = 1 or y = 0 give 1 whatever the other is.
  product = hn::IfThenElse(hn::Or(hn::Eq(t, one), hn::Eq(y, zero)), zero, product);
  V result = exp_wide<false>(d, product);
  V whole = hn::Floor(y), half = hn::Mul(whole, constant(d, 0.5));
  auto integer = hn::Eq(whole, y);
  auto odd = hn::And(integer, hn::Ne(hn::Floor(half), half));
  auto negative = hn::RebindMask(
      d, hn::Lt(hn::BitCast(hn::RebindToSigned<D>(), x), hn::Zero(hn::RebindToSigned<D>())));
  result = hn::IfThenElse(hn::And(odd, negative), hn::Neg(result), result);
  // A negative finite base needs an integer.
  auto invalid = hn::And(hn::Lt(x, zero), hn::AndNot(integer, hn::Lt(t, infinity(d))));
  result = hn::IfThenElse(invalid, not_a_number(d), result);
  // exp_wide stops short of infinity and zero.
  auto is_nan =
      hn::And(hn::Or(hn::IsNaN(x), hn::IsNaN(y)), hn::Not(hn::Or(hn::Eq(x, one), hn::Eq(y, zero))));
  return hn::IfThenElse(is_nan, not_a_number(d), result);
}

template <class D, class V = Vec<D>>
HWY_INLINE V logaddexp_wide(D d, V x, V y) {
  V top = hn::Max(x, y);
  V distance = hn::IfThenElse(hn::Eq(x, y), hn::Zero(d), hn::Neg(hn::Abs(hn::Sub(x, y))));
  V sum = hn::Add(top, log1p_wide(d, exp_wide<false>(d, distance)));
  return hn::IfThenElse(hn::Or(hn::IsNaN(x), hn::IsNaN(y)), not_a_number(d), sum);
}

// Angle of the point (x, y).
template <class D, class V = Vec<D>>
HWY_INLINE V arctan2_wide(D d, V y, V x) {
  V a = hn::Abs(y), b = hn::Abs(x), zero = hn::Zero(d);
  auto both_infinite = hn::And(hn::Eq(a, infinity(d)), hn::Eq(b, infinity(d)));
  V ratio = hn::IfThenElse(both_infinite, constant(d, 1), hn::Div(a, b));
  ratio = hn::IfThenElse(hn::Eq(a, zero), zero, ratio);
  ratio = hn::IfThenElse(hn::Or(hn::IsNaN(x), hn::IsNaN(y)), not_a_number(d), ratio);
  V angle = hn::Atan(d, ratio);
  const hn::RebindToSigned<D> di;
  auto left = hn::RebindMask(d, hn::Lt(hn::BitCast(di, x), hn::Zero(di)));
  angle = hn::IfThenElse(left, hn::Sub(constant(d, 3.14159265358979324), angle), angle);
  return hn::CopySign(angle, y);
}

// Remainder of a division rounded down; quotients up to kQuotientLimit.
inline constexpr double kQuotientLimit = 1 << 29;
template <class D, class V = Vec<D>>
HWY_INLINE V remainder_wide(D d, V x, V y) {
  V q = hn::Trunc(hn::Div(x, y));
  V r = hn::NegMulAdd(q, y, x);
  // The quotient may have been rounded up to the next integer.
  V zero = hn::Zero(d);
  r = hn::IfThenElse(hn::Lt(hn::Mul(r, x), zero), hn::Add(r, hn::CopySign(y, x)), r);
  auto unreduced = hn::And(hn::Eq(hn::Abs(y), infinity(d)), hn::Lt(hn::Abs(x), infinity(d)));
  r = hn::IfThenElse(unreduced, x, r);
  return hn::IfThenElse(hn::Lt(hn::Mul(r, y), zero), hn::Add(r, y), r);
}

// Inverse error function by w = -log(1 - x^2) and, far out, its root: errors 6e-10 and 1.7e-9.
template <class D, class V = Vec<D>>
HWY_INLINE V erfinv_wide(D d, V x) {
  V one = constant(d, 1);
  V w = hn::Neg(natural_log(d, hn::Mul(hn::Sub(one, x), hn::Add(one, x))));
  V c = hn::Sub(w, constant(d, 2.5));
  V p = polynomial(d, c,
                   {1.2346577114502573e-10, 4.3406268038539929e-10, -1.0861761271594343e-08,
                    1.650364404121373e-08, 4.786897084558858e-07, -3.426266209734268e-06,
                    -4.9960001101439555e-06, 0.0002182641252155226, -0.0012527079573557702,
                    -0.0041773250804577627, 0.24664027674858424, 1.5014093517481764});
  V t = hn::Sub(hn::Sqrt(w), constant(d, 3.125));
  V q = polynomial(d, t,
                   {-9.912500654777905e-06, -3.0832117423351051e-05, 0.00014621989570461001,
                    -0.0001144270590801899, -0.00033277917931070293, 0.0012708104890211605,
                    -0.0025190931387170141, 0.0037925511097071344, -0.0053010699283434423,
                    0.0070480104785880388, 1.0037186927803007, 2.958320148861457});
  V y = hn::Mul(x, hn::IfThenElse(hn::Lt(w, constant(d, 5)), p, q));
  return hn::IfThenElse(hn::Eq(hn::Abs(x), one), hn::CopySign(infinity(d), x), y);
}

}  // namespace mica::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // MICA_VECTOR_MATH_INL_H_
