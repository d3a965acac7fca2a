// Softmax and log-sum-exp.
//
//   Array p_BHLS = softmax(scores_BHLS, std::vector<int>{-1});
//   Array log_p_BV = log_softmax(logits_BV, -1);
//
// Over one axis, several, or (without `axis`) all of them; axes out of range are IndexErrors,
// repeated ones ValueErrors. Integers and bool become float32; otherwise the dtype is the input's.
// float16 and bfloat16 are computed in float32 and rounded once. The largest element is subtracted
// first, so that nothing overflows. As in MLX and PyTorch a row of -inf, or one that holds +inf or
// NaN, gives NaN, and the logsumexp of a row of -inf (or of no elements) is -inf.
#pragma once

#include <optional>
#include <vector>

#include "core/op.h"

namespace mica {

// exp(a) / sum(exp(a)) along the axes. `precise` is MLX's: sums are never narrower than float32
// here, with or without it.
Array softmax(const Array& a, const std::optional<std::vector<int>>& axis = {},
              bool precise = false, Stream s = {});
// log(sum(exp(a))) along the axes.
Array logsumexp(const Array& a, const std::optional<std::vector<int>>& axis = {},
                bool keepdims = false, Stream s = {});
// a - logsumexp(a): the logarithm of softmax, exact where softmax underflows.
Array log_softmax(const Array& a, int axis = -1, Stream s = {});

namespace ops {

// Both work along the last axis of an array of at least one axis; logsumexp keeps it with extent 1.
extern const Op softmax_op;
extern const Op logsumexp_op;

}  // namespace ops
}  // namespace mica
