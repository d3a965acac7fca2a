// checkpoint: a function whose intermediate results are not kept for the gradient but computed
// again when it is asked for. Memory for time: of a chain of checkpointed layers, only the layers'
// inputs stay.
//
//   auto layer = checkpoint([&](const Arrays& a) { return Arrays{block(a[0], weights)}; });
//
// Values and gradients are those of the function, and reach its arguments as well as differentiable
// arrays that it captures. The recomputation reads its inputs through `depends` on the incoming
// cotangents, so that it cannot run early, and compile does not merge it with the first
// computation. The function is called once; what is computed again is the graph it built. Outside
// of grad and its like it is the function itself.
//
// Chen et al., "Training Deep Nets with Sublinear Memory Cost", 2016.
#pragma once

#include "transforms/traced_graph.h"

namespace mica {

ArraysFunction checkpoint(ArraysFunction f);

}  // namespace mica
