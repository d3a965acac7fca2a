// Vector code of the elementwise table for float32 (and, with a rounding after it, for the half
// types). A row that is missing here runs the table's scalar expression, in double.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backends/cpu/elementwise.cc"
#include "backends/cpu/highway_targets.h"

#include <hwy/foreach_target.h>

#include <hwy/highway.h>

#include "backends/cpu/tile.h"
#include "backends/cpu/vector_math-inl.h"
#include "ops/elementwise.h"
#include "ops/scalar.h"

#ifndef MICA_CPU_ELEMENTWISE_ONCE_
#define MICA_CPU_ELEMENTWISE_ONCE_
namespace mica::cpu {
struct VectorRow {
  const Op* op;
  TileFunction function;
};
}  // namespace mica::cpu
#endif

HWY_BEFORE_NAMESPACE();
namespace mica::cpu::HWY_NAMESPACE {

const hn::CappedTag<float, kTilePad> f32;
const hn::CappedTag<double, kTilePad / 2> f64;
const hn::Rebind<int32_t, decltype(f32)> i32;
const hn::Rebind<float, decltype(f64)> f32_of_f64;
const hn::Rebind<uint8_t, decltype(f32)> u8;

using Float = hn::Vec<decltype(f32)>;
using Double = hn::Vec<decltype(f64)>;

const float* at(const void* tile, int64_t i) { return static_cast<const float*>(tile) + i; }

// Drivers: F is a function object of one or two vectors.

template <class F>
void unary(void* out, const void* a, const void*, const void*, int64_t n) {
  for (int64_t i = 0; i < n; i += static_cast<int64_t>(hn::Lanes(f32)))
    hn::StoreU(F()(hn::LoadU(f32, at(a, i))), f32, static_cast<float*>(out) + i);
}
template <class F>
void binary(void* out, const void* a, const void* b, const void*, int64_t n) {
  for (int64_t i = 0; i < n; i += static_cast<int64_t>(hn::Lanes(f32)))
    hn::StoreU(F()(hn::LoadU(f32, at(a, i)), hn::LoadU(f32, at(b, i))), f32,
               static_cast<float*>(out) + i);
}

// Results are masks, stored as bytes.
template <class M>
HWY_INLINE void store_mask(M mask, void* out, int64_t i) {
  auto ones = hn::IfThenElseZero(hn::RebindMask(i32, mask), hn::Set(i32, 1));
  hn::StoreU(hn::DemoteTo(u8, ones), u8, static_cast<uint8_t*>(out) + i);
}
template <class F>
void unary_test(void* out, const void* a, const void*, const void*, int64_t n) {
  for (int64_t i = 0; i < n; i += static_cast<int64_t>(hn::Lanes(f32)))
    store_mask(F()(hn::LoadU(f32, at(a, i))), out, i);
}
template <class F>
void binary_test(void* out, const void* a, const void* b, const void*, int64_t n) {
  for (int64_t i = 0; i < n; i += static_cast<int64_t>(hn::Lanes(f32)))
    store_mask(F()(hn::LoadU(f32, at(a, i)), hn::LoadU(f32, at(b, i))), out, i);
}

// In double.
HWY_INLINE Double load_wide(const void* tile, int64_t i) {
  return hn::PromoteTo(f64, hn::LoadU(f32_of_f64, at(tile, i)));
}
HWY_INLINE void store_wide(Double v, void* out, int64_t i) {
  hn::StoreU(hn::DemoteTo(f32_of_f64, v), f32_of_f64, static_cast<float*>(out) + i);
}
template <class F>
void unary_wide(void* out, const void* a, const void*, const void*, int64_t n) {
  for (int64_t i = 0; i < n; i += static_cast<int64_t>(hn::Lanes(f64)))
    store_wide(F()(load_wide(a, i)), out, i);
}
template <class F>
void binary_wide(void* out, const void* a, const void* b, const void*, int64_t n) {
  for (int64_t i = 0; i < n; i += static_cast<int64_t>(hn::Lanes(f64)))
    store_wide(F()(load_wide(a, i), load_wide(b, i)), out, i);
}

// float32: NaN wins, as in NumPy and MLX.
HWY_INLINE Float larger(Float x, Float y) {
  return hn::IfThenElse(hn::Or(hn::IsNaN(x), hn::Gt(x, y)), x, y);
}
HWY_INLINE Float smaller(Float x, Float y) {
  return hn::IfThenElse(hn::Or(hn::IsNaN(x), hn::Lt(x, y)), x, y);
}
HWY_INLINE Float sign_of(Float x) {
  Float zero = hn::Zero(f32);
  Float negative = hn::IfThenElse(hn::Lt(x, zero), hn::Set(f32, -1.0f), x);
  return hn::IfThenElse(hn::Gt(x, zero), hn::Set(f32, 1.0f), negative);
}

template <class F>
HWY_INLINE Double sine_or(Double x, F scalar, int which) {
  if (HWY_UNLIKELY(any_beyond(f64, x, kTrigonometricLimit))) return lanewise(f64, x, x, scalar);
  Double sine, cosine;
  sincos_wide(f64, x, sine, cosine);
  if (which == 1) return cosine;
  Double y = which == 0 ? sine : hn::Div(sine, cosine);
  return hn::IfThenElse(hn::Eq(x, hn::Zero(f64)), x, y);
}
HWY_INLINE Double remainder_of(Double x, Double y) {
  if (HWY_UNLIKELY(any_beyond(f64, hn::Div(x, y), kQuotientLimit)))
    return lanewise(f64, x, y, [](double a, double b) { return scalar::remainder(a, b); });
  return remainder_wide(f64, x, y);
}
// Outside of its domain the argument becomes NaN.
HWY_INLINE Double within(Double x, double low, double high) {
  auto inside = hn::And(hn::Ge(x, hn::Set(f64, low)), hn::Le(x, hn::Set(f64, high)));
  return hn::IfThenElse(inside, x, not_a_number(f64));
}
// An odd function by its value at |x|; zeros keep their sign, as do infinities that map to
// themselves.
HWY_INLINE Double odd_of(Double x, Double of_magnitude) {
  return hn::IfThenElse(hn::Eq(x, hn::Zero(f64)), x, hn::CopySign(of_magnitude, x));
}
HWY_INLINE Double unbounded_odd_of(Double x, Double of_magnitude) {
  return hn::IfThenElse(hn::Eq(hn::Abs(x), infinity(f64)), x, odd_of(x, of_magnitude));
}
HWY_INLINE Double log_of(Double x, double factor) {
  return hn::Mul(natural_log(f64, x), hn::Set(f64, factor));
}
// log((1 + x) / (1 - x)) / 2.
HWY_INLINE Double arctanh_of(Double t) {
  Double one = hn::Set(f64, 1.0);
  Double y = log1p_wide(f64, hn::Div(hn::Add(t, t), hn::Sub(one, t)));
  return hn::Mul(hn::Set(f64, 0.5), y);
}
// log(x + sqrt(x^2 + 1)), of what is added to 1 in the logarithm.
HWY_INLINE Double arcsinh_of(Double t) {
  Double one = hn::Set(f64, 1.0), s = hn::Mul(t, t);
  return log1p_wide(f64, hn::Add(t, hn::Div(s, hn::Add(one, hn::Sqrt(hn::Add(s, one))))));
}
HWY_INLINE Double arccosh_of(Double x) {
  Double t = hn::Sub(x, hn::Set(f64, 1.0));
  return log1p_wide(f64, hn::Add(t, hn::Sqrt(hn::Mul(t, hn::Add(t, hn::Set(f64, 2.0))))));
}

#define MICA_FLOAT_1(name, ...)                                       \
  struct name##_code {                                                \
    HWY_INLINE auto operator()(Float x) const { return __VA_ARGS__; } \
  };
