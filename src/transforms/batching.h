// Batching: a traced graph rewritten so that some of its sources carry one axis more. For
// src/transforms; users call vmap.h.
//
// Every node is rewritten once, by its op's batching rule, so the graph does not grow with the
// batch. An op without a rule is batched through its lowering, and without that by a loop over the
// batch and a stack.
#pragma once

#include "transforms/traced_graph.h"

namespace mica::transforms {

struct BatchedArray {
  Array array;
  int axis = -1;  // where the batch lies; -1: the same for every element of the batch
};

// The outputs with `replacements` in place of the sources.
std::vector<BatchedArray> batch(std::span<const Array> outputs, std::span<const Array> sources,
                                std::span<const BatchedArray> replacements, int64_t extent);

// The shape that one element of the batch has.
Shape without_axis(const Shape& shape, int axis);

}  // namespace mica::transforms
