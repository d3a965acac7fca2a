// Copies of strided memory.
#pragma once

#include "core/view.h"

namespace mica::cpu {

// The elements of `from`, whose strides may be anything, into row-major memory. In parallel if
// large.
void copy_strided(const View& from, const View& to);

}  // namespace mica::cpu
