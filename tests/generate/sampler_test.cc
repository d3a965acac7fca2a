#include "generate/sampler.h"

#include <gtest/gtest.h>

#include <cmath>
#include <map>

#include "base/error.h"

namespace mica::generate {
namespace {

std::vector<int32_t> draw(const SamplingOptions& options, const std::vector<float>& logits,
                          int count, const std::vector<int32_t>& prompt = {}) {
  Sampler sampler(options, prompt);
  std::vector<int32_t> ids;
  for (int i = 0; i < count; ++i) {
    std::vector<float> copy = logits;
    ids.push_back(sampler.sample(copy));
  }
  return ids;
}

std::map<int32_t, double> shares(const SamplingOptions& options, const std::vector<float>& logits) {
  std::map<int32_t, double> result;
  Sampler sampler(options, {});
  for (int i = 0; i < 20000; ++i) {
    std::vector<float> copy = logits;
    result[sampler.sample(copy)] += 1 / 20000.0;
  }
  return result;
}

TEST(Sampler, GreedyTakesTheLargestAndTheLowestIdAmongEquals) {
  EXPECT_EQ(draw({}, {1, 3, 2}, 1)[0], 1);
  EXPECT_EQ(draw({}, {1, 3, 3}, 1)[0], 1);
}

TEST(Sampler, SeedsReproduce) {
  SamplingOptions options{.temperature = 1, .seed = 7};
  std::vector<float> logits(50, 0.0f);
  EXPECT_EQ(draw(options, logits, 100), draw(options, logits, 100));
  SamplingOptions other = options;
  other.seed = 8;
  EXPECT_NE(draw(options, logits, 100), draw(other, logits, 100));
}

TEST(Sampler, TemperatureShapesTheDistribution) {
  auto share = shares({.temperature = 2, .seed = 1}, {0, 2});
  EXPECT_NEAR(share[1], 1 / (1 + std::exp(-1.0)), 0.02);
}

TEST(Sampler, TopKKeepsTheBest) {
  auto share = shares({.temperature = 1, .top_k = 2, .seed = 1}, {1, 5, 4, 5});
  EXPECT_EQ(share.size(), 2u);
  EXPECT_NEAR(share[1], 0.5, 0.02);
}

TEST(Sampler, TopPKeepsTheSmallestSetThatReachesIt) {
  std::vector<float> logits = {std::log(0.5f), std::log(0.3f), std::log(0.2f)};
  EXPECT_EQ(shares({.temperature = 1, .top_p = 0.5, .seed = 1}, logits).size(), 1u);
  EXPECT_EQ(shares({.temperature = 1, .top_p = 0.6, .seed = 1}, logits).size(), 2u);
  EXPECT_EQ(shares({.temperature = 1, .top_p = 0, .seed = 1}, logits).size(), 1u);
}

TEST(Sampler, MinPIsRelativeToTheBest) {
  std::vector<float> logits = {std::log(0.6f), std::log(0.3f), std::log(0.1f)};
  EXPECT_EQ(shares({.temperature = 1, .min_p = 0.4, .seed = 1}, logits).size(), 2u);
}

TEST(Sampler, RepetitionCoversPromptAndOutputOncePerToken) {
  SamplingOptions options{.repetition_penalty = 2};
  EXPECT_EQ(draw(options, {3, 2}, 1, {0, 0, 0})[0], 1);  // 3 / 2 < 2
  EXPECT_EQ(draw(options, {-1, -1.5f}, 1, {0})[0], 1);   // -1 * 2 < -1.5
  EXPECT_EQ(draw(options, {3, 2}, 3), (std::vector<int32_t>{0, 1, 0}));
}

TEST(Sampler, PresenceAndFrequencyCoverTheOutput) {
  EXPECT_EQ(draw({.presence_penalty = 1.5}, {3, 2}, 3, {0}), (std::vector<int32_t>{0, 1, 0}));
  EXPECT_EQ(draw({.frequency_penalty = 0.6}, {3, 2}, 4, {0}), (std::vector<int32_t>{0, 0, 1, 0}));
}

TEST(Sampler, BiasComesFirst) {
  EXPECT_EQ(draw({.logit_bias = {{2, 10}}}, {1, 2, 3}, 1)[0], 2);
  EXPECT_EQ(draw({.logit_bias = {{2, -INFINITY}}}, {1, 2, 3}, 1)[0], 1);
}

TEST(Sampler, BadOptionsAreErrors) {
  EXPECT_THROW(SamplingOptions{.temperature = -1}.check(10), Error);
  EXPECT_THROW(SamplingOptions{.top_p = 1.5}.check(10), Error);
  EXPECT_THROW(SamplingOptions{.repetition_penalty = 0}.check(10), Error);
  EXPECT_THROW((SamplingOptions{.logit_bias = {{10, 1}}}.check(10)), Error);
  EXPECT_THROW(SamplingOptions{.temperature = NAN}.check(10), Error);
  EXPECT_THROW(draw({.temperature = 1}, {NAN, NAN}, 1), Error);
}

TEST(Logprobs, AreThoseOfTheSoftmax) {
  std::vector<float> logits = {0, std::log(3.0f), -1000};
  EXPECT_NEAR(logprob_of(logits, 1), std::log(0.75), 1e-6);
  auto top = top_logprobs(logits, 2);
  ASSERT_EQ(top.size(), 2u);
  EXPECT_EQ(top[0].first, 1);
  EXPECT_NEAR(top[1].second, std::log(0.25), 1e-6);
  EXPECT_EQ(top_logprobs(logits, 100).size(), 3u);
}

}  // namespace
}  // namespace mica::generate
