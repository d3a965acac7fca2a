// Whole files in and out.
//
//   const std::string text = read_file(path, 16 << 20);
//   write_file(path, text);                  // readers see the old contents or the new, never half
//
// Errors are Io, with the path and the system's reason.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace mica {

// The contents; throws Io if it holds more than `limit` bytes.
std::string read_file(const std::string& path, size_t limit);

// A file that appears under its name only when it is complete: written under a temporary name in
// the same folder, then renamed. Without commit() the destructor removes what was written.
class AtomicFile {
 public:
  explicit AtomicFile(std::string path);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  void write(std::string_view bytes);
  // At a place of its own, in any order; what lies between is zeros. Does not move where write()
  // goes on.
  void write_at(uint64_t offset, std::string_view bytes);
  // Takes the room on the disk for so many bytes now, where the file system can: a full disk shows
  // before the work. The file has that size from here on.
  void reserve(uint64_t bytes);
  // Nothing more will be written; the file still waits for commit(). Gives back the
  // descriptor, so that commit() is not durable.
  void close();
  // `durable`: also survives a power failure (waits for the disk).
  void commit(bool durable = false);

 private:
  [[noreturn]] void fail(const char* what);

  std::string path_;
  std::string temporary_;
  int descriptor_ = -1;
};

// AtomicFile for contents at hand.
void write_file(const std::string& path, std::string_view contents);

// Throws Io: "cannot {what} {path}: {reason of the errno}".
[[noreturn]] void throw_cannot(const char* what, const std::string& path, int error);

// Whether a name from an untrusted index can only mean a file in the index's own folder: not empty,
// "." or "..", without slash, backslash and NUL.
bool is_path_component(std::string_view name);

}  // namespace mica