#define MICA_FLOAT_2(name, ...)                                                \
  struct name##_code {                                                         \
    HWY_INLINE auto operator()(Float x, Float y) const { return __VA_ARGS__; } \
  };
#define MICA_WIDE_1(name, ...)                                         \
  struct name##_code {                                                 \
    HWY_INLINE auto operator()(Double x) const { return __VA_ARGS__; } \
  };
#define MICA_WIDE_2(name, ...)                                                   \
  struct name##_code {                                                           \
    HWY_INLINE auto operator()(Double x, Double y) const { return __VA_ARGS__; } \
  };

MICA_FLOAT_1(abs, hn::Abs(x))
MICA_FLOAT_1(negative, hn::Neg(x))
MICA_FLOAT_1(sign, sign_of(x))
MICA_FLOAT_1(square, hn::Mul(x, x))
MICA_FLOAT_1(sqrt, hn::Sqrt(x))
MICA_FLOAT_1(rsqrt, hn::Div(hn::Set(f32, 1.0f), hn::Sqrt(x)))
MICA_FLOAT_1(reciprocal, hn::Div(hn::Set(f32, 1.0f), x))
MICA_FLOAT_2(add, hn::Add(x, y))
MICA_FLOAT_2(subtract, hn::Sub(x, y))
MICA_FLOAT_2(multiply, hn::Mul(x, y))
MICA_FLOAT_2(divide, hn::Div(x, y))
MICA_FLOAT_2(floor_divide, hn::Floor(hn::Div(x, y)))
MICA_FLOAT_2(maximum, larger(x, y))
MICA_FLOAT_2(minimum, smaller(x, y))
MICA_FLOAT_1(exp, exp_float(f32, x))
MICA_FLOAT_1(log, natural_log(f32, x))
MICA_FLOAT_1(sigmoid, sigmoid_float(f32, x))
MICA_FLOAT_1(erf, erf_float(f32, x))
MICA_FLOAT_1(floor, hn::Floor(x))
MICA_FLOAT_1(ceil, hn::Ceil(x))
MICA_FLOAT_1(rint, hn::Round(x))
MICA_FLOAT_1(isnan, hn::IsNaN(x))
MICA_FLOAT_1(isinf, hn::Eq(hn::Abs(x), infinity(f32)))
MICA_FLOAT_1(isfinite, hn::Lt(hn::Abs(x), infinity(f32)))
MICA_FLOAT_2(equal, hn::Eq(x, y))
MICA_FLOAT_2(not_equal, hn::Not(hn::Eq(x, y)))  // Ne is not true for NaN on AVX-512
MICA_FLOAT_2(less, hn::Lt(x, y))
MICA_FLOAT_2(less_equal, hn::Le(x, y))
MICA_FLOAT_2(greater, hn::Gt(x, y))
MICA_FLOAT_2(greater_equal, hn::Ge(x, y))

