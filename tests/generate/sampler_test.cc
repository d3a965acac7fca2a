#include "generate/sampler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <random>

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

// A nucleus of thousands of tokens, and one of all.
TEST(Sampler, TopPOfManyTokens) {
  std::vector<float> logits(20000, 0);
  for (double top_p : {0.01, 0.1, 0.5, 0.9999}) {
    const auto expected = static_cast<int32_t>(std::ceil(top_p * 20000));
    int32_t largest = 0;
    for (uint64_t seed = 0; seed < 300; ++seed)
      largest =
          std::max(largest, draw({.temperature = 1, .top_p = top_p, .seed = seed}, logits, 1)[0]);
    EXPECT_LE(largest, expected) << top_p;  // equal tokens rank by their id
    EXPECT_GT(largest, expected * 9 / 10) << top_p;
  }
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

// --- Against the definition ----------------------------------------------------------------------

using Doubles = std::vector<double>;

struct Drawn {
  std::vector<float> logits;
  std::vector<int32_t> prompt, output;
  SamplingOptions options;
};

Doubles softmax(const Doubles& x) {
  double sum = 0;
  Doubles p;
  for (double value : x) p.push_back(std::exp(value));
  for (double value : p) sum += value;
  for (double& value : p) value /= sum;
  return p;
}

// Ids, likeliest first.
std::vector<size_t> ranked(const Doubles& p) {
  std::vector<size_t> order(p.size());
  for (size_t i = 0; i < p.size(); ++i) order[i] = i;
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return p[a] > p[b]; });
  return order;
}

// Step by step, with a softmax over the whole vocabulary after each; ruled out is -inf.
Doubles probabilities(const Drawn& d) {
  const SamplingOptions& o = d.options;
  Doubles x(d.logits.begin(), d.logits.end());
  for (auto [id, bias] : o.logit_bias) x[static_cast<size_t>(id)] += bias;
  std::map<int32_t, int> seen, written;
  for (int32_t id : d.prompt) ++seen[id];
  for (int32_t id : d.output) ++seen[id], ++written[id];
  for (auto [id, count] : seen) {
    double& logit = x[static_cast<size_t>(id)];
    logit = logit < 0 ? logit * o.repetition_penalty : logit / o.repetition_penalty;
  }
  for (auto [id, count] : written)
    x[static_cast<size_t>(id)] -= o.presence_penalty + o.frequency_penalty * count;
  for (double& logit : x) logit /= o.temperature;
  auto order = ranked(x);
  for (size_t i = 0; o.top_k > 0 && i < order.size(); ++i) {
    if (i >= static_cast<size_t>(o.top_k)) x[order[i]] = -INFINITY;
  }
  Doubles p = softmax(x);
  double before = 0;
  for (size_t i = 0; o.top_p < 1 && i < order.size(); ++i) {
    if (i > 0 && before >= o.top_p) x[order[i]] = -INFINITY;
    before += p[order[i]];
  }
  p = softmax(x);
  for (size_t i = 0; i < p.size(); ++i) {
    if (p[i] < o.min_p * p[order[0]]) x[i] = -INFINITY;
  }
  return softmax(x);
}

Drawn random_case(std::mt19937& random) {
  auto real = [&](double low, double high) {
    return std::uniform_real_distribution<double>(low, high)(random);
  };
  auto one_of = [&](std::initializer_list<double> values) {
    return *(values.begin() + std::uniform_int_distribution<size_t>(0, values.size() - 1)(random));
  };
  Drawn d;
  for (int i = 0; i < 12; ++i) d.logits.push_back(static_cast<float>(real(-3, 3)));
  for (int i = 0; i < 4; ++i) d.prompt.push_back(static_cast<int32_t>(real(0, 12)));
  for (int i = 0; i < 6; ++i) d.output.push_back(static_cast<int32_t>(real(0, 6)));
  d.options = {.temperature = one_of({0.3, 1, 2.5}),
               .top_k = static_cast<int64_t>(one_of({0, 3, 7, 100})),
               .top_p = one_of({0.35, 0.8, 1}),
               .min_p = one_of({0, 0.1, 0.4}),
               .repetition_penalty = one_of({0.8, 1, 1.7}),
               .presence_penalty = one_of({-0.5, 0, 1.2}),
               .frequency_penalty = one_of({0, 0.4}),
               .logit_bias = {{3, real(-2, 2)}, {7, one_of({-INFINITY, 1.5})}},
               .seed = random()};
  return d;
}

