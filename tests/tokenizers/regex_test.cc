// Oniguruma's regular expressions run by PCRE2. What is expected is what Oniguruma 6.9.10 matched.
#include "tokenizers/regex.h"

#include <gtest/gtest.h>

#include <string>

#include "base/error.h"
#include "base/expect_error.h"

namespace mica::tokenizers {
namespace {

// The text with each match replaced by "|".
std::string marked(const std::string& pattern, const std::string& text) {
  std::string out;
  size_t last = 0;
  Regex(pattern).for_each_match(text, [&](size_t begin, size_t end) {
    out.append(text, last, begin - last).append("|");
    last = end;
  });
  return out + text.substr(last);
}

constexpr struct {
  const char* pattern;
  const char* text;
  const char* marked;
} kMatches[] = {
    {R"('s|'t| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)", "It's 10  o'clock!\n\n",
     "|||||||||"},
    {R"(\h+)", "xyz1f", "xyz|"},
    {R"(\H)", "0xf", "0|f"},
    {R"(\v)", "a\013b\n", "a|b\n"},
    {R"(\s)", "a\u180eb\u0085c\u00a0d", "a\u180eb|c|d"},
    {R"(\S+)", "a\u180e b", "| |"},
    {R"(\w+)", "ab_1\u00b2\u0301-", "|-"},
    {R"([\w]+)", "ab_1\u00b2-", "|\u00b2-"},
    {R"(\W)", "a\u00b2-", "a\u00b2|"},
    {R"(\b)", "ab, c", "|ab|, |c|"},
    {R"(\B)", "ab, c", "a|b,| c"},
    {R"(^)", "a\n\nb\n", "|a\n|\n|b\n"},
    {R"($)", "a\n\nb\n", "a|\n|\nb|\n|"},
    {R"(\Z)", "ab\n", "ab|\n|"},
    {R"(\z)", "ab\n", "ab\n|"},
    {R"(\A.)", "ab", "|b"},
    {R"(.+)", "a\nb", "|\n|"},
    {R"((?m:.+))", "a\nb", "|"},
    {R"((?m).)", "\n", "|"},
    {R"(\N)", "a\n", "|\n"},
    {R"(\O)", "a\n", "||"},
    {R"(\R)", "a\r\nb\u2028\013", "a|b||"},
    {R"(ab(?i)c|def)", "abC DEF def abDEF", "| DEF def |"},
    {R"(t(?i:HE))", "the THE tHE", "| THE |"},
    {R"((?i)a(?-i)b)", "Ab AB", "| AB"},
    {R"((?x) a b # c)", "ab", "|"},
    {R"(x(?#hello)y)", "xy", "|"},
    {R"(a{2}+)", "aaaaab", "|ab"},
    {R"(a{,2})", "aaab", "||b|"},
    {R"(a{2}?)", "aaab", "|a|b|"},
    {R"(a{3,1})", "aaaaa", "||"},
    {R"(a{1,3}?)", "aaa", "|||"},
    {R"(a**)", "baab", "|b|b|"},
    {R"(a{)", "a{1", "|1"},
    {R"(a{x})", "a{x}", "|"},
    {R"((?:ab){2,}+)", "ababab", "|"},
    {R"(a++b)", "aaab", "|"},
    {R"((?>a+)b)", "aab", "|"},
    {R"([a-z&&[^aeiou]]+)", "hello", "|e|o"},
    {R"([^a-z&&[^c-e]]+)", "abcde1", "ab|"},
    {R"([a[bc]]+)", "abcd", "|d"},
    {R"([^a[bc]]+)", "abcd", "abc|"},
    {R"([]a])", "]a", "||"},
    {R"([^]a])", "]ab", "]a|"},
    {R"([a\]b-])", "]-b", "|||"},
    {R"([\p{Han}&&[^\u4e00]])", "\u4e00\u4e8c", "\u4e00|"},
    {R"([^\S\r\n]+)", "a \t\nb", "a|\nb"},
    {R"([^\W\d]+)", "ab1_", "|1|"},
    {R"(\p{Han})", "\u3001\u4e00\u3007", "\u3001||"},
    {R"(\p{han})", "\u4e00", "|"},
    {R"(\p{^L})", "a1", "a|"},
    {R"(\P{^L})", "a1", "|1"},
    {R"(\pL)", "pLa", "|a"},
    {R"(\p{Letter})", "a1", "|1"},
    {R"(\p{Decimal_Number})", "a1", "a|"},
    {R"(\p{LC})", "aA\u4e2d", "||\u4e2d"},
    {R"(\p{Punct})", "$.\u00ab", "$||"},
    {R"([[:punct:]])", "$.\u00ab", "|||"},
    {R"([[:^punct:]])", "$.a", "$.|"},
    {R"([[:alpha:]]+)", "a\u0345\u24d01", "|1"},
    {R"([[:space:][:digit:]])", "1 \u0663a", "|||a"},
    {R"(\p{Alnum}+)", "a1-", "|-"},
    {R"(\p{Graph}+)", "a \u00e9", "| |"},
    {R"(\p{Print}+)", "a \002", "|\002"},
    {R"([[:xdigit:]])", "fg", "|g"},
    {R"(\p{Any})", "\n", "|"},
    {R"(\p{L})", "\U00031350\u1c89", "||"},
    {R"([^\p{L}])", "\U00031350a", "\U00031350a"},
    {R"(\p{N})", "\U00016d70", "|"},
    {R"(\u3042)", "\u3042", "|"},
    {R"(\x{3042})", "\u3042", "|"},
    {R"(\xe3\x81\x82)", "\u3042", "|"},
    {R"(\x41|\102|\cA)", "AB\001", "|||"},
    {R"(\t|\e|\a|\f)", "\t\033\007\014", "||||"},
    {R"(\i\Q)", "iQ", "|"},
    {R"(\/\-\_)", "/-_", "|"},
    {R"((?<n>[a-z])\k<n>)", "aab", "|b"},
    {R"(([a-z])\1)", "aab", "|b"},
    {R"((?<=a|bc)d)", "adbcdd", "a|bc|d"},
    {R"((?<!a)d)", "adbd", "adb|"},
    {R"((?=b))", "ab", "a|b"},
    {R"()", "ab", "|a|b|"},
    {R"(x*)", "axxb", "|a|b|"},
    {R"(o\Kf)", "of", "o|"},
    {R"((?i:[k]))", "\u212a", "|"},
    {R"((?i:\u00e5))", "\u212b", "|"},
    {R"((?i)'s)", "'\u017f", "|"},
    {R"(\d{1,3}(?=(?:\d{3})*\b))", "1234567 89", "||| |"},
    {R"([!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+)", "$abc.d", "||"},
    {R"([0-9\-a])", "-a", "||"},
    {R"([a-])", "-", "|"},
    {R"([a-b-c])", "-c", "||"},
    {R"(a||b)", "ab", "|b|"},
    {R"(())", "ab", "|a|b|"},
    {R"((?:)*)", "ab", "|a|b|"},
};

TEST(Regex, MatchesWhatOnigurumaMatches) {
  for (const auto& c : kMatches) EXPECT_EQ(marked(c.pattern, c.text), c.marked) << c.pattern;
}

TEST(Regex, RefusesWhatOnigurumaRefuses) {
  for (const char* pattern : {"(",
                              ")",
                              "a)",
                              "[",
                              "[a",
                              "[]",
                              "*a",
                              "a|*",
                              "\\",
                              "(?s).",
                              "(?P<n>a)",
                              "(?<1>a)",
                              "[b-a]",
                              "[a-\\d]",
                              "\\p{Foo}",
                              "\\p{L",
                              "\\p{Script=Han}",
                              "\\p{In Space}",
                              "[[:foo:]]",
                              "[[:alpha:]",
                              "\\x{110000}",
                              "\\x{d800}",
                              "\\xA0",
                              "\\u12",
                              "\\k<n>",
                              "\\k<",
                              "a{100000}",
                              "(?<n>a",
                              "(?z:a)",
                              "(?"}) {
    expect_error(ErrorKind::Value, "regular expression", [&] { Regex regex(pattern); });
  }
}

TEST(Regex, SaysWhatItDoesNotSupport) {
  for (const char* pattern : {"(?~ab)", "(?{x})", "(*FAIL)", "(?(1)a)", "(?W:a)", "\\y", "\\g<1>",
                              "\\G", "\\M-a", "\\x{61 62}"}) {
    expect_error(ErrorKind::Unsupported, "not supported", [&] { Regex regex(pattern); });
  }
}

TEST(Regex, HostilePatternsEndInAnError) {
  std::string nested(5000, '(');
  nested += std::string(5000, ')');
  std::string classes(5000, '[');
  std::string quantifiers = "a" + std::string(5000, '*');
  std::string boundaries;
  for (int i = 0; i < 20000; ++i) boundaries += "\\b";
  for (const std::string& pattern :
       {nested, classes, quantifiers, boundaries, "a{60000}{60000}{60000}" + std::string(),
        "(?:a{1000}){1000}" + std::string(), std::string(100000, 'a')}) {
    try {
      Regex regex(pattern);
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::Value) << error.what();
    }
  }
}

TEST(Regex, HostileSearchesEndInAnError) {
  const std::string text(3000, 'a');
  for (const char* pattern : {"(?:a+)+$b", "(?:a|a)*b", "(?:a|aa)+b", "(a*)*b\\1"}) {
    try {
      Regex(pattern).for_each_match(text, [](size_t, size_t) {});
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::Value) << error.what();
    }
  }
}

