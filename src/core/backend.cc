#include "core/backend.h"

namespace mica {

void KernelTable::add(const Op& op, const Kernel& kernel) {
  MICA_ASSERT(op.index >= 0);  // the table of operations comes first
  auto index = static_cast<size_t>(op.index);
  if (index >= kernels_.size()) kernels_.resize(index + 1);
  MICA_ASSERT(!kernels_[index].run);
  kernels_[index] = kernel;
}

}  // namespace mica