// One draw, after the sampler was led through the output.
int32_t drawn(const Drawn& d, uint64_t seed) {
  SamplingOptions options = d.options;
  options.seed = seed;
  Sampler sampler(options, d.prompt);
  for (int32_t id : d.output) {
    std::vector<float> only(d.logits.size(), -INFINITY);
    only[static_cast<size_t>(id)] = 100;
    EXPECT_EQ(sampler.sample(only), id);
  }
  std::vector<float> copy = d.logits;
  return sampler.sample(copy);
}

TEST(Sampler, DrawsWhatTheDefinitionSays) {
  std::mt19937 random(11);
  constexpr int kDraws = 4000;
  for (int round = 0; round < 40; ++round) {
    const Drawn d = random_case(random);
    const Doubles expected = probabilities(d);
    Doubles got(expected.size());
    for (int i = 0; i < kDraws; ++i) got[static_cast<size_t>(drawn(d, random()))] += 1.0 / kDraws;
    for (size_t i = 0; i < expected.size(); ++i) {
      EXPECT_NEAR(got[i], expected[i], 0.035) << round << ' ' << i;
      EXPECT_FALSE(expected[i] == 0 && got[i] > 0) << round << ' ' << i;
      EXPECT_FALSE(expected[i] > 0.01 && got[i] == 0) << round << ' ' << i;
    }
  }
}

TEST(Sampler, ExtremeLogitsAndTemperatures) {
  constexpr float kInf = INFINITY;
  // Temperatures that would overflow a quotient.
  EXPECT_EQ(draw({.temperature = 1e-320, .seed = 1}, {1, 5, 4, 5.001f}, 20),
            std::vector<int32_t>(20, 3));
  EXPECT_EQ(shares({.temperature = 1, .seed = 1}, {kInf, 5, kInf, NAN}).size(), 2u);
  EXPECT_EQ(shares({.temperature = 1, .seed = 1}, {-kInf, 5, 5, -kInf}).size(), 2u);
  EXPECT_EQ(shares({.temperature = 1e6, .top_p = 0.999999, .seed = 1}, {-kInf, 5, 5}).size(), 2u);
  EXPECT_EQ(draw({}, {NAN, 1, 2, NAN}, 1)[0], 2);
  for (double temperature : {0.0, 1.0}) {
    EXPECT_THROW(draw({.temperature = temperature}, {NAN, NAN}, 1), Error);
    EXPECT_THROW(draw({.temperature = temperature, .logit_bias = {{0, -kInf}}}, {1, -kInf}, 1),
                 Error);
  }
}

TEST(Sampler, BadOptionsAreErrors) {
  EXPECT_THROW(SamplingOptions{.temperature = -1}.check(10), Error);
  EXPECT_THROW(SamplingOptions{.top_p = 1.5}.check(10), Error);
  EXPECT_THROW(SamplingOptions{.repetition_penalty = 0}.check(10), Error);
  EXPECT_THROW((SamplingOptions{.logit_bias = {{10, 1}}}.check(10)), Error);
  EXPECT_THROW(SamplingOptions{.temperature = NAN}.check(10), Error);
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

TEST(Logprobs, NanComesLast) {
  std::vector<float> logits(1000, NAN);
  for (size_t i = 0; i < logits.size(); i += 3) logits[i] = static_cast<float>(i % 7);
  auto top = top_logprobs(logits, 1000);
  ASSERT_EQ(top.size(), 1000u);
  EXPECT_EQ(logits[static_cast<size_t>(top[0].first)], 6);
  for (size_t i = 334; i < top.size(); ++i)
    EXPECT_TRUE(std::isnan(logits[static_cast<size_t>(top[i].first)])) << i;
}

}  // namespace
}  // namespace mica::generate
