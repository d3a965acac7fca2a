#include "tokenizers/post_processor.h"

#include <map>
#include <string>
#include <utility>

#include "base/error.h"
#include "base/strings.h"
#include "tokenizers/vocab.h"

namespace mica::tokenizers {

namespace {

constexpr size_t kMaxPieces = 1024;  // of a template

int32_t token_id(const Json& value) {
  const auto id = value.as<int64_t>();
  if (id < 0 || id >= kMaxTokens) value.fail("must be from 0 to {}, not {}", kMaxTokens - 1, id);
  return static_cast<int32_t>(id);
}

class Sequence : public PostProcessor {
 public:
  explicit Sequence(const Json& settings) {
    for (const Json& part : settings.at("processors").elements()) {
      if (auto processor = make_post_processor(part)) parts_.push_back(std::move(processor));
    }
  }
  void apply(Sequences& sequences, bool add_special_tokens) const override {
    for (const auto& part : parts_) part->apply(sequences, add_special_tokens);
  }

 private:
  std::vector<std::unique_ptr<const PostProcessor>> parts_;
};

class ByteLevel : public PostProcessor {
 public:
  void apply(Sequences&, bool) const override {}
};

class Template : public PostProcessor {
 public:
  explicit Template(const Json& settings) {
    std::map<std::string, std::vector<int32_t>, std::less<>> special;
    for (const auto& [name, token] : settings.at("special_tokens").members()) {
      auto& ids = special[std::string(name)];
      for (const Json& id : token.at("ids").elements()) ids.push_back(token_id(id));
    }
    const auto read = [&](const char* key, size_t sequences) {
      std::vector<Part> parts;
      const Json pieces = settings.at(key);
      if (pieces.size() > kMaxPieces) pieces.fail("must not have more than {} pieces", kMaxPieces);
      for (const Json& piece : pieces.elements()) {
        if (const auto sequence = piece.find("Sequence")) {
          parts.push_back({sequence_index(*sequence, sequences), {}});
        } else if (const auto token = piece.find("SpecialToken")) {
          const auto name = token->get<std::string>("id");
          const auto found = special.find(name);
          if (found == special.end()) {
            token->fail_at("id", "is not among special_tokens: \"{}\"", excerpt(name));
          }
          parts.push_back({-1, found->second});
        } else {
          piece.fail("must have \"Sequence\" or \"SpecialToken\"");
        }
      }
      return parts;
    };
    single_ = read("single", 1);
    pair_ = read("pair", 2);
  }

  void apply(Sequences& sequences, bool add_special_tokens) const override {
    if (sequences.empty() || sequences.size() > 2) {
      throw_unsupported("[tokenizer] a second template cannot follow one that made {} parts",
                        sequences.size());
    }
    Sequences out;
    for (const Part& part : sequences.size() == 2 ? pair_ : single_) {
      if (part.sequence >= 0) {
        out.push_back(sequences[static_cast<size_t>(part.sequence)]);
      } else if (add_special_tokens) {
        out.push_back(part.special);
      }
    }
    sequences = std::move(out);
  }

 private:
  struct Part {
    int sequence;  // -1 for special tokens
    std::vector<int32_t> special;
  };

  static int sequence_index(const Json& sequence, size_t count) {
    const auto id = sequence.get<std::string>("id");
    if (id == "A") return 0;
    if (id != "B") sequence.fail_at("id", "must be A or B, not \"{}\"", excerpt(id));
    if (count < 2) sequence.fail_at("id", "must be A in a template for one text");
    return 1;
  }

  std::vector<Part> single_;
  std::vector<Part> pair_;
};

// cls A sep, and for a pair: cls A sep B sep with BERT, cls A sep sep B sep with RoBERTa.
class Separated : public PostProcessor {
 public:
  Separated(const Json& settings, bool sep_before_second)
      : sep_(named_id(settings.at("sep"))),
        cls_(named_id(settings.at("cls"))),
        sep_before_second_(sep_before_second) {}
  void apply(Sequences& sequences, bool add_special_tokens) const override {
    if (!add_special_tokens) return;
    for (size_t i = 0; i < sequences.size(); ++i) {
      auto& ids = sequences[i];
      if (i == 0 || sep_before_second_) ids.insert(ids.begin(), i == 0 ? cls_ : sep_);
      ids.push_back(sep_);
    }
  }

 private:
  // ["[SEP]", 102]
  static int32_t named_id(const Json& value) {
    if (value.size() != 2) value.fail("must be a token and its id");
    value.at(0).as<std::string>();
    return token_id(value.at(1));
  }

  int32_t sep_;
  int32_t cls_;
  bool sep_before_second_;
};

}  // namespace

std::unique_ptr<const PostProcessor> make_post_processor(const Json& settings) {
  if (settings.is_null()) return nullptr;
  const auto type = settings.get<std::string>("type");
  if (type == "Sequence") return std::make_unique<Sequence>(settings);
  if (type == "ByteLevel") return std::make_unique<ByteLevel>();
  if (type == "TemplateProcessing") return std::make_unique<Template>(settings);
  if (type == "BertProcessing") return std::make_unique<Separated>(settings, false);
  if (type == "RobertaProcessing") return std::make_unique<Separated>(settings, true);
  settings.fail_at("type",
                   "is no post-processor: \"{}\"; known are Sequence, ByteLevel, "
                   "TemplateProcessing, BertProcessing, RobertaProcessing",
                   excerpt(type));
}

}  // namespace mica::tokenizers
