// Tokens added beside the model's: they are cut out of the text before anything else sees it.
//
//   AddedTokens added(list, vocab, normalizer);
//   SplitText split = added.split("Hello<|end|> world", normalizer);
//
// Tokens that are not `normalized` (all special ones, as a rule) are searched in the text as it is;
// then the pieces between are normalized, and the others searched in those, in their own normalized
// form. Leftmost-longest. The ids are those that the model's vocabulary has for their contents; the
// contents it lacks get the next free ids in the order of the file.
//
// Source: Hugging Face tokenizers 0.23, tokenizer/added_vocabulary.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "tokenizers/normalizer.h"
#include "tokenizers/pattern_set.h"
#include "tokenizers/split_text.h"
#include "tokenizers/vocab.h"

namespace mica::tokenizers {

struct AddedToken {
  int64_t id = 0;  // as the file has it
  std::string content;
  bool single_word = false;  // not inside of a word
  bool lstrip = false;       // takes the white space before it
  bool rstrip = false;       // and after it
  bool normalized = true;    // is searched in the normalized text
  bool special = false;      // is left out of decoded text
};

class AddedTokens {
 public:
  // Throws Value if two tokens have one id in the file, or there are too many.
  AddedTokens(const std::vector<AddedToken>& tokens, const Vocab& vocab,
              const Normalizer* normalizer);

  // The text without its added tokens, normalized; the tokens stand between the pieces.
  SplitText split(std::string text, const Normalizer* normalizer) const;

  int32_t find(std::string_view content) const;  // -1 for none
  // Null for ids of the model alone.
  const std::string* content(int32_t id) const;
  // What decoders get to see of a token: the normalized form of normalized ones.
  const std::string* decoded_form(int32_t id) const;
  // Whether decoding leaves the token out when it leaves out special ones. A special token that the
  // normalizer changes stays, as in the reference implementation.
  bool is_special(int32_t id) const;
  int32_t size() const { return static_cast<int32_t>(index_.size()); }  // the largest id + 1

 private:
  struct Entry {
    AddedToken token;
    std::string form;  // normalized
    bool special = false;
  };

  void add(const AddedToken& token, int32_t id, const Normalizer* normalizer);
  const Entry* entry(int32_t id) const;
  void match(const PatternSet& set, std::string_view text, const Piece& piece,
             std::vector<Piece>& out) const;
  void normalize(SplitText& split, const Normalizer& normalizer) const;

  std::vector<Entry> entries_;
  std::vector<int32_t> index_;  // of entries, by id; -1 for none
  std::unordered_map<std::string, int32_t> ids_;
  PatternSet raw_;
  PatternSet normalized_;
};

}  // namespace mica::tokenizers
