// Cases that reference implementations computed: those committed under tests/data, and with
// MICA_ORACLES those of that folder.
#pragma once

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <vector>

namespace mica::testing {

// Folders <root>/<kind>/<case> of the unpacked archive tests/data/<kind>.tar.xz and of
// $MICA_ORACLES/<kind>.
inline std::vector<std::string> oracle_cases(const std::string& kind) {
  namespace fs = std::filesystem;
  std::vector<std::string> roots;
  if (const char* more = std::getenv("MICA_ORACLES")) {
    if (fs::is_directory(std::string(more) + "/" + kind))
      roots.push_back(std::string(more) + "/" + kind);
  }
  if (roots.empty()) {
    // One folder per test program, removed when it ends; ctest starts a process for each test.
    static const std::string folder = [] {
      char pattern[] = "/tmp/mica-oracles-XXXXXX";
      return std::string(mkdtemp(pattern));
    }();
    static const struct Remover {
      ~Remover() { fs::remove_all(folder); }
    } remover;
    std::string command = "tar -xJf '" MICA_TEST_DATA "/" + kind + ".tar.xz' -C '" + folder + "'";
    if (!fs::exists(folder + "/" + kind) && std::system(command.c_str()) != 0) return {};
    roots.push_back(folder + "/" + kind);
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
