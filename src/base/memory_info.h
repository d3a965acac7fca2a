// How much memory there is and how much of it this process holds. All figures are bytes; those that
// the system does not tell are 0. `root` stands before /proc and /sys, for tests.
#pragma once

#include <cstdint>
#include <string>

namespace mica {

// What can still be allocated without swapping or being killed: the least of the system's
// MemAvailable and what the cgroups leave.
uint64_t available_memory(const std::string& root = "");

struct MemoryUsage {
  uint64_t resident = 0;   // anonymous plus file plus shared memory
  uint64_t anonymous = 0;  // allocated: stays until freed
  uint64_t file = 0;  // mapped files: shared with other processes, dropped when memory is short
  uint64_t peak = 0;  // the most that was resident at once
};
MemoryUsage memory_usage(const std::string& root = "");

}  // namespace mica
