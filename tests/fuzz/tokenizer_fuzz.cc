// tokenizer.json from strangers: up to the first NUL the file, after it a text to encode; its ids,
// and the bytes of the text taken as ids, are decoded whole and as a stream, which must agree.
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "base/strings.h"
#include "tokenizers/tokenizer.h"

namespace {

using mica::tokenizers::StreamDecoder;
using mica::tokenizers::Tokenizer;

constexpr size_t kMaxText = 300;

void decode_both_ways(const Tokenizer& tokenizer, const std::vector<int32_t>& ids) {
  for (const bool skip_special : {true, false}) {
    const std::string whole = tokenizer.decode(ids, skip_special);
    StreamDecoder stream(tokenizer, skip_special);
    std::string joined;
    for (const int32_t id : ids) {
      const std::string piece = stream.add(id);
      if (!mica::is_utf8(piece)) std::abort();
      joined += piece;
    }
    joined += stream.finish();
    if (joined != whole || !mica::is_utf8(whole)) std::abort();
  }
}

void use(const Tokenizer& tokenizer, std::string_view text) {
  std::vector<int32_t> ids;
  const int32_t size = tokenizer.vocab_size();
  for (const char c : text) {
    if (size > 0) ids.push_back(static_cast<unsigned char>(c) % size);
  }
  decode_both_ways(tokenizer, ids);
  for (const int32_t id : ids) {
    const auto token = tokenizer.id_to_token(id);
    if (token) tokenizer.token_to_id(*token);
  }
  tokenizer.encode(text, false);
  tokenizer.encode_pair(text, text.substr(text.size() / 2));
  ids.clear();
  for (const int32_t id : tokenizer.encode(text)) {
    if (id < 0) std::abort();
    if (id < size) ids.push_back(id);  // a template may name ids that no token has
  }
  decode_both_ways(tokenizer, ids);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const size_t end = input.find('\0');
  const std::string_view text = end == input.npos ? "" : input.substr(end + 1).substr(0, kMaxText);
  try {
    use(Tokenizer::from_json(input.substr(0, end)), text);
  } catch (const mica::Error&) {
    // The answer to a bad file.
  }
  return 0;
}
