#include "base/strings.h"

#include <gtest/gtest.h>

#include "tests/base/expect_error.h"

namespace mica {
namespace {

TEST(Utf8Test, EncodesAndDecodesEveryCodePoint) {
  for (char32_t code = 0; code < 0x110000; code += code < 0x3000 ? 1 : 61) {
    if (code >= 0xD800 && code < 0xE000) continue;
    std::string text;
    append_utf8(text, code);
    const Utf8Char c = decode_utf8(text, 0);
    ASSERT_TRUE(c.valid);
    ASSERT_EQ(c.code, code);
    ASSERT_EQ(c.length, text.size());
    ASSERT_TRUE(is_utf8(text));
    ASSERT_EQ(complete_utf8(text), text.size());
    for (size_t cut = 1; cut < text.size(); ++cut) {
      ASSERT_FALSE(is_utf8(text.substr(0, cut)));
      ASSERT_EQ(complete_utf8(std::string_view(text).substr(0, cut)), 0u);
    }
  }
}

TEST(Utf8Test, ReplacesAsPythonDoes) {
  const std::string r = "\uFFFD";
  EXPECT_EQ(to_utf8("plain text, long enough for eight at a time"),
            "plain text, long enough for eight at a time");
  EXPECT_EQ(to_utf8("\xff"), r);
  EXPECT_EQ(to_utf8("a\xe2\x82z"), "a" + r + "z");        // one for a cut sequence
  EXPECT_EQ(to_utf8("\xed\xa0\x80"), r + r + r);          // a surrogate
  EXPECT_EQ(to_utf8("\xf0\x80\x80\x80"), r + r + r + r);  // an overlong form
  EXPECT_EQ(to_utf8("\xf4\x90\x80\x80"), r + r + r + r);  // past U+10FFFF
  EXPECT_EQ(to_utf8("\xf1\x80\x80\xe2\x82\x41"), r + r + "A");
  EXPECT_EQ(to_utf8("\xc0\xaf\xc3"), r + r + r);
  std::string out;
  append_utf8(out, 0xD800);
  append_utf8(out, 0x110000);
  EXPECT_EQ(out, r + r);
}

TEST(Utf8Test, CompletePrefix) {
  EXPECT_EQ(complete_utf8(""), 0u);
  EXPECT_EQ(complete_utf8("ab"), 2u);
  EXPECT_EQ(complete_utf8("ab\xf0\x9f\x98"), 2u);
  EXPECT_EQ(complete_utf8("ab\xf0\x9f\x98\x80"), 6u);
  EXPECT_EQ(complete_utf8("\x80\x80\x80\x80"), 4u);  // nothing can mend these
  EXPECT_EQ(complete_utf8("\xe0\x80"), 2u);
  EXPECT_EQ(complete_utf8("\xff"), 1u);
}

TEST(PrintableTest, EscapesWhatMovesTheTerminal) {
  EXPECT_EQ(printable("tidy é 😀"), "tidy é 😀");
  EXPECT_EQ(printable("\x1b[31m\n\t\r\x7f"), "\\x1b[31m\\n\\t\\r\\x7f");
  EXPECT_EQ(printable("\u009b\u202e\u2066"), "\\x9b\\u202e\\u2066");
  EXPECT_EQ(printable("a\xff\xc3("), "a\\xff\\xc3(");
  EXPECT_EQ(printable(std::string_view("\0", 1)), "\\x00");
  EXPECT_EQ(printable_lines("a\n\tb\x1b"), "a\n\tb\\x1b");
  EXPECT_EQ(excerpt("éééé", 4), "éééé");
  EXPECT_EQ(excerpt("ééééé", 4), "éééé...");
}

TEST(ClosestTest, FindsMisspellings) {
  const std::vector<std::string> names = {"llama", "mistral", "mixtral", "gemma2"};
  EXPECT_EQ(closest("lama", names), "llama");
  EXPECT_EQ(closest("llmaa", names), "llama");
  EXPECT_EQ(closest("mistrall", names), "mistral");
  EXPECT_EQ(closest("gemma3", names), "gemma2");
  EXPECT_EQ(closest("bert", names), std::nullopt);
  EXPECT_EQ(closest("", names), std::nullopt);
  EXPECT_EQ(closest(std::string(1000, 'x'), names), std::nullopt);
  EXPECT_EQ(edit_distance("", "abc"), 3u);
  EXPECT_EQ(edit_distance("kitten", "sitting"), 3u);
  EXPECT_EQ(edit_distance("ab", "ba"), 1u);
}

TEST(SizeTest, ForPeople) {
  EXPECT_EQ(human_size(0), "0 B");
  EXPECT_EQ(human_size(1023), "1023 B");
  EXPECT_EQ(human_size(1024), "1.0 KiB");
  EXPECT_EQ(human_size(1288490189), "1.2 GiB");
  EXPECT_EQ(human_size((1 << 20) - 1), "1.0 MiB");
  EXPECT_EQ(human_size(UINT64_MAX), "16.0 EiB");
}

TEST(SizeTest, FromPeople) {
  EXPECT_EQ(parse_size("4096"), 4096u);
  EXPECT_EQ(parse_size(" 8G "), 8ull << 30);
  EXPECT_EQ(parse_size("1.5 GiB"), 3ull << 29);
  EXPECT_EQ(parse_size("200kB"), 200'000u);
  EXPECT_EQ(parse_size("1mi"), 1u << 20);
  EXPECT_EQ(parse_size("2TB"), 2'000'000'000'000u);
  EXPECT_EQ(parse_size("12b"), 12u);
  for (const char* wrong :
       {"", "G", "-1", "8Q", "8GG", "nan", "inf", "1e30", "9999999999T", "8 G B", "0x10"}) {
    expect_error(ErrorKind::Value, "is not a size in bytes", [&] { parse_size(wrong); });
  }
}

TEST(ListTest, SplitJoinTrim) {
  using Parts = std::vector<std::string_view>;
  EXPECT_EQ(split("a,b,,c", ','), (Parts{"a", "b", "", "c"}));
  EXPECT_EQ(split("", ','), (Parts{""}));
  EXPECT_EQ(split(",", ','), (Parts{"", ""}));
  EXPECT_EQ(join(Parts{"a", "b"}, ", "), "a, b");
  EXPECT_EQ(join(Parts{}, ", "), "");
  EXPECT_EQ(trim(" \t\na b\r\n "), "a b");
  EXPECT_EQ(trim("  "), "");
}

}  // namespace
}  // namespace mica
