#include "tokenizers/decoder.h"

#include <algorithm>
#include <cstdint>
#include <utility>

#include "base/strings.h"
#include "tokenizers/byte_level.h"
#include "tokenizers/metaspace.h"
#include "tokenizers/pattern.h"
#include "tokenizers/unicode.h"

namespace mica::tokenizers {

namespace {

// Text flows through the stages by calls from each to the next.
constexpr size_t kMaxStages = 64;

// Files come from strangers: so many bytes more than it got may a stage make of one part.
constexpr size_t kMaxGrowth = 1 << 20;

constexpr std::string_view kReplacement = "\uFFFD";

// All occurrences, from the left; an empty `from` stands at both ends and between all characters.
std::string replace_all(std::string_view text, std::string_view from, std::string_view to) {
  std::string out;
  const auto append = [&](std::string_view kept, std::string_view then) {
    out.append(kept).append(then);
    check_expansion(out.size(), text.size() + kMaxGrowth);
  };
  size_t at = 0;
  if (from.empty()) {
    append("", to);
    for (size_t length; at < text.size(); at += length) {
      length = char_length(text[at]);
      append(text.substr(at, length), to);
    }
    return out;
  }
  for (size_t found; (found = text.find(from, at)) != std::string_view::npos;) {
    append(text.substr(at, found - at), to);
    at = found + from.size();
  }
  append(text.substr(at), "");
  return out;
}

// Undoes the spaces around English punctuation.
std::string clean_up(std::string text) {
  constexpr std::pair<const char*, const char*> kRules[] = {
      {" .", "."},   {" ?", "?"},     {" !", "!"},     {" ,", ","},
      {" ' ", "'"},  {" n't", "n't"}, {" 'm", "'m"},   {" do not", " don't"},
      {" 's", "'s"}, {" 've", "'ve"}, {" 're", "'re"},
  };
  for (const auto& [from, to] : kRules) {
    if (text.find(from) != std::string::npos) text = replace_all(text, from, to);
  }
  return text;
}

template <class Self>
class Stage : public DecoderStage {
 public:
  std::unique_ptr<DecoderStage> clone() const override {
    return std::make_unique<Self>(static_cast<const Self&>(*this));
  }
  void text(std::string_view part) override { next().text(part); }
  void end_token() override { next().end_token(); }
  void finish() override { next().finish(); }

 protected:
  void pass_token(std::string_view token) {
    if (!token.empty()) next().text(token);
    next().end_token();
  }
};

// A stage that wants its tokens whole: it has token(std::string&&).
template <class Self>
class WholeTokens : public Stage<Self> {
 public:
  void text(std::string_view part) override { buffer_ += part; }
  void end_token() override {
    static_cast<Self&>(*this).token(std::exchange(buffer_, std::string()));
  }

 private:
  std::string buffer_;
};

class ByteLevel : public WholeTokens<ByteLevel> {
 public:
  void token(std::string&& token) {
    // Added tokens are text already.
    if (!append_bytes_of_level(bytes_, token)) bytes_ += token;
    const size_t complete = complete_utf8(bytes_);
    if (complete == 0) return;
    next().text(to_utf8(std::string_view(bytes_).substr(0, complete)));
    bytes_.erase(0, complete);
  }
  void finish() override {
    pass_token(to_utf8(bytes_));
    next().finish();
  }

 private:
  std::string bytes_;  // of a character that is not complete
};

class ByteFallback : public Stage<ByteFallback> {
 public:
  void text(std::string_view part) override {
    if (!is_text_) {
      token_ += part;
      if (token_.size() <= kTokenSize) return;
      start_text();
    } else {
      next().text(part);
    }
  }
  void end_token() override {
    const int byte = is_text_ ? -1 : byte_of(token_);
    if (byte >= 0) {
      bytes_ += static_cast<char>(byte);
      token_.clear();
      return;
    }
    if (!is_text_) start_text();
    next().end_token();
    is_text_ = false;
  }
  void finish() override {
    end_bytes();
    next().finish();
  }

 private:
  static constexpr size_t kTokenSize = 6;  // <0x00>

  static int digit(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    const char lower = static_cast<char>(c | 0x20);
    return lower >= 'a' && lower <= 'f' ? lower - 'a' + 10 : -1;
  }
  static int byte_of(std::string_view token) {
    if (token.size() != kTokenSize || !token.starts_with("<0x") || token.back() != '>') return -1;
    const int high = token[3] == '+' ? 0 : digit(token[3]);
    const int low = digit(token[4]);
    return high < 0 || low < 0 ? -1 : high * 16 + low;
  }

  // The token turns out to be none of ours.
  void start_text() {
    end_bytes();
    if (!token_.empty()) next().text(token_);
    token_.clear();
    is_text_ = true;
  }
  void end_bytes() {
    if (is_utf8(bytes_)) {
      if (!bytes_.empty()) pass_token(bytes_);
    } else {
      for (size_t i = 0; i < bytes_.size(); ++i) pass_token(kReplacement);
    }
    bytes_.clear();
  }

