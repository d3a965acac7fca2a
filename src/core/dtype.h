// Element types, their names, sizes and promotion.
//
// Names and promotion are MLX's: integers promote to the wider type (u32 with a signed type to
// i64), any integer with a floating type to that floating type, float16 with bfloat16 to float32.
// float16 and bfloat16 are storage types: arithmetic on them is float32, rounded to nearest even.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <string_view>

#include "base/error.h"

namespace mica {

enum class Dtype : uint8_t {
  Bool,
  U8,
  U16,
  U32,
  U64,
  I8,
  I16,
  I32,
  I64,
  F16,
  BF16,
  F32,
  F64,
};
inline constexpr int kDtypeCount = 13;

constexpr int size_of(Dtype dtype) {
  constexpr int sizes[kDtypeCount] = {1, 1, 2, 4, 8, 1, 2, 4, 8, 2, 2, 4, 8};
  return sizes[static_cast<int>(dtype)];
}
constexpr bool is_floating(Dtype dtype) { return dtype >= Dtype::F16; }
constexpr bool is_half(Dtype dtype) { return dtype == Dtype::F16 || dtype == Dtype::BF16; }
constexpr bool is_signed_integer(Dtype dtype) { return dtype >= Dtype::I8 && dtype <= Dtype::I64; }
constexpr bool is_unsigned_integer(Dtype dtype) {
  return dtype >= Dtype::U8 && dtype <= Dtype::U64;
}
constexpr bool is_integer(Dtype dtype) { return dtype >= Dtype::U8 && dtype <= Dtype::I64; }

// "bool", "uint8" … "int64", "float16", "bfloat16", "float32", "float64".
const char* dtype_name(Dtype dtype);
// The inverse; throws ValueError naming the known types.
Dtype dtype_from_name(std::string_view name);

Dtype promote(Dtype a, Dtype b);
// The type of a result that must be floating: the type itself, float32 for integers and bool.
constexpr Dtype to_floating(Dtype dtype) { return is_floating(dtype) ? dtype : Dtype::F32; }

namespace detail {
inline float bits_to_float(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}
inline uint32_t float_to_bits(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  return bits;
}
float half_to_float(uint16_t bits);
uint16_t float_to_half(float value);
// A double as float, rounded to odd if it does not fit: rounding that to a half type is then as if
// it were the only rounding.
float narrow_to_odd(double value);
}  // namespace detail

// IEEE 754 binary16, as storage.
struct float16_t {
  uint16_t bits = 0;
  float16_t() = default;
  explicit float16_t(float value) : bits(detail::float_to_half(value)) {}
  operator float() const { return detail::half_to_float(bits); }
};

// The upper half of a binary32, as storage; NaNs stay NaNs (quiet).
struct bfloat16_t {
  uint16_t bits = 0;
  bfloat16_t() = default;
  explicit bfloat16_t(float value) {
    uint32_t raw = detail::float_to_bits(value);
    bits = std::isnan(value) ? static_cast<uint16_t>((raw >> 16) | 0x40)
                             : static_cast<uint16_t>((raw + 0x7fff + ((raw >> 16) & 1)) >> 16);
  }
  operator float() const { return detail::bits_to_float(static_cast<uint32_t>(bits) << 16); }
};

template <class T>
struct TypeTag {
  using type = T;
};

template <class T>
struct DtypeOf;
template <>
struct DtypeOf<bool> {
  static constexpr Dtype value = Dtype::Bool;
};
template <>
struct DtypeOf<uint8_t> {
  static constexpr Dtype value = Dtype::U8;
};
template <>
struct DtypeOf<uint16_t> {
  static constexpr Dtype value = Dtype::U16;
};
template <>
struct DtypeOf<uint32_t> {
  static constexpr Dtype value = Dtype::U32;
};
template <>
struct DtypeOf<uint64_t> {
  static constexpr Dtype value = Dtype::U64;
};
template <>
struct DtypeOf<int8_t> {
  static constexpr Dtype value = Dtype::I8;
};
template <>
struct DtypeOf<int16_t> {
  static constexpr Dtype value = Dtype::I16;
};
template <>
struct DtypeOf<int32_t> {
  static constexpr Dtype value = Dtype::I32;
};
template <>
struct DtypeOf<int64_t> {
  static constexpr Dtype value = Dtype::I64;
};
template <>
struct DtypeOf<float16_t> {
  static constexpr Dtype value = Dtype::F16;
};
template <>
struct DtypeOf<bfloat16_t> {
  static constexpr Dtype value = Dtype::BF16;
};
template <>
struct DtypeOf<float> {
  static constexpr Dtype value = Dtype::F32;
};
template <>
struct DtypeOf<double> {
  static constexpr Dtype value = Dtype::F64;
};
template <class T>
inline constexpr Dtype dtype_of = DtypeOf<T>::value;

// Calls f(TypeTag<T>{}) with the C++ type of dtype (bool is stored as one byte, 0 or 1).
template <class F>
decltype(auto) dispatch(Dtype dtype, F&& f) {
  switch (dtype) {
    case Dtype::Bool: return f(TypeTag<bool>{});
    case Dtype::U8: return f(TypeTag<uint8_t>{});
    case Dtype::U16: return f(TypeTag<uint16_t>{});
    case Dtype::U32: return f(TypeTag<uint32_t>{});
    case Dtype::U64: return f(TypeTag<uint64_t>{});
    case Dtype::I8: return f(TypeTag<int8_t>{});
    case Dtype::I16: return f(TypeTag<int16_t>{});
    case Dtype::I32: return f(TypeTag<int32_t>{});
    case Dtype::I64: return f(TypeTag<int64_t>{});
    case Dtype::F16: return f(TypeTag<float16_t>{});
    case Dtype::BF16: return f(TypeTag<bfloat16_t>{});
    case Dtype::F32: return f(TypeTag<float>{});
    default: return f(TypeTag<double>{});
  }
}

// The same for the floating types only; others throw TypeError naming `what`.
template <class F>
decltype(auto) dispatch_floating(Dtype dtype, const char* what, F&& f) {
  switch (dtype) {
    case Dtype::F16: return f(TypeTag<float16_t>{});
    case Dtype::BF16: return f(TypeTag<bfloat16_t>{});
    case Dtype::F32: return f(TypeTag<float>{});
    case Dtype::F64: return f(TypeTag<double>{});
    default: throw_type("[{}] needs a floating type, got {}", what, dtype_name(dtype));
  }
}

}  // namespace mica

template <>
struct fmt::formatter<mica::Dtype> : fmt::formatter<std::string_view> {
  template <class Context>
  auto format(mica::Dtype dtype, Context& context) const {
    return fmt::formatter<std::string_view>::format(mica::dtype_name(dtype), context);
  }
};
