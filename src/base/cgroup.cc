#include "base/cgroup.h"

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <sstream>
#include <string_view>
#include <vector>

namespace mica {
namespace {

// One hierarchy as mounted here: version 2, or the version 1 hierarchy of a controller.
struct Hierarchy {
  int version = 2;
  std::string mount;  // mount point
  std::string root;   // the group that is mounted there
  std::string group;  // the group of this process
};

bool has_word(std::string_view list, std::string_view word) {
  while (!list.empty()) {
    const size_t comma = std::min(list.find(','), list.size());
    if (list.substr(0, comma) == word) return true;
    list.remove_prefix(std::min(comma + 1, list.size()));
  }
  return false;
}

// Mounts of cgroup hierarchies that may limit `controller`; the fields are those of
// proc_pid_mountinfo(5).
std::vector<Hierarchy> mounted(const std::string& root, std::string_view controller) {
  std::vector<Hierarchy> found;
  std::ifstream file(root + "/proc/self/mountinfo");
  for (std::string line; std::getline(file, line);) {
    std::istringstream before(line);
    std::string id, parent, device;
    Hierarchy hierarchy;
    before >> id >> parent >> device >> hierarchy.root >> hierarchy.mount;
    const size_t dash = line.find(" - ");
    if (dash == std::string::npos) continue;
    std::istringstream after(line.substr(dash + 3));
    std::string type, source, options;
    after >> type >> source >> options;
    if (type != "cgroup2" && (type != "cgroup" || !has_word(options, controller))) continue;
    hierarchy.version = type == "cgroup2" ? 2 : 1;
    found.push_back(hierarchy);
  }
  return found;
}

// Fills in the group of this process in each hierarchy: lines "id:controllers:path", "0::path" for
// v2.
void find_groups(const std::string& root, std::string_view controller,
                 std::vector<Hierarchy>& all) {
  std::ifstream file(root + "/proc/self/cgroup");
  for (std::string line; std::getline(file, line);) {
    const size_t first = line.find(':');
    const size_t second = first == std::string::npos ? first : line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    const int version = controllers.empty() ? 2 : has_word(controllers, controller) ? 1 : 0;
    for (Hierarchy& hierarchy : all) {
      if (hierarchy.version == version) hierarchy.group = line.substr(second + 1);
    }
  }
}

// Calls visit(folder, version) for the own group and its parents, up to the mount point.
void each_group(const std::string& root, std::string_view controller,
                const std::function<void(const std::string&, int)>& visit) {
  std::vector<Hierarchy> all = mounted(root, controller);
  find_groups(root, controller, all);
  for (const Hierarchy& hierarchy : all) {
    std::string group = hierarchy.group;
    // Inside a container the mount shows the container's group, and the path starts with it.
    if (hierarchy.root != "/" && group.starts_with(hierarchy.root)) {
      group.erase(0, hierarchy.root.size());
    }
    while (!group.empty() && group.back() == '/') group.pop_back();
    for (;;) {
      visit(root + hierarchy.mount + group, hierarchy.version);
      if (group.empty()) break;
      group.resize(std::min(group.rfind('/'), group.size() - 1));
    }
  }
}

// The first numbers of a file; an empty list if it cannot be read or starts with "max".
std::vector<double> numbers(const std::string& path) {
  std::ifstream file(path);
  std::vector<double> found;
  for (double value; file >> value;) found.push_back(value);
  return found;
}

// The sum of the named rows of a file of "name value" lines.
double sum_rows(const std::string& path, std::initializer_list<std::string_view> names) {
  std::ifstream file(path);
  double sum = 0, value = 0;
  for (std::string name; file >> name >> value;) {
    if (std::find(names.begin(), names.end(), name) != names.end()) sum += value;
  }
  return sum;
}

std::optional<CgroupMemory> memory_of(const std::string& folder, int version) {
  const auto limit = numbers(folder + (version == 2 ? "/memory.max" : "/memory.limit_in_bytes"));
  const auto usage =
      numbers(folder + (version == 2 ? "/memory.current" : "/memory.usage_in_bytes"));
  // Version 1 writes "no limit" as a number just below 2^63.
  if (limit.empty() || usage.empty() || limit[0] >= 0x1p62) return std::nullopt;
  const std::string stat = folder + "/memory.stat";
  const double cached = version == 2 ? sum_rows(stat, {"inactive_file", "active_file"})
                                     : sum_rows(stat, {"total_inactive_file", "total_active_file"});
  const double used = std::max(0.0, usage[0] - cached);
  return CgroupMemory{static_cast<uint64_t>(limit[0]),
                      static_cast<uint64_t>(std::max(0.0, limit[0] - used))};
}

}  // namespace

std::optional<double> cgroup_cpu_quota(const std::string& root) {
  std::optional<double> least;
  each_group(root, "cpu", [&](const std::string& folder, int version) {
    std::vector<double> quota;
    if (version == 2) {
      quota = numbers(folder + "/cpu.max");  // "50000 100000" or "max 100000"
    } else {
      for (const char* name : {"/cpu.cfs_quota_us", "/cpu.cfs_period_us"}) {
        const auto value = numbers(folder + name);
        if (!value.empty()) quota.push_back(value[0]);
      }
    }
    if (quota.size() != 2 || quota[0] <= 0 || quota[1] <= 0) return;
    least = std::min(least.value_or(quota[0] / quota[1]), quota[0] / quota[1]);
  });
  return least;
}

std::optional<CgroupMemory> cgroup_memory(const std::string& root) {
  std::optional<CgroupMemory> least;
  each_group(root, "memory", [&](const std::string& folder, int version) {
    const auto memory = memory_of(folder, version);
    if (memory && (!least || memory->available < least->available)) least = memory;
  });
  return least;
}

}  // namespace mica
