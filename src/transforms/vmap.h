// vmap: a function of single examples becomes one of batches.
//
//   auto dot = [](const Arrays& v) { return Arrays{sum(v[0] * v[1])}; };
//   Arrays out = vmap(dot, {0, std::nullopt})({rows, w});   // one dot product per row
//
// The function is called once, with placeholders that lack the batch axis; the graph it built is
// rewritten with the batching rules of its operations (core/op.h) and has the same size whatever
// the batch. Arrays that the function captures are the same for every example. Evaluating inside
// the function what depends on an argument is a ValueError: the placeholder has no value.
// Transforms nest in any order.
#pragma once

#include <optional>
#include <vector>

#include "transforms/traced_graph.h"

namespace mica {

// The batch axis of each array; negative ones count from the end, nullopt: not batched. An empty
// list means axis 0 of everything.
using BatchAxes = std::vector<std::optional<int>>;

// Outputs that depend on no batched argument are repeated along their output axis, or given once
// where it is nullopt. ValueError: no argument is batched, the batch extents differ, a batched
// output is to be unbatched; IndexError: an axis out of range.
ArraysFunction vmap(ArraysFunction f, BatchAxes in_axes = {}, BatchAxes out_axes = {});

// The two halves, for callers who know the output axes only once the function has run.
class VmapTrace {
 public:
  VmapTrace(const ArraysFunction& f, const Arrays& inputs, const BatchAxes& in_axes);
  const Arrays& outputs() const { return outputs_; }  // of one example
  Arrays batched(const BatchAxes& out_axes) const;

 private:
  TraceScope scope_;
  Arrays batched_inputs_;
  std::vector<int> axes_;
  int64_t extent_ = -1;
  Arrays sources_;
  Arrays outputs_;
};

}  // namespace mica