MICA_WIDE_2(remainder, remainder_of(x, y))
MICA_WIDE_2(power, power_wide(f64, x, y))
MICA_WIDE_1(expm1, hn::IfThenElse(hn::Eq(x, hn::Zero(f64)), x, exp_wide<true>(f64, x)))
MICA_WIDE_1(log2, log_of(x, 1.44269504088896341))
MICA_WIDE_1(log10, log_of(x, 0.43429448190325182765))
MICA_WIDE_1(log1p, log1p_wide(f64, x))
MICA_WIDE_2(logaddexp, logaddexp_wide(f64, x, y))
MICA_WIDE_1(sin, sine_or(x, [](double a, double) { return std::sin(a); }, 0))
MICA_WIDE_1(cos, sine_or(x, [](double a, double) { return std::cos(a); }, 1))
MICA_WIDE_1(tan, sine_or(x, [](double a, double) { return std::tan(a); }, 2))
MICA_WIDE_1(arcsin, odd_of(x, hn::Asin(f64, within(hn::Abs(x), 0, 1))))
MICA_WIDE_1(arccos, hn::Acos(f64, within(x, -1, 1)))
MICA_WIDE_1(arctan, arctan2_wide(f64, x, hn::Set(f64, 1.0)))
MICA_WIDE_2(arctan2, arctan2_wide(f64, x, y))
MICA_WIDE_1(sinh, unbounded_odd_of(x, sinh_wide(f64, x)))
MICA_WIDE_1(cosh, cosh_wide(f64, x))
MICA_WIDE_1(tanh, tanh_wide(f64, x))
MICA_WIDE_1(arcsinh, unbounded_odd_of(x, arcsinh_of(hn::Abs(x))))
MICA_WIDE_1(arccosh, arccosh_of(within(x, 1, std::numeric_limits<double>::infinity())))
MICA_WIDE_1(arctanh, odd_of(x, arctanh_of(within(hn::Abs(x), 0, 1))))
MICA_WIDE_1(erfinv, erfinv_wide(f64, x))

