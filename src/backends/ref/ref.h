// What kernels of the reference device use to reach their operands.
//
// The device's memory is a separate address space: the addresses in its Views are biased out of the
// canonical range, so that code which forgets that they are not the host's faults at once, and
// memory is filled with ones (NaN) before use and after release. Kernels read and write element by
// element, as double or as a 64-bit integer; what is stored is rounded once, to the view's dtype.
//
//   void softmax(const KernelCall& call) {
//     const View& in = call.inputs[0];
//     for_each(call.outputs[0].shape, [&](const Dims& index) {
//       double x = load(in, offset(in, index));
//       …
//       store(call.outputs[0], offset(call.outputs[0], index), y);
//     });
//   }
//
// A KernelCall's workspace is device memory too (`unbias`); plain std::vectors are simpler.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>

#include "core/backend.h"

namespace mica::ref {

inline constexpr uintptr_t kBias = uintptr_t{1} << 62;

// The real address of device memory.
template <class T = std::byte>
T* unbias(const void* device) {
  return reinterpret_cast<T*>(reinterpret_cast<uintptr_t>(device) - kBias);
}
// The elements of a view, really of type T.
template <class T>
T* at(const View& view) {
  return unbias<T>(view.data);
}

// Converts between element types as `astype` does: floating results are rounded once, to nearest
// even; floating values become integers by truncation, saturating, NaN as 0; integers wrap around;
// anything but zero is true.
template <class To, class From>
To convert(From from) {
  if constexpr (std::is_same_v<To, From>) {
    return from;
  } else if constexpr (std::is_same_v<From, float16_t> || std::is_same_v<From, bfloat16_t>) {
    return convert<To>(static_cast<float>(from));
  } else if constexpr (std::is_same_v<To, float16_t> || std::is_same_v<To, bfloat16_t>) {
    return To(detail::narrow_to_odd(static_cast<double>(from)));
  } else if constexpr (std::is_same_v<To, bool>) {
    return from != From(0);
  } else if constexpr (std::is_integral_v<To> && std::is_floating_point_v<From>) {
    if (std::isnan(from)) return 0;
    double limit = std::ldexp(1.0, std::numeric_limits<To>::digits);
    if (from >= limit) return std::numeric_limits<To>::max();
    if (from <= static_cast<double>(std::numeric_limits<To>::min()))
      return std::numeric_limits<To>::min();
    return static_cast<To>(from);
  } else {
    return static_cast<To>(from);
  }
}

// The element at `offset` (in elements from the view's first) as T: double, int64_t, uint64_t or
// bool.
template <class T = double>
T load(const View& view, int64_t offset) {
  return dispatch(view.dtype, [&](auto tag) {
    return convert<T>(at<typename decltype(tag)::type>(view)[offset]);
  });
}
// Writes an element, rounded to the view's dtype.
template <class T>
void store(const View& view, int64_t offset, T value) {
  dispatch(view.dtype, [&](auto tag) {
    using E = typename decltype(tag)::type;
    at<E>(view)[offset] = convert<E>(value);
  });
}

// Copies an element as it is, between views of one dtype.
inline void copy_element(const View& from, int64_t source, const View& to, int64_t target) {
  auto size = static_cast<int64_t>(size_of(from.dtype));
  std::memcpy(unbias(to.data) + target * size, unbias(from.data) + source * size, size_t(size));
}

// Where the element at a multi-index lies. The index may have more axes than the view (the view's
// are the last ones), and axes of extent 1 are read whatever the index says: views broadcast.
inline int64_t offset(const View& view, const Dims& index) {
  size_t lead = index.size() - view.shape.size();
  int64_t result = 0;
  for (size_t i = 0; i < view.shape.size(); ++i)
    if (view.shape[i] != 1) result += index[lead + i] * view.strides[i];
  return result;
}

// Calls f(index) for every multi-index of a shape, in row-major order; once, with no axes, for a
// scalar.
template <class F>
void for_each(const Shape& shape, F&& f) {
  if (elements(shape) == 0) return;
  Dims index(shape.size(), 0);
  for (;;) {
    f(static_cast<const Dims&>(index));
    size_t axis = shape.size();
    while (axis > 0 && ++index[axis - 1] == shape[axis - 1]) index[--axis] = 0;
    if (axis == 0) return;
  }
}

}  // namespace mica::ref