  std::string token_;
  bool is_text_ = false;
  std::string bytes_;  // of the run of byte tokens before this token
};

class Fuse : public Stage<Fuse> {
 public:
  void end_token() override {}
  void finish() override {
    next().end_token();
    next().finish();
  }
};

class Strip : public Stage<Strip> {
 public:
  explicit Strip(const Json& settings)
      : content_(one_character(settings, "content")),
        start_(settings.get<uint64_t>("start")),
        stop_(settings.get<uint64_t>("stop")) {}
  void text(std::string_view part) override {
    std::string out;
    for (size_t at = 0; at < part.size();) {
      const std::string_view c = part.substr(at, char_length(part[at]));
      at += c.size();
      if (c != content_) {
        release(out, 0);
        out += c;
        leading_ = start_;  // nothing after this is at the start
      } else if (leading_ < start_) {
        ++leading_;
      } else {
        ++held_;
        release(out, stop_);
      }
    }
    if (!out.empty()) next().text(out);
  }
  void end_token() override {
    leading_ = held_ = 0;
    next().end_token();
  }

 private:
  // What is held back beyond so many.
  void release(std::string& out, uint64_t kept) {
    for (; held_ > kept; --held_) out += content_;
  }

  std::string content_;
  uint64_t start_;
  uint64_t stop_;
  uint64_t leading_ = 0;  // removed from the start of this token
  uint64_t held_ = 0;     // at its end so far
};

// The automaton of Knuth, Morris and Pratt: what is held back is always a start of the pattern.
class ReplaceString : public Stage<ReplaceString> {
 public:
  ReplaceString(std::string pattern, std::string content)
      : pattern_(std::move(pattern)), content_(std::move(content)), shorter_(pattern_.size() + 1) {
    for (size_t i = 1, length = 0; i < pattern_.size(); ++i) {
      while (length > 0 && pattern_[i] != pattern_[length]) length = shorter_[length];
      if (pattern_[i] == pattern_[length]) ++length;
      shorter_[i + 1] = length;
    }
  }
  void text(std::string_view part) override {
    std::string out;
    for (const char c : part) {
      while (held_ > 0 && c != pattern_[held_]) {
        const size_t still = shorter_[held_];
        out.append(pattern_, 0, held_ - still);
        held_ = still;
      }
      if (c != pattern_[held_]) {
        out += c;
      } else if (++held_ == pattern_.size()) {
        out += content_;
        held_ = 0;
        check_expansion(out.size(), part.size() + kMaxGrowth);
      }
    }
    if (!out.empty()) next().text(out);
  }
  void end_token() override {
    pass_token(std::string_view(pattern_).substr(0, held_));
    held_ = 0;
  }

 private:
  std::string pattern_;
  std::string content_;
  // By length of a start of the pattern: the longest shorter start that is its end.
  std::vector<size_t> shorter_;
  size_t held_ = 0;
};

class ReplaceRegex : public WholeTokens<ReplaceRegex> {
 public:
  ReplaceRegex(std::shared_ptr<const Pattern> pattern, std::string content)
      : pattern_(std::move(pattern)), content_(std::move(content)) {}
  void token(std::string&& token) {
    pass_token(pattern_->replace(token, content_, token.size() + kMaxGrowth));
  }

 private:
  std::shared_ptr<const Pattern> pattern_;
  std::string content_;
};

class MetaspaceDecoder : public Stage<MetaspaceDecoder> {
 public:
  explicit MetaspaceDecoder(const Json& settings) : settings_(settings) {}
  void text(std::string_view part) override {
    const bool drops = is_first_ && settings_.prepend != Metaspace::Prepend::Never;
    const std::string out = replace_all(part, settings_.replacement, drops ? "" : " ");
    if (!out.empty()) next().text(out);
  }
  void end_token() override {
    is_first_ = false;
    next().end_token();
  }

 private:
  Metaspace settings_;
  bool is_first_ = true;
};

// The suffix that ends a word becomes a space, or nothing at the end of the text.
class BpeDecoder : public WholeTokens<BpeDecoder> {
 public:
  explicit BpeDecoder(const Json& settings) : suffix_(settings.get<std::string>("suffix")) {}
  void token(std::string&& token) {
    if (has_last_) pass_token(replace_all(last_, suffix_, " "));
    last_ = std::move(token);
    has_last_ = true;
  }
  void finish() override {
    if (has_last_) pass_token(replace_all(last_, suffix_, ""));
    next().finish();
  }

 private:
  std::string suffix_;
  std::string last_;
  bool has_last_ = false;
};

class WordPiece : public WholeTokens<WordPiece> {
 public:
  explicit WordPiece(const Json& settings)
      : prefix_(settings.get<std::string>("prefix")), cleanup_(settings.get<bool>("cleanup")) {}
  void token(std::string&& token) {
    if (!std::exchange(is_first_, false)) {
      if (token.starts_with(prefix_)) {
        token.erase(0, prefix_.size());
      } else {
        token.insert(token.begin(), ' ');
      }
    }
    pass_token(cleanup_ ? clean_up(std::move(token)) : token);
  }

