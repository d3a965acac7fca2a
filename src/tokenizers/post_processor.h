// Post-processors of tokenizer.json: the special tokens around the ids of one text or of a pair.
//
// Sequence, TemplateProcessing, BertProcessing and RobertaProcessing; ByteLevel concerns offsets
// only, which Mica does not compute, and changes nothing.
//
//   const auto processor = make_post_processor(file.at("post_processor"));  // null for null
//   Sequences sequences{ids};
//   processor->apply(sequences, true);   // {{bos}, ids}
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "base/json.h"

namespace mica::tokenizers {

using Sequences = std::vector<std::vector<int32_t>>;

class PostProcessor {
 public:
  virtual ~PostProcessor() = default;
  // `sequences`: the text or the pair. Afterwards they are all parts of the result in order.
  virtual void apply(Sequences& sequences, bool add_special_tokens) const = 0;
};

// Throws Value, with the place in the file, for settings that are missing or wrong.
std::unique_ptr<const PostProcessor> make_post_processor(const Json& settings);

}  // namespace mica::tokenizers
