#include "ops/derived.h"

#include <algorithm>
#include <numeric>

#include "base/error.h"
#include "ops/elementwise.h"
#include "ops/join.h"
#include "ops/registry.h"
#include "ops/shape.h"
#include "ops/sort.h"

namespace mica {

namespace {

std::vector<int> axes_of(const Array& a, const Axes& axis, const char* name) {
  if (axis) return normalize_axes(*axis, a.rank(), name);
  std::vector<int> all(a.rank());
  std::iota(all.begin(), all.end(), 0);
  return all;
}

// The axes last, merged into one.
Array merged_last(const Array& a, const std::vector<int>& axes, Stream s) {
  std::vector<int> order;
  Shape shape;
  for (int i = 0; i < static_cast<int>(a.rank()); ++i) {
    if (std::find(axes.begin(), axes.end(), i) != axes.end()) continue;
    order.push_back(i);
    shape.push_back(a.shape(i));
  }
  int64_t merged = 1;
  for (int axis : axes) {
    order.push_back(axis);
    merged *= a.shape(axis);
  }
  shape.push_back(merged);
  return reshape(transpose(a, order, s), shape, s);
}

}  // namespace

Array logical_xor(const Array& a, const Array& b, Stream s) {
  return not_equal(astype(a, Dtype::Bool, s), astype(b, Dtype::Bool, s), s);
}

Array trunc(const Array& a, Stream s) {
  if (!is_floating(a.dtype())) return a;
  return where(less(a, 0, s), ceil(a, s), floor(a, s), s);
}

Array count_nonzero(const Array& a, const Axes& axis, bool keepdims, Stream s) {
  return sum(astype(a, Dtype::Bool, s), axis, keepdims, s);
}

std::pair<Array, Array> minmax(const Array& a, const Axes& axis, bool keepdims, Stream s) {
  return {min(a, axis, keepdims, s), max(a, axis, keepdims, s)};
}

Array median(const Array& a, const Axes& axis, bool keepdims, Stream s) {
  std::vector<int> axes = axes_of(a, axis, "median");
  Array ordered = sort(merged_last(astype(a, to_floating(a.dtype()), s), axes, s), -1, s);
  int64_t count = ordered.shape(-1);
  if (count == 0) throw_value("[median] of no elements, in shape {}", a.shape());
  auto at = [&](int64_t i) { return slice_axis(ordered, -1, i, i + 1, s); };
  Array middle = at(count / 2);
  if (count % 2 == 0) middle = multiply(add(at(count / 2 - 1), middle, s), 0.5, s);
  Array last = at(count - 1);  // where sorting puts NaN
  middle = squeeze(where(isnan(last, s), last, middle, s), {-1}, s);
  return keepdims ? expand_dims(middle, axes, s) : middle;
}

Array diff(const Array& a, int n, int axis, Stream s) {
  if (n < 0) throw_value("[diff] the order {} is negative", n);
  int place = normalize_axis(axis, a.rank(), "diff");
  Array result = a;
  for (int i = 0; i < n; ++i) {
    int64_t extent = result.shape(place);
    Array right = slice_axis(result, place, std::min<int64_t>(1, extent), extent, s);
    Array left = slice_axis(result, place, 0, std::max<int64_t>(0, extent - 1), s);
    result = a.dtype() == Dtype::Bool ? not_equal(right, left, s) : subtract(right, left, s);
  }
  return result;
}

Arrays unstack(const Array& a, int axis, Stream s) {
  int place = normalize_axis(axis, a.rank(), "unstack");
  Arrays result;
  for (int64_t i = 0; i < a.shape(place); ++i)
    result.push_back(squeeze(slice_axis(a, place, i, i + 1, s), {place}, s));
  return result;
}

Array kron(const Array& a, const Array& b, Stream s) {
  size_t rank = std::max(a.rank(), b.rank());
  Shape left, right, shape;  // of a and b between each other's axes, and of the result
  for (size_t i = 0; i < rank; ++i) {
    auto extent = [&](const Array& x) {
      return i < rank - x.rank() ? 1 : x.shape()[i - (rank - x.rank())];
    };
    int64_t of_a = extent(a), of_b = extent(b);
    for (int64_t e : {of_a, int64_t{1}}) left.push_back(e);
    for (int64_t e : {int64_t{1}, of_b}) right.push_back(e);
    shape.push_back(of_a * of_b);
  }
  return reshape(multiply(reshape(a, left, s), reshape(b, right, s), s), shape, s);
}

Array vecdot(const Array& a, const Array& b, int axis, Stream s) {
  int64_t of_a = a.shape(normalize_axis(axis, a.rank(), "vecdot"));
  int64_t of_b = b.shape(normalize_axis(axis, b.rank(), "vecdot"));
  if (of_a != of_b)
    throw_value("[vecdot] extents {} and {} along axis {} differ", of_a, of_b, axis);
  Array product = multiply(a, b, s);
  // Negative: the axis of the array, whatever the other one adds in front.
  int place = axis < 0 ? axis : axis - static_cast<int>(std::max(a.rank(), b.rank()));
  return sum(product, std::vector<int>{place}, false, s);
}

namespace ops {

namespace {

#define MICA_ALONG "a: array, /, axis: int | Sequence[int] | None = None, keepdims: bool = False"

void add_statistics(FunctionRegistry& functions) {
  functions.add("count_nonzero",
                "a: array, /, *, axis: int | Sequence[int] | None = None, keepdims: bool = False",
                "How many elements along axes are not zero (int32).",
                [](const Array& a, const Axes& axis, bool keepdims, Stream s) {
                  return count_nonzero(a, axis, keepdims, s);
                });
  functions.add(
      "minmax", MICA_ALONG,
      "Smallest and largest element along axes; NaN if any is. ValueError if there are none.",
      [](const Array& a, const Axes& axis, bool keepdims, Stream s) {
        return minmax(a, axis, keepdims, s);
      },
      "tuple[array, array]");
  functions.add("median", MICA_ALONG,
                "The middle element along axes, the mean of the middle two of an even number; NaN\n"
                "if any is. Integers and bool give float32. ValueError if there are none.",
                [](const Array& a, const Axes& axis, bool keepdims, Stream s) {
                  return median(a, axis, keepdims, s);
                });
}

void add_elementwise(FunctionRegistry& functions) {
  functions.add("logical_xor", "a: scalar | array, b: scalar | array, /",
                "Element-wise: is exactly one of the two true (not zero)? The result is bool.",
                [](const Array& a, const Array& b, Stream s) { return logical_xor(a, b, s); });
  functions.add("trunc", "a: array, /",
                "Element-wise rounding towards zero; integers stay as they are.",
                [](const Array& a, Stream s) { return trunc(a, s); });
  functions.add("positive", "a: array, /", "`a` itself: the unary plus.",
                [](const Array& a, Stream) { return a; });
}

void add_shapes(FunctionRegistry& functions) {
  functions.add("diff", "a: array, /, n: int = 1, axis: int = -1",
                "The n-th differences of neighbours along an axis; of bools, where they change.",
                [](const Array& a, int n, int axis, Stream s) { return diff(a, n, axis, s); });
  functions.add(
      "unstack", "x: array, /, *, axis: int = 0", "The slices along an axis, without it.",
      [](const Array& x, int axis, Stream s) { return unstack(x, axis, s); }, "tuple[array, ...]");
  functions.add("matrix_transpose", "a: array, /",
                "`a` with its last two axes exchanged. ValueError if there are fewer.",
                [](const Array& a, Stream s) {
                  if (a.rank() < 2)
                    throw_value("[matrix_transpose] at least 2 axes are needed, got shape {}",
                                a.shape());
                  return swapaxes(a, -1, -2, s);
                });
}

void add_products(FunctionRegistry& functions) {
  functions.add("kron", "a: array, b: array",
                "The Kronecker product: all blocks a[i, …] * b, in the place of a[i, …].",
                [](const Array& a, const Array& b, Stream s) { return kron(a, b, s); });
  functions.add(
      "vecdot", "a: array, b: array, /, *, axis: int = -1",
      "Sum of products along an axis, whose extents must be equal (ValueError); the\n"
      "other axes broadcast.",
      [](const Array& a, const Array& b, int axis, Stream s) { return vecdot(a, b, axis, s); });
}

}  // namespace

void derived_ops(Registry& registry) {
  add_statistics(registry.functions);
  add_elementwise(registry.functions);
  add_shapes(registry.functions);
  add_products(registry.functions);
}

}  // namespace ops
}  // namespace mica
