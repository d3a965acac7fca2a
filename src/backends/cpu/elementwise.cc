// Vector code of the elementwise table for float32 (and, with a rounding after it, for the half
// types). A row that is missing here runs the table's scalar expression, in double.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backends/cpu/elementwise.cc"
#include "backends/cpu/highway_targets.h"

#include <hwy/foreach_target.h>

#include <hwy/highway.h>

#include "backends/cpu/lanes-inl.h"
#include "backends/cpu/tile.h"
#include "backends/cpu/vector_math-inl.h"
#include "ops/elementwise.h"
#include "ops/scalar.h"

#ifndef MICA_CPU_ELEMENTWISE_ONCE_
#define MICA_CPU_ELEMENTWISE_ONCE_
namespace mica::cpu {
struct VectorRow {
  const Op* op;
  LinkFunction link;

  LinkFunction reversed;  // of operations with two arguments
  // The same with one number as the operand; null where that gains nothing.
  LinkFunction constant, constant_reversed;
};
}  // namespace mica::cpu
#endif

HWY_BEFORE_NAMESPACE();
namespace mica::cpu::HWY_NAMESPACE {

const hn::CappedTag<float, kTilePad> f32;
const hn::Rebind<int32_t, decltype(f32)> i32;
const hn::Rebind<uint8_t, decltype(f32)> u8;
const hn::CappedTag<double, kTilePad / 2> f64;
using Float = hn::Vec<decltype(f32)>;
using Double = hn::Vec<decltype(f64)>;

// A block is kVectors vectors, passed from link to link in registers: so many that the processor
// has independent work while a link waits for the one before.
constexpr int64_t kVectors = 8;
using Block = void (*)(const Link*, int64_t, void*, Float, Float, Float, Float, Float, Float, Float,
                       Float);
#define MICA_BLOCK                                                                              \
  const Link *link, int64_t i, void *out, Float a, Float b, Float c, Float d, Float e, Float f, \
      Float g, Float h
#define MICA_PASSED link, i, out, a, b, c, d, e, f, g, h
// A function of a vector x of the block and its number k; and what is done with all of them.
#define MICA_VECTOR \
  [&]([[maybe_unused]] Float x, [[maybe_unused]] int64_t k) HWY_ATTR __attribute__((always_inline))
#define MICA_NEXT(of)                                                                            \
  reinterpret_cast<Block>(link[1].run)(link + 1, i, out, of(a, 0), of(b, 1), of(c, 2), of(d, 3), \
                                       of(e, 4), of(f, 5), of(g, 6), of(h, 7))
#define MICA_EACH(of) of(a, 0), of(b, 1), of(c, 2), of(d, 3), of(e, 4), of(f, 5), of(g, 6), of(h, 7)
#define MICA_ERASED(...) reinterpret_cast<LinkFunction>(&__VA_ARGS__)

int64_t lanes() { return static_cast<int64_t>(hn::Lanes(f32)); }
template <class T>
HWY_INLINE Float element(const void* tile, int64_t i, int64_t vector) {
  return load(f32, static_cast<const T*>(tile) + i + vector * lanes());
}
HWY_INLINE Float operand(const void* tile, int64_t i, int64_t vector) {
  return element<float>(tile, i, vector);
}

// Links. F is a function object of one or two vectors.

// How far ahead inputs are fetched: without, a row that is added to all rows disturbs the fetch by
// hardware.
constexpr int64_t kAheadBytes = 512;

template <class T>
HWY_INLINE void fetch_ahead(const Link* link, int64_t i) {
  const auto* ahead = reinterpret_cast<const std::byte*>(static_cast<const T*>(link->p) + i);
  const int64_t bytes = kVectors * lanes() * static_cast<int64_t>(sizeof(T));
  for (int64_t k = 0; k < bytes; k += 64) hwy::Prefetch(ahead + kAheadBytes + k);
}
template <class T>
void start(const Link* link, int64_t i, void* out) {
  fetch_ahead<T>(link, i);
  auto at = [&](int64_t k) HWY_ATTR
      __attribute__((always_inline)) { return element<T>(link->p, i, k); };
  reinterpret_cast<Block>(link[1].run)(link + 1, i, out, at(0), at(1), at(2), at(3), at(4), at(5),
                                       at(6), at(7));
}
#if MICA_TABLES
template <>
void start<bfloat16_t>(const Link* link, int64_t i, void* out) {
  fetch_ahead<bfloat16_t>(link, i);
  const auto* from = static_cast<const bfloat16_t*>(link->p) + i;
  Float a, b, c, d, e, f, g, h;
  widened(_mm512_loadu_si512(from), a, b);
  widened(_mm512_loadu_si512(from + 2 * lanes()), c, d);
  widened(_mm512_loadu_si512(from + 4 * lanes()), e, f);
  widened(_mm512_loadu_si512(from + 6 * lanes()), g, h);
  reinterpret_cast<Block>(link[1].run)(link + 1, i, out, a, b, c, d, e, f, g, h);
}
#endif
template <class F>
void unary(MICA_BLOCK) {
  auto of = MICA_VECTOR { return F()(x); };
  MICA_NEXT(of);
}
template <class F>
void binary(MICA_BLOCK) {
  auto of = MICA_VECTOR { return F()(x, operand(link->p, i, k)); };
  MICA_NEXT(of);
}
template <class F>
void binary_reversed(MICA_BLOCK) {
  auto of = MICA_VECTOR { return F()(operand(link->p, i, k), x); };
  MICA_NEXT(of);
}
template <class F>
void binary_constant(MICA_BLOCK) {
  Float y = hn::Set(f32, *static_cast<const float*>(link->p));
  auto of = MICA_VECTOR { return F()(x, y); };
  MICA_NEXT(of);
}
template <class F>
void binary_constant_reversed(MICA_BLOCK) {
  Float y = hn::Set(f32, *static_cast<const float*>(link->p));
  auto of = MICA_VECTOR { return F()(y, x); };
  MICA_NEXT(of);
}
template <bool reversed>
HWY_INLINE Float choose(const Link* link, int64_t i, int64_t k, Float x) {
  auto bytes = hn::LoadU(u8, static_cast<const uint8_t*>(link->p) + i + k * lanes());
  auto mask = hn::RebindMask(f32, hn::Gt(hn::PromoteTo(i32, bytes), hn::Zero(i32)));
  Float other = operand(link->q, i, k);
  return reversed ? hn::IfThenElse(mask, other, x) : hn::IfThenElse(mask, x, other);
}
template <bool reversed>
void select(MICA_BLOCK) {
  auto of = MICA_VECTOR { return choose<reversed>(link, i, k, x); };
  MICA_NEXT(of);
}
#if MICA_TABLES
// A block as bfloat16.
struct Narrowed {
  __m512i pairs[kVectors / 2];
};
HWY_INLINE __m512i joined(Float x, Float y) {
  alignas(64) static constexpr uint16_t kUpper[] = {1,  3,  5,  7,  9,  11, 13, 15, 17, 19, 21,
                                                    23, 25, 27, 29, 31, 33, 35, 37, 39, 41, 43,
                                                    45, 47, 49, 51, 53, 55, 57, 59, 61, 63};
  return _mm512_permutex2var_epi16(_mm512_castps_si512(x.raw), _mm512_load_si512(kUpper),
                                   _mm512_castps_si512(y.raw));
}
// Of numbers that have the precision of bfloat16.
HWY_INLINE Narrowed cut([[maybe_unused]] MICA_BLOCK) {
  return {{joined(a, b), joined(c, d), joined(e, f), joined(g, h)}};
}
HWY_INLINE Narrowed narrowed(MICA_BLOCK) {
  auto round = MICA_VECTOR { return rounded_bfloat16<true>(x); };
  return cut(link, i, out, round(a, 0), round(b, 1), round(c, 2), round(d, 3), round(e, 4),
             round(f, 5), round(g, 6), round(h, 7));
}
// By the instruction of AVX512_BF16, which takes subnormal numbers for zeros: false if there are
// some, so that the block must be converted otherwise. They are looked for only beside zeros.
HWY_INLINE bool narrow_by_instruction([[maybe_unused]] MICA_BLOCK, Narrowed& block) {
  asm("vcvtne2ps2bf16 %1, %2, %0" : "=v"(block.pairs[0]) : "v"(a.raw), "v"(b.raw));
  asm("vcvtne2ps2bf16 %1, %2, %0" : "=v"(block.pairs[1]) : "v"(c.raw), "v"(d.raw));
  asm("vcvtne2ps2bf16 %1, %2, %0" : "=v"(block.pairs[2]) : "v"(e.raw), "v"(f.raw));
  asm("vcvtne2ps2bf16 %1, %2, %0" : "=v"(block.pairs[3]) : "v"(g.raw), "v"(h.raw));
  auto zero = [&](int pair) HWY_ATTR __attribute__((always_inline)) {
    return _mm512_testn_epi16_mask(block.pairs[pair], _mm512_set1_epi16(0x7fff));
  };
  if (HWY_LIKELY(_kortestz_mask32_u8(_kor_mask32(zero(0), zero(1)), _kor_mask32(zero(2), zero(3)))))
    return true;
  __mmask16 found = 0;
  auto subnormal = MICA_VECTOR { found |= _mm512_fpclass_ps_mask(x.raw, 0x20); };
  MICA_EACH(subnormal);
  return found == 0;
}
#endif
// The result of an operation on values of a half type, or any float.
template <class Half, bool of_half>
struct round_code {
  HWY_INLINE Float operator()(Float x) const {
#if MICA_TABLES
    if constexpr (of_half && std::is_same_v<Half, bfloat16_t>) return rounded_bfloat16<false>(x);
#endif
    return rounded_to(f32, x, TypeTag<Half>());
  }
};

#if MICA_TABLES
void round_by_instruction(MICA_BLOCK) {
  Narrowed block;
  if (HWY_UNLIKELY(!narrow_by_instruction(MICA_PASSED, block)))
    return unary<round_code<bfloat16_t, false>>(MICA_PASSED);
  widened(block.pairs[0], a, b);
  widened(block.pairs[1], c, d);
  widened(block.pairs[2], e, f);
  widened(block.pairs[3], g, h);
  reinterpret_cast<Block>(link[1].run)(link + 1, i, out, a, b, c, d, e, f, g, h);
}
#endif

// Ends.

template <class T>
void end([[maybe_unused]] MICA_BLOCK) {
  T* to = static_cast<T*>(out) + i;
  auto write = MICA_VECTOR { store(f32, x, to + k * lanes()); };
  MICA_EACH(write);
}
#if MICA_TABLES
template <bool past>
HWY_INLINE void write(const Narrowed& block, void* out, int64_t i) {
  auto* to = reinterpret_cast<__m512i*>(static_cast<bfloat16_t*>(out) + i);
#pragma GCC unroll 4
  for (int pair = 0; pair < kVectors / 2; ++pair) {
    if constexpr (past)
      _mm512_stream_si512(to + pair, block.pairs[pair]);
    else
      _mm512_storeu_si512(to + pair, block.pairs[pair]);
  }
}
template <bool past>
void end_bfloat16([[maybe_unused]] MICA_BLOCK) {
  write<past>(narrowed(MICA_PASSED), out, i);
}
template <bool past>
void end_rounded([[maybe_unused]] MICA_BLOCK) {
  write<past>(cut(MICA_PASSED), out, i);
}
template <bool past>
void end_by_instruction(MICA_BLOCK) {
  Narrowed block;
  if (HWY_UNLIKELY(!narrow_by_instruction(MICA_PASSED, block)))
    return end_bfloat16<past>(MICA_PASSED);
  write<past>(block, out, i);
}
LinkFunction end_of_bfloat16(bool past) {
  if (__builtin_cpu_supports("avx512bf16"))
    return past ? MICA_ERASED(end_by_instruction<true>) : MICA_ERASED(end_by_instruction<false>);
  return past ? MICA_ERASED(end_bfloat16<true>) : MICA_ERASED(end_bfloat16<false>);
}
#endif
template <class T>
void end_stream([[maybe_unused]] MICA_BLOCK) {
  alignas(64) T block[kChainPad];
  end<T>(link, 0, block, a, b, c, d, e, f, g, h);
  const hn::CappedTag<uint8_t, 64> bytes;
  auto* from = reinterpret_cast<const uint8_t*>(block);
  auto* to = reinterpret_cast<uint8_t*>(static_cast<T*>(out) + i);
  const size_t size = static_cast<size_t>(kVectors * lanes()) * sizeof(T);
  for (size_t k = 0; k < size; k += hn::Lanes(bytes))
    hn::Stream(hn::Load(bytes, from + k), bytes, to + k);
}
template <>
void end_stream<float>([[maybe_unused]] MICA_BLOCK) {
  float* to = static_cast<float*>(out) + i;
  auto write = MICA_VECTOR { hn::Stream(x, f32, to + k * lanes()); };
  MICA_EACH(write);
}
template <Block kEnd>
void keep(MICA_BLOCK) {
  kEnd(link, i, const_cast<void*>(link->p), a, b, c, d, e, f, g, h);
  reinterpret_cast<Block>(link[1].run)(link + 1, i, out, a, b, c, d, e, f, g, h);
}
template <Block kEnd>
LinkFunction kept() {
  return MICA_ERASED(keep<kEnd>);
}
template <class M>
HWY_INLINE void store_mask(M mask, void* out, int64_t i) {
  auto ones = hn::IfThenElseZero(hn::RebindMask(i32, mask), hn::Set(i32, 1));
  hn::StoreU(hn::DemoteTo(u8, ones), u8, static_cast<uint8_t*>(out) + i);
}
template <class F>
void test([[maybe_unused]] MICA_BLOCK) {
  auto write = MICA_VECTOR { store_mask(F()(x), out, i + k * lanes()); };
  MICA_EACH(write);
}
template <class F>
void comparison(MICA_BLOCK) {
  auto write = MICA_VECTOR { store_mask(F()(x, operand(link->p, i, k)), out, i + k * lanes()); };
  MICA_EACH(write);
}
template <class F>
void comparison_reversed(MICA_BLOCK) {
  auto write = MICA_VECTOR { store_mask(F()(operand(link->p, i, k), x), out, i + k * lanes()); };
  MICA_EACH(write);
}

// A function of doubles on floats.
template <class F>
struct wide {
#if HWY_TARGET == HWY_SCALAR
  HWY_INLINE Float operator()(Float x) const {
    return hn::DemoteTo(f32, F()(hn::PromoteTo(f64, x)));
  }
  HWY_INLINE Float operator()(Float x, Float y) const {
    return hn::DemoteTo(f32, F()(hn::PromoteTo(f64, x), hn::PromoteTo(f64, y)));
  }
#else
  using Half = hn::Half<decltype(f32)>;
  static HWY_INLINE Double lower(Float x) { return hn::PromoteTo(f64, hn::LowerHalf(Half(), x)); }
  static HWY_INLINE Double upper(Float x) { return hn::PromoteTo(f64, hn::UpperHalf(Half(), x)); }
  static HWY_INLINE Float join(Double low, Double high) {
    return hn::Combine(f32, hn::DemoteTo(Half(), high), hn::DemoteTo(Half(), low));
  }
  HWY_NOINLINE Float operator()(Float x) const { return join(F()(lower(x)), F()(upper(x))); }
  HWY_NOINLINE Float operator()(Float x, Float y) const {
    return join(F()(lower(x), lower(y)), F()(upper(x), upper(y)));
  }
#endif
};

HWY_INLINE Float sign_of(Float x) {
  Float zero = hn::Zero(f32);
  Float negative = hn::IfThenElse(hn::Lt(x, zero), hn::Set(f32, -1.0f), x);
  return hn::IfThenElse(hn::Gt(x, zero), hn::Set(f32, 1.0f), negative);
}

// `result`, but where |measured| is beyond the limit scalar(x, y): for the few arguments that a
// vector function does not cover. Lane by lane, so that results do not depend on neighbours.
template <class F>
HWY_INLINE Double beyond(Double measured, double limit, Double x, Double y, Double result,
                         F scalar) {
  auto covered = hn::Le(hn::Abs(measured), hn::Set(f64, limit));
  if (HWY_LIKELY(hn::AllTrue(f64, covered))) return result;
  return hn::IfThenElse(covered, result, lanewise(f64, x, y, scalar));
}
template <class F>
HWY_INLINE Double sine_or(Double x, F scalar, int which) {
  Double sine, cosine;
  sincos_wide(f64, x, sine, cosine);
  Double y = which == 0 ? sine : which == 1 ? cosine : hn::Div(sine, cosine);
  if (which != 1) y = hn::IfThenElse(hn::Eq(x, hn::Zero(f64)), x, y);
  return beyond(x, kTrigonometricLimit, x, x, y, scalar);
}
HWY_INLINE Double remainder_of(Double x, Double y) {
  auto scalar = [](double a, double b) { return scalar::remainder(a, b); };
  return beyond(hn::Div(x, y), kQuotientLimit, x, y, remainder_wide(f64, x, y), scalar);
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
MICA_FLOAT_2(maximum, larger(f32, x, y))
MICA_FLOAT_2(minimum, smaller(f32, x, y))
MICA_FLOAT_1(exp, exp_float(f32, x))
MICA_FLOAT_1(log, natural_log(f32, x))
MICA_FLOAT_1(sigmoid, sigmoid_float(f32, x))
MICA_FLOAT_1(erf, erf_float(f32, x))
MICA_FLOAT_1(tanh, tanh_float(f32, x))
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
MICA_WIDE_1(arcsinh, unbounded_odd_of(x, arcsinh_of(hn::Abs(x))))
MICA_WIDE_1(arccosh, arccosh_of(within(x, 1, std::numeric_limits<double>::infinity())))
MICA_WIDE_1(arctanh, odd_of(x, arctanh_of(within(hn::Abs(x), 0, 1))))
MICA_WIDE_1(erfinv, erfinv_wide(f64, x))

std::span<const VectorRow> vector_rows() {
#define MICA_1(name) {&ops::name##_op, MICA_ERASED(unary<name##_code>), nullptr, nullptr, nullptr},
#define MICA_2(name)                                                                             \
  {&ops::name##_op, MICA_ERASED(binary<name##_code>), MICA_ERASED(binary_reversed<name##_code>), \
   MICA_ERASED(binary_constant<name##_code>), MICA_ERASED(binary_constant_reversed<name##_code>)},
#define MICA_WIDE(name) \
  {&ops::name##_op, MICA_ERASED(unary<wide<name##_code>>), nullptr, nullptr, nullptr},
#define MICA_WIDE2(name)                                    \
  {&ops::name##_op, MICA_ERASED(binary<wide<name##_code>>), \
   MICA_ERASED(binary_reversed<wide<name##_code>>), nullptr, nullptr},
#define MICA_TEST(name) \
  {&ops::name##_op, MICA_ERASED(test<name##_code>), nullptr, nullptr, nullptr},
#define MICA_COMPARISON(name)                             \
  {&ops::name##_op, MICA_ERASED(comparison<name##_code>), \
   MICA_ERASED(comparison_reversed<name##_code>), nullptr, nullptr},
  static const VectorRow rows[] = {
      MICA_1(abs) MICA_1(negative) MICA_1(sign) MICA_1(square) MICA_1(sqrt) MICA_1(rsqrt)
          MICA_1(reciprocal) MICA_2(add) MICA_2(subtract) MICA_2(multiply) MICA_2(divide) MICA_2(
              floor_divide) MICA_2(maximum) MICA_2(minimum) MICA_1(exp) MICA_1(log) MICA_1(sigmoid)
              MICA_1(erf) MICA_1(tanh) MICA_1(floor) MICA_1(ceil) MICA_1(rint) MICA_TEST(isnan)
                  MICA_TEST(isinf) MICA_TEST(isfinite) MICA_COMPARISON(equal) MICA_COMPARISON(
                      not_equal) MICA_COMPARISON(less) MICA_COMPARISON(less_equal)
                      MICA_COMPARISON(greater) MICA_COMPARISON(greater_equal) MICA_WIDE2(remainder)
                          MICA_WIDE2(power) MICA_WIDE(expm1) MICA_WIDE(log2) MICA_WIDE(log10)
                              MICA_WIDE(log1p) MICA_WIDE2(logaddexp) MICA_WIDE(sin) MICA_WIDE(cos)
                                  MICA_WIDE(tan) MICA_WIDE(arcsin) MICA_WIDE(arccos)
                                      MICA_WIDE(arctan) MICA_WIDE2(arctan2) MICA_WIDE(sinh)
                                          MICA_WIDE(cosh) MICA_WIDE(arcsinh) MICA_WIDE(arccosh)
                                              MICA_WIDE(arctanh) MICA_WIDE(erfinv)};
  return rows;
}

LinkFunction start_of(Dtype stored) {
  switch (stored) {
    case Dtype::F16: return MICA_ERASED(start<float16_t>);
    case Dtype::BF16: return MICA_ERASED(start<bfloat16_t>);
    default: return MICA_ERASED(start<float>);
  }
}
LinkFunction select_of(bool reversed) {
  return reversed ? MICA_ERASED(select<true>) : MICA_ERASED(select<false>);
}
LinkFunction round_of(Dtype half, bool of_half) {
  if (half == Dtype::F16) return MICA_ERASED(unary<round_code<float16_t, false>>);
#if MICA_TABLES
  if (__builtin_cpu_supports("avx512bf16")) return MICA_ERASED(round_by_instruction);
#endif
  return of_half ? MICA_ERASED(unary<round_code<bfloat16_t, true>>)
                 : MICA_ERASED(unary<round_code<bfloat16_t, false>>);
}
LinkFunction end_of(Dtype stored, bool stream) {
  switch (stored) {
    case Dtype::F16:
      return stream ? MICA_ERASED(end_stream<float16_t>) : MICA_ERASED(end<float16_t>);
    case Dtype::BF16:
#if MICA_TABLES
      return end_of_bfloat16(stream);
#endif
      return stream ? MICA_ERASED(end_stream<bfloat16_t>) : MICA_ERASED(end<bfloat16_t>);
    default: return stream ? MICA_ERASED(end_stream<float>) : MICA_ERASED(end<float>);
  }
}
LinkFunction keep_of(Dtype stored, bool stream, [[maybe_unused]] bool rounded) {
  switch (stored) {
    case Dtype::F16: return stream ? kept<end_stream<float16_t>>() : kept<end<float16_t>>();
    case Dtype::BF16:
#if MICA_TABLES
      if (rounded) return stream ? kept<end_rounded<true>>() : kept<end_rounded<false>>();
      if (__builtin_cpu_supports("avx512bf16"))
        return stream ? kept<end_by_instruction<true>>() : kept<end_by_instruction<false>>();
      return stream ? kept<end_bfloat16<true>>() : kept<end_bfloat16<false>>();
#endif
      return stream ? kept<end_stream<bfloat16_t>>() : kept<end<bfloat16_t>>();
    default: return stream ? kept<end_stream<float>>() : kept<end<float>>();
  }
}
int64_t block_size() { return kVectors * lanes(); }

}  // namespace mica::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace mica::cpu {

HWY_EXPORT(vector_rows);
HWY_EXPORT(start_of);
HWY_EXPORT(select_of);
HWY_EXPORT(round_of);
HWY_EXPORT(end_of);
HWY_EXPORT(keep_of);
HWY_EXPORT(block_size);

namespace {
const VectorRow* find(const Op& op) {
  for (const VectorRow& row : HWY_DYNAMIC_DISPATCH(vector_rows)()) {
    if (row.op == &op) return &row;
  }
  return nullptr;
}
}  // namespace

LinkFunction chain_start(Dtype stored) { return HWY_DYNAMIC_DISPATCH(start_of)(stored); }
LinkFunction chain_operation(const Op& op, bool reversed) {
  const VectorRow* row = find(op);
  return !row ? nullptr : reversed ? row->reversed : row->link;
}
LinkFunction chain_constant(const Op& op, bool reversed) {
  const VectorRow* row = find(op);
  return !row ? nullptr : reversed ? row->constant_reversed : row->constant;
}
LinkFunction chain_select(bool reversed) { return HWY_DYNAMIC_DISPATCH(select_of)(reversed); }
LinkFunction chain_round(Dtype half, bool of_half) {
  return HWY_DYNAMIC_DISPATCH(round_of)(half, of_half);
}
LinkFunction chain_keep(Dtype stored, bool stream, bool rounded) {
  return HWY_DYNAMIC_DISPATCH(keep_of)(stored, stream, rounded);
}
LinkFunction chain_end(Dtype stored, bool stream) {
  return HWY_DYNAMIC_DISPATCH(end_of)(stored, stream);
}
int64_t chain_block() { return HWY_DYNAMIC_DISPATCH(block_size)(); }

}  // namespace mica::cpu
#endif
