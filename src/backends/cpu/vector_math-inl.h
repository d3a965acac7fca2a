// Mathematical functions on vectors, compiled once per instruction set. Float ones are within 2
// units in the last place; "Wide" ones are computed in double for float arguments, and are right to
// the last bit but for rare ties. Infinities, NaN, signed zeros and domain errors give what <cmath>
// gives.
//
// Polynomials are Chebyshev fits; their errors are stated beside them.

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
// Between the bounds; NaN stays NaN.
template <class D, class V = Vec<D>>
HWY_INLINE V clamp(D d, V x, double low, double high) {
  V y = hn::Min(hn::Max(x, constant(d, low)), constant(d, high));
  return hn::IfThenElse(hn::IsNaN(x), x, y);
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

// e^x in float.
template <class D, class V = Vec<D>>
HWY_INLINE V exp_float(D d, V x) {
  const hn::RebindToSigned<D> di;
  V bounded = clamp(d, x, -104, 89);
  // Added to 1.5 * 2^23, a float is rounded to an integer, which its bits then end in.
  V magic = constant(d, 12582912);
  V shifted = hn::MulAdd(bounded, constant(d, 1.44269504088896341), magic);
  V n = hn::Sub(shifted, magic);
  V r = hn::NegMulAdd(n, constant(d, 0.693359375), bounded);
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
}

// Logistic function in float.
template <class D, class V = Vec<D>>
HWY_INLINE V sigmoid_float(D d, V x) {
  V one = constant(d, 1);
  V e = exp_float(d, hn::Neg(hn::Abs(x)));
  return hn::Div(hn::IfThenElse(hn::Lt(x, hn::Zero(d)), e, one), hn::Add(one, e));
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

// Error function in float: x P(x^2) up to 1, then 1 - exp(-L(x)).
template <class D, class V = Vec<D>>
HWY_INLINE V erf_float(D d, V x) {
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
HWY_INLINE V tanh_wide(D d, V x) {
  V e = exp_wide<true>(d, hn::Add(x, x));
  V y = hn::Div(e, hn::Add(e, constant(d, 2)));
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