TEST(Regex, LongRunsAreNoTrouble) {
  // The run is tried by three alternatives, each of which may step back over all of it.
  const Regex words("\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+|\\S+");
  for (const std::string& text :
       {std::string(3'000'000, ' ') + "a", std::string(3'000'000, 'a'), std::string(1000, '\n')}) {
    size_t end = 0;
    words.for_each_match(text, [&](size_t begin, size_t match_end) {
      EXPECT_EQ(begin, end);
      end = match_end;
    });
    EXPECT_EQ(end, text.size());
  }
  // More of the machine's stack than there is; the interpreter takes over.
  EXPECT_EQ(marked("(?:(?:a|b)c)+",
                   [] {
                     std::string text;
                     for (int i = 0; i < 100'000; ++i) text += i % 2 ? "ac" : "bc";
                     return text;
                   }()),
            "|");
}

TEST(Regex, SearchesMayNest) {
  const Regex outer("\\S+");
  const Regex inner("[aeiou]");
  std::string found;
  const std::string text = "one two three";
  outer.for_each_match(text, [&](size_t begin, size_t end) {
    const std::string word = text.substr(begin, end - begin);
    inner.for_each_match(word, [&](size_t b, size_t e) { found += word.substr(b, e - b); });
    found += '/';
  });
  EXPECT_EQ(found, "oe/o/ee/");
}

}  // namespace
}  // namespace mica::tokenizers
