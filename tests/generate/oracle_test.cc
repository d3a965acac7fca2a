// Models against transformers: log-softmax at given positions and 16 greedy tokens, with every way
// to run.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "base/json.h"
#include "generate/engine.h"
#include "models/load.h"
#include "models/registry.h"
#include "oracle.h"

namespace mica::generate {
namespace {

struct Case {
  std::string folder;
  std::vector<int32_t> ids;
  std::vector<int64_t> positions;
  std::vector<std::vector<double>> logits;
  std::vector<int32_t> greedy;
};

Case read_case(const std::string& folder) {
  Json json = Json::load(folder + "/expected.json");
  return {folder, json.get<std::vector<int32_t>>("input_ids"),
          json.get<std::vector<int64_t>>("positions"),
          json.get<std::vector<std::vector<double>>>("logits"),
          json.get<std::vector<int32_t>>("greedy")};
}

std::vector<double> log_softmax(const std::vector<double>& row) {
  double top = *std::max_element(row.begin(), row.end()), sum = 0;
  for (double x : row) sum += std::exp(x - top);
  std::vector<double> result;
  for (double x : row) result.push_back(x - top - std::log(sum));
  return result;
}

// Largest difference of the log-softmax, relative to the expected row's largest magnitude.
double difference(const std::vector<double>& got, const std::vector<double>& expected) {
  auto a = log_softmax(got), b = log_softmax(expected);
  double magnitude = 0, worst = 0;
  for (size_t i = 0; i < b.size(); ++i) {
    magnitude = std::max(magnitude, std::abs(b[i]));
    worst = std::max(worst, std::isnan(a[i]) ? INFINITY : std::abs(a[i] - b[i]));
  }
  return worst / magnitude;
}

// Logits [L][V] of the case's ids, in chunks through a cache or at once without.
std::vector<std::vector<double>> logits_of(models::Model& model, const std::vector<int32_t>& ids,
                                           bool cached, int64_t chunk) {
  std::vector<std::vector<double>> rows;
  nn::SequenceCache cache = model.make_cache(cached);
  auto total = static_cast<int64_t>(ids.size());
  cache.expect(total);
  for (int64_t first = 0; first < total; first += chunk) {
    int64_t count = std::min(chunk, total - first);
    nn::Batch batch({&cache}, count);
    std::vector<int32_t> part(ids.begin() + first, ids.begin() + first + count);
    Array logits =
        model.forward(Array::from<int32_t>(part, {1, count}), batch, models::LogitsAt::All);
    auto values = logits.to_vector<double>();
    batch.advance();
    size_t width = values.size() / static_cast<size_t>(count);
    for (size_t i = 0; i < static_cast<size_t>(count); ++i)
      rows.emplace_back(values.begin() + static_cast<ptrdiff_t>(i * width),
                        values.begin() + static_cast<ptrdiff_t>((i + 1) * width));
  }
  return rows;
}

std::vector<int32_t> greedy(std::shared_ptr<models::Model> model, const Case& one,
                            EngineOptions options) {
  Engine engine(std::move(model), nullptr, options);
  engine.add({.prompt = one.ids,
              .max_tokens = static_cast<int64_t>(one.greedy.size()),
              .ignore_eos = true});
  std::vector<int32_t> ids;
  while (engine.busy()) {
    for (const Event& event : engine.step()) {
      if (event.token) ids.push_back(event.token->id);
    }
  }
  return ids;
}

std::vector<std::string> known_cases() {
  std::vector<std::string> cases;
  auto known = models::known_model_types();
  for (const std::string& folder : testing::oracle_cases("text")) {
    auto type = Json::load(folder + "/config.json").get<std::string>("model_type");
    if (std::find(known.begin(), known.end(), type) != known.end()) cases.push_back(folder);
  }
  return cases;
}

// A case that cannot be loaded or run fails, and the next one follows.
template <typename F>
void for_each_case(F&& check) {
  for (const std::string& folder : known_cases()) {
    try {
      Case one = read_case(folder);
      check(one, models::load_model(folder, {.activations = Dtype::F32, .exact = true}).model);
    } catch (const std::exception& error) {
      ADD_FAILURE() << folder << ": " << error.what();
    }
  }
}

TEST(TextOracle, EveryFamilyHasACase) {
  std::vector<std::string> types;
  for (const std::string& folder : known_cases())
    types.push_back(Json::load(folder + "/config.json").get<std::string>("model_type"));
  for (const std::string& type : models::known_model_types())
    EXPECT_TRUE(std::find(types.begin(), types.end(), type) != types.end()) << type;
  if (!std::getenv("MICA_ORACLES"))
    std::puts("MICA_ORACLES is not set: further cases of text models not run");
}

TEST(TextOracle, LogitsAreThoseOfTransformers) {
  struct Way {
    bool cached;
    int64_t chunk;
  };
  for_each_case([](const Case& one, const std::shared_ptr<models::Model>& model) {
    for (Way way : {Way{true, 1 << 20}, Way{true, 7}, Way{true, 1}, Way{false, 1 << 20}}) {
      auto rows = logits_of(*model, one.ids, way.cached, way.chunk);
      for (size_t i = 0; i < one.positions.size(); ++i) {
        EXPECT_LE(difference(rows[static_cast<size_t>(one.positions[i])], one.logits[i]), 2e-4)
            << one.folder << " position " << one.positions[i] << " cached " << way.cached
            << " chunk " << way.chunk;
      }
    }
  });
}

TEST(TextOracle, GreedyTokensAreThoseOfTransformers) {
  for_each_case([](const Case& one, const std::shared_ptr<models::Model>& model) {
    EXPECT_EQ(greedy(model, one, {}), one.greedy) << one.folder;
    EXPECT_EQ(greedy(model, one, {.prefill_chunk = 7}), one.greedy)
        << one.folder << " in chunks of 7";
    EXPECT_EQ(greedy(model, one, {.use_cache = false}), one.greedy)
        << one.folder << " without a cache";
  });
}

}  // namespace
}  // namespace mica::generate
