// Ragged requests together give the answers that they give alone, in every kind of decoder:
// experts, windows, learned positions, soft caps, parallel layers.
#include <gtest/gtest.h>

#include <cmath>
#include <map>

#include "generate/engine.h"
#include "random_model.h"

namespace mica::generate {
namespace {

std::string config_of(const std::string& type) {
  if (type == "gpt2")
    return R"({"model_type": "gpt2", "vocab_size": 96, "n_embd": 32, "n_layer": 2, "n_head": 2,
      "n_positions": 64})";
  return R"({"model_type": ")" + type + R"(", "vocab_size": 96, "hidden_size": 32,
    "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 4, "head_dim": 8,
    "num_key_value_heads": 2, "max_position_embeddings": 64, "sliding_window": 6,
    "num_local_experts": 5, "num_experts_per_tok": 2})";
}

Request request_of(int64_t length, int64_t tokens) {
  Request request{.max_tokens = tokens, .ignore_eos = true, .logprobs = 96};
  for (int64_t i = 0; i < length; ++i)
    request.prompt.push_back(static_cast<int32_t>((i * i * 5 + i + 11 * length) % 96));
  return request;
}

std::map<int64_t, std::vector<TokenInfo>> run(Engine& engine) {
  std::map<int64_t, std::vector<TokenInfo>> answers;
  while (engine.busy()) {
    for (const Event& event : engine.step()) {
      if (event.token) answers[event.request].push_back(*event.token);
    }
  }
  return answers;
}

class Ragged : public ::testing::TestWithParam<std::string_view> {};

TEST_P(Ragged, RequestsAnswerAsTheyDoAlone) {
  auto model = testing::random_model(config_of(std::string(GetParam())), 3);
  std::vector<Request> requests;
  for (auto [length, tokens] :
       {std::pair(3, 20), std::pair(17, 9), std::pair(1, 14), std::pair(30, 20), std::pair(8, 1)})
    requests.push_back(request_of(length, tokens));
  Engine engine(model, nullptr, {.prefill_chunk = 7, .max_batch = 4});
  for (const Request& request : requests) engine.add(request);
  auto together = run(engine);
  for (size_t i = 0; i < requests.size(); ++i) {
    Engine single(model, nullptr);
    single.add(requests[i]);
    const auto alone = run(single)[1], &with = together[static_cast<int64_t>(i) + 1];
    ASSERT_EQ(with.size(), alone.size()) << "request " << i;
    for (size_t t = 0; t < alone.size(); ++t) {
      EXPECT_EQ(with[t].id, alone[t].id) << "request " << i << ", token " << t;
      EXPECT_NEAR(with[t].logprob, alone[t].logprob, 1e-4) << "request " << i << ", token " << t;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Families, Ragged,
                         ::testing::Values("llama", "mistral", "mixtral", "gemma2", "qwen3", "phi",
                                           "phi3", "gpt2"),
                         [](const auto& info) { return std::string(info.param); });

}  // namespace
}  // namespace mica::generate
