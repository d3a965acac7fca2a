// In which type rules compute: float16 and bfloat16 are widened to float32, so that a derivative
// made of several operations is rounded once.
#pragma once

#include "ops/elementwise.h"

namespace mica::ops {

inline Array widened(const Array& a) { return is_half(a.dtype()) ? astype(a, Dtype::F32) : a; }

}  // namespace mica::ops
