// Tokenizers: text to ids and back, from a Hugging Face tokenizer.json.
//
//   const auto tokenizer = Tokenizer::from_folder(model_dir);
//   const std::vector<int32_t> ids = tokenizer.encode("Hello world");     // with <s> and the like
//   const std::string text = tokenizer.decode(ids);                       // without
//
//   StreamDecoder stream(tokenizer);                                      // as tokens are
//   generated for (int32_t id : ids) fputs(stream.add(id).c_str(), stdout);
//   fputs(stream.finish().c_str(), stdout);
//
// The result is that of the Python package tokenizers 0.23 for the same file, with these
// exceptions:
// - `truncation` and `padding` in the file are ignored, as transformers does unless asked: a prompt
// is
//   never cut or filled up.
// - A dropout other than 0 is refused (Unsupported), since results would be random.
// - Text that is not UTF-8 is read as Python's errors="replace" reads it.
// - Two tokens with one id are an error.
// Model kinds: BPE. WordPiece, Unigram and WordLevel are refused as Unsupported, and so are the
// normalizer Precompiled and the pre-tokenizer UnicodeScripts.
//
// Files are untrusted. What is malformed throws Value with the file and the place in it; a file
// that cannot be read throws Io. All methods of a Tokenizer may be called by several threads at
// once; copies share everything.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "tokenizers/decoder.h"

namespace mica::tokenizers {

struct TokenizerParts;

class Tokenizer {
 public:
  static Tokenizer from_file(const std::string& path);
  // From `folder`/tokenizer.json; no other file is read.
  static Tokenizer from_folder(const std::string& folder);
  // `name` stands for the file in messages.
  static Tokenizer from_json(std::string_view text, const std::string& name = "tokenizer.json");

  // The ids of a text, or of two with what the template puts around and between them.
  // Throws Value if the text has a character that cannot be said (unk_token is not in the
  // vocabulary), or a regular expression of the file takes too many steps.
  std::vector<int32_t> encode(std::string_view text, bool add_special_tokens = true) const;
  std::vector<int32_t> encode_pair(std::string_view first, std::string_view second,
                                   bool add_special_tokens = true) const;

  // Throws Value for ids that are negative or not below vocab_size(). Ids below it without a token
  // (holes) give nothing.
  std::string decode(std::span<const int32_t> ids, bool skip_special_tokens = true) const;

  // The largest id + 1, of the model's and the added tokens. The embedding of a model may have more
  // rows: ids from here on have no text.
  int32_t vocab_size() const;
  // Tokens as the file writes them ("Ġthe").
  std::optional<std::string> id_to_token(int32_t id) const;
  std::optional<int32_t> token_to_id(std::string_view token) const;
  // Whether decode() leaves the token out with skip_special_tokens.
  bool is_special(int32_t id) const;

 private:
  friend class StreamDecoder;

  explicit Tokenizer(std::shared_ptr<const TokenizerParts> parts) : parts_(std::move(parts)) {}

  std::vector<int32_t> encode_alone(std::string_view text) const;

  std::shared_ptr<const TokenizerParts> parts_;
};

// Text while its tokens arrive. What add() and finish() return, joined, is what decode() returns
// for all ids. Each piece is whole characters, never part of one; a token costs its own length,
// whatever came before. What is held back until later tokens decide: see decoder.h.
class StreamDecoder {
 public:
  explicit StreamDecoder(const Tokenizer& tokenizer, bool skip_special_tokens = true);

  // The text that is certain now and was not before; often that of the token, sometimes "".
  // Throws Value as decode() does; the stream then is as if the call had not been made.
  std::string add(int32_t id);
  // The rest. Nothing may follow.
  std::string finish();

 private:
  friend class Tokenizer;

  void push(int32_t id);

  std::shared_ptr<const TokenizerParts> parts_;
  bool skip_special_tokens_;
  DecoderChain chain_;
};

}  // namespace mica::tokenizers
