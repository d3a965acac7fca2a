#include "tokenizers/pre_tokenizer.h"

#include <optional>
#include <utility>
#include <vector>

#include "base/strings.h"
#include "tokenizers/byte_level.h"
#include "tokenizers/metaspace.h"
#include "tokenizers/pattern.h"
#include "tokenizers/unicode.h"

namespace mica::tokenizers {

namespace {

class Sequence : public PreTokenizer {
 public:
  explicit Sequence(const Json& settings) {
    for (const Json& part : settings.at("pretokenizers").elements()) {
      if (auto pre_tokenizer = make_pre_tokenizer(part)) parts_.push_back(std::move(pre_tokenizer));
    }
  }
  void apply(SplitText& split) const override {
    for (const auto& part : parts_) {
      part->apply(split);
      check_expansion(split.text.size(), split.limit);
    }
  }

 private:
  std::vector<std::unique_ptr<const PreTokenizer>> parts_;
};

class ByteLevel : public PreTokenizer {
 public:
  explicit ByteLevel(const Json& settings)
      : add_prefix_space_(settings.get<bool>("add_prefix_space")) {
    settings.get<bool>("trim_offsets");  // only has to be right
    if (settings.get<bool>("use_regex", true)) words_.emplace(kGpt2Words);
  }

  void apply(SplitText& split) const override {
    if (words_ && !add_prefix_space_) {
      split_pieces(split, SplitBehavior::Isolated,
                   [&](std::string_view text, Segment segment) { for_each_word(text, segment); });
    }
    std::string out;
    out.reserve(split.text.size() + split.text.size() / 4);
    std::vector<Piece> pieces;
    pieces.reserve(split.pieces.size());
    std::string prefixed;
    for (const Piece& piece : split.pieces) {
      if (piece.token >= 0) {
        pieces.push_back({0, 0, 0, piece.token});
      } else if (!add_prefix_space_) {
        append_mapped(out, pieces, split.of(piece), piece.head);
      } else {
        std::string_view text = split.of(piece);
        size_t head = piece.head;
        if (text[0] != ' ') {
          text = prefixed.assign(1, ' ').append(text);
          head += head > 0 ? 1 : 0;
        }
        append_words(out, pieces, text, head);
      }
    }
    split.text = std::move(out);
    split.pieces = std::move(pieces);
  }

 private:
  static constexpr const char* kGpt2Words =
      "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

  // The expression matches every character, so that there is nothing between its matches.
  void for_each_word(std::string_view text, Segment segment) const {
    words_->for_each_match(text, [&](size_t begin, size_t end) { segment(begin, end, true); });
  }

  static void append_mapped(std::string& out, std::vector<Piece>& pieces, std::string_view text,
                            size_t head) {
    const size_t begin = out.size();
    append_byte_level(out, text.substr(0, head));
    const size_t new_head = out.size() - begin;
    append_byte_level(out, text.substr(head));
    pieces.push_back({begin, out.size(), new_head, -1});
  }

  void append_words(std::string& out, std::vector<Piece>& pieces, std::string_view text,
                    size_t head) const {
    if (!words_) return append_mapped(out, pieces, text, head);
    for_each_word(text, [&](size_t begin, size_t end, bool) {
      append_mapped(out, pieces, text.substr(begin, end - begin), head_of_part(head, begin, end));
    });
  }

  bool add_prefix_space_;
  std::optional<Regex> words_;
};

class Split : public PreTokenizer {
 public:
  explicit Split(const Json& settings)
      : pattern_(settings.at("pattern")),
        behavior_(split_behavior(settings.at("behavior"))),
        invert_(settings.get<bool>("invert")) {}
  void apply(SplitText& split) const override {
    split_pieces(split, behavior_, [&](std::string_view text, Segment segment) {
      pattern_.for_each_segment(text, [&](size_t begin, size_t end, bool is_match) {
        segment(begin, end, is_match != invert_);
      });
    });
  }

 private:
  Pattern pattern_;
  SplitBehavior behavior_;
  bool invert_;
};

// Whether a character is a given one.
class IsChar {
 public:
  explicit IsChar(std::string_view character) {
    size_t at = 0;
    wanted_ = next_char(character, at);
  }
  bool operator()(char32_t c) const { return c == wanted_; }

 private:
  char32_t wanted_;
};

class MetaspacePreTokenizer : public PreTokenizer {
 public:
  explicit MetaspacePreTokenizer(const Json& settings) : settings_(settings) {}
  void apply(SplitText& split) const override {
    const std::string& mark = settings_.replacement;
    std::string out;
    out.reserve(split.text.size() + split.text.size() / 2);
    for (Piece& piece : split.pieces) {
      if (piece.token >= 0) {
        piece = {0, 0, 0, piece.token};
        continue;
      }
      const std::string_view text = split.of(piece);
      const size_t begin = out.size();
      const bool prepends = settings_.prepend == Metaspace::Prepend::Always ||
                            (settings_.prepend == Metaspace::Prepend::First && piece.head > 0);
      if (prepends && text[0] != ' ' && !text.starts_with(mark)) out += mark;
      size_t head = piece.head > 0 ? out.size() - begin : 0;
      for (size_t at = 0; at < text.size(); ++at) {
        const size_t before = out.size();
        if (text[at] == ' ') {
          out += mark;
        } else {
          out += text[at];
        }
        if (at < piece.head) head += out.size() - before;
      }
      piece = {begin, out.size(), head, -1};
    }
    split.text = std::move(out);
    if (!settings_.split) return;
    split_pieces(split, SplitBehavior::MergedWithNext, [&](std::string_view text, Segment segment) {
      for_each_char_segment(text, IsChar(mark), segment);
    });
  }

