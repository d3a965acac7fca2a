// Regions that end in a reduction.
//
// The order of additions depends on the shape of the iteration space and on the reduced axes, and
// on nothing else: not on layouts, on what is fused in front, or on threads. The space is cut into
// tasks of some ten thousand elements; where outputs are few, several tasks share an output and
// leave partial results in the workspace, which are added in order.
#pragma once

#include "core/backend.h"

namespace mica::cpu {

size_t reduction_workspace(const RegionCall& call);
void run_reduction(const RegionCall& call);

}  // namespace mica::cpu
