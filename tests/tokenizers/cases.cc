#include "tests/tokenizers/cases.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <memory>

#include "base/strings.h"
#include "tests/base/temporary_folder.h"

namespace mica::tokenizers {

std::vector<Case> load_cases(const std::string& folder) {
  std::vector<Case> cases;
  const Json file = Json::load(folder + "/cases.json", {.bytes = size_t{1} << 30, .depth = 128});
  for (const Json& value : file.elements()) {
    Case c;
    c.encodes = value.has("text");
    c.text = value.get<std::string>("text", "");
    c.has_pair = value.has("pair");
    c.pair = value.get<std::string>("pair", "");
    c.ids = value.get<std::vector<int32_t>>("ids");
    if (c.encodes) c.ids_no_special = value.get<std::vector<int32_t>>("ids_no_special");
    c.decoded = value.get<std::string>("decoded");
    c.decoded_with_special = value.get<std::string>("decoded_with_special");
    cases.push_back(std::move(c));
  }
  return cases;
}

std::vector<std::string> case_folders(const std::string& parent) {
  std::vector<std::string> folders;
  for (const auto& entry : std::filesystem::directory_iterator(parent)) {
    if (std::filesystem::exists(entry.path() / "cases.json")) folders.push_back(entry.path());
  }
  std::sort(folders.begin(), folders.end());
  return folders;
}

const std::string& unpacked(const std::string& name) {
  static const TemporaryFolder folder;
  static std::map<std::string, std::string> done;
  auto& path = done[name];
  if (path.empty()) {
    path = folder.path(name);
    std::filesystem::create_directories(path);
    const std::string archive = std::string(MICA_TEST_DATA) + "/" + name + ".tar.xz";
    const std::string command = "tar -xJf '" + archive + "' -C '" + path + "'";
    if (std::system(command.c_str()) != 0) ADD_FAILURE() << "cannot unpack " << archive;
  }
  return path;
}

std::string stream(const Tokenizer& tokenizer, const std::vector<int32_t>& ids, bool skip_special) {
  StreamDecoder decoder(tokenizer, skip_special);
  std::string all;
  const auto take = [&](const std::string& piece) {
    EXPECT_TRUE(is_utf8(piece)) << printable(piece);
    all += piece;
  };
  for (const int32_t id : ids) take(decoder.add(id));
  take(decoder.finish());
  return all;
}

}  // namespace mica::tokenizers
