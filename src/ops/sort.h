// Order: sort, argsort, partition, topk, argmax; and running sums, products and extrema.
//
//   Array best = argmax(logits_BV, -1);               // (B,), uint32
//   Array order = argsort(negative(scores), -1);      // uint32
//   Array total = cumsum(probabilities, -1);
//
// Sorting is ascending and stable; NaNs come last. The axis may be left out in Python's functions:
// sort flattens, argmax and the running functions see the flattened array. Indices are uint32.
// argmax and argmin give the first of equal elements and, as NumPy's, the first NaN if there is
// one; of no elements they are a ValueError.
//
// Running sums and products of float32 accumulate in float64, half types in float32; sums of
// bool are int32. Derivatives of cumprod need elements that are not zero.
#pragma once

#include <vector>

#include "core/op.h"
#include "core/params.h"

namespace mica {

Array sort(const Array& a, int axis = -1, Stream s = {});
Array argsort(const Array& a, int axis = -1, Stream s = {});
// Element `kth` stands where sorting would put it, smaller ones before it, larger ones after.
Array partition(const Array& a, int64_t kth, int axis = -1, Stream s = {});
Array argpartition(const Array& a, int64_t kth, int axis = -1, Stream s = {});
// The k largest elements along an axis, in no particular order.
Array topk(const Array& a, int64_t k, int axis = -1, Stream s = {});

Array argmax(const Array& a, int axis, bool keepdims = false, Stream s = {});
Array argmin(const Array& a, int axis, bool keepdims = false, Stream s = {});
// Over all elements, as a scalar.
Array argmax(const Array& a, Stream s = {});
Array argmin(const Array& a, Stream s = {});

// Element i combines the elements up to i (exclusive: before i), from the end with `reverse`.
Array cumsum(const Array& a, int axis, bool reverse = false, bool inclusive = true, Stream s = {});
Array cumprod(const Array& a, int axis, bool reverse = false, bool inclusive = true, Stream s = {});
Array cummax(const Array& a, int axis, bool reverse = false, bool inclusive = true, Stream s = {});
Array cummin(const Array& a, int axis, bool reverse = false, bool inclusive = true, Stream s = {});
// log of the running sum of exponentials; floating.
Array logcumsumexp(const Array& a, int axis, bool reverse = false, bool inclusive = true,
                   Stream s = {});

namespace ops {

struct SortParams {
  int axis;
  static constexpr auto fields() { return std::tuple(field("axis", &SortParams::axis)); }
};
struct PartitionParams {
  int axis;
  int64_t kth;  // non-negative
  static constexpr auto fields() {
    return std::tuple(field("axis", &PartitionParams::axis),
                      argument("kth", &PartitionParams::kth));
  }
};
struct ArgReduceParams {
  int axis;  // kept with extent 1
  bool largest;
  static constexpr auto fields() {
    return std::tuple(field("axis", &ArgReduceParams::axis),
                      field("largest", &ArgReduceParams::largest));
  }
};
enum class Scan : uint8_t { Sum, Prod, Max, Min, LogSumExp };
struct ScanParams {
  int axis;
  Scan scan;
  bool reverse, inclusive;
  static constexpr auto fields() {
    return std::tuple(field("axis", &ScanParams::axis), field("scan", &ScanParams::scan),
                      field("reverse", &ScanParams::reverse),
                      field("inclusive", &ScanParams::inclusive));
  }
};

extern const Op sort_op;
extern const Op argsort_op;
extern const Op argpartition_op;
extern const Op arg_reduce_op;
extern const Op scan_op;

}  // namespace ops
}  // namespace mica
