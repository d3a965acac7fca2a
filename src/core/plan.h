// Plan: how a segment runs. Made once per structure, cached, and run on any segment with the same
// key.
//
// A plan holds steps in order, the regions made ready by their backend, and where each value is
// used last. Extents, offsets, scalar values and memory are found when it runs (core/run.h).
#pragma once

#include <array>
#include <atomic>
#include <memory>
#include <vector>

#include "core/fuse.h"

namespace mica {

struct RegionStep {
  Region region;
  std::unique_ptr<RegionProgram> program;
  std::vector<int32_t> inputs;       // references
  std::vector<int32_t> outputs;      // values; the reduction's last
  std::vector<int32_t> param_nodes;  // by RegionInstruction::node
  int32_t space;                     // a reference whose shape is the iteration space
};

struct PlanStep {
  int32_t node;                        // of a region: its last
  std::unique_ptr<RegionStep> region;  // null for views, kernels and aliases
  std::vector<int32_t> dies;           // references that nothing later in the segment uses
};

struct Plan {
  KeyWords key;
  std::vector<PlanStep> steps;
  mutable std::atomic<bool> met{false};  // through a memo, since the cache last looked
};

// The plans that one thread met last, found again without the lock of the cache.
class PlanMemo {
 public:
  // From the cache, or made (a plan miss). Valid until the next call.
  const Plan& plan_for(const Segment& segment);
  // The one with this key, if this thread has met it: null is no plan miss.
  const Plan* find(const KeyWords& key);

 private:
  struct Entry {
    std::shared_ptr<const Plan> plan;
    uint64_t hash = 0;
    uint64_t evictions = 0;  // of the cache when the entry was made
  };
  Entry& entry_of(uint64_t hash) { return entries_[hash % entries_.size()]; }
  static const Plan* hit(const Entry& entry, uint64_t hash, const KeyWords& key);

  std::array<Entry, 16> entries_;  // by hash
};

// Plans kept at most (least recently used go first); for tests and tuning. Returns the previous
// limit.
size_t set_plan_cache_limit(size_t plans);

}  // namespace mica
