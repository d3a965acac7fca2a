// The limits that a container or a service manager put on this process: control groups, versions 1
// and 2 (https://docs.kernel.org/admin-guide/cgroup-v2.html). Limits apply along the whole path, so
// each figure is the tightest of the own group and its parents. Where there is no limit, or none
// can be read, there is no value.
//
// `root` stands before /proc and /sys/fs/cgroup, for tests.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace mica {

// CPUs' worth of time per period, such as 1.5.
std::optional<double> cgroup_cpu_quota(const std::string& root = "");

struct CgroupMemory {
  uint64_t limit = 0;  // bytes of the group with the least left
  uint64_t available =
      0;  // limit minus usage; cached file pages do not count, since they can be dropped
};
std::optional<CgroupMemory> cgroup_memory(const std::string& root = "");

}  // namespace mica
