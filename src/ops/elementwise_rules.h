// The Op records of the elementwise table; between elementwise_rules.cc, which defines them, and
// elementwise.cc, which registers them.
#pragma once

#include <span>

#include "ops/elementwise.h"

namespace mica::ops {

// Those of elementwise.def, and fill, cast and select.
std::span<const Op* const> elementwise_table();

}  // namespace mica::ops
