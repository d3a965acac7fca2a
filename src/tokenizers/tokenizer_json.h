// Reads tokenizer.json, the file format of Hugging Face tokenizers.
//
//   auto parts = read_tokenizer_json(text, "model/tokenizer.json");
//
// Source: Hugging Face tokenizers 0.23, tokenizer/serialization.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "tokenizers/added_tokens.h"
#include "tokenizers/decoder.h"
#include "tokenizers/model.h"
#include "tokenizers/normalizer.h"
#include "tokenizers/post_processor.h"
#include "tokenizers/pre_tokenizer.h"

namespace mica::tokenizers {

// What a tokenizer is made of; absent parts are null.
struct TokenizerParts {
  std::unique_ptr<const Model> model;
  std::unique_ptr<const Normalizer> normalizer;
  std::unique_ptr<const PreTokenizer> pre_tokenizer;
  std::unique_ptr<const PostProcessor> post_processor;
  DecoderStages decoder;
  std::unique_ptr<const AddedTokens> added;
};

// Throws Value, or Unsupported for kinds of models and parts that Mica does not have; `name` stands
// for the file in messages. Takes about 4 ms for each megabyte.
std::unique_ptr<TokenizerParts> read_tokenizer_json(std::string_view text, const std::string& name);

}  // namespace mica::tokenizers
