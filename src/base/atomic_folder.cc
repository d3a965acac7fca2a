#include "base/atomic_folder.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <filesystem>

#include "base/error.h"
#include "base/file.h"
#include "base/strings.h"

namespace mica {

namespace fs = std::filesystem;

void check_replaceable(const std::string& path, bool replace) {
  std::error_code error;
  if (!fs::exists(fs::symlink_status(path, error))) return;
  if (!fs::is_directory(path, error)) throw_io("{} exists and is not a folder", printable(path));
  const bool empty = fs::is_empty(path, error);
  if (error) throw_cannot("read", path, error.value());
  if (!empty && !replace) throw_io("{} exists and is not empty", printable(path));
}

AtomicFolder::AtomicFolder(const std::string& path, bool replace) : replace_(replace) {
  std::error_code error;
  // Through links, and without a final slash: the name that is renamed over.
  target_ = fs::weakly_canonical(fs::absolute(path, error), error).string();
  if (error || target_.empty()) throw_cannot("write", path, error ? error.value() : EINVAL);
  if (target_.ends_with('/')) target_.pop_back();
  check_replaceable(target_, replace);
  const fs::path parent = fs::path(target_).parent_path();
  fs::create_directories(parent, error);
  if (error) throw_cannot("make", parent.string(), error.value());
  static std::atomic<uint64_t> counter{0};
  int made = -1;
  do {
    temporary_ = fmt::format("{}/.mica-{}-{}.tmp", parent.string(), getpid(), counter.fetch_add(1));
    made = mkdir(temporary_.c_str(), 0777);
  } while (made != 0 && errno == EEXIST);
  if (made == 0) return;
  temporary_.clear();
  throw_cannot("write", target_, errno);
}

AtomicFolder::~AtomicFolder() {
  std::error_code ignored;
  if (!temporary_.empty()) fs::remove_all(temporary_, ignored);
}

void AtomicFolder::commit() {
  check_replaceable(target_, replace_);
  // Over nothing, or over an empty folder.
  if (rename(temporary_.c_str(), target_.c_str()) == 0) {
    temporary_.clear();
    return;
  }
  if (!replace_ || (errno != ENOTEMPTY && errno != EEXIST)) throw_cannot("write", target_, errno);
  // The old folder then has the temporary name, and goes with it.
  if (renameat2(AT_FDCWD, temporary_.c_str(), AT_FDCWD, target_.c_str(), RENAME_EXCHANGE) != 0)
    throw_cannot("replace", target_, errno);
}

}  // namespace mica
