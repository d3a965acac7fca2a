// What configurations say in more than one way, and what absent keys and nulls mean.
#include <gtest/gtest.h>

#include "models/registry.h"

namespace mica::models {
namespace {

using Windows = std::vector<int64_t>;

// Of a model with four layers and four heads; `more` are further members.
ModelInfo info_of(const std::string& type, const std::string& more = "") {
  std::string text = R"({"model_type": ")" + type + R"(", "vocab_size": 16, "hidden_size": 32,
      "intermediate_size": 16, "num_hidden_layers": 4, "num_attention_heads": 4,
      "num_key_value_heads": 2, "head_dim": 8)";
  return make_model(Json::parse(text + (more.empty() ? "" : ", " + more) + "}"))->info();
}

// Elements of keys and values per position tell the number of key heads.
int64_t key_heads(const std::string& more) {
  std::string text = R"({"model_type": "qwen2", "vocab_size": 16, "hidden_size": 64,
      "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 8)";
  return make_model(Json::parse(text + more + "}"))->info().position_elements / 2 / 8;
}

TEST(Config, NullKeyHeadsAreAsManyAsHeads) {
  EXPECT_EQ(key_heads(R"(, "num_key_value_heads": 2)"), 2);
  EXPECT_EQ(key_heads(R"(, "num_key_value_heads": null)"), 8);
  EXPECT_THROW(key_heads(""), Error);  // 32 by default
}

TEST(Config, WindowsOfEveryLayer) {
  EXPECT_EQ(info_of("mistral").windows, Windows(4, 4096));
  EXPECT_EQ(info_of("mistral", R"("sliding_window": null)").windows, Windows(4, 0));
  EXPECT_EQ(info_of("mistral", R"("sliding_window": 7)").windows, Windows(4, 7));
  EXPECT_EQ(info_of("mixtral").windows, Windows(4, 0));
  EXPECT_EQ(info_of("phi3", R"("sliding_window": 7)").windows, Windows(4, 7));
  EXPECT_EQ(info_of("llama", R"("sliding_window": 7)").windows, Windows(4, 0));
}

TEST(Config, WindowsOfSomeLayers) {
  const std::string types = R"("layer_types": ["full_attention", "sliding_attention",
      "sliding_attention", "full_attention"])";
  EXPECT_EQ(info_of("gemma2", R"("sliding_window": 7)").windows, (Windows{7, 0, 7, 0}));
  EXPECT_EQ(info_of("gemma2", R"("sliding_window": 7, "layer_types": null)").windows,
            (Windows{7, 0, 7, 0}));
  EXPECT_EQ(info_of("gemma2", R"("sliding_window": 7, )" + types).windows, (Windows{0, 7, 7, 0}));
  EXPECT_EQ(info_of("mistral", R"("sliding_window": 7, )" + types).windows, (Windows{0, 7, 7, 0}));
  const std::string qwen = R"("sliding_window": 7, "max_window_layers": 3, "use_sliding_window": )";
  EXPECT_EQ(info_of("qwen2", qwen + "true").windows, (Windows{0, 0, 0, 7}));
  EXPECT_EQ(info_of("qwen3", qwen + "true").windows, (Windows{0, 0, 0, 7}));
  EXPECT_EQ(info_of("qwen2", qwen + "false").windows, Windows(4, 0));
  EXPECT_EQ(info_of("qwen3", qwen + "true, " + types).windows, (Windows{0, 7, 7, 0}));
}

TEST(Config, RopeOfPhi3UnderItsOlderNames) {
  for (const std::string type : {"longrope", "su", "yarn"}) {
    std::string rope = R"("original_max_position_embeddings": 16, "rope_scaling": {"type": ")" +
                       type + R"(", "short_factor": [1, 1, 1, 1], "long_factor": [2, 2, 2, 2]})";
    EXPECT_NO_THROW(info_of("phi3", rope)) << type;
  }
}

TEST(Config, RopeNamesItsTypeInEitherPlace) {
  for (const char* rope : {R"("rope_scaling": {"type": "linear", "factor": 2.0})",
                           R"("rope_scaling": {"rope_type": "linear", "factor": 2.0})",
                           R"("rope_parameters": {"rope_type": "linear", "factor": 2.0})",
                           R"("rope_scaling": null, "rope_parameters": null)"})
    EXPECT_NO_THROW(info_of("llama", rope)) << rope;
  EXPECT_THROW(info_of("llama", R"("rope_parameters": {"rope_type": "linear"})"), Error);
  EXPECT_THROW(info_of("llama", R"("rope_scaling": {"type": "linear"})"), Error);
}

}  // namespace
}  // namespace mica::models
