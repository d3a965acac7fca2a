#include "tokenizers/tokenizer_json.h"

#include <simdjson.h>

#include <optional>
#include <type_traits>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/json.h"
#include "base/strings.h"
#include "tokenizers/bpe.h"

namespace mica::tokenizers {

namespace {

namespace dom = simdjson::dom;

constexpr size_t kMaxBytes = size_t{1} << 30;
constexpr size_t kAhead = 16;    // tokens between fetching memory for one and adding it
constexpr size_t kPairs = 1024;  // merges handed over at a time

const char* type_name(dom::element_type type) {
  switch (type) {
    case dom::element_type::ARRAY: return "an array";
    case dom::element_type::OBJECT: return "an object";
    case dom::element_type::INT64:
    case dom::element_type::UINT64:
    case dom::element_type::DOUBLE: return "a number";
    case dom::element_type::STRING: return "a string";
    case dom::element_type::BOOL: return "true or false";
    case dom::element_type::NULL_VALUE: return "null";
  }
  return "something else";
}

// The tables, which are nearly all of the file, are read by simdjson; the settings, which are small
// and of many kinds, by way of Json.
class Reader {
 public:
  Reader(std::string_view text, const std::string& name) : name_(name) {
    if (text.size() > kMaxBytes) {
      throw_value("{}: has {}, the limit is {}", name, human_size(text.size()),
                  human_size(kMaxBytes));
    }
    dom::element root;
    const char* data = text.empty() ? "" : text.data();  // not null, as an empty file's is
    if (const auto error = parser_.parse(data, text.size()).get(root)) {
      Json::parse(text, name, {.bytes = kMaxBytes});  // says where it is malformed
      throw_value("{}: {}", name, simdjson::error_message(error));
    }
    split(as<dom::object>(root, "", "an object"));
  }

  std::unique_ptr<TokenizerParts> read() {
    if (const auto version = settings_.find("version")) {
      if (version->as<std::string>() != "1.0") version->fail("must be \"1.0\"");
    }
    auto parts = std::make_unique<TokenizerParts>();
    parts->normalizer = make_normalizer(part("normalizer"));
    parts->pre_tokenizer = make_pre_tokenizer(part("pre_tokenizer"));
    parts->post_processor = make_post_processor(part("post_processor"));
    parts->decoder = make_decoder(part("decoder"));
    parts->model = read_model();
    const std::vector<AddedToken> added = read_added_tokens();
    parts->added = at("added_tokens", [&] {
      return std::make_unique<const AddedTokens>(added, parts->model->vocab(),
                                                 parts->normalizer.get());
    });
    return parts;
  }

 private:
  // --- Errors ----------------------------------------------------------------------------------

  [[noreturn]] void fail(const std::string& where, const std::string& reason) const {
    throw_value("{}: {}{}{}{}", name_, where.empty() ? "" : "'", where, where.empty() ? "" : "' ",
                reason);
  }

  template <class T>
  T as(dom::element value, const std::string& where, const char* wanted) const {
    T out;
    if (value.get(out)) {
      fail(where, fmt::format("must be {}, not {}", wanted, type_name(value.type())));
    }
    return out;
  }

  // Says where in the file a complaint belongs that does not know.
  template <class Action>
  std::invoke_result_t<const Action&> at(const std::string& where, const Action& action) const {
    try {
      return action();
    } catch (const Error& error) {
      throw Error(error.kind(), fmt::format("{}: '{}': {}", name_, where, error.what()));
    }
  }

  // --- Parts -----------------------------------------------------------------------------------

  Json part(const char* key) const { return settings_.find(key).value_or(Json()); }

  // Takes the tables out of the file and makes settings_ of the rest. Of equal keys the last
  // counts.
  void split(dom::object root) {
    std::string rest;
    for (const auto& [key, value] : root) {
      if (key == "added_tokens") {
        added_tokens_ = value;
      } else if (key == "model") {
        add_member(rest, key, model_settings(as<dom::object>(value, "model", "an object")));
      } else if (key != "truncation" && key != "padding") {
        add_member(rest, key, simdjson::minify(value));
      }
    }
    settings_ = Json::parse("{" + rest + "}", name_);
    if (!settings_.has("model")) fail("model", "is missing");
  }

  std::string model_settings(dom::object model) {
    vocab_.reset();
    merges_.reset();
    std::string rest;
    for (const auto& [key, value] : model) {
      if (key == "vocab") {
        vocab_ = value;
      } else if (key == "merges") {
        merges_ = value;
      } else {
        add_member(rest, key, simdjson::minify(value));
      }
    }
    return "{" + rest + "}";
  }

  static void add_member(std::string& out, std::string_view key, const std::string& value) {
    if (!out.empty()) out += ',';
    out += Json(key).dump();
    out += ':';
    out += value;
  }

  // --- Models ----------------------------------------------------------------------------------

  std::unique_ptr<const Model> read_model() const {
    const Json model = settings_.at("model");
    // Files from before models had types.
    std::string type = "BPE";
    if (!merges_) type = model.has("max_input_chars_per_word") ? "WordPiece" : "WordLevel";
    if (vocab_ && vocab_->is_array()) type = "Unigram";
    type = model.get<std::string>("type", type);
    if (type == "BPE") return read_bpe(model);
    if (type == "WordPiece" || type == "Unigram" || type == "WordLevel") {
      throw_unsupported("{}: models of the type {} are not supported yet; supported is BPE", name_,
                        type);
    }
    model.fail_at("type", "is no kind of model: \"{}\"; supported is BPE", excerpt(type));
  }

