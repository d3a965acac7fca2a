// What tokenizers ask about characters: classes, case and normal forms, equal to those of the
// reference implementation (see unicode_tables.h), whatever the version of the system's libraries.
//
//   std::string text = "Ａ\u0301";
//   normalize(NormalForm::NFKC, text);  // "Á"
//
// All text is well-formed UTF-8 (base/strings.h: to_utf8); nothing here throws.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace mica::tokenizers {

// The length of the character that starts with this byte.
inline size_t char_length(char lead) {
  const auto byte = static_cast<unsigned char>(lead);
  return byte < 0x80 ? 1 : byte < 0xE0 ? 2 : byte < 0xF0 ? 3 : 4;
}

// Whether a character starts with this byte, rather than goes on.
inline bool starts_char(char byte) { return (static_cast<unsigned char>(byte) & 0xC0) != 0x80; }

// The character at byte `at`, which moves past it.
inline char32_t next_char(std::string_view text, size_t& at) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[at + i]); };
  const size_t length = char_length(text[at]);
  char32_t c = byte(0);
  if (length == 2) {
    c = (c & 0x1F) << 6 | (byte(1) & 0x3F);
  } else if (length == 3) {
    c = (c & 0x0F) << 12 | (byte(1) & 0x3F) << 6 | (byte(2) & 0x3F);
  } else if (length == 4) {
    c = (c & 0x07) << 18 | (byte(1) & 0x3F) << 12 | (byte(2) & 0x3F) << 6 | (byte(3) & 0x3F);
  }
  at += length;
  return c;
}

// The start of the character that ends before byte `end`, which is not 0.
inline size_t previous_char(std::string_view text, size_t end) {
  do {
    --end;
  } while (!starts_char(text[end]));
  return end;
}

bool is_ascii(std::string_view text);

// The property White_Space.
inline bool is_whitespace(char32_t c) {
  if (c < 0x80) return c == ' ' || (c >= 9 && c <= 13);
  return c == 0x85 || c == 0xA0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 ||
         c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

bool is_word(char32_t c);         // \w of Rust's regular expressions
bool is_numeric(char32_t c);      // digits, letters and others that are numbers
bool is_punctuation(char32_t c);  // also all of ASCII's that is neither letter nor digit
bool is_mark(char32_t c);         // combining marks
bool is_nonspacing_mark(char32_t c);
bool is_control(char32_t c);           // controls, formats, private use; not \t \n \r
bool is_cjk_ideograph(char32_t c);     // those that BERT sets apart
bool is_newer_than_pcre2(char32_t c);  // has properties that PCRE2 10.42 does not know

// The full lower case, which is two characters for U+0130.
void append_lower(std::string& out, char32_t c);

enum class NormalForm { NFC, NFD, NFKC, NFKD };
void normalize(NormalForm form, std::string& text);

}  // namespace mica::tokenizers
