// Functions that are short compositions of others, with NumPy's meaning: they have no operation, no
// kernel and no rules of their own.
//
//   auto [low, high] = minmax(x_BD, {{-1}});
#pragma once

#include <utility>

#include "core/array.h"
#include "ops/reduce.h"

namespace mica {

// Element-wise: is exactly one of the two true (not zero)?
Array logical_xor(const Array& a, const Array& b, Stream s = {});
// Element-wise rounding towards zero; integers stay as they are.
Array trunc(const Array& a, Stream s = {});

// How many elements are not zero (int32).
Array count_nonzero(const Array& a, const Axes& axis = {}, bool keepdims = false, Stream s = {});
std::pair<Array, Array> minmax(const Array& a, const Axes& axis = {}, bool keepdims = false,
                               Stream s = {});
// The middle element in order, the mean of the middle two of an even number; NaN if any is.
// Floating, at least float32 for integers. Of no elements: ValueError.
Array median(const Array& a, const Axes& axis = {}, bool keepdims = false, Stream s = {});

// The n-th differences of neighbours along an axis, which gets shorter by n (but not below 0).
Array diff(const Array& a, int n = 1, int axis = -1, Stream s = {});
// The slices along an axis, without it.
Arrays unstack(const Array& a, int axis = 0, Stream s = {});
// All blocks a[i, …] * b; the shorter shape is filled with ones in front.
Array kron(const Array& a, const Array& b, Stream s = {});
// Sum of products along an axis; the arrays broadcast. ValueError if the axis' extents differ.
Array vecdot(const Array& a, const Array& b, int axis = -1, Stream s = {});

}  // namespace mica
