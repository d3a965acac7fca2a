#include "tokenizers/normalizer.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "base/strings.h"
#include "tokenizers/byte_level.h"
#include "tokenizers/pattern.h"
#include "tokenizers/unicode.h"

namespace mica::tokenizers {

namespace {

// Rewrites the text character by character: `rewrite(out, c)` appends what becomes of c.
template <class Rewrite>
void rewrite_chars(NormalizedText& text, const Rewrite& rewrite) {
  std::string out;
  out.reserve(text.text.size());
  size_t head = 0;
  for (size_t at = 0; at < text.text.size();) {
    const bool in_head = at < text.head;
    rewrite(out, next_char(text.text, at));
    if (in_head) head = out.size();
  }
  text.text = std::move(out);
  text.head = head;
}

class Sequence : public Normalizer {
 public:
  explicit Sequence(const Json& settings) {
    for (const Json& part : settings.at("normalizers").elements()) {
      if (auto normalizer = make_normalizer(part)) parts_.push_back(std::move(normalizer));
    }
  }
  void apply(NormalizedText& text) const override {
    for (const auto& part : parts_) {
      part->apply(text);
      check_expansion(text.text.size(), text.limit);
    }
  }

 private:
  std::vector<std::unique_ptr<const Normalizer>> parts_;
};

class UnicodeNormalizer : public Normalizer {
 public:
  explicit UnicodeNormalizer(NormalForm form) : form_(form) {}
  void apply(NormalizedText& text) const override {
    if (is_ascii(text.text)) return;
    if (text.head > 0) {
      std::string head = text.text.substr(0, text.head);
      normalize(form_, head);
      normalize(form_, text.text);
      // What follows may have joined the last character of the head.
      text.head = std::min(head.size(), text.text.size());
      while (text.head < text.text.size() && !starts_char(text.text[text.head])) ++text.head;
    } else {
      normalize(form_, text.text);
    }
  }

 private:
  NormalForm form_;
};

class Lowercase : public Normalizer {
 public:
  void apply(NormalizedText& text) const override { rewrite_chars(text, append_lower); }
};

class Strip : public Normalizer {
 public:
  explicit Strip(const Json& settings)
      : left_(settings.get<bool>("strip_left")), right_(settings.get<bool>("strip_right")) {}
  void apply(NormalizedText& text) const override {
    const std::string_view all = text.text;
    size_t begin = 0;
    size_t end = all.size();
    while (left_ && begin < end) {
      size_t next = begin;
      if (!is_whitespace(next_char(all, next))) break;
      begin = next;
    }
    while (right_ && begin < end) {
      size_t last = previous_char(all, end);
      const size_t start = last;
      if (!is_whitespace(next_char(all, last))) break;
      end = start;
    }
    text.head = head_of_part(text.head, begin, end);
    text.text = text.text.substr(begin, end - begin);
  }

 private:
  bool left_;
  bool right_;
};

class StripAccents : public Normalizer {
 public:
  void apply(NormalizedText& text) const override {
    rewrite_chars(text, [](std::string& out, char32_t c) {
      if (!is_mark(c)) append_utf8(out, c);
    });
  }
};

class Prepend : public Normalizer {
 public:
  explicit Prepend(const Json& settings) : prefix_(settings.get<std::string>("prepend")) {}
  void apply(NormalizedText& text) const override {
    if (text.text.empty()) return;
    text.text.insert(0, prefix_);
    if (text.head > 0) text.head += prefix_.size();
  }

 private:
  std::string prefix_;
};

class Replace : public Normalizer {
 public:
  explicit Replace(const Json& settings)
      : pattern_(settings.at("pattern")), content_(settings.get<std::string>("content")) {}
  void apply(NormalizedText& text) const override {
    text.text = pattern_.replace(text.text, content_, text.limit, &text.head);
  }

