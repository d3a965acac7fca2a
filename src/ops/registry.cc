#include "ops/registry.h"

#include <string_view>

#include "base/error.h"

namespace mica {

namespace {

// Both tables are built in one go: a family file registers its ops and its functions together.
struct Tables {
  OpRegistry ops;
  FunctionRegistry functions;
  Tables() {
    ops::Registry registry{ops, functions};
    ops::register_all(registry);
  }
};

const Tables& tables() {
  static const Tables tables;
  return tables;
}

}  // namespace

const OpRegistry& OpRegistry::shared() { return tables().ops; }
const FunctionRegistry& FunctionRegistry::shared() { return tables().functions; }

const Op* OpRegistry::find(std::string_view name) const {
  for (const Op* op : ops_) {
    if (name == op->name) return op;
  }
  return nullptr;
}

void OpRegistry::add(const Op& op) {
  MICA_ASSERT(op.name && op.infer);
  MICA_ASSERT(!find(op.name));
  op.index = static_cast<int>(ops_.size());
  ops_.push_back(&op);
}

}  // namespace mica
