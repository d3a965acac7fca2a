// A tokenizer's model: it turns words into ids. One file per kind; bpe.h is the first.
#pragma once

#include <cstdint>
#include <vector>

#include "tokenizers/split_text.h"
#include "tokenizers/vocab.h"

namespace mica::tokenizers {

class Model {
 public:
  virtual ~Model() = default;
  virtual const Vocab& vocab() const = 0;
  // Appends the ids of all pieces in order, those of tokens as they are. Several threads may call
  // this at once.
  virtual void encode(const SplitText& split, std::vector<int32_t>& ids) const = 0;
};

}  // namespace mica::tokenizers