 private:
  Pattern pattern_;
  std::string content_;
};

// Cleaning in the manner of BERT.
class Bert : public Normalizer {
 public:
  explicit Bert(const Json& settings)
      : clean_text_(settings.get<bool>("clean_text")),
        handle_cjk_(settings.get<bool>("handle_chinese_chars")),
        lowercase_(settings.get<bool>("lowercase")),
        strip_accents_(settings.get<bool>("strip_accents", lowercase_)) {}
  void apply(NormalizedText& text) const override {
    if (clean_text_) {
      rewrite_chars(text, [](std::string& out, char32_t c) {
        if (c == 0xFFFD || is_control(c)) return;
        append_utf8(out, is_whitespace(c) ? U' ' : c);
      });
    }
    if (handle_cjk_) {
      rewrite_chars(text, [](std::string& out, char32_t c) {
        if (is_cjk_ideograph(c)) out += ' ';
        append_utf8(out, c);
        if (is_cjk_ideograph(c)) out += ' ';
      });
    }
    if (strip_accents_) {
      UnicodeNormalizer(NormalForm::NFD).apply(text);
      rewrite_chars(text, [](std::string& out, char32_t c) {
        if (!is_nonspacing_mark(c)) append_utf8(out, c);
      });
    }
    if (lowercase_) Lowercase().apply(text);
  }

 private:
  bool clean_text_;
  bool handle_cjk_;
  bool lowercase_;
  bool strip_accents_;
};

// SentencePiece's rule for machine translation.
class Nmt : public Normalizer {
 public:
  void apply(NormalizedText& text) const override {
    rewrite_chars(text, [](std::string& out, char32_t c) {
      if (!is_dropped(c)) append_utf8(out, is_space(c) ? U' ' : c);
    });
  }

 private:
  static bool is_dropped(char32_t c) {
    return (c >= 1 && c <= 8) || c == 0x0B || (c >= 0x0E && c <= 0x1F) || c == 0x7F || c == 0x8F ||
           c == 0x9F;
  }
  static bool is_space(char32_t c) {
    return c == 0x09 || c == 0x0A || c == 0x0C || c == 0x0D || c == 0x1680 ||
           (c >= 0x200B && c <= 0x200F) || c == 0x2028 || c == 0x2029 || c == 0x2581 ||
           c == 0xFEFF || c == 0xFFFD;
  }
};

class ByteLevel : public Normalizer {
 public:
  void apply(NormalizedText& text) const override {
    const std::string_view all = text.text;
    std::string out;
    append_byte_level(out, all.substr(0, text.head));
    const size_t head = out.size();
    append_byte_level(out, all.substr(text.head));
    text.head = head;
    text.text = std::move(out);
  }
};

}  // namespace

std::unique_ptr<const Normalizer> make_normalizer(const Json& settings) {
  if (settings.is_null()) return nullptr;
  const auto type = settings.get<std::string>("type");
  if (type == "Sequence") return std::make_unique<Sequence>(settings);
  if (type == "NFC") return std::make_unique<UnicodeNormalizer>(NormalForm::NFC);
  if (type == "NFD") return std::make_unique<UnicodeNormalizer>(NormalForm::NFD);
  if (type == "NFKC") return std::make_unique<UnicodeNormalizer>(NormalForm::NFKC);
  if (type == "NFKD") return std::make_unique<UnicodeNormalizer>(NormalForm::NFKD);
  if (type == "Lowercase") return std::make_unique<Lowercase>();
  if (type == "Strip") return std::make_unique<Strip>(settings);
  if (type == "StripAccents") return std::make_unique<StripAccents>();
  if (type == "Prepend") return std::make_unique<Prepend>(settings);
  if (type == "Replace") return std::make_unique<Replace>(settings);
  if (type == "BertNormalizer") return std::make_unique<Bert>(settings);
  if (type == "Nmt") return std::make_unique<Nmt>();
  if (type == "ByteLevel") return std::make_unique<ByteLevel>();
  constexpr const char* kSupported =
      "Sequence, NFC, NFD, NFKC, NFKD, Lowercase, Strip, StripAccents, Prepend, Replace, "
      "BertNormalizer, Nmt, ByteLevel";
  if (type == "Precompiled") {
    throw_unsupported("{}: normalizer Precompiled is not supported; supported are {}",
                      settings.where(), kSupported);
  }
  settings.fail_at("type", "is no normalizer: \"{}\"; known are {}", excerpt(type), kSupported);
}

}  // namespace mica::tokenizers