  std::unique_ptr<const Model> read_bpe(const Json& model) const {
    BpeOptions options;
    if (model.has("unk_token")) options.unk_token = model.get<std::string>("unk_token");
    options.continuing_subword_prefix = model.get<std::string>("continuing_subword_prefix", "");
    options.end_of_word_suffix = model.get<std::string>("end_of_word_suffix", "");
    options.fuse_unk = model.get<bool>("fuse_unk", false);
    options.byte_fallback = model.get<bool>("byte_fallback", false);
    options.ignore_merges = model.get<bool>("ignore_merges", false);
    const auto dropout = model.get<double>("dropout", 0);
    if (dropout < 0 || dropout > 1)
      model.fail_at("dropout", "must be from 0 to 1, not {}", dropout);
    if (dropout > 0) {
      throw_unsupported("{}: 'model.dropout' is {}: ids would be random; set it to null", name_,
                        dropout);
    }
    if (!vocab_) fail("model.vocab", "is missing");
    if (!merges_) fail("model.merges", "is missing");
    const auto merges = as<dom::array>(*merges_, "model.merges", "an array");
    auto bpe = std::make_unique<Bpe>(read_vocab(), std::move(options), count(merges));
    read_merges(merges, *bpe);
    return bpe;
  }

  static size_t count(dom::array array) {
    // size() saturates at 2^24 - 1.
    if (array.size() < 0xFFFFFF) return array.size();
    size_t count = 0;
    for ([[maybe_unused]] const dom::element element : array) ++count;
    return count;
  }

  Vocab read_vocab() const {
    const auto object = as<dom::object>(*vocab_, "model.vocab", "an object");
    return at("model.vocab", [&] {
      Vocab vocab(object.size());
      auto ahead = object.begin();
      for (size_t i = 0; i < kAhead && ahead != object.end(); ++i, ++ahead) continue;
      for (const auto& [token, value] : object) {
        if (ahead != object.end()) {
          vocab.prefetch(ahead.key());
          ++ahead;
        }
        int64_t id = 0;
        if (value.get(id)) {
          throw_value("the id of \"{}\" must be a whole number, not {}", excerpt(token),
                      value.is_number() ? simdjson::minify(value) : type_name(value.type()));
        }
        vocab.add(token, id);
      }
      return vocab;
    });
  }

  void read_merges(dom::array merges, Bpe& bpe) const {
    at("model.merges", [&] {
      std::vector<Bpe::MergePair> pairs;
      pairs.reserve(kPairs);
      for (const dom::element merge : merges) {
        if (const auto pair = merge_pair(merge)) pairs.push_back(*pair);
        if (pairs.size() == kPairs) {
          bpe.add_merges(pairs);
          pairs.clear();
        }
      }
      bpe.add_merges(pairs);
    });
  }

  // "a b" or ["a", "b"]; nothing for the version line of old files.
  std::optional<Bpe::MergePair> merge_pair(dom::element merge) const {
    std::string_view text;
    if (!merge.get(text)) {
      if (text.starts_with("#version")) return std::nullopt;
      const size_t space = text.find(' ');
      if (space == std::string_view::npos || text.find(' ', space + 1) != std::string_view::npos) {
        throw_value("must be two tokens with a space between, not \"{}\"", excerpt(text));
      }
      return std::pair(text.substr(0, space), text.substr(space + 1));
    }
    dom::array tokens;
    Bpe::MergePair pair;
    if (merge.get(tokens) || tokens.size() != 2 || tokens.at(0).get(pair.first) ||
        tokens.at(1).get(pair.second)) {
      throw_value("must be two tokens, \"a b\" or [\"a\", \"b\"]");
    }
    return pair;
  }

  // --- Added tokens ----------------------------------------------------------------------------

  std::vector<AddedToken> read_added_tokens() const {
    std::vector<AddedToken> tokens;
    if (!added_tokens_) return tokens;
    for (const dom::element value : as<dom::array>(*added_tokens_, "added_tokens", "an array")) {
      tokens.push_back(read_added_token(value, fmt::format("added_tokens[{}]", tokens.size())));
    }
    return tokens;
  }

  AddedToken read_added_token(dom::element value, const std::string& where) const {
    AddedToken token;
    bool has_id = false;
    bool has_content = false;
    std::optional<bool> normalized;
    for (const auto& [key, field] : as<dom::object>(value, where, "an object")) {
      const auto flag = [&, &field = field, &key = key] {
        return as<bool>(field, fmt::format("{}.{}", where, key), "true or false");
      };
      if (key == "id") {
        token.id = as<int64_t>(field, where + ".id", "a whole number");
        has_id = true;
      } else if (key == "content") {
        token.content = as<std::string_view>(field, where + ".content", "a string");
        has_content = true;
      } else if (key == "single_word") {
        token.single_word = flag();
      } else if (key == "lstrip") {
        token.lstrip = flag();
      } else if (key == "rstrip") {
        token.rstrip = flag();
      } else if (key == "normalized") {
        normalized = flag();
      } else if (key == "special") {
        token.special = flag();
      }
    }
    if (!has_id) fail(where + ".id", "is missing");
    if (!has_content) fail(where + ".content", "is missing");
    if (token.id < 0 || token.id >= kMaxTokens) {
      fail(where + ".id", fmt::format("must be from 0 to {}, not {}", kMaxTokens - 1, token.id));
    }
    token.normalized = normalized.value_or(!token.special);
    return token;
  }

  std::string name_;
  dom::parser parser_{kMaxBytes};  // owns what the elements refer to
  std::optional<dom::element> vocab_;
  std::optional<dom::element> merges_;
  std::optional<dom::element> added_tokens_;
  Json settings_;
};

}  // namespace

std::unique_ptr<TokenizerParts> read_tokenizer_json(std::string_view text,
                                                    const std::string& name) {
  return Reader(text, name).read();
}

}  // namespace mica::tokenizers
