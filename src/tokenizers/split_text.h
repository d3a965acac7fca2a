// A text on its way to the model: cut into pieces, some of which are tokens already.
//
// Added tokens are cut out first; normalizers and pre-tokenizers then change the text of the pieces
// between them and cut those further. Empty pieces are dropped.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace mica::tokenizers {

// Files come from strangers: no chain of normalizers may blow a text up without end.
inline size_t expansion_limit(size_t input_bytes) { return (1 << 20) + 64 * input_bytes; }

inline void check_expansion(size_t bytes, size_t limit) {
  if (bytes <= limit) return;
  throw_value("[tokenizer] replacements make the text longer than {} bytes", limit);
}

struct Piece {
  size_t begin = 0;  // bytes of SplitText::text
  size_t end = 0;
  // The bytes at its start that stem from the first character of the original text; 0 says that the
  // piece does not start there. The Metaspace scheme "first" asks for this.
  size_t head = 0;
  int32_t token = -1;  // of an added token, which no later stage touches

  size_t size() const { return end - begin; }
};

struct SplitText {
  std::string text;
  std::vector<Piece> pieces;
  size_t limit = 0;  // of the text's bytes

  std::string_view of(const Piece& piece) const {
    return std::string_view(text).substr(piece.begin, piece.size());
  }
};

// The part of a piece from byte `begin` to `end`, counted from the start of its text.
inline size_t head_of_part(size_t head, size_t begin, size_t end) {
  return begin < head ? std::min(head, end) - begin : 0;
}

}  // namespace mica::tokenizers
