// Regions on the reference device: one element at a time, in double or 64-bit integers, every value
// rounded to its dtype. The scalar code of each operation is its row of ops/elementwise.def.
#pragma once

#include <memory>

#include "core/backend.h"

namespace mica::ref {

bool has_elementwise(const Op& op);
void run_region(const RegionCall& call);

}  // namespace mica::ref
