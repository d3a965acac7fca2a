// A tokenizer.json of a few tokens, whose parts a test replaces.
#pragma once

#include <string>
#include <utility>

namespace mica::tokenizers {

struct SmallTokenizer {
  std::string added_tokens = "[]";
  std::string normalizer = "null";
  std::string pre_tokenizer = "null";
  std::string post_processor = "null";
  std::string decoder = R"({"type": "Fuse"})";
  std::string vocab = R"({"a": 0, "b": 1, "c": 2, "ab": 3, " ": 4, "<unk>": 5})";
  std::string merges = R"(["a b"])";
  std::string model = "";  // further members, each after a comma

  std::string json() const {
    return R"({"version": "1.0", "truncation": null, "padding": null, "added_tokens": )" +
           added_tokens + R"(, "normalizer": )" + normalizer + R"(, "pre_tokenizer": )" +
           pre_tokenizer + R"(, "post_processor": )" + post_processor + R"(, "decoder": )" +
           decoder + R"(, "model": {"type": "BPE", "vocab": )" + vocab + R"(, "merges": )" +
           merges + model + "}}";
  }
};

// {"id": 6, "content": "<s>", ...} with flags like R"("special": true)".
inline std::string added_token(int id, const std::string& content, const std::string& flags = "") {
  return R"({"id": )" + std::to_string(id) + R"(, "content": ")" + content +
         R"(", "normalized": false)" + (flags.empty() ? "" : ", " + flags) + "}";
}

}  // namespace mica::tokenizers
