// Cases that reference implementations computed: those committed under tests/data, and with
// MICA_ORACLES those of that folder.
#pragma once

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <stdexcept>
#include <string>
#include <vector>

namespace mica::testing {

// Folder with the unpacked archives tests/data/<kind>.tar.xz and tests/data/<kind>-*.tar.xz, which
// hold <kind>/<case>/….
inline std::string committed_cases(const std::string& kind) {
  namespace fs = std::filesystem;
  // One folder per test program, removed when it ends; ctest starts a process for each test.
  static const std::string folder = [] {
    char pattern[] = "/tmp/mica-oracles-XXXXXX";
    return std::string(mkdtemp(pattern));
  }();
  static const struct Remover {
    ~Remover() { fs::remove_all(folder); }
  } remover;
  if (fs::exists(folder + "/" + kind)) return folder + "/" + kind;
  for (const auto& item : fs::directory_iterator(MICA_TEST_DATA)) {
    std::string name = item.path().filename();
    if (name != kind + ".tar.xz" && !(name.starts_with(kind + "-") && name.ends_with(".tar.xz")))
      continue;
    std::string command = "tar -xJf '" + item.path().string() + "' -C '" + folder + "'";
    if (std::system(command.c_str()) != 0)
      throw std::runtime_error("cannot unpack " + item.path().string());
  }
  return folder + "/" + kind;
}

// The folders of all cases of a kind.
inline std::vector<std::string> oracle_cases(const std::string& kind) {
  namespace fs = std::filesystem;
  std::vector<std::string> roots{committed_cases(kind)};
  if (const char* more = std::getenv("MICA_ORACLES")) {
    if (fs::is_directory(std::string(more) + "/" + kind))
      roots.push_back(std::string(more) + "/" + kind);
  }
  std::vector<std::string> cases;
  for (const std::string& root : roots) {
    for (const auto& item : fs::directory_iterator(root)) {
      if (item.is_directory()) cases.push_back(item.path().string());
    }
  }
  std::sort(cases.begin(), cases.end());
  return cases;
}

}  // namespace mica::testing