 private:
  std::string prefix_;
  bool cleanup_;
  bool is_first_ = true;
};

// Connectionist temporal classification: repeated tokens count once.
class Ctc : public WholeTokens<Ctc> {
 public:
  explicit Ctc(const Json& settings)
      : pad_(settings.get<std::string>("pad_token")),
        delimiter_(settings.get<std::string>("word_delimiter_token")),
        cleanup_(settings.get<bool>("cleanup")) {}
  void token(std::string&& token) {
    if (has_last_ && token == last_) return;
    last_ = token;
    has_last_ = true;
    std::string text = replace_all(token, pad_, "");
    if (cleanup_) text = replace_all(clean_up(std::move(text)), delimiter_, " ");
    if (!text.empty()) pass_token(text);
  }

 private:
  std::string pad_;
  std::string delimiter_;
  bool cleanup_;
  std::string last_;
  bool has_last_ = false;
};

// What a file without decoder gets: spaces between tokens.
class Join : public Stage<Join> {
 public:
  void text(std::string_view part) override {
    separate();
    next().text(part);
  }
  void end_token() override {
    separate();
    next().end_token();
    starts_ = true;
  }

 private:
  void separate() {
    if (starts_ && !is_first_) next().text(" ");
    starts_ = is_first_ = false;
  }

  bool starts_ = true;
  bool is_first_ = true;
};

std::unique_ptr<const DecoderStage> make_replace(const Json& settings) {
  auto pattern = std::make_shared<const Pattern>(settings.at("pattern"));
  auto content = settings.get<std::string>("content");
  if (const std::string* literal = pattern->literal()) {
    return std::make_unique<ReplaceString>(*literal, std::move(content));
  }
  return std::make_unique<ReplaceRegex>(std::move(pattern), std::move(content));
}

std::unique_ptr<const DecoderStage> make_stage(const Json& settings, const std::string& type) {
  if (type == "ByteLevel") return std::make_unique<ByteLevel>();
  if (type == "ByteFallback") return std::make_unique<ByteFallback>();
  if (type == "Fuse") return std::make_unique<Fuse>();
  if (type == "Strip") return std::make_unique<Strip>(settings);
  if (type == "Replace") return make_replace(settings);
  if (type == "Metaspace") return std::make_unique<MetaspaceDecoder>(settings);
  if (type == "BPEDecoder") return std::make_unique<BpeDecoder>(settings);
  if (type == "WordPiece") return std::make_unique<WordPiece>(settings);
  if (type == "CTC") return std::make_unique<Ctc>(settings);
  settings.fail_at("type",
                   "is no decoder: \"{}\"; known are Sequence, ByteLevel, ByteFallback, Fuse, "
                   "Strip, Replace, Metaspace, BPEDecoder, WordPiece, CTC",
                   excerpt(type));
}

void add_stages(const Json& settings, DecoderStages& stages) {
  const auto type = settings.get<std::string>("type");
  if (type == "Sequence") {
    for (const Json& part : settings.at("decoders").elements()) add_stages(part, stages);
  } else if (stages.size() == kMaxStages) {
    settings.fail("there are more than {} decoders", kMaxStages);
  } else {
    stages.push_back(make_stage(settings, type));
  }
}

}  // namespace

DecoderStages make_decoder(const Json& settings) {
  DecoderStages stages;
  if (settings.is_null()) {
    stages.push_back(std::make_unique<Join>());
  } else {
    add_stages(settings, stages);
  }
  return stages;
}

// Collects what comes out.
class DecoderChain::End : public Stage<End> {
 public:
  void text(std::string_view part) override { out_ += part; }
  void end_token() override {}
  void finish() override {}
  std::string take() { return std::exchange(out_, std::string()); }

 private:
  std::string out_;
};

DecoderChain::DecoderChain(const DecoderStages& stages) : end_(std::make_unique<End>()) {
  for (const auto& stage : stages) stages_.push_back(stage->clone());
  for (size_t i = 0; i < stages_.size(); ++i) {
    stages_[i]->lead_to(i + 1 < stages_.size() ? *stages_[i + 1] : *end_);
  }
}

DecoderChain::~DecoderChain() = default;
DecoderChain::DecoderChain(DecoderChain&&) noexcept = default;
DecoderChain& DecoderChain::operator=(DecoderChain&&) noexcept = default;

void DecoderChain::token(std::string_view token) {
  DecoderStage& first = stages_.empty() ? *end_ : *stages_.front();
  if (!token.empty()) first.text(token);
  first.end_token();
}

void DecoderChain::finish() {
  if (!stages_.empty()) stages_.front()->finish();
}

std::string DecoderChain::take() { return end_->take(); }

}  // namespace mica::tokenizers
