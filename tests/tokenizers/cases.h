// Cases that the reference implementation computed: folders with tokenizer.json and cases.json.
//
// A case is an object: `text` (and `pair`, a second text) with the expected `ids`, and
// `ids_no_special`; the expected `decoded` and `decoded_with_special` of those ids. Cases without
// `text` are about decoding only.
#pragma once

#include <string>
#include <vector>

#include "base/json.h"
#include "tokenizers/tokenizer.h"

namespace mica::tokenizers {

struct Case {
  bool encodes = false;
  std::string text;
  bool has_pair = false;
  std::string pair;
  std::vector<int32_t> ids;
  std::vector<int32_t> ids_no_special;
  std::string decoded;
  std::string decoded_with_special;
};

std::vector<Case> load_cases(const std::string& folder);

// The folders with cases inside of one.
std::vector<std::string> case_folders(const std::string& parent);

// tests/data/<name>.tar.xz, unpacked once for the whole program into a temporary folder.
const std::string& unpacked(const std::string& name);

// All that StreamDecoder returns. Fails the test if a piece is not whole characters.
std::string stream(const Tokenizer& tokenizer, const std::vector<int32_t>& ids, bool skip_special);

}  // namespace mica::tokenizers