 private:
  Metaspace settings_;
};

// Splits at characters of a kind.
template <class Predicate>
class CharSplit : public PreTokenizer {
 public:
  CharSplit(Predicate predicate, SplitBehavior behavior)
      : predicate_(std::move(predicate)), behavior_(behavior) {}
  void apply(SplitText& split) const override {
    split_pieces(split, behavior_, [&](std::string_view text, Segment segment) {
      for_each_char_segment(text, predicate_, segment);
    });
  }

 private:
  Predicate predicate_;
  SplitBehavior behavior_;
};

template <class Predicate>
std::unique_ptr<const PreTokenizer> char_split(Predicate predicate, SplitBehavior behavior) {
  return std::make_unique<CharSplit<Predicate>>(std::move(predicate), behavior);
}

// Runs of word characters, and runs of what is neither word nor white space.
class Whitespace : public PreTokenizer {
 public:
  void apply(SplitText& split) const override {
    split_pieces(split, SplitBehavior::Removed, [](std::string_view text, Segment segment) {
      size_t begin = 0;
      Kind kind = Kind::Space;
      for (size_t at = 0; at < text.size();) {
        const size_t start = at;
        const Kind next = kind_of(next_char(text, at));
        if (next == kind) continue;
        if (begin < start) segment(begin, start, kind == Kind::Space);
        begin = start;
        kind = next;
      }
      if (begin < text.size()) segment(begin, text.size(), kind == Kind::Space);
    });
  }

 private:
  enum class Kind { Space, Word, Other };
  static Kind kind_of(char32_t c) {
    return is_whitespace(c) ? Kind::Space : is_word(c) ? Kind::Word : Kind::Other;
  }
};

class Bert : public PreTokenizer {
 public:
  void apply(SplitText& split) const override {
    spaces_.apply(split);
    punctuation_.apply(split);
  }

 private:
  CharSplit<bool (*)(char32_t)> spaces_{is_whitespace, SplitBehavior::Removed};
  CharSplit<bool (*)(char32_t)> punctuation_{is_punctuation, SplitBehavior::Isolated};
};

class FixedLength : public PreTokenizer {
 public:
  explicit FixedLength(const Json& settings) : length_(settings.get<size_t>("length", 5)) {
    if (length_ == 0) settings.fail_at("length", "must not be 0");
  }
  void apply(SplitText& split) const override {
    split_pieces(split, SplitBehavior::Isolated, [&](std::string_view text, Segment segment) {
      for (size_t at = 0; at < text.size();) {
        const size_t begin = at;
        for (size_t i = 0; i < length_ && at < text.size(); ++i) next_char(text, at);
        segment(begin, at, true);
      }
    });
  }

 private:
  size_t length_;
};

}  // namespace

std::unique_ptr<const PreTokenizer> make_pre_tokenizer(const Json& settings) {
  if (settings.is_null()) return nullptr;
  const auto type = settings.get<std::string>("type");
  if (type == "Sequence") return std::make_unique<Sequence>(settings);
  if (type == "ByteLevel") return std::make_unique<ByteLevel>(settings);
  if (type == "Split") return std::make_unique<Split>(settings);
  if (type == "Metaspace") return std::make_unique<MetaspacePreTokenizer>(settings);
  if (type == "Whitespace") return std::make_unique<Whitespace>();
  if (type == "WhitespaceSplit") return char_split(is_whitespace, SplitBehavior::Removed);
  if (type == "Digits") {
    const bool each = settings.get<bool>("individual_digits");
    return char_split(is_numeric, each ? SplitBehavior::Isolated : SplitBehavior::Contiguous);
  }
  if (type == "Punctuation") {
    const auto behavior = settings.find("behavior");
    return char_split(is_punctuation,
                      behavior ? split_behavior(*behavior) : SplitBehavior::Isolated);
  }
  if (type == "BertPreTokenizer") return std::make_unique<Bert>();
  if (type == "CharDelimiterSplit") {
    return char_split(IsChar(one_character(settings, "delimiter")), SplitBehavior::Removed);
  }
  if (type == "FixedLength") return std::make_unique<FixedLength>(settings);
  constexpr const char* kSupported =
      "Sequence, ByteLevel, Split, Metaspace, Whitespace, WhitespaceSplit, Digits, Punctuation, "
      "BertPreTokenizer, CharDelimiterSplit, FixedLength";
  if (type == "UnicodeScripts") {
    throw_unsupported("{}: pre-tokenizer UnicodeScripts is not supported; supported are {}",
                      settings.where(), kSupported);
  }
  settings.fail_at("type", "is no pre-tokenizer: \"{}\"; known are {}", excerpt(type), kSupported);
}

}  // namespace mica::tokenizers
