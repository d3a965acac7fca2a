#include "core/tree.h"

#include <gtest/gtest.h>

#include "base/error.h"

namespace mica {
namespace {

Array number(float value) { return Array::from<float>({value}, {}); }

Tree sample() {
  return Tree::dict(
      {{"layers", Tree::list({Tree(number(0)), Tree::dict({{"w", Tree(number(1))}}), Tree()})},
       {"bias", Tree(number(2))}});
}

TEST(Tree, FlattensDepthFirst) {
  Arrays flat = sample().flatten();
  ASSERT_EQ(flat.size(), 3u);
  for (size_t i = 0; i < 3; ++i) EXPECT_EQ(flat[i].item<float>(), static_cast<float>(i));
}

TEST(Tree, NamesItsLeaves) {
  auto named = sample().named();
  ASSERT_EQ(named.size(), 3u);
  EXPECT_EQ(named[0].first, "layers.0");
  EXPECT_EQ(named[1].first, "layers.1.w");
  EXPECT_EQ(named[2].first, "bias");
}

TEST(Tree, UnflattensAndMapsInTheSameStructure) {
  Tree other = sample().unflatten({number(5), number(6), number(7)});
  EXPECT_EQ(other.named()[1].first, "layers.1.w");
  EXPECT_EQ(other.flatten()[1].item<float>(), 6);
  EXPECT_EQ((*(*other.as_dict())[0].second.as_list())[2].leaf()->defined(), false);
  Tree mapped = other.map([](const Array&) { return number(9); });
  EXPECT_EQ(mapped.flatten()[2].item<float>(), 9);
  EXPECT_THROW(other.unflatten({number(1)}), Error);
}

TEST(Tree, IsMadeFromNames) {
  auto named = sample().named();
  Tree tree = Tree::from_named(named);
  auto again = tree.named();
  ASSERT_EQ(again.size(), named.size());
  for (size_t i = 0; i < named.size(); ++i) {
    EXPECT_EQ(again[i].first, named[i].first);
    EXPECT_EQ(again[i].second.id(), named[i].second.id());
  }
  ASSERT_NE(tree.as_dict(), nullptr);
  EXPECT_NE((*tree.as_dict())[0].second.as_list(), nullptr);
  EXPECT_NE(Tree::from_named({{"", number(1)}}).leaf(), nullptr);
  // Numbers that do not count from 0 are keys.
  EXPECT_NE(Tree::from_named({{"1", number(1)}, {"3", number(1)}}).as_dict(), nullptr);
  EXPECT_THROW(Tree::from_named({{"a", number(1)}, {"a.b", number(1)}}), Error);
  EXPECT_THROW(Tree::from_named({{"a", number(1)}, {"a", number(1)}}), Error);
  std::string deep = "a";
  for (int i = 0; i < 100000; ++i) deep += ".a";
  EXPECT_THROW(Tree::from_named({{deep, number(1)}}), Error);
}

}  // namespace
}  // namespace mica
