#include "ops/elementwise.h"

#include <algorithm>
#include <limits>
#include <numbers>

#include "base/error.h"
#include "ops/elementwise_rules.h"
#include "ops/registry.h"

namespace mica {

using namespace ops;

namespace {

// Moves `a` through where it has the type: a count less to change than with a copy.
Array of_type(Array a, Dtype dtype, Stream s) {
  if (a.dtype() == dtype) return a;
  return apply(cast_op, {std::move(a)}, CastParams{dtype}, s);
}

// `a` in the type that an operation of this kind computes in; errors name the operation.
Array admit(const Op& op, ElementKind kind, Array a, Stream s) {
  switch (kind) {
    case ElementKind::Floating:
    case ElementKind::Test: {
      Dtype floating = to_floating(a.dtype());
      return of_type(std::move(a), floating, s);
    }
    case ElementKind::Logical: return of_type(std::move(a), Dtype::Bool, s);
    case ElementKind::Bits:
    case ElementKind::Shift:
      if (is_floating(a.dtype()))
        throw_value("[{}] needs integers or bool, got {}", op.name, a.dtype());
      if (kind == ElementKind::Shift && a.dtype() == Dtype::Bool)
        return of_type(std::move(a), Dtype::U8, s);
      return a;
    default: return a;
  }
}

Array unary(const Op& op, ElementKind kind, const Array& a, Stream s) {
  if (a.dtype() == Dtype::Bool) {
    if (&op == &negative_op) throw_value("[negative] bool has no negative; use logical_not");
    if (&op == &bitwise_invert_op) return logical_not(a, s);
  }
  if (kind == ElementKind::Rounding && !is_floating(a.dtype())) return a;
  return apply(op, {admit(op, kind, a, s)}, s);
}

Array binary(const Op& op, ElementKind kind, const Array& a, const Array& b, Stream s) {
  if (kind == ElementKind::Logical)
    return apply(op, {admit(op, kind, a, s), admit(op, kind, b, s)}, s);
  Dtype common = promote(a.dtype(), b.dtype());
  return apply(
      op, {admit(op, kind, of_type(a, common, s), s), admit(op, kind, of_type(b, common, s), s)},
      s);
}

}  // namespace

#define MICA_UNARY(name, kind, low, high, scalar, dx, doc) \
  Array name(const Array& a, Stream s) { return unary(name##_op, ElementKind::kind, a, s); }
#define MICA_BINARY(name, kind, low, high, scalar, dx, dy, doc) \
  Array name(const Array& a, const Array& b, Stream s) {        \
    return binary(name##_op, ElementKind::kind, a, b, s);       \
  }
#include "ops/elementwise.def"

Array fill(const Shape& shape, Scalar value, Dtype dtype, Stream s) {
  for (int64_t extent : shape) {
    if (extent < 0) throw_value("[full] negative extent in {}", shape);
  }
  int64_t integer = value.integer;
  if (value.kind == Scalar::Kind::Real && !is_floating(dtype))
    integer = std::isnan(value.real)
                  ? 0
                  : static_cast<int64_t>(std::clamp(value.real, -0x1p63, 0x1.fffffffffffffp62));
  if (dtype == Dtype::Bool) integer = value.real != 0;
  return apply(fill_op, std::span<const Array>{}, FillParams{shape, dtype, value.real, integer}, s);
}

Array scalar_beside(Scalar value, const Array& other, Stream s) {
  return fill({}, value, value.beside(other.dtype()), s);
}

Array astype(const Array& a, Dtype dtype, Stream s) { return of_type(a, dtype, s); }

Array where(const Array& condition, const Array& x, const Array& y, Stream s) {
  Dtype common = promote(x.dtype(), y.dtype());
  return apply(select_op,
               {astype(condition, Dtype::Bool, s), astype(x, common, s), astype(y, common, s)}, s);
}
Array where(const Array& condition, const Array& x, Scalar y, Stream s) {
  return where(condition, x, scalar_beside(y, x, s), s);
}
Array where(const Array& condition, Scalar x, const Array& y, Stream s) {
  return where(condition, scalar_beside(x, y, s), y, s);
}

Array round(const Array& a, int decimals, Stream s) {
  if (decimals == 0) return rint(a, s);
  if (!is_floating(a.dtype())) {
    if (decimals > 0) return a;
    return astype(round(astype(a, Dtype::F64, s), decimals, s), a.dtype(), s);
  }
  // Powers of ten below one are not exact, so the scale is always above.
  Array scale = scalar_beside(std::pow(10.0, std::abs(decimals)), a, s);
  if (decimals < 0) return multiply(rint(divide(a, scale, s), s), scale, s);
  return divide(rint(multiply(a, scale, s), s), scale, s);
}

Array clip(const Array& a, const Array& low, const Array& high, Stream s) {
  if (!low.defined() && !high.defined()) throw_value("[clip] needs a lower or an upper bound");
  Array bounded = low.defined() ? maximum(a, low, s) : a;
  return high.defined() ? minimum(bounded, high, s) : bounded;
}
Array clip(const Array& a, std::optional<Scalar> low, std::optional<Scalar> high, Stream s) {
  auto bound = [&](const std::optional<Scalar>& value) {
    return value ? scalar_beside(*value, a, s) : Array();
  };
  return clip(a, bound(low), bound(high), s);
}

std::pair<Array, Array> divmod(const Array& a, const Array& b, Stream s) {
  return {floor_divide(a, b, s), remainder(a, b, s)};
}

Array degrees(const Array& a, Stream s) { return multiply(a, 180 / std::numbers::pi, s); }
Array radians(const Array& a, Stream s) { return multiply(a, std::numbers::pi / 180, s); }

Array isposinf(const Array& a, Stream s) { return logical_and(isinf(a, s), greater(a, 0, s), s); }
Array isneginf(const Array& a, Stream s) { return logical_and(isinf(a, s), less(a, 0, s), s); }

namespace {
double largest(Dtype dtype) {
  switch (dtype) {
    case Dtype::F16: return 65504;
    case Dtype::BF16: return 0x1.fep127;
    case Dtype::F32: return std::numeric_limits<float>::max();
    default: return std::numeric_limits<double>::max();
  }
}
}  // namespace

Array nan_to_num(const Array& a, double nan, std::optional<double> posinf,
                 std::optional<double> neginf, Stream s) {
  if (!is_floating(a.dtype())) return a;
  double limit = largest(a.dtype());
  Array numbers = where(isnan(a, s), nan, a, s);
  numbers = where(isposinf(a, s), posinf.value_or(limit), numbers, s);
  return where(isneginf(a, s), neginf.value_or(-limit), numbers, s);
}

Array isclose(const Array& a, const Array& b, double rtol, double atol, bool equal_nan, Stream s) {
  Dtype common = to_floating(promote(a.dtype(), b.dtype()));
  Array x = astype(a, common, s), y = astype(b, common, s);
  Array bound = add(multiply(abs(y, s), rtol, s), atol, s);
  Array close = less_equal(abs(subtract(x, y, s), s), bound, s);
  // An infinite bound holds everything and inf - inf is NaN: infinities are close to themselves
  // only.
  close = where(logical_or(isinf(x, s), isinf(y, s), s), equal(x, y, s), close, s);
  if (!equal_nan) return close;
  return logical_or(close, logical_and(isnan(x, s), isnan(y, s), s), s);
}

namespace ops {

#define MICA_KIND_Number ""
#define MICA_KIND_Floating \
  "\n\nIntegers and bool become float32; the result has the type of the argument otherwise."
#define MICA_KIND_Rounding ""
#define MICA_KIND_Test "\n\nThe result is bool."
#define MICA_KIND_Comparison "\n\nThe result is bool."
#define MICA_KIND_Logical "\n\nThe result is bool."
#define MICA_KIND_Bits "\n\nFloating arguments are a ValueError."
#define MICA_KIND_Shift "\n\nFloating arguments are a ValueError; bool becomes uint8."
#define MICA_BROADCASTS                                                                            \
  "\n\nThe arguments broadcast and are promoted to their common type; a number takes the array's " \
  "type."

namespace {

// A row's name with the array API's name for it.
std::string with_alias(const std::string& name) {
  if (name.starts_with("arc")) return name + "|a" + name.substr(3);  // arccos|acos
  if (name == "power") return name + "|pow";
  if (name == "left_shift" || name == "right_shift") return name + "|bitwise_" + name;
  return name;
}

void table_functions(FunctionRegistry& functions) {
#define MICA_UNARY(name, kind, low, high, scalar, dx, doc)                               \
  functions.add(with_alias(#name).c_str(), "a: scalar | array, /", doc MICA_KIND_##kind, \
                [](const Array& a, Stream s) { return mica::name(a, s); });
#define MICA_BINARY(name, kind, low, high, scalar, dx, dy, doc)                    \
  functions.add(with_alias(#name).c_str(), "a: scalar | array, b: scalar | array", \
                doc MICA_KIND_##kind MICA_BROADCASTS,                              \
                [](const Array& a, const Array& b, Stream s) { return mica::name(a, b, s); });
#include "ops/elementwise.def"
}

void composed_functions(FunctionRegistry& functions) {
  functions.add("round", "a: array, /, decimals: int = 0",
                "Element-wise rounding to `decimals` digits after the point, or before it if "
                "negative; halves go to "
                "the even neighbour.",
                [](const Array& a, int decimals, Stream s) { return round(a, decimals, s); });
  functions.add(
      "clip", "a: array, /, a_min: scalar | array | None, a_max: scalar | array | None",
      "Element-wise value between `a_min` and `a_max`, one of which may be None." MICA_BROADCASTS,
      [](const Array& a, std::optional<Array> low, std::optional<Array> high, Stream s) {
        return clip(a, low.value_or(Array()), high.value_or(Array()), s);
      });
  functions.add(
      "divmod", "a: scalar | array, b: scalar | array",
      "Element-wise quotient rounded down, and remainder." MICA_BROADCASTS,
      [](const Array& a, const Array& b, Stream s) { return divmod(a, b, s); }, "list[array]");
  functions.add("degrees", "a: array, /", "Element-wise conversion of radians to degrees.",
                [](const Array& a, Stream s) { return degrees(a, s); });
  functions.add("radians", "a: array, /", "Element-wise conversion of degrees to radians.",
                [](const Array& a, Stream s) { return radians(a, s); });
  functions.add("isposinf", "a: array, /", "Element-wise: is it positive infinity?" MICA_KIND_Test,
                [](const Array& a, Stream s) { return isposinf(a, s); });
  functions.add("isneginf", "a: array, /", "Element-wise: is it negative infinity?" MICA_KIND_Test,
                [](const Array& a, Stream s) { return isneginf(a, s); });
  functions.add(
      "nan_to_num",
      "a: array, nan: float = 0, posinf: float | None = None, neginf: float | None = None",
      "NaN and infinities replaced by numbers. Without `posinf` and `neginf` infinities become the "
      "largest "
      "and the smallest number of the type.",
      [](const Array& a, double nan, std::optional<double> posinf, std::optional<double> neginf,
         Stream s) { return nan_to_num(a, nan, posinf, neginf, s); });
  functions.add(
      "isclose",
      "a: array, b: array, /, rtol: float = 1e-05, atol: float = 1e-08, *, equal_nan: bool = False",
      "Element-wise: is |a - b| <= atol + rtol * |b|? Equal infinities are close; NaNs are with "
      "`equal_nan` only." MICA_KIND_Test,
      [](const Array& a, const Array& b, double rtol, double atol, bool equal_nan, Stream s) {
        return isclose(a, b, rtol, atol, equal_nan, s);
      });
}

}  // namespace

void elementwise_ops(Registry& registry) {
  for (const Op* op : elementwise_table()) registry.ops.add(*op);
  table_functions(registry.functions);
  composed_functions(registry.functions);
  registry.functions.add(
      "where", "condition: scalar | array, x: scalar | array, y: scalar | array, /",
      "Element-wise `x` where the condition holds, else `y`. All three broadcast; `x` and `y` are "
      "promoted to their common type.",
      [](const Array& condition, const Array& x, const Array& y, Stream s) {
        return where(condition, x, y, s);
      });
  registry.functions.add(
      "astype", "a: array, dtype: Dtype",
      "`a` converted to a type. Floats become integers by truncation, saturating, NaN as 0; "
      "integers wrap around; anything but zero is true.",
      [](const Array& a, Dtype dtype, Stream s) { return astype(a, dtype, s); });
}

}  // namespace ops
}  // namespace mica
