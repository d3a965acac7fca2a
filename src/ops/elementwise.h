// Elementwise operations: each element of the result comes from the elements at the same place of
// the arguments, which broadcast as in NumPy. The table is ops/elementwise.def; chains of these run
// fused.
//
//   Array y = exp(-square(x - mean) * 0.5);
//   Array z = where(greater(x, 0), x, 0.01 * x);
//
// Arguments are promoted to their common type. Numbers are weakly typed, as in MLX: an int takes
// the array's type (int32 beside bool), a float the array's floating type (float32 beside integers
// and bool), a bool the array's type. What the result's type is depends on the operation's kind.
#pragma once

#include <optional>
#include <type_traits>
#include <utility>

#include "core/op.h"
#include "core/params.h"

namespace mica {

// Which types an elementwise operation takes and gives.
enum class ElementKind : uint8_t {
  Number,      // any; the same
  Floating,    // integers and bool become float32; the same
  Rounding,    // the same, integers and bool untouched
  Test,        // as Floating; bool
  Comparison,  // any; bool
  Logical,     // any, as bool; bool
  Bits,        // integers and bool; the same
  Shift,       // integers (bool becomes uint8); the same
};

// A number beside an array, whose type it takes; weakly typed.
struct Scalar {
  enum class Kind : uint8_t { Bool, Integer, Real };
  template <class T>
    requires std::is_arithmetic_v<T>
  Scalar(T number)
      : kind(std::is_same_v<T, bool> ? Kind::Bool
             : std::is_integral_v<T> ? Kind::Integer
                                     : Kind::Real),
        real(static_cast<double>(number)),
        integer(std::is_integral_v<T> ? static_cast<int64_t>(number) : 0) {}

  // The type it has beside an array of `dtype`.
  Dtype beside(Dtype dtype) const {
    if (kind == Kind::Integer && dtype == Dtype::Bool) return Dtype::I32;
    return kind == Kind::Real ? to_floating(dtype) : dtype;
  }

  Kind kind;
  double real;
  int64_t integer;
};

// An array of one value; takes no memory where it is fused into its users. ValueError for negative
// extents.
Array fill(const Shape& shape, Scalar value, Dtype dtype, Stream s = {});
// The number as an array without axes, of the type it has beside `other`.
Array scalar_beside(Scalar value, const Array& other, Stream s = {});

// Converts: floats become integers by truncation, saturating, NaN as 0; integers wrap around;
// anything but zero is true. Floats round to nearest even. `a` itself if it has the type already.
Array astype(const Array& a, Dtype dtype, Stream s = {});

// `x` where the condition (made bool) holds, else `y`.
Array where(const Array& condition, const Array& x, const Array& y, Stream s = {});
Array where(const Array& condition, const Array& x, Scalar y, Stream s = {});
Array where(const Array& condition, Scalar x, const Array& y, Stream s = {});

#define MICA_UNARY(name, kind, low, high, scalar, dx, doc) \
  Array name(const Array& a, Stream s = {});
#define MICA_BINARY(name, kind, low, high, scalar, dx, dy, doc) \
  Array name(const Array& a, const Array& b, Stream s = {});    \
  inline Array name(const Array& a, Scalar b, Stream s = {}) {  \
    return name(a, scalar_beside(b, a, s), s);                  \
  }                                                             \
  inline Array name(Scalar a, const Array& b, Stream s = {}) {  \
    return name(scalar_beside(a, b, s), b, s);                  \
  }
#include "ops/elementwise.def"

inline Array operator-(const Array& a) { return negative(a); }
#define MICA_OPERATOR(symbol, name)                                                   \
  inline Array operator symbol(const Array& a, const Array& b) { return name(a, b); } \
  inline Array operator symbol(const Array& a, Scalar b) { return name(a, b); }       \
  inline Array operator symbol(Scalar a, const Array& b) { return name(a, b); }
MICA_OPERATOR(+, add)
MICA_OPERATOR(-, subtract)
MICA_OPERATOR(*, multiply)
MICA_OPERATOR(/, divide)
#undef MICA_OPERATOR

// To `decimals` digits after the point (before it if negative), halves to the even neighbour.
Array round(const Array& a, int decimals = 0, Stream s = {});
// Between `low` and `high`, each of which may be missing (undefined), but not both.
Array clip(const Array& a, const Array& low, const Array& high, Stream s = {});
Array clip(const Array& a, std::optional<Scalar> low, std::optional<Scalar> high, Stream s = {});
// Floor quotient and remainder.
std::pair<Array, Array> divmod(const Array& a, const Array& b, Stream s = {});
Array degrees(const Array& a, Stream s = {});
Array radians(const Array& a, Stream s = {});
Array isposinf(const Array& a, Stream s = {});
Array isneginf(const Array& a, Stream s = {});
// NaN and infinities replaced; without values infinities become the type's largest and smallest.
Array nan_to_num(const Array& a, double nan = 0, std::optional<double> posinf = {},
                 std::optional<double> neginf = {}, Stream s = {});
// |a - b| <= atol + rtol * |b|; equal infinities are close, NaNs only with equal_nan.
Array isclose(const Array& a, const Array& b, double rtol = 1e-5, double atol = 1e-8,
              bool equal_nan = false, Stream s = {});

namespace ops {

struct FillParams {
  Shape shape;
  Dtype dtype;
  double real;      // the value of floating fills
  int64_t integer;  // the value of the others
  static constexpr auto fields() {
    return std::tuple(argument("shape", &FillParams::shape), field("dtype", &FillParams::dtype),
                      argument("real", &FillParams::real),
                      argument("integer", &FillParams::integer));
  }
};
struct CastParams {
  Dtype dtype;
  static constexpr auto fields() { return std::tuple(field("dtype", &CastParams::dtype)); }
};

extern const Op fill_op;
extern const Op cast_op;
extern const Op select_op;  // condition, x, y

#define MICA_UNARY(name, kind, low, high, scalar, dx, doc) extern const Op name##_op;
#define MICA_BINARY(name, kind, low, high, scalar, dx, dy, doc) extern const Op name##_op;
#include "ops/elementwise.def"

}  // namespace ops
}  // namespace mica
