// The reference implementation's results: those committed, and those in the folder that the
// environment variable MICA_ORACLES names.
#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>

#include "base/error.h"
#include "base/strings.h"
#include "tests/tokenizers/cases.h"

namespace mica::tokenizers {
namespace {

void run_case(const Tokenizer& tokenizer, const Case& c) {
  SCOPED_TRACE("text: " + excerpt(c.text, 400) + (c.has_pair ? "\npair: " + excerpt(c.pair) : ""));
  if (c.encodes) {
    const auto encode = [&](bool special) {
      return c.has_pair ? tokenizer.encode_pair(c.text, c.pair, special)
                        : tokenizer.encode(c.text, special);
    };
    EXPECT_EQ(encode(true), c.ids);
    EXPECT_EQ(encode(false), c.ids_no_special);
  }
  EXPECT_EQ(tokenizer.decode(c.ids, true), c.decoded);
  EXPECT_EQ(tokenizer.decode(c.ids, false), c.decoded_with_special);
  EXPECT_EQ(stream(tokenizer, c.ids, true), c.decoded);
  EXPECT_EQ(stream(tokenizer, c.ids, false), c.decoded_with_special);
}

// Returns how many cases were run.
size_t run_folder(const std::string& folder) {
  SCOPED_TRACE(folder);
  const Tokenizer tokenizer = Tokenizer::from_folder(folder);
  const auto cases = load_cases(folder);
  for (const Case& c : cases) {
    run_case(tokenizer, c);
    if (testing::Test::HasFailure()) break;  // one is enough to read
  }
  return cases.size();
}

TEST(TokenizerCases, OracleKinds) {
  size_t count = 0;
  for (const auto& folder : case_folders(unpacked("tokenizers"))) count += run_folder(folder);
  EXPECT_EQ(count, 5 * 62);
}

TEST(TokenizerCases, OddTokenizers) {
  size_t count = 0;
  for (const auto& folder : case_folders(unpacked("tokenizers-odd"))) count += run_folder(folder);
  EXPECT_GT(count, 1000);
}

TEST(TokenizerCases, FolderOfTheEnvironment) {
  const char* root = std::getenv("MICA_ORACLES");
  const std::string parent = root ? std::string(root) + "/tokenizers" : "";
  if (!root || !std::filesystem::is_directory(parent)) {
    std::printf("MICA_ORACLES names no folder with tokenizers: its cases not run\n");
    return;
  }
  size_t not_run = 0;
  for (const auto& folder : case_folders(parent)) {
    try {
      run_folder(folder);
    } catch (const Error& error) {
      if (error.kind() != ErrorKind::Unsupported) throw;
      not_run += load_cases(folder).size();
      std::printf("%s\n", error.what());
    }
  }
  if (not_run > 0) std::printf("tokenizers of kinds that are not supported yet: %zu\n", not_run);
}

}  // namespace
}  // namespace mica::tokenizers
