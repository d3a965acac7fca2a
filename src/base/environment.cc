#include "base/environment.h"

#include <pwd.h>
#include <sched.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <thread>

#include "base/cgroup.h"
#include "base/error.h"
#include "base/file.h"

namespace mica {

CpuMask process_affinity() {
  // The kernel refuses a mask that is smaller than its own and does not tell the size it wants.
  for (size_t cpus = 1024; cpus <= 1 << 20; cpus *= 2) {
    CpuMask mask(cpus / (8 * sizeof(CpuMask::value_type)));
    if (sched_getaffinity(getpid(), cpus / 8, reinterpret_cast<cpu_set_t*>(mask.data())) == 0) {
      return mask;
    }
    if (errno != EINVAL) break;
  }
  return {};
}

int usable_cpus() {
  int count = 0;
  for (const auto word : process_affinity()) count += std::popcount(word);
  if (count == 0) count = static_cast<int>(std::thread::hardware_concurrency());
  if (const auto quota = cgroup_cpu_quota())
    count = std::min(count, static_cast<int>(std::min(*quota, 1e6)));
  return std::max(count, 1);
}

std::optional<std::string> environment_variable(const char* name) {
  const char* value = std::getenv(name);
  if (value == nullptr || *value == '\0') return std::nullopt;
  return value;
}

std::string cache_folder() {
  namespace fs = std::filesystem;
  fs::path parent;
  // The XDG specification: a relative path is to be ignored.
  if (const auto xdg = environment_variable("XDG_CACHE_HOME"); xdg && xdg->front() == '/') {
    parent = *xdg;
  } else if (const auto home = environment_variable("HOME")) {
    parent = fs::path(*home) / ".cache";
  } else if (const passwd* user = getpwuid(getuid()); user != nullptr && user->pw_dir != nullptr) {
    parent = fs::path(user->pw_dir) / ".cache";
  } else {
    throw_io("no folder for the cache: set XDG_CACHE_HOME or HOME");
  }
  const std::string folder = parent / "mica";
  std::error_code ignored;  // mkdir tells
  fs::create_directories(parent, ignored);
  struct stat status{};
  if ((mkdir(folder.c_str(), 0700) != 0 && errno != EEXIST) || stat(folder.c_str(), &status) != 0) {
    throw_cannot("make the cache folder", folder, errno);
  }
  if (!S_ISDIR(status.st_mode) || status.st_uid != geteuid()) {
    throw_io("the cache folder {} is not a folder of this user", folder);
  }
  return folder;
}

bool is_terminal(int descriptor) {
  return isatty(descriptor) && environment_variable("TERM").value_or("dumb") != "dumb";
}

}  // namespace mica
