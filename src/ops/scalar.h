// Scalar arithmetic of the elementwise table, one template for double and for integers of any
// width. Integers wrap around and never trap: dividing by zero gives 0, shifting past the width
// shifts everything out. The ref device computes narrow integers in 64 bits and cuts the result,
// which gives the same bits.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <type_traits>

namespace mica::scalar {

template <class T>
inline constexpr bool is_float = std::is_floating_point_v<T>;
// Unsigned, and wide enough that C++'s promotions do not make it signed again.
template <class T>
using Wrap = std::common_type_t<std::make_unsigned_t<T>, unsigned>;

template <class T>
T plus(T x, T y) {
  if constexpr (is_float<T>)
    return x + y;
  else
    return static_cast<T>(static_cast<Wrap<T>>(x) + static_cast<Wrap<T>>(y));
}
template <class T>
T minus(T x, T y) {
  if constexpr (is_float<T>)
    return x - y;
  else
    return static_cast<T>(static_cast<Wrap<T>>(x) - static_cast<Wrap<T>>(y));
}
template <class T>
T times(T x, T y) {
  if constexpr (is_float<T>)
    return x * y;
  else
    return static_cast<T>(static_cast<Wrap<T>>(x) * static_cast<Wrap<T>>(y));
}
template <class T>
T negate(T x) {
  if constexpr (is_float<T>)
    return -x;
  else
    return minus(T{0}, x);
}
template <class T>
T absolute(T x) {
  if constexpr (is_float<T>)
    return std::fabs(x);
  else if constexpr (std::is_signed_v<T>)
    return x < 0 ? negate(x) : x;
  else
    return x;
}
template <class T>
T sign(T x) {
  if constexpr (is_float<T>)
    return x > 0 ? T{1} : x < 0 ? T{-1} : x;  // keeps NaN and the zeros
  else if constexpr (std::is_signed_v<T>)
    return static_cast<T>((x > 0) - (x < 0));
  else
    return static_cast<T>(x != 0);
}
template <class T>
T maximum(T x, T y) {
  if constexpr (is_float<T>)
    return std::isnan(x) || x > y ? x : y;
  else
    return x > y ? x : y;
}
template <class T>
T minimum(T x, T y) {
  if constexpr (is_float<T>)
    return std::isnan(x) || x < y ? x : y;
  else
    return x < y ? x : y;
}

template <class T>
T floor_divide(T x, T y) {
  if constexpr (is_float<T>) {
    return std::floor(x / y);
  } else {
    if (y == 0) return 0;
    if constexpr (std::is_signed_v<T>) {
      if (y == -1) return negate(x);  // the smallest integer / -1 would trap
      return static_cast<T>(x / y - ((x % y != 0) && ((x < 0) != (y < 0))));
    } else {
      return static_cast<T>(x / y);
    }
  }
}
template <class T>
T remainder(T x, T y) {
  if constexpr (is_float<T>) {
    T r = std::fmod(x, y);
    return r != 0 && (r < 0) != (y < 0) ? r + y : r;
  } else {
    if (y == 0) return 0;
    if constexpr (std::is_signed_v<T>) {
      if (y == -1) return 0;
      T r = static_cast<T>(x % y);
      return r != 0 && (r < 0) != (y < 0) ? static_cast<T>(r + y) : r;
    } else {
      return static_cast<T>(x % y);
    }
  }
}
template <class T>
T power(T x, T y) {
  if constexpr (is_float<T>) {
    return std::pow(x, y);
  } else {
    if constexpr (std::is_signed_v<T>) {
      if (y < 0) return x == 1 ? T{1} : x == -1 ? static_cast<T>(y % 2 == 0 ? 1 : -1) : T{0};
    }
    T result = 1;
    for (; y != 0; y = static_cast<T>(y >> 1)) {
      if (y & 1) result = times(result, x);
      x = times(x, x);
    }
    return result;
  }
}

template <class T>
T left_shift(T x, T y) {
  auto count = static_cast<std::make_unsigned_t<T>>(y);
  if (count >= 8 * sizeof(T)) return 0;
  return static_cast<T>(static_cast<Wrap<T>>(x) << count);
}
template <class T>
T right_shift(T x, T y) {
  auto count = static_cast<std::make_unsigned_t<T>>(y);
  if (count >= 8 * sizeof(T)) return x < T{0} ? static_cast<T>(-1) : T{0};
  return static_cast<T>(x >> count);
}

inline double sigmoid(double x) {
  double e = std::exp(-std::fabs(x));
  return (x < 0 ? e : 1.0) / (1.0 + e);
}
inline double logaddexp(double x, double y) {
  if (x == y) return x + 0.69314718055994531;  // also equal infinities
  double top = maximum(x, y);
  return std::isnan(top) ? top : top + std::log1p(std::exp(-std::fabs(x - y)));
}
// Giles' approximation ("Approximating the erfinv function", 2010), good to 1e-7, then Halley's
// steps.
inline double erfinv(double x) {
  double w = -std::log1p(-x * x);
  if (!(w <= std::numeric_limits<double>::max())) {
    return std::fabs(x) == 1 ? std::copysign(std::numeric_limits<double>::infinity(), x)
                             : std::numeric_limits<double>::quiet_NaN();
  }
  static constexpr double centre[] = {2.81022636e-08,  3.43273939e-07, -3.5233877e-06,
                                      -4.39150654e-06, 0.00021858087,  -0.00125372503,
                                      -0.00417768164,  0.246640727,    1.50140941};
  static constexpr double tail[] = {-0.000200214257, 0.000100950558, 0.00134934322,
                                    -0.00367342844,  0.00573950773,  -0.0076224613,
                                    0.00943887047,   1.00167406,     2.83297682};
  const double* c = w < 5 ? centre : tail;
  double t = w < 5 ? w - 2.5 : std::sqrt(w) - 3;
  double p = c[0];
  for (int i = 1; i < 9; ++i) p = c[i] + p * t;
  double y = p * x;
  for (int i = 0; i < 2; ++i) {
    // Far out the complement keeps the digits that erf(y) - x would lose.
    double sign = x < 0 ? -1 : 1;
    double error = std::fabs(x) < 0.5 ? std::erf(y) - x
                                      : sign * ((1 - std::fabs(x)) - std::erfc(std::fabs(y)));
    double step = error / (1.1283791670955126 * std::exp(-y * y));
    y -= step / (1 + y * step);
  }
  return y;
}

}  // namespace mica::scalar
