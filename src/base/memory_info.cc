#include "base/memory_info.h"

#include <algorithm>
#include <fstream>
#include <map>

#include "base/cgroup.h"

namespace mica {
namespace {

// Rows like "VmRSS:      1234 kB", in bytes.
std::map<std::string, uint64_t> read_rows(const std::string& path) {
  std::map<std::string, uint64_t> rows;
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    const size_t colon = line.find(':');
    if (colon == std::string::npos || !line.ends_with(" kB")) continue;
    rows[line.substr(0, colon)] = std::strtoull(line.c_str() + colon + 1, nullptr, 10) * 1024;
  }
  return rows;
}

}  // namespace

uint64_t available_memory(const std::string& root) {
  const uint64_t system = read_rows(root + "/proc/meminfo")["MemAvailable"];
  const auto group = cgroup_memory(root);
  return group && (system == 0 || group->available < system) ? group->available : system;
}

MemoryUsage memory_usage(const std::string& root) {
  auto rows = read_rows(root + "/proc/self/status");
  return {rows["VmRSS"], rows["RssAnon"], rows["RssFile"], rows["VmHWM"]};
}

}  // namespace mica
