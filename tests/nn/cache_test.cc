// Caches cut back: a sequence that takes other tokens from a position on.
#include "nn/cache/cache.h"

#include <gtest/gtest.h>

#include <random>

#include "base/error.h"

namespace mica::nn {
namespace {

constexpr int64_t kHeads = 2, kDims = 8;

Array random_heads(int64_t tokens, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> noise;
  std::vector<float> values(static_cast<size_t>(kHeads * tokens * kDims));
  for (float& value : values) value = noise(random);
  return Array::from<float>(values, {1, kHeads, tokens, kDims});
}

// One layer's outputs for tokens made of the seed.
std::vector<float> take(SequenceCache& cache, int64_t tokens, unsigned seed) {
  Batch batch({&cache}, tokens);
  Array x = random_heads(tokens, seed);
  auto values = batch.attend(0, x, x, x, {.scale = 0.3f}).to_vector<float>();
  batch.advance();
  return values;
}

// 300 positions in passes of 50: a ring has 256 rows then, and has wrapped.
void fill(SequenceCache& cache) {
  for (unsigned seed = 10; seed < 16; ++seed) take(cache, 50, seed);
}

SequenceCache sliding(int64_t window) {
  std::vector<std::unique_ptr<LayerCache>> layers;
  layers.push_back(window > 0 ? sliding_cache(window) : full_cache());
  return SequenceCache(std::move(layers), nullptr);
}

TEST(Cache, GoesOnFromWhereItWasCutBack) {
  for (int64_t window : {0, 5}) {
    SequenceCache straight = sliding(window), cut = sliding(window);
    fill(straight);
    fill(cut);
    take(cut, 40, 2);
    cut.trim(300);
    EXPECT_EQ(cut.length(), 300);
    EXPECT_EQ(take(cut, 7, 3), take(straight, 7, 3)) << "window " << window;
  }
}

TEST(Cache, ForgetsEverything) {
  SequenceCache fresh = sliding(5), again = sliding(5);
  fill(again);
  again.trim(0);
  EXPECT_EQ(take(again, 9, 3), take(fresh, 9, 3));
}

TEST(Cache, RefusesPositionsThatTheRingNoLongerHas) {
  SequenceCache cache = sliding(5);
  fill(cache);
  EXPECT_THROW(cache.trim(20), Error);
  // The last ones of 300 - 256 on are there; position 48 sees 44 … 48.
  EXPECT_NO_THROW(cache.trim(48));
}

}  // namespace
}  // namespace mica::nn
