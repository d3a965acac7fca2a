// What a family file of src/ops/ registers: its operations and its public functions. A file `x.cc`
// that defines `void x_ops(Registry& registry)` at the start of a line, in namespace mica::ops, is
// found by the build and called once.
#pragma once

#include "core/op.h"
#include "ops/function.h"

namespace mica::ops {

struct Registry {
  OpRegistry& ops;
  FunctionRegistry& functions;
};

// Generated: calls the `x_ops` of every family file.
void register_all(Registry& registry);

}  // namespace mica::ops
