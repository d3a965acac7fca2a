#include "tune/perplexity.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "folder.h"
#include "tests/base/expect_error.h"

namespace mica::tune {
namespace {

using testing::config_of;
using testing::random_model;

std::vector<int32_t> some_ids(int64_t count) {
  std::vector<int32_t> ids;
  for (int64_t i = 0; i < count; ++i) ids.push_back(static_cast<int32_t>((i * 37 + i * i) % 96));
  return ids;
}

// -ln p of every token of a window but the first, in double, from one pass without a cache.
std::vector<double> losses_of(models::Model& model, std::vector<int32_t> ids) {
  nn::SequenceCache cache = model.make_cache(false);
  auto count = static_cast<int64_t>(ids.size());
  nn::Batch batch({&cache}, count);
  auto logits = model.forward(Array::from<int32_t>(ids, {1, count}), batch, models::LogitsAt::All)
                    .to_vector<float>();
  std::vector<double> losses;
  size_t vocabulary = logits.size() / ids.size();
  for (size_t i = 0; i + 1 < ids.size(); ++i) {
    std::span<const float> row(logits.data() + i * vocabulary, vocabulary);
    double total = 0;
    for (float logit : row) total += std::exp(double(logit) - double(row[0]));
    losses.push_back(std::log(total) + double(row[0]) - double(row[size_t(ids[i + 1])]));
  }
  return losses;
}

// The definition, written down again: the losses of all scored tokens.
std::vector<double> expected_losses(models::Model& model, const std::vector<int32_t>& ids,
                                    size_t context, size_t stride) {
  std::vector<double> all;
  std::vector<bool> held(ids.size());
  for (size_t begin = 0; begin < ids.size() && !held.back(); begin += stride) {
    size_t end = std::min(begin + context, ids.size());
    std::vector<double> losses;
    if (end - begin > 1) losses = losses_of(model, {ids.begin() + begin, ids.begin() + end});
    for (size_t i = begin; i < end; ++i) {
      if (!held[i] && i > begin) all.push_back(losses[i - begin - 1]);
      held[i] = true;
    }
  }
  return all;
}

void expect_result(const Perplexity& got, const std::vector<double>& losses) {
  auto n = static_cast<double>(losses.size());
  double mean = std::accumulate(losses.begin(), losses.end(), 0.0) / n, squares = 0;
  for (double loss : losses) squares += (loss - mean) * (loss - mean);
  EXPECT_EQ(got.scored, std::ssize(losses));
  EXPECT_NEAR(got.mean, mean, 2e-5 * mean);
  EXPECT_NEAR(got.mean_error, std::sqrt(squares / (n - 1) / n), 1e-4 * mean);
  EXPECT_DOUBLE_EQ(got.perplexity(), std::exp(got.mean));
  EXPECT_DOUBLE_EQ(got.error(), std::exp(got.mean) * got.mean_error);
}

struct Case {
  int64_t tokens, context, stride, batch, chunk;
};

class Definition : public ::testing::TestWithParam<Case> {};

TEST_P(Definition, ScoresEachTokenOnceGivenItsWindow) {
  auto [tokens, context, stride, batch, chunk] = GetParam();
  auto model = random_model(config_of("llama"));
  auto ids = some_ids(tokens);
  int64_t seen = 0;
  PerplexityOptions options{context, stride, batch, chunk, [&](int64_t n) { seen += n; }};
  Perplexity got = measure_perplexity(*model, ids, options);
  expect_result(
      got, expected_losses(*model, ids, size_t(context), size_t(stride == 0 ? context : stride)));
  EXPECT_EQ(seen, got.read);
  EXPECT_EQ(seen, tokens_to_read(tokens, options));
  if (stride > 0 && stride < context) {
    EXPECT_EQ(got.scored, tokens - 1);
  }
}

INSTANTIATE_TEST_SUITE_P(Perplexity, Definition,
                         ::testing::Values(Case{50, 16, 0, 1, 512},   // a shorter last window
                                           Case{48, 16, 16, 1, 5},    // in chunks
                                           Case{49, 16, 16, 2, 512},  // one token is left over
                                           Case{50, 16, 4, 1, 512},   // overlapping
                                           Case{61, 20, 7, 3, 6},     // all at once
                                           Case{33, 16, 1, 4, 3},     // one new token a window
                                           Case{10, 64, 0, 1, 512},   // shorter than a window
                                           Case{3, 2, 1, 1, 1}));

TEST(PerplexityTest, ATokenAloneHasNoError) {
  auto model = random_model(config_of("llama"));
  auto ids = some_ids(2);
  Perplexity got = measure_perplexity(*model, ids, {});
  EXPECT_EQ(got.scored, 1);
  EXPECT_EQ(got.windows, 1);
  EXPECT_EQ(got.mean_error, 0);
  EXPECT_NEAR(got.mean, losses_of(*model, ids)[0], 1e-4);
}

// Windows longer than what a layer sees, learned positions, frequencies that depend on the length.
TEST(PerplexityTest, FamiliesThatKeepLess) {
  for (auto [type, more] : {std::pair("mistral", R"(, "sliding_window": 6)"), std::pair("gpt2", ""),
                            std::pair("llama", R"(, "max_position_embeddings": 16,
            "rope_scaling": {"rope_type": "dynamic", "factor": 2.0})")}) {
    SCOPED_TRACE(type);
    auto model = random_model(config_of(type, more));
    auto ids = some_ids(70);
    for (int64_t chunk : {7, 512})
      expect_result(measure_perplexity(*model, ids, {.context = 30, .stride = 10, .chunk = chunk}),
                    expected_losses(*model, ids, 30, 10));
  }
}

TEST(PerplexityTest, RefusesWhatCannotBe) {
  auto model = random_model(config_of("gpt2"));
  auto refused = [&](std::string_view part, std::vector<int32_t> ids,
                     const PerplexityOptions& options) {
    expect_error(ErrorKind::Value, part, [&] { measure_perplexity(*model, ids, options); });
  };
  refused("a text of 1 tokens", {1}, {.context = 16});
  refused("id 96 at position 1 is outside of the vocabulary of 96", {1, 96}, {.context = 16});
  refused("id -1 at position 0", {-1, 1}, {.context = 16});
  refused("a context of 1 tokens", {1, 2}, {.context = 1});
  refused("between 1 and the context of 16, not 17", {1, 2}, {.context = 16, .stride = 17});
  refused("past the 64 positions", {1, 2}, {.context = 65});
  refused("at least 1 element", {1, 2}, {.context = 16, .batch = 0});
}

TEST(PerplexityTest, WhatIsNoNumberIsAnError) {
  class Spoil : public nn::Visitor {
   protected:
    void on_parameter(const std::string& key, Array& array, const Shape& shape) override {
      if (key != "model.norm.weight") return;
      array = Array::from<float>(std::vector<float>(size_t(elements(shape)), NAN), shape);
    }
  };
  auto model = random_model(config_of("llama"));
  Spoil().module("", *model);
  expect_error(ErrorKind::Value, "the token at position 1 is not a number",
               [&] { measure_perplexity(*model, some_ids(20), {.context = 16}); });
}

}  // namespace
}  // namespace mica::tune
