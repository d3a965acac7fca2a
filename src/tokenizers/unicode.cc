#include "tokenizers/unicode.h"

#include <utf8proc.h>

#include <algorithm>
#include <bitset>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <span>
#include <vector>

#include "base/error.h"
#include "base/strings.h"
#include "tokenizers/unicode_tables.h"

namespace mica::tokenizers {

namespace {

template <class Range>
const Range* find_range(std::span<const Range> ranges, char32_t c) {
  const auto after =
      std::upper_bound(ranges.begin(), ranges.end(), c,
                       [](char32_t value, const Range& range) { return value < range.first; });
  if (after == ranges.begin() || c > std::prev(after)->last) return nullptr;
  return &*std::prev(after);
}

bool contains(std::span<const tables::CodeRange> ranges, char32_t c) {
  return find_range(ranges, c) != nullptr;
}

int combining_class(char32_t c) {
  return utf8proc_get_property(static_cast<utf8proc_int32_t>(c))->combining_class;
}

// Whether more than a few combining marks follow one another: no language writes so.
bool has_long_run_of_marks(std::string_view text) {
  int run = 0;
  for (size_t at = 0; at < text.size();) {
    run = combining_class(next_char(text, at)) == 0 ? 0 : run + 1;
    if (run > 32) return true;
  }
  return false;
}

// The decomposed text. utf8proc orders marks by swapping neighbours, which takes time quadratic in
// the length of a run; given ordered text it has nothing to swap.
std::string ordered_marks(std::string_view text, utf8proc_option_t options) {
  const auto decompose = static_cast<utf8proc_option_t>(
      (options & ~static_cast<int>(UTF8PROC_COMPOSE)) | UTF8PROC_DECOMPOSE);
  std::vector<utf8proc_int32_t> chars;
  for (size_t at = 0; at < text.size();) {
    utf8proc_int32_t parts[32];  // the longest decomposition has 18
    const auto count = utf8proc_decompose_char(static_cast<utf8proc_int32_t>(next_char(text, at)),
                                               parts, std::size(parts), decompose, nullptr);
    chars.insert(chars.end(), parts, parts + count);
  }
  const auto starts = [](utf8proc_int32_t c) { return combining_class(c) == 0; };
  for (auto run = chars.begin(); run != chars.end();) {
    run = std::find_if_not(run, chars.end(), starts);
    const auto end = std::find_if(run, chars.end(), starts);
    std::stable_sort(run, end,
                     [](auto a, auto b) { return combining_class(a) < combining_class(b); });
    run = end;
  }
  std::string out;
  for (const auto c : chars) append_utf8(out, static_cast<char32_t>(c));
  return out;
}

// Appends the normal form of text that has no character outside normal forms.
void append_normalized(std::string& out, std::string_view text, utf8proc_option_t options) {
  if (is_ascii(text)) {
    out += text;
    return;
  }
  std::string ordered;
  if (has_long_run_of_marks(text)) text = ordered = ordered_marks(text, options);
  utf8proc_uint8_t* result = nullptr;
  const auto length = utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(text.data()),
                                   static_cast<utf8proc_ssize_t>(text.size()), &result, options);
  const std::unique_ptr<utf8proc_uint8_t, decltype(&std::free)> holder(result, &std::free);
  if (length == UTF8PROC_ERROR_NOMEM || length == UTF8PROC_ERROR_OVERFLOW) throw std::bad_alloc();
  MICA_ASSERT(length >= 0);
  out.append(reinterpret_cast<const char*>(result), static_cast<size_t>(length));
}

utf8proc_option_t options_of(NormalForm form) {
  int options = UTF8PROC_STABLE;
  const bool composed = form == NormalForm::NFC || form == NormalForm::NFKC;
  options |= composed ? UTF8PROC_COMPOSE : UTF8PROC_DECOMPOSE;
  if (form == NormalForm::NFKC || form == NormalForm::NFKD) options |= UTF8PROC_COMPAT;
  return static_cast<utf8proc_option_t>(options);
}

}  // namespace

bool is_ascii(std::string_view text) {
  size_t i = 0;
  uint64_t bits = 0;
  for (; i + 8 <= text.size(); i += 8) {
    uint64_t block;
    std::memcpy(&block, text.data() + i, 8);
    bits |= block;
    if (bits & 0x8080808080808080u) return false;
  }
  for (; i < text.size(); ++i) bits |= static_cast<unsigned char>(text[i]);
  return (bits & 0x8080808080808080u) == 0;
}

bool is_word(char32_t c) {
  if (c < 0x80) return (c | 0x20) - 'a' < 26u || c - '0' < 10u || c == '_';
  return contains(tables::kWord, c);
}

bool is_numeric(char32_t c) {
  if (c < 0x80) return c - '0' < 10u;
  return contains(tables::kNumeric, c);
}

bool is_punctuation(char32_t c) { return contains(tables::kPunctuation, c); }
bool is_mark(char32_t c) { return c >= 0x80 && contains(tables::kMark, c); }
bool is_nonspacing_mark(char32_t c) { return c >= 0x80 && contains(tables::kNonspacingMark, c); }
bool is_control(char32_t c) { return c == 0 || contains(tables::kControl, c); }

bool is_cjk_ideograph(char32_t c) {
  return (c >= 0x4E00 && c <= 0x9FFF) || (c >= 0x3400 && c <= 0x4DBF) ||
         (c >= 0x20000 && c <= 0x2A6DF) || (c >= 0x2A700 && c <= 0x2B73F) ||
         (c >= 0x2B740 && c <= 0x2B81F) || (c >= 0x2B920 && c <= 0x2CEAF) ||
         (c >= 0xF900 && c <= 0xFAFF) || (c >= 0x2F800 && c <= 0x2FA1F);
}

bool is_newer_than_pcre2(char32_t c) {
  // Asked for every character that is not ASCII; most are in blocks without any.
  static const std::bitset<0x110000 / 256> blocks = [] {
    std::bitset<0x110000 / 256> out;
    for (const auto& range : tables::kNewer) {
      for (char32_t block = range.first / 256; block <= range.last / 256; ++block) out.set(block);
    }
    return out;
  }();
  return blocks[c / 256] && contains(tables::kNewer, c);
}

void append_lower(std::string& out, char32_t c) {
  if (c < 0x80) {
    out += static_cast<char>(c - 'A' < 26u ? c + 32 : c);
  } else if (c == 0x130) {
    out += "i\u0307";
  } else if (const auto* newer = find_range(tables::kNewerLower, c)) {
    append_utf8(out, static_cast<char32_t>(static_cast<int32_t>(c) + newer->distance));
  } else {
    append_utf8(out, static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(c))));
  }
}

void normalize(NormalForm form, std::string& text) {
  if (is_ascii(text)) return;
  const utf8proc_option_t options = options_of(form);
  std::string out;
  out.reserve(text.size());
  // Characters outside normal forms neither change nor combine, so the text splits at them.
  size_t start = 0;
  for (size_t at = 0; at < text.size();) {
    const size_t begin = at;
    const char32_t c = next_char(text, at);
    if (c < tables::kOutsideNormalForms.front().first || !contains(tables::kOutsideNormalForms, c))
      continue;
    append_normalized(out, std::string_view(text).substr(start, begin - start), options);
    out.append(text, begin, at - begin);
    start = at;
  }
  append_normalized(out, std::string_view(text).substr(start), options);
  text = std::move(out);
}

}  // namespace mica::tokenizers
