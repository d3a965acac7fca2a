// What a pass moves and computes, against sums by hand.
#include "models/traffic.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "models/load.h"
#include "models/random_model.h"
#include "models/shapes.h"
#include "random_model.h"

namespace mica::models {
namespace {

constexpr double kWidth = 128, kVocabulary = 512, kKeys = 64, kLayers = 2;

std::shared_ptr<Model> model_of(const char* shape) {
  return testing::random_model(shape_config(find_shape(shape)).dump());
}

TEST(Traffic, OfADenseModel) {
  auto model = model_of("tiny-llama");  // untied, float32, 256 wide in the feed-forward part
  const double layer = 2 * kWidth * kWidth + 2 * kWidth * kKeys + 3 * kWidth * 256;
  const double norms = (2 * kLayers + 1) * kWidth, head = kVocabulary * kWidth;
  const double matrices = kLayers * layer + norms + head;
  const double position = kLayers * 2 * kKeys;
  EXPECT_DOUBLE_EQ(decode_bytes(*model, 1, 0), 4 * (matrices + kWidth));
  EXPECT_DOUBLE_EQ(decode_bytes(*model, 3, 10), 4 * (matrices + 3 * kWidth + 3 * 10 * position));
  const double attention = kLayers * 4 * kWidth * (5 * 6 / 2);
  // Of the last layer only what makes keys, values and queries is for all tokens.
  const double above = kWidth * kWidth + 3 * kWidth * 256;
  EXPECT_DOUBLE_EQ(prompt_operations(*model, 5, 2),
                   2 * (5 * kLayers * layer - 3 * above + 2 * head) + attention);
  EXPECT_EQ(arithmetic_of(*model), Arithmetic::Float32);
}

TEST(Traffic, OfExperts) {
  auto model = model_of("tiny-moe");  // 8 experts of width 128, 2 of them per token
  const double expert = 3 * kWidth * 128, router = 8 * kWidth;
  const double layer = 2 * kWidth * kWidth + 2 * kWidth * kKeys + router;
  const double norms = (2 * kLayers + 1) * kWidth, head = kVocabulary * kWidth;
  auto bytes = [&](double tokens, double experts) {
    return 4 * (kLayers * (layer + experts * expert) + norms + head + tokens * kWidth);
  };
  EXPECT_DOUBLE_EQ(decode_bytes(*model, 1, 0), bytes(1, 2));
  EXPECT_DOUBLE_EQ(decode_bytes(*model, 2, 0), bytes(2, 8 * (1 - 0.75 * 0.75)));
  EXPECT_DOUBLE_EQ(prompt_operations(*model, 1, 1),
                   2 * (kLayers * (layer + 2 * expert) + head) + kLayers * 4 * kWidth);
  const double above = kWidth * kWidth + router + 2 * expert;
  EXPECT_DOUBLE_EQ(prompt_operations(*model, 3, 1),
                   2 * (3 * kLayers * (layer + 2 * expert) - 2 * above + head) +
                       kLayers * 4 * kWidth * (3 * 4 / 2));
}

TEST(Traffic, OfATiedHeadAndLearnedPositions) {
  auto model = testing::random_model(R"({"model_type": "gpt2", "vocab_size": 64, "n_embd": 16,
    "n_layer": 1, "n_head": 2, "n_positions": 32})");
  const double layer = 16 * 48 + 16 * 16 + 2 * 16 * 64, biases = 48 + 16 + 64 + 16;
  // The tied matrix is read for its logits; of the positions one row.
  EXPECT_DOUBLE_EQ(decode_bytes(*model, 1, 0), 4 * (64 * 16 + layer + biases + 6 * 16 + 16));
  EXPECT_DOUBLE_EQ(prompt_operations(*model, 2, 2),
                   2 * (2 * layer + 2 * 64 * 16) + 4 * 16 * (2 * 3 / 2));
}

TEST(Traffic, KnowsWhatProductsAreMadeOf) {
  auto arithmetic = [](int bits, bool exact) {
    char pattern[] = "/tmp/mica-traffic-XXXXXX";
    const std::string folder = mkdtemp(pattern);
    write_random_model(shape_config(find_shape("tiny-llama"), {.quantization = {{64, bits}}}),
                       folder);
    const Arithmetic found = arithmetic_of(*load_model(folder, {.exact = exact}).model);
    std::filesystem::remove_all(folder);
    return found;
  };
  EXPECT_EQ(arithmetic(4, false), Arithmetic::Int8);
  EXPECT_EQ(arithmetic(8, false), Arithmetic::Int8);
  EXPECT_EQ(arithmetic(4, true), Arithmetic::Bfloat16);
  EXPECT_EQ(arithmetic(6, false), Arithmetic::Bfloat16);
}

TEST(Traffic, WindowsBoundWhatIsSeen) {
  auto config = shape_config(find_shape("tiny-moe")).set("sliding_window", 4);
  auto model = testing::random_model(config.dump());
  auto full = model_of("tiny-moe");
  const double position = kLayers * 2 * kKeys * 4;
  EXPECT_DOUBLE_EQ(decode_bytes(*full, 1, 10) - decode_bytes(*model, 1, 10), 6 * position);
  // Of 10 queries six see fewer than all positions before: 1 + 2 + ... + 6 less.
  EXPECT_DOUBLE_EQ(prompt_operations(*full, 10, 1) - prompt_operations(*model, 10, 1),
                   kLayers * 4 * kWidth * (6 * 7 / 2));
}

}  // namespace
}  // namespace mica::models
