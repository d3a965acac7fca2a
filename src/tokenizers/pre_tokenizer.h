// Pre-tokenizers of tokenizer.json: how the text is cut into the words that the model sees.
//
// Sequence, ByteLevel, Split, Metaspace, Whitespace, WhitespaceSplit, Digits, Punctuation,
// BertPreTokenizer, CharDelimiterSplit and FixedLength. UnicodeScripts is refused as Unsupported.
//
//   const auto pre_tokenizer = make_pre_tokenizer(file.at("pre_tokenizer"));  // null for null
//   pre_tokenizer->apply(split);
#pragma once

#include <memory>

#include "base/json.h"
#include "tokenizers/split_text.h"

namespace mica::tokenizers {

class PreTokenizer {
 public:
  virtual ~PreTokenizer() = default;
  // Cuts, and for some kinds rewrites, the pieces that are no tokens yet.
  virtual void apply(SplitText& split) const = 0;
};

// Throws Value, with the place in the file, for settings that are missing or wrong.
std::unique_ptr<const PreTokenizer> make_pre_tokenizer(const Json& settings);

}  // namespace mica::tokenizers
