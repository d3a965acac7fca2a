#include "tokenizers/unicode.h"

#include <gtest/gtest.h>

#include <string>

#include "base/strings.h"

namespace mica::tokenizers {
namespace {

std::string normalized(NormalForm form, std::string text) {
  normalize(form, text);
  return text;
}

TEST(Unicode, WalksCharacters) {
  const std::string text = "a\u00e9\u65e5\U0001f600";
  std::u32string chars;
  for (size_t at = 0; at < text.size();) chars += next_char(text, at);
  EXPECT_EQ(chars, U"a\u00e9\u65e5\U0001f600");
  size_t end = text.size();
  std::u32string reversed;
  while (end > 0) {
    end = previous_char(text, end);
    size_t at = end;
    reversed += next_char(text, at);
  }
  EXPECT_EQ(reversed, U"\U0001f600\u65e5\u00e9a");
}

TEST(Unicode, KnowsClasses) {
  for (const char32_t c : U"\t\n\v\f\r \u0085\u00a0\u1680\u2000\u200a\u2028\u2029\u202f\u205f") {
    EXPECT_TRUE(c == 0 || is_whitespace(c)) << static_cast<uint32_t>(c);
  }
  for (const char32_t c : U"\u180e\u200b\u200d\ufeff\x1c") {
    EXPECT_FALSE(is_whitespace(c)) << static_cast<uint32_t>(c);
  }
  EXPECT_TRUE(is_word(U'_') && is_word(U'\u0301') && is_word(U'\u200d') && is_word(U'\u0663'));
  EXPECT_FALSE(is_word(U'-') || is_word(U'\u00b2') || is_word(U'\u2014') || is_word(U'\u3000'));
  EXPECT_TRUE(is_numeric(U'7') && is_numeric(U'\u00bd') && is_numeric(U'\u2167'));
  EXPECT_TRUE(is_punctuation(U'$') && is_punctuation(U'\u00ab') && is_punctuation(U'\u3002'));
  EXPECT_FALSE(is_punctuation(U'\u20ac') || is_punctuation(U'a'));
  EXPECT_TRUE(is_mark(U'\u0301') && is_nonspacing_mark(U'\u0301') && is_mark(U'\u0903'));
  EXPECT_FALSE(is_nonspacing_mark(U'\u0903'));
  EXPECT_TRUE(is_control(0) && is_control(U'\u00ad') && is_control(U'\ue000'));
  EXPECT_FALSE(is_control(U'\t') || is_control(U'\n') || is_control(U' '));
}

TEST(Unicode, Lowers) {
  const auto lower = [](char32_t c) {
    std::string out;
    append_lower(out, c);
    return out;
  };
  EXPECT_EQ(lower(U'A'), "a");
  EXPECT_EQ(lower(U'['), "[");
  EXPECT_EQ(lower(U'\u00c5'), "\u00e5");
  EXPECT_EQ(lower(U'\u0130'), "i\u0307");
  EXPECT_EQ(lower(U'\u03a3'), "\u03c3");
  EXPECT_EQ(lower(U'\u1c89'), "\u1c8a");  // of Unicode 16
  EXPECT_EQ(lower(U'\u65e5'), "\u65e5");
}

TEST(Unicode, Normalizes) {
  EXPECT_EQ(normalized(NormalForm::NFC, "e\u0301 q\u0307\u0323"), "\u00e9 q\u0323\u0307");
  EXPECT_EQ(normalized(NormalForm::NFD, "\u00e9\uac01"), "e\u0301\u1100\u1161\u11a8");
  EXPECT_EQ(normalized(NormalForm::NFKC, "\ufb01\uff21\u0301"), "fi\u00c1");
  EXPECT_EQ(normalized(NormalForm::NFKD, "\u00bd"), "1\u20442");
  EXPECT_EQ(normalized(NormalForm::NFC, std::string("a\0b\u0301", 5)),
            std::string("a\0b\u0301", 5));
  EXPECT_EQ(normalized(NormalForm::NFKC, ""), "");
  // The reference does not know these compositions and decompositions of Unicode 12 and later.
  EXPECT_EQ(normalized(NormalForm::NFKC, "\u32ff"), "\u32ff");
  EXPECT_EQ(normalized(NormalForm::NFD, "\U00011938"), "\U00011938");
}

TEST(Unicode, OrdersLongRunsOfMarksFast) {
  // Swapping neighbours would take 10^10 steps.
  std::string text = "a";
  std::string expected = "a";
  for (int i = 0; i < 100'000; ++i) text += "\u0301\u0323";
  for (int i = 0; i < 100'000; ++i) expected += "\u0323";
  for (int i = 0; i < 100'000; ++i) expected += "\u0301";
  EXPECT_TRUE(normalized(NormalForm::NFD, text) == expected);
  EXPECT_TRUE(normalized(NormalForm::NFC, text) == "\u1ea1" + expected.substr(3));
}

}  // namespace
}  // namespace mica::tokenizers
