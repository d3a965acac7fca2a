#include "core/dtype.h"

#include <algorithm>

namespace mica {

namespace {
constexpr const char* kNames[kDtypeCount] = {"bool",     "uint8",   "uint16", "uint32", "uint64",
                                             "int8",     "int16",   "int32",  "int64",  "float16",
                                             "bfloat16", "float32", "float64"};

int integer_bits(Dtype dtype) { return dtype == Dtype::Bool ? 0 : 8 * size_of(dtype); }

Dtype signed_of_bits(int bits) {
  return bits <= 8 ? Dtype::I8 : bits <= 16 ? Dtype::I16 : bits <= 32 ? Dtype::I32 : Dtype::I64;
}
}  // namespace

const char* dtype_name(Dtype dtype) { return kNames[static_cast<int>(dtype)]; }

Dtype dtype_from_name(std::string_view name) {
  for (int i = 0; i < kDtypeCount; ++i) {
    if (name == kNames[i]) return static_cast<Dtype>(i);
  }
  throw_value("unknown dtype '{}'; known: {}", name, fmt::join(kNames, ", "));
}

Dtype promote(Dtype a, Dtype b) {
  if (a == b) return a;
  if (is_floating(a) || is_floating(b)) {
    if (!is_floating(a)) return b;
    if (!is_floating(b)) return a;
    if (is_half(a) && is_half(b)) return Dtype::F32;
    return std::max(a, b);
  }
  if (a == Dtype::Bool) return b;
  if (b == Dtype::Bool) return a;
  if (is_signed_integer(a) == is_signed_integer(b))
    return integer_bits(a) > integer_bits(b) ? a : b;
  Dtype with_sign = is_signed_integer(a) ? a : b;
  Dtype without = is_signed_integer(a) ? b : a;
  // As MLX: uint64 with a signed type has no integer that holds both.
  if (without == Dtype::U64) return Dtype::F32;
  return signed_of_bits(std::max(integer_bits(with_sign), 2 * integer_bits(without)));
}

namespace detail {

float half_to_float(uint16_t bits) {
  uint32_t sign = static_cast<uint32_t>(bits & 0x8000) << 16;
  uint32_t exponent = (bits >> 10) & 0x1f;
  uint32_t mantissa = bits & 0x3ff;
  if (exponent == 31) return bits_to_float(sign | 0x7f800000 | (mantissa << 13));
  if (exponent == 0) {
    float value = std::ldexp(static_cast<float>(mantissa), -24);
    return sign ? -value : value;
  }
  return bits_to_float(sign | ((exponent + 112) << 23) | (mantissa << 13));
}

uint16_t float_to_half(float value) {
  uint32_t raw = float_to_bits(value);
  uint16_t sign = static_cast<uint16_t>((raw >> 16) & 0x8000);
  uint32_t magnitude = raw & 0x7fffffff;
  if (magnitude > 0x7f800000) return sign | 0x7e00;
  if (magnitude >= 0x477ff000) return sign | 0x7c00;  // rounds past 65504
  if (magnitude < 0x38800000) {                       // subnormal: count in units of 2^-24
    float scaled = bits_to_float(magnitude) * 16777216.0f;
    return sign | static_cast<uint16_t>(std::nearbyint(scaled));
  }
  uint32_t rounded = magnitude + 0xfff + ((magnitude >> 13) & 1);
  return sign | static_cast<uint16_t>((rounded - 0x38000000) >> 13);
}

float narrow_to_odd(double value) {
  float narrow = static_cast<float>(value);
  bool even = (float_to_bits(narrow) & 1) == 0;
  if (!even || !std::isfinite(narrow) || static_cast<double>(narrow) == value) return narrow;
  return std::nextafter(narrow, static_cast<double>(narrow) < value ? HUGE_VALF : -HUGE_VALF);
}

}  // namespace detail
}  // namespace mica
