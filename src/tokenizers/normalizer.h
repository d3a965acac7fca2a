// Normalizers of tokenizer.json: what happens to the text before it is cut.
//
// Sequence, NFC, NFD, NFKC, NFKD, Lowercase, Strip, StripAccents, Prepend, Replace, BertNormalizer,
// Nmt and ByteLevel. Precompiled (SentencePiece's character maps) is refused as Unsupported.
//
//   const auto normalizer = make_normalizer(file.at("normalizer"));   // null for null
//   NormalizedText text{"  Hello", 1, expansion_limit(7)};
//   normalizer->apply(text);
#pragma once

#include <memory>
#include <string>

#include "base/json.h"
#include "tokenizers/split_text.h"

namespace mica::tokenizers {

struct NormalizedText {
  std::string text;
  size_t head = 0;   // see Piece::head
  size_t limit = 0;  // of the text's bytes; more throws Value
};

class Normalizer {
 public:
  virtual ~Normalizer() = default;
  virtual void apply(NormalizedText& text) const = 0;
};

// Throws Value, with the place in the file, for settings that are missing or wrong.
std::unique_ptr<const Normalizer> make_normalizer(const Json& settings);

}  // namespace mica::tokenizers
