// The settings that the pre-tokenizer and the decoder Metaspace share: SentencePiece's way of
// writing a space as a visible character, "▁" as a rule, and of putting one before the text.
#pragma once

#include <string>

#include "base/json.h"

namespace mica::tokenizers {

struct Metaspace {
  // Reads "replacement", "prepend_scheme" (or the older "add_prefix_space") and "split".
  explicit Metaspace(const Json& settings);

  enum class Prepend { Always, First, Never };

  std::string replacement;  // one character
  Prepend prepend = Prepend::Always;
  bool split = true;
};

// A setting that must be a string of one character.
std::string one_character(const Json& settings, const char* key);

}  // namespace mica::tokenizers
