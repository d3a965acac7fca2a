#include "base/file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <system_error>

#include "base/error.h"
#include "base/strings.h"

namespace mica {
namespace {

struct Descriptor {
  int value;
  ~Descriptor() {
    if (value >= 0) close(value);
  }
};

std::string folder_of(const std::string& path) {
  const size_t slash = path.rfind('/');
  return slash == std::string::npos ? "./" : path.substr(0, slash + 1);
}

}  // namespace

std::string read_file(const std::string& path, size_t limit) {
  const Descriptor file{open(path.c_str(), O_RDONLY | O_CLOEXEC)};
  if (file.value < 0) throw_cannot("open", path, errno);
  struct stat status{};
  if (fstat(file.value, &status) != 0) throw_cannot("open", path, errno);
  // The size is a hint: pipes and /proc say 0, and a file may grow. One byte more tells the end.
  const auto hint = static_cast<size_t>(std::max<int64_t>(status.st_size, 0));
  std::string contents;
  size_t filled = 0;
  for (;;) {
    if (filled > limit || hint > limit) {
      throw_io("{} is larger than the {} allowed for it", printable(path), human_size(limit));
    }
    if (filled == contents.size()) contents.resize(std::max({hint + 1, 2 * filled, size_t{4096}}));
    const ssize_t count = read(file.value, contents.data() + filled, contents.size() - filled);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) throw_cannot("read", path, errno);
    if (count == 0) break;
    filled += static_cast<size_t>(count);
  }
  contents.resize(filled);
  return contents;
}

AtomicFile::AtomicFile(std::string path) : path_(std::move(path)) {
  static std::atomic<uint64_t> counter{0};
  do {
    temporary_ = fmt::format("{}.mica-{}-{}.tmp", folder_of(path_), getpid(), counter.fetch_add(1));
    descriptor_ = open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  } while (descriptor_ < 0 && errno == EEXIST);
  if (descriptor_ < 0) throw_cannot("write", path_, errno);
}

AtomicFile::~AtomicFile() {
  if (descriptor_ >= 0) ::close(descriptor_);
  if (!temporary_.empty()) unlink(temporary_.c_str());
}

void AtomicFile::fail(const char* what) { throw_cannot(what, path_, errno); }

void AtomicFile::write(std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t count = ::write(descriptor_, bytes.data(), bytes.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) fail("write");
    bytes.remove_prefix(static_cast<size_t>(count));
  }
}

void AtomicFile::write_at(uint64_t offset, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t count =
        pwrite(descriptor_, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) fail("write");
    bytes.remove_prefix(static_cast<size_t>(count));
    offset += static_cast<uint64_t>(count);
  }
}

void AtomicFile::reserve(uint64_t bytes) {
  if (ftruncate(descriptor_, static_cast<off_t>(bytes)) != 0) fail("write");
  if (bytes > 0 && fallocate(descriptor_, 0, 0, static_cast<off_t>(bytes)) != 0 &&
      (errno == ENOSPC || errno == EDQUOT || errno == EFBIG))
    fail("write");
}

void AtomicFile::close() {
  if (descriptor_ < 0) return;
  const int descriptor = descriptor_;
  descriptor_ = -1;
  // Some file systems report a full disk only here.
  if (::close(descriptor) != 0 && errno != EINTR) fail("write");
}

void AtomicFile::commit(bool durable) {
  if (durable && fsync(descriptor_) != 0) fail("write");
  close();
  if (rename(temporary_.c_str(), path_.c_str()) != 0) fail("write");
  temporary_.clear();
  if (durable) {
    const Descriptor folder{open(folder_of(path_).c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)};
    if (folder.value < 0 || fsync(folder.value) != 0) fail("write");
  }
}

void throw_cannot(const char* what, const std::string& path, int error) {
  throw_io("cannot {} {}: {}", what, printable(path), std::generic_category().message(error));
}

void write_file(const std::string& path, std::string_view contents) {
  AtomicFile file(path);
  file.write(contents);
  file.commit();
}

bool is_path_component(std::string_view name) {
  constexpr std::string_view kForbidden("/\\\0", 3);
  return !name.empty() && name != "." && name != ".." &&
         name.find_first_of(kForbidden) == std::string_view::npos;
}

}  // namespace mica
