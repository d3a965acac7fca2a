// Rotary frequencies that depend on the length: sequences that grow past the original length answer
// as a run without a cache does.
#include <gtest/gtest.h>

#include <cmath>
#include <map>

#include "generate/engine.h"
#include "random_model.h"

namespace mica::generate {
namespace {

// The original length is 16 for all types.
std::string config_of(const std::string& rope, const std::string& window) {
  return R"({"model_type": "mistral", "vocab_size": 64, "hidden_size": 32, "intermediate_size": 48,
    "num_hidden_layers": 3, "num_attention_heads": 2, "num_key_value_heads": 1, "rope_theta": 100.0,
    "sliding_window": )" +
         window + R"(, "rope_scaling": )" + rope + "}";
}
const std::string kLongrope = R"({"rope_type": "longrope", "original_max_position_embeddings": 16,
  "short_factor": [1, 1, 1, 1, 1, 1, 1, 1], "long_factor": [1.5, 2, 2.5, 3, 3.5, 4, 4.5, 5]},
  "max_position_embeddings": 64)";
const std::string kDynamic =
    R"({"rope_type": "dynamic", "factor": 4.0}, "max_position_embeddings": 16)";

Request request_of(int64_t length, int64_t tokens = 12) {
  Request request{.max_tokens = tokens, .ignore_eos = true, .logprobs = 64};
  for (int64_t i = 0; i < length; ++i)
    request.prompt.push_back(static_cast<int32_t>((i * i * 7 + i * 3 + length) % 64));
  return request;
}

// The tokens of each request, in order, with the log-probabilities of the whole vocabulary.
std::map<int64_t, std::vector<TokenInfo>> run(Engine& engine,
                                              const std::vector<Request>& requests) {
  for (const Request& request : requests) engine.add(request);
  std::map<int64_t, std::vector<TokenInfo>> answers;
  while (engine.busy()) {
    for (const Event& event : engine.step()) {
      if (event.token) answers[event.request].push_back(*event.token);
    }
  }
  return answers;
}

void expect_same(const std::vector<TokenInfo>& got, const std::vector<TokenInfo>& expected,
                 const std::string& what) {
  ASSERT_EQ(got.size(), expected.size()) << what;
  for (size_t i = 0; i < got.size(); ++i) {
    EXPECT_EQ(got[i].id, expected[i].id) << what << ", token " << i;
    std::map<int32_t, float> logprobs(expected[i].top.begin(), expected[i].top.end());
    double worst = 0;
    for (auto [id, logprob] : got[i].top)
      worst = std::max(worst, std::abs(double(logprob) - double(logprobs.at(id))));
    EXPECT_LT(worst, 1e-4) << what << ", token " << i;
  }
}

class RopeLength : public ::testing::TestWithParam<std::string_view> {
 protected:
  std::shared_ptr<models::Model> model =
      testing::random_model(config_of(GetParam().starts_with("dynamic") ? kDynamic : kLongrope,
                                      GetParam().ends_with("Sliding") ? "5" : "null"),
                            5);

  std::vector<TokenInfo> uncached(const Request& request) {
    Engine engine(model, nullptr, {.use_cache = false});
    return run(engine, {request})[1];
  }
};

TEST_P(RopeLength, CachedAnswersAreThoseOfARunWithoutACache) {
  // Past the original length while decoding, right after the prompt, and within the prompt.
  for (int64_t length : {1, 10, 15, 16, 17, 30}) {
    Request request = request_of(length);
    auto expected = uncached(request);
    for (int64_t chunk : {512, 7, 4, 1}) {
      Engine engine(model, nullptr, {.prefill_chunk = chunk});
      expect_same(run(engine, {request})[1], expected,
                  std::to_string(length) + " tokens in chunks of " + std::to_string(chunk));
    }
  }
}

TEST_P(RopeLength, RaggedRequestsAnswerAsTheyDoAlone) {
  std::vector<Request> requests;
  for (int64_t length : {3, 15, 30, 16, 9}) requests.push_back(request_of(length, length));
  for (int64_t places : {64, 2}) {
    Engine engine(model, nullptr, {.prefill_chunk = 6, .max_batch = places});
    auto together = run(engine, requests);
    for (size_t i = 0; i < requests.size(); ++i)
      expect_same(together[static_cast<int64_t>(i) + 1], uncached(requests[i]),
                  "request " + std::to_string(i));
  }
}

TEST_P(RopeLength, PromptLogprobsComeOnce) {
  Request request = request_of(16);
  request.prompt_logprobs = 2;
  Engine engine(model, nullptr, {.prefill_chunk = 5});
  engine.add(request);
  size_t rows = 0;
  while (engine.busy()) {
    for (const Event& event : engine.step()) rows += event.prompt_logprobs.size();
  }
  EXPECT_EQ(rows, 16u);
}

INSTANTIATE_TEST_SUITE_P(Types, RopeLength,
                         ::testing::Values("longrope", "longropeSliding", "dynamic",
                                           "dynamicSliding"),
                         [](const auto& info) { return std::string(info.param); });

TEST(RopeLength, RestartsLeaveOthersTheirTurn) {
  auto model = testing::random_model(config_of(kDynamic, "null"));
  Engine engine(model, nullptr);
  // Two that restart at every token, one that does not.
  for (int64_t length : {20, 20, 2}) engine.add(request_of(length, 12));
  std::map<int64_t, int> tokens;
  for (int i = 0; i < 15; ++i) {
    for (const Event& event : engine.step()) ++tokens[event.request];
  }
  for (int64_t id : {1, 2, 3}) EXPECT_GE(tokens[id], 4) << id;
}

TEST(RopeLength, ARingThatHasWrappedStartsAgain) {
  auto model = testing::random_model(
      R"({"model_type": "mistral", "vocab_size": 64, "hidden_size": 16, "intermediate_size": 16,
      "num_hidden_layers": 2, "num_attention_heads": 1, "num_key_value_heads": 1,
      "max_position_embeddings": 600,
      "sliding_window": 9, "rope_scaling": {"rope_type": "longrope",
      "original_max_position_embeddings": 520, "short_factor": [1, 1, 1, 1, 1, 1, 1, 1],
      "long_factor": [2, 2, 2, 2, 2, 2, 2, 2]}})");
  Request request = request_of(518, 5);
  Engine with(model, nullptr, {.prefill_chunk = 64}), without(model, nullptr, {.use_cache = false});
  expect_same(run(with, {request})[1], run(without, {request})[1], "518 tokens");
}

}  // namespace
}  // namespace mica::generate
