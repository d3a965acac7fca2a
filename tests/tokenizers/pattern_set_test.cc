#include "tokenizers/pattern_set.h"

#include <gtest/gtest.h>

#include <random>
#include <string>
#include <tuple>
#include <vector>

namespace mica::tokenizers {
namespace {

using Matches = std::vector<std::tuple<size_t, size_t, int32_t>>;
using Patterns = std::vector<std::pair<std::string, int32_t>>;

Matches matches(const PatternSet& set, const std::string& text) {
  Matches out;
  set.for_each_match(
      text, [&](size_t begin, size_t end, int32_t value) { out.emplace_back(begin, end, value); });
  return out;
}

// At each position the longest pattern, then on after it.
Matches slow_matches(const Patterns& patterns, const std::string& text) {
  Matches out;
  for (size_t at = 0; at < text.size();) {
    size_t length = 0;
    int32_t value = -1;
    for (const auto& [pattern, number] : patterns) {
      if (pattern.size() >= length && !pattern.empty() &&
          text.compare(at, pattern.size(), pattern) == 0) {
        length = pattern.size();
        value = number;
      }
    }
    if (value >= 0) out.emplace_back(at, at + length, value);
    at += value >= 0 ? length : 1;
  }
  return out;
}

TEST(PatternSet, FindsTheLeftmostLongest) {
  const PatternSet set({{"<|end|>", 1}, {"<|endoftext|>", 2}, {"|", 3}, {"end", 4}, {"", 5}});
  EXPECT_EQ(matches(set, "<|end|> <|end <|endoftext|>"),
            (Matches{{0, 7, 1}, {9, 10, 3}, {10, 13, 4}, {14, 27, 2}}));
  EXPECT_EQ(matches(set, ""), Matches{});
  EXPECT_TRUE(PatternSet().empty());
  EXPECT_EQ(matches(PatternSet(), "abc"), Matches{});
}

TEST(PatternSet, AgreesWithASlowSearch) {
  std::mt19937 random(1);
  const auto draw = [&](size_t most, const char* letters, unsigned count) {
    std::string text;
    for (size_t n = random() % (most + 1); n > 0; --n) text += letters[random() % count];
    return text;
  };
  for (int round = 0; round < 2000; ++round) {
    Patterns patterns;
    for (int32_t i = 0; i < 1 + static_cast<int32_t>(random() % 8); ++i) {
      patterns.emplace_back(draw(6, "ab\xff", 3), i);
    }
    const PatternSet set(patterns);
    const std::string text = draw(60, "aab\xff", 4);
    ASSERT_EQ(matches(set, text), slow_matches(patterns, text)) << round;
  }
}

}  // namespace
}  // namespace mica::tokenizers
