#include "tune/recipe.h"

#include <gtest/gtest.h>

#include "tests/base/expect_error.h"

namespace mica::tune {
namespace {

using nn::Quantization;

std::vector<std::string> llama_modules(int layers) {
  std::vector<std::string> modules{"model.embed_tokens"};
  for (int i = 0; i < layers; ++i) {
    for (const char* part :
         {"self_attn.q_proj", "self_attn.v_proj", "mlp.up_proj", "mlp.down_proj"})
      modules.push_back(fmt::format("model.layers.{}.{}", i, part));
  }
  modules.push_back("lm_head");
  return modules;
}

TEST(RecipeTest, ReadsRules) {
  LayerRule rule = parse_layer_rule("model.*.mlp=x=3:128");
  EXPECT_EQ(rule.pattern, "model.*.mlp=x");
  EXPECT_EQ(rule.bits, 3);
  EXPECT_EQ(rule.group_size, 128);
  EXPECT_EQ(parse_layer_rule("lm_head=8").group_size, std::nullopt);
  EXPECT_EQ(parse_layer_rule("lm_head=none").bits, std::nullopt);
  for (const char* text : {"lm_head", "=4", "lm_head=", "lm_head=7", "lm_head=4:", "lm_head=4:48",
                           "lm_head=4x", "lm_head=-4", "lm_head=None", "lm_head=99999999999"})
    expect_error(ErrorKind::Value, text, [&] { parse_layer_rule(text); });
}

TEST(RecipeTest, PatternsMatchNames) {
  auto is = [](const char* pattern, const char* module) {
    return matches(LayerRule{pattern, {}, {}}, module);
  };
  const char* down = "model.layers.10.mlp.down_proj";
  EXPECT_TRUE(is("down_proj", down));
  EXPECT_TRUE(is("mlp.down_proj", down));
  EXPECT_TRUE(is(down, down));
  EXPECT_FALSE(is("own_proj", down));
  EXPECT_FALSE(is("model.layers.10", down));
  EXPECT_TRUE(is("model.layers.1?.*", down));
  EXPECT_FALSE(is("model.layers.?.*", down));
  EXPECT_TRUE(is("*.down*", down));
  EXPECT_TRUE(is("*.mlp.*proj**", down));
  EXPECT_FALSE(is("*.mlp.*proj?", down));
  EXPECT_TRUE(is("*a*b*c", "xaxbxbcxc"));
  EXPECT_FALSE(is("*a*b*c", "xaxbxbcx"));
}

// The layers that mlx_lm.convert gives more bits, of 32 and of 4.
TEST(RecipeTest, MixedRecipesAreMlxs) {
  auto high_layers = [](int layers, const char* part) {
    QuantizationRecipe recipe{.standard = {32, 4}, .mixed = "mixed_2_6"};
    LayerChoice choice(recipe, llama_modules(layers), layers);
    EXPECT_EQ(choice.of("lm_head", 64), (Quantization{32, 6}));
    EXPECT_EQ(choice.of("model.embed_tokens", 64), (Quantization{32, 2}));
    std::vector<int> high;
    for (int i = 0; i < layers; ++i) {
      auto q = choice.of(fmt::format("model.layers.{}.{}", i, part), 64);
      EXPECT_EQ(q->group_size, 32);
      EXPECT_TRUE(q->bits == 6 || q->bits == 2);
      if (q->bits == 6) high.push_back(i);
    }
    return high;
  };
  std::vector<int> of_32{0, 1, 2, 3, 6, 9, 12, 15, 18, 21, 24, 27, 28, 29, 30, 31};
  EXPECT_EQ(high_layers(32, "mlp.down_proj"), of_32);
  EXPECT_EQ(high_layers(32, "self_attn.v_proj"), of_32);
  EXPECT_TRUE(high_layers(32, "self_attn.q_proj").empty());
  EXPECT_EQ(high_layers(4, "mlp.down_proj"), (std::vector<int>{2, 3}));
  for (auto [name, low, high] : {std::tuple("mixed_3_4", 3, 4), std::tuple("mixed_3_6", 3, 6),
                                 std::tuple("mixed_4_6", 4, 6)}) {
    QuantizationRecipe recipe{.standard = {64, 8}, .mixed = name};
    LayerChoice choice(recipe, llama_modules(8), 8);
    EXPECT_EQ(choice.of("lm_head", 64), (Quantization{64, high}));
    EXPECT_EQ(choice.of("model.layers.0.mlp.up_proj", 64), (Quantization{64, low}));
  }
}

TEST(RecipeTest, TheLastRuleThatMatchesWins) {
  QuantizationRecipe recipe{.standard = {64, 4}, .mixed = "mixed_2_6", .layers = {}};
  for (const char* rule : {"*.1.*=5:32", "down_proj=8", "model.layers.1.mlp.down_proj=none"})
    recipe.layers.push_back(parse_layer_rule(rule));
  LayerChoice choice(recipe, llama_modules(8), 8);
  EXPECT_EQ(choice.of("model.layers.1.mlp.up_proj", 64), (Quantization{32, 5}));
  EXPECT_EQ(choice.of("model.layers.2.mlp.down_proj", 64), (Quantization{64, 8}));
  EXPECT_EQ(choice.of("model.layers.1.mlp.down_proj", 64), std::nullopt);
  EXPECT_EQ(choice.of("model.layers.2.mlp.up_proj", 64), (Quantization{64, 2}));
}

TEST(RecipeTest, WhatFillsNoGroupStaysDense) {
  QuantizationRecipe recipe{.standard = {64, 4}, .layers = {parse_layer_rule("lm_head=8:128")}};
  LayerChoice choice(recipe, llama_modules(1), 1);
  EXPECT_EQ(choice.of("model.embed_tokens", 96), std::nullopt);
  EXPECT_EQ(choice.of("model.embed_tokens", 128), (Quantization{64, 4}));
  expect_error(ErrorKind::Value, "'lm_head' has 64 columns", [&] { choice.of("lm_head", 64); });
  // Three bits of 16 columns end inside a word.
  QuantizationRecipe small{.standard = {16, 3}};
  EXPECT_EQ(LayerChoice(small, {}, 1).of("x", 48), std::nullopt);
  EXPECT_EQ(LayerChoice(small, {}, 1).of("x", 64), (Quantization{16, 3}));
}

TEST(RecipeTest, WhatMatchesNothingIsAnError) {
  auto refused = [](std::string_view part, const QuantizationRecipe& recipe) {
    expect_error(ErrorKind::Value, part, [&] { LayerChoice(recipe, llama_modules(2), 2); });
  };
  refused("matches 'lm_hed'; did you mean 'lm_head'?", {.layers = {parse_layer_rule("lm_hed=8")}});
  refused("matches '*.experts.*'", {.layers = {parse_layer_rule("*.experts.*=8")}});
  refused("'mixed_1_2' is not known; known: mixed_2_6", {.mixed = "mixed_1_2"});
  expect_error(ErrorKind::Value, "which this model does not have", [] {
    LayerChoice(QuantizationRecipe{.mixed = "mixed_2_6"}, {"transformer.h.0.mlp.c_proj"}, 1);
  });
}

}  // namespace
}  // namespace mica::tune
