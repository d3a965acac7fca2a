// A folder that appears under its name only when it is complete: its files are written into one
// with a temporary name beside it, which is renamed.
//
//   AtomicFolder folder("models/small-4bit");
//   write_file(folder.path() + "/config.json", text);
//   folder.commit();
//
// Folders above it are made. What stands under the name must be an empty folder; with `replace` a
// folder that holds something is exchanged for the new one and then removed. Without commit() the
// destructor removes what was written. Errors are Io, with the path.
#pragma once

#include <string>

namespace mica {

class AtomicFolder {
 public:
  explicit AtomicFolder(const std::string& path, bool replace = false);
  ~AtomicFolder();
  AtomicFolder(const AtomicFolder&) = delete;
  AtomicFolder& operator=(const AtomicFolder&) = delete;

  // Where to write.
  const std::string& path() const { return temporary_; }
  void commit();

 private:
  std::string target_, temporary_;
  bool replace_;
};

// Throws Io if something stands under the name that is no empty folder (with `replace`: no folder).
void check_replaceable(const std::string& path, bool replace);

}  // namespace mica
