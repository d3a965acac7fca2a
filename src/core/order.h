// Order of a segment's groups: creation order or depth-first, whichever needs less memory at its
// peak.
#pragma once

#include "core/fuse.h"

namespace mica {

// Which memory a reference lives in if no view has to copy: views share their input's.
class StorageRoots {
 public:
  explicit StorageRoots(const Segment& segment);
  int32_t root(int32_t ref) const { return ref < 0 ? ref : roots_[static_cast<size_t>(ref)]; }

 private:
  std::vector<int32_t> roots_;
};

// Lets readers of a state run before the update that overwrites it, where that makes no cycle.
void order_updates(const Segment& segment, const StorageRoots& roots, Grouping& grouping);

// Group numbers in the order to run.
std::vector<int32_t> order_groups(const Segment& segment, const StorageRoots& roots,
                                  const Grouping& grouping);

}  // namespace mica
