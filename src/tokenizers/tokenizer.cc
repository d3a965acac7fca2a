#include "tokenizers/tokenizer.h"

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "base/mapped_file.h"
#include "base/strings.h"
#include "tokenizers/tokenizer_json.h"

namespace mica::tokenizers {

namespace {

int32_t vocab_size_of(const TokenizerParts& parts) {
  return std::max(parts.model->vocab().size(), parts.added->size());
}

}  // namespace

Tokenizer Tokenizer::from_file(const std::string& path) {
  const auto file = MappedFile::open(path);
  const auto bytes = file->bytes();
  auto tokenizer = from_json({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, path);
  file->check_unchanged();
  return tokenizer;
}

Tokenizer Tokenizer::from_folder(const std::string& folder) {
  return from_file(folder + "/tokenizer.json");
}

Tokenizer Tokenizer::from_json(std::string_view text, const std::string& name) {
  return Tokenizer(read_tokenizer_json(text, name));
}

// Without special tokens.
std::vector<int32_t> Tokenizer::encode_alone(std::string_view text) const {
  SplitText split = parts_->added->split(to_utf8(text), parts_->normalizer.get());
  if (parts_->pre_tokenizer) parts_->pre_tokenizer->apply(split);
  std::vector<int32_t> ids;
  parts_->model->encode(split, ids);
  return ids;
}

namespace {

std::vector<int32_t> processed(const TokenizerParts& parts, Sequences sequences,
                               bool add_special_tokens) {
  if (parts.post_processor) parts.post_processor->apply(sequences, add_special_tokens);
  std::vector<int32_t> ids;
  if (sequences.size() == 1) return std::move(sequences.front());
  for (const auto& sequence : sequences) ids.insert(ids.end(), sequence.begin(), sequence.end());
  return ids;
}

}  // namespace

std::vector<int32_t> Tokenizer::encode(std::string_view text, bool add_special_tokens) const {
  Sequences sequences;
  sequences.push_back(encode_alone(text));
  return processed(*parts_, std::move(sequences), add_special_tokens);
}

std::vector<int32_t> Tokenizer::encode_pair(std::string_view first, std::string_view second,
                                            bool add_special_tokens) const {
  Sequences sequences;
  sequences.push_back(encode_alone(first));
  sequences.push_back(encode_alone(second));
  return processed(*parts_, std::move(sequences), add_special_tokens);
}

std::string Tokenizer::decode(std::span<const int32_t> ids, bool skip_special_tokens) const {
  StreamDecoder stream(*this, skip_special_tokens);
  for (const int32_t id : ids) stream.push(id);
  return stream.finish();
}

int32_t Tokenizer::vocab_size() const { return vocab_size_of(*parts_); }

std::optional<std::string> Tokenizer::id_to_token(int32_t id) const {
  if (const std::string* content = parts_->added->content(id)) return *content;
  const auto token = parts_->model->vocab().token(id);
  return token ? std::optional<std::string>(*token) : std::nullopt;
}

std::optional<int32_t> Tokenizer::token_to_id(std::string_view token) const {
  int32_t id = parts_->added->find(token);
  if (id < 0) id = parts_->model->vocab().find(token);
  return id < 0 ? std::nullopt : std::optional<int32_t>(id);
}

bool Tokenizer::is_special(int32_t id) const { return parts_->added->is_special(id); }

StreamDecoder::StreamDecoder(const Tokenizer& tokenizer, bool skip_special_tokens)
    : parts_(tokenizer.parts_),
      skip_special_tokens_(skip_special_tokens),
      chain_(parts_->decoder) {}

void StreamDecoder::push(int32_t id) {
  if (id < 0 || id >= vocab_size_of(*parts_)) {
    throw_value("[tokenizer] there is no token with the id {}; ids are from 0 to {}", id,
                vocab_size_of(*parts_) - 1);
  }
  if (skip_special_tokens_ && parts_->added->is_special(id)) return;
  if (const std::string* form = parts_->added->decoded_form(id)) {
    chain_.token(*form);
  } else if (const auto token = parts_->model->vocab().token(id)) {
    chain_.token(*token);
  }
}

std::string StreamDecoder::add(int32_t id) {
  push(id);
  return chain_.take();
}

std::string StreamDecoder::finish() {
  chain_.finish();
  return chain_.take();
}

}  // namespace mica::tokenizers
