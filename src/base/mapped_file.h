// A whole file mapped read-only: weights are read in place, from the page cache, by all processes
// at once.
//
//   auto file = MappedFile::open("model.safetensors");
//   parse(file->bytes());   // valid as long as `file` lives; page-aligned
//
// A file that shrinks or cannot be read while it is mapped raises SIGBUS where its bytes are read.
// From the first mapping on, a handler turns that into zeros and a mark: the reader goes on, and
// whoever used the bytes asks `damaged()` (one load) or `check_unchanged()` (one system call)
// before trusting the result. Other SIGBUS go to the handler that was there before.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <vector>

namespace mica {

class MappedFile {
 public:
  // Throws Io, with path and reason, if the file is missing, not readable or not a regular file.
  static std::shared_ptr<const MappedFile> open(const std::string& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  std::span<const std::byte> bytes() const { return {data_, size_}; }
  size_t size() const { return size_; }
  const std::string& path() const { return path_; }

  // True once a read met pages that the file no longer has: zeros were read in their place.
  bool damaged() const;
  // Throws Io if the file is damaged, or its size or time of modification differ from when it was
  // opened. Replacing the file by renaming another over it is no change: the old contents stay
  // mapped.
  void check_unchanged() const;
  // These bytes, which lie in the mapping, will not be read again soon: their pages stay in the
  // page cache, but are no longer part of this process. Nothing happens once bytes have settled.
  void forget(const std::byte* begin, size_t size) const;
  // Copies the whole huge pages among bytes begin … end of the file into memory of this process,
  // at the same addresses, while others may read them: what is read again and again is found faster
  // there, since a file's pages are mostly small. The process lets go of the file's pages. Gives
  // the bytes copied: none that were copied before, none where the system has no huge pages to
  // give.
  size_t settle(size_t begin, size_t end) const;

  struct Guard;  // what the signal handler knows of a mapping

 private:
  MappedFile() = default;
  bool settle_pages(size_t first, size_t count) const;

  std::string path_;
  int descriptor_ = -1;
  int64_t modified_ns_ = 0;
  const std::byte* data_ = nullptr;
  size_t size_ = 0;
  Guard* guard_ = nullptr;  // none for an empty file
  mutable std::mutex settling_;
  mutable std::vector<bool> settled_;  // by huge page; empty before the first
  mutable bool refused_ = false;       // the system had none to give: a copy is not tried again
};

}  // namespace mica