std::span<const VectorRow> vector_rows() {
#define MICA_ROW(driver, name) {&ops::name##_op, &driver<name##_code>},
  static constexpr VectorRow rows[] = {
      MICA_ROW(unary, abs) MICA_ROW(unary, negative) MICA_ROW(unary, sign) MICA_ROW(
          unary, square) MICA_ROW(unary, sqrt) MICA_ROW(unary, rsqrt) MICA_ROW(unary, reciprocal)
          MICA_ROW(binary, add) MICA_ROW(binary, subtract) MICA_ROW(binary, multiply) MICA_ROW(
              binary, divide) MICA_ROW(binary, floor_divide) MICA_ROW(binary, maximum)
              MICA_ROW(binary, minimum) MICA_ROW(unary, exp) MICA_ROW(unary, log) MICA_ROW(
                  unary, sigmoid) MICA_ROW(unary, erf) MICA_ROW(unary, floor) MICA_ROW(unary, ceil)
                  MICA_ROW(unary, rint) MICA_ROW(unary_test, isnan) MICA_ROW(unary_test, isinf)
                      MICA_ROW(unary_test, isfinite) MICA_ROW(binary_test, equal) MICA_ROW(
                          binary_test, not_equal) MICA_ROW(binary_test, less)
                          MICA_ROW(binary_test, less_equal) MICA_ROW(binary_test, greater) MICA_ROW(
                              binary_test, greater_equal) MICA_ROW(binary_wide, remainder)
                              MICA_ROW(binary_wide, power) MICA_ROW(unary_wide, expm1)
                                  MICA_ROW(unary_wide, log2) MICA_ROW(unary_wide, log10) MICA_ROW(
                                      unary_wide, log1p) MICA_ROW(binary_wide, logaddexp)
                                      MICA_ROW(unary_wide, sin) MICA_ROW(unary_wide, cos) MICA_ROW(
                                          unary_wide, tan) MICA_ROW(unary_wide, arcsin)
                                          MICA_ROW(unary_wide, arccos) MICA_ROW(unary_wide, arctan)
                                              MICA_ROW(binary_wide, arctan2) MICA_ROW(
                                                  unary_wide, sinh) MICA_ROW(unary_wide, cosh)
                                                  MICA_ROW(unary_wide, tanh)
                                                      MICA_ROW(unary_wide, arcsinh)
                                                          MICA_ROW(unary_wide, arccosh)
                                                              MICA_ROW(unary_wide, arctanh)
                                                                  MICA_ROW(unary_wide, erfinv)};
  return rows;
}

}  // namespace mica::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace mica::cpu {

HWY_EXPORT(vector_rows);

TileFunction vector_function(const Op& op) {
  for (const VectorRow& row : HWY_DYNAMIC_DISPATCH(vector_rows)()) {
    if (row.op == &op) return row.function;
  }
  return nullptr;
}

}  // namespace mica::cpu
#endif
