// Regions on the CPU: an interpreter of vector operations over tiles that stay in the first-level
// cache.
//
// A register is a tile of kTile elements, held in the type its dtype computes in: float for
// float16, bfloat16 and float32 (halves are rounded to their type after every instruction), double,
// integers of their own width. An instruction is a function on whole tiles, so tails are computed
// like everything else, on padded tiles: a value does not depend on where in the array, or how
// fused, it is computed.
#pragma once

#include <cstdint>
#include <memory>

#include "core/backend.h"

namespace mica::cpu {

bool has_elementwise(const Op& op);
std::unique_ptr<RegionProgram> prepare_region(const Region& region);
size_t region_workspace(const RegionCall& call);
void run_region(const RegionCall& call);

}  // namespace mica::cpu
