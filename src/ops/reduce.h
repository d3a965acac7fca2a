// Reductions: one value from all elements along some axes.
//
//   Array total = sum(x_BD, {{-1}});              // (B,)
//   Array centred = x_BD - mean(x_BD, {{-1}}, true);
//
// Without `axis` all axes are reduced; an empty list reduces none. Negative axes count from the
// end. `keepdims` leaves the reduced axes with extent 1. Axes out of range are IndexErrors,
// repeated ones ValueErrors.
//
// sum and prod of bool and of integers narrower than 32 bits are int32 (uint32 if unsigned);
// float16 and bfloat16 accumulate wide and are rounded once. Sums run in an order that depends on
// shapes only. Of no elements: sum 0, prod 1, all true, any false, mean NaN; max and min are
// ValueErrors.
#pragma once

#include <optional>
#include <vector>

#include "core/op.h"
#include "core/region.h"

namespace mica {

using Axes = std::optional<std::vector<int>>;

Array sum(const Array& a, const Axes& axis = {}, bool keepdims = false, Stream s = {});
Array prod(const Array& a, const Axes& axis = {}, bool keepdims = false, Stream s = {});
// NaN if any element is.
Array max(const Array& a, const Axes& axis = {}, bool keepdims = false, Stream s = {});
Array min(const Array& a, const Axes& axis = {}, bool keepdims = false, Stream s = {});
// Of the elements as booleans.
Array all(const Array& a, const Axes& axis = {}, bool keepdims = false, Stream s = {});
Array any(const Array& a, const Axes& axis = {}, bool keepdims = false, Stream s = {});

// Floating; integers and bool become float32.
Array mean(const Array& a, const Axes& axis = {}, bool keepdims = false, Stream s = {});
// The mean squared distance from the mean, of n elements divided by n - ddof.
Array var(const Array& a, const Axes& axis = {}, bool keepdims = false, int ddof = 0,
          Stream s = {});
// Its square root.
Array std(const Array& a, const Axes& axis = {}, bool keepdims = false, int ddof = 0,
          Stream s = {});

// One bool: are shapes equal and all elements equal (or close, see isclose)?
Array array_equal(const Array& a, const Array& b, bool equal_nan = false, Stream s = {});
Array allclose(const Array& a, const Array& b, double rtol = 1e-5, double atol = 1e-8,
               bool equal_nan = false, Stream s = {});

namespace ops {

extern const Op sum_op;
extern const Op prod_op;
extern const Op max_op;
extern const Op min_op;
extern const Op all_op;
extern const Op any_op;

// The type of sums and products over elements of a type.
Dtype sum_dtype(Dtype dtype);

// The transpose of broadcasting: sums an array over the axes along which `shape` was broadcast to
// its shape. For derivatives.
Array sum_to_shape(const Array& a, const Shape& shape, Stream s = {});

}  // namespace ops
}  // namespace mica
