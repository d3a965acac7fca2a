#include "generate/stop_text.h"

#include <gtest/gtest.h>

namespace mica::generate {
namespace {

std::string run(std::vector<std::string> stops, const std::vector<std::string>& pieces,
                bool* found = nullptr) {
  StopText stop(std::move(stops));
  std::string text;
  for (const std::string& piece : pieces) text += stop.add(piece);
  text += stop.finish();
  if (found) *found = stop.found();
  return text;
}

TEST(StopText, FindsStopsAcrossPieces) {
  bool found = false;
  EXPECT_EQ(run({"END"}, {"one E", "N", "D two"}, &found), "one ");
  EXPECT_TRUE(found);
  EXPECT_EQ(run({"aab"}, {"a", "a", "a", "b", "c"}), "a");
  EXPECT_EQ(run({"xyz", "y"}, {"x", "y", "z"}), "x");
}

TEST(StopText, HoldsBackOnlyWhatMayBeginAStop) {
  StopText stop({"\n\n"});
  EXPECT_EQ(stop.add("one\n"), "one");
  EXPECT_EQ(stop.add("two"), "\ntwo");
  EXPECT_EQ(stop.add("\n"), "");
  EXPECT_EQ(stop.finish(), "\n");
}

TEST(StopText, TheFirstStopWins) { EXPECT_EQ(run({"c", "b"}, {"abc"}), "a"); }

TEST(StopText, WithoutStopsAllPasses) {
  EXPECT_EQ(run({}, {"a", "b"}), "ab");
  EXPECT_EQ(run({""}, {"a", "b"}), "ab");
}

// Any cutting into pieces gives the same text.
TEST(StopText, PiecesDoNotMatter) {
  std::string text = "abababcabab";
  std::string expected = run({"ababc", "cc"}, {text});
  for (size_t size = 1; size < text.size(); ++size) {
    std::vector<std::string> pieces;
    for (size_t at = 0; at < text.size(); at += size) pieces.push_back(text.substr(at, size));
    EXPECT_EQ(run({"ababc", "cc"}, pieces), expected) << size;
  }
}

}  // namespace
}  // namespace mica::generate
