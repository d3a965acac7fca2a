// Public counters: what evaluation did. Tests assert on them.
//
//   reset_counters();
//   eval({y});
//   EXPECT_EQ(counters().kernels, 1);
#pragma once

#include <atomic>
#include <cstdint>

#include "core/device.h"

namespace mica {

struct Counters {
  int64_t kernels = 0;  // kernel and region calls
  int64_t lowered = 0;  // applications that ran as their lowering
  int64_t plan_hits = 0;
  int64_t plan_misses = 0;
  int64_t bytes_copied =
      0;  // copies to satisfy layouts, reshapes and updates that could not be in place
  int64_t bytes_moved = 0;  // between devices
  int64_t nodes = 0;        // nodes built
};

Counters counters();
void reset_counters();

// Bytes held by arrays (active), kept for reuse (cached), and the highest `active` since the last
// reset_peak_memory(). Mapped files are counted apart, under `mapped`.
struct MemoryUse {
  int64_t active = 0;
  int64_t peak = 0;
  int64_t cached = 0;
};
MemoryUse memory_use(DeviceKind kind);
int64_t mapped_bytes();
void reset_peak_memory();

// Limits in bytes. An allocation past the memory limit throws OutOfMemory before any kernel of its
// plan has run; cached memory past the cache limit goes back to the system. Until a cache limit is
// set it is 1 GiB and what was in use at once and no longer is. Return the previous limit.
int64_t set_memory_limit(int64_t bytes);
int64_t set_cache_limit(int64_t bytes);
int64_t memory_limit();
void clear_cache();

namespace detail {
struct AtomicCounters {
  std::atomic<int64_t> kernels{0}, lowered{0}, plan_hits{0}, plan_misses{0}, bytes_copied{0},
      bytes_moved{0};
};
extern AtomicCounters live_counters;
int64_t built_nodes();  // core/node.cc counts them for each thread
void reset_built_nodes();
inline void count(std::atomic<int64_t>& counter, int64_t by = 1) {
  counter.fetch_add(by, std::memory_order_relaxed);
}
}  // namespace detail

}  // namespace mica
