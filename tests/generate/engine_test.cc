// The engine on the default model: its expected answers, batches, stops, plans and memory.
#include "generate/engine.h"

#include <gtest/gtest.h>

#include <cmath>
#include <map>

#include "base/json.h"
#include "base/mapped_file.h"
#include "base/memory_info.h"
#include "core/counters.h"
#include "models/load.h"

namespace mica::generate {
namespace {

const std::string kFolder = MICA_ASSETS "/shakespeare-3m";

struct Setup {
  Json expected = Json::load(kFolder + "/expected.json");
  std::shared_ptr<models::Model> model =
      models::load_model(kFolder, {.activations = Dtype::F32}).model;
  std::shared_ptr<const tokenizers::Tokenizer> tokenizer =
      std::make_shared<tokenizers::Tokenizer>(tokenizers::Tokenizer::from_folder(kFolder));
};

Setup& setup() {
  static Setup instance;
  return instance;
}

struct Answer {
  std::vector<int32_t> ids;
  std::vector<TokenInfo> tokens;
  std::string text;
  Finish finish = Finish::None;
  std::vector<std::vector<TokenLogprob>> prompt_logprobs;
};

std::map<int64_t, Answer> run_all(Engine& engine) {
  std::map<int64_t, Answer> answers;
  while (engine.busy()) {
    for (Event& event : engine.step()) {
      Answer& answer = answers[event.request];
      if (event.token) {
        answer.ids.push_back(event.token->id);
        answer.tokens.push_back(*event.token);
      }
      answer.text += event.text;
      if (event.finish != Finish::None) answer.finish = event.finish;
      if (!event.prompt_logprobs.empty()) answer.prompt_logprobs = std::move(event.prompt_logprobs);
    }
  }
  return answers;
}

Answer run_one(const Request& request, EngineOptions options = {}) {
  Engine engine(setup().model, setup().tokenizer, options);
  int64_t id = engine.add(request);
  return run_all(engine)[id];
}

std::vector<int32_t> prompt_ids() {
  return setup().expected.get<std::vector<int32_t>>("prompt_ids");
}

TEST(DefaultModel, AnswersAsExpected) {
  auto greedy = setup().expected.get<std::vector<int32_t>>("greedy_ids");
  EXPECT_EQ(setup().tokenizer->encode(setup().expected.get<std::string>("prompt")), prompt_ids());
  Answer answer = run_one({.prompt = prompt_ids(),
                           .max_tokens = static_cast<int64_t>(greedy.size()),
                           .ignore_eos = true,
                           .logprobs = 5});
  EXPECT_EQ(answer.ids, greedy);
  EXPECT_EQ(answer.text, setup().expected.get<std::string>("greedy_text"));
  EXPECT_EQ(answer.finish, Finish::Length);
  auto top = setup().expected.at("top5").elements();
  ASSERT_EQ(answer.tokens[0].top.size(), top.size());
  for (size_t i = 0; i < top.size(); ++i) {
    EXPECT_EQ(answer.tokens[0].top[i].first, top[i].at(0).as<int32_t>());
    // Differences of logits are differences of log-probabilities.
    double logits = top[i].at(1).as<double>() - top[0].at(1).as<double>();
    EXPECT_NEAR(answer.tokens[0].top[i].second - answer.tokens[0].top[0].second, logits, 1e-3);
  }
}

TEST(Engine, RaggedRequestsAnswerAsTheyDoAlone) {
  std::vector<Request> requests;
  for (const char* text :
       {"ROMEO:", "O, what a rogue and peasant slave am I!\nKING", "A", "First Citizen:\n"}) {
    Request request{.prompt = setup().tokenizer->encode(text), .max_tokens = 40};
    if (requests.size() == 2) request.sampling = {.temperature = 0.8, .top_k = 20, .seed = 3};
    if (requests.size() == 3) request.max_tokens = 11;
    requests.push_back(request);
  }
  Engine engine(setup().model, setup().tokenizer, {.prefill_chunk = 5});
  std::vector<int64_t> ids;
  for (const Request& request : requests) ids.push_back(engine.add(request));
  auto together = run_all(engine);
  for (size_t i = 0; i < requests.size(); ++i) {
    Answer alone = run_one(requests[i]);
    EXPECT_EQ(together[ids[i]].ids, alone.ids) << i;
    EXPECT_EQ(together[ids[i]].text, alone.text) << i;
  }
}

TEST(Engine, MoreRequestsThanPlacesAllFinish) {
  Engine engine(setup().model, setup().tokenizer, {.max_batch = 2});
  for (int i = 0; i < 5; ++i) engine.add({.prompt = prompt_ids(), .max_tokens = 6 + i});
  auto answers = run_all(engine);
  ASSERT_EQ(answers.size(), 5u);
  for (auto& [id, answer] : answers) EXPECT_EQ(answer.ids.size(), static_cast<size_t>(5 + id));
}

TEST(Engine, DecodingKeepsItsPlanAndCopiesNothing) {
  Engine engine(setup().model, nullptr);
  engine.add({.prompt = prompt_ids(), .max_tokens = 200, .ignore_eos = true});
  for (int i = 0; i < 4; ++i) engine.step();
  reset_counters();
  for (int i = 0; i < 100; ++i) engine.step();
  Counters c = counters();
  EXPECT_EQ(c.plan_misses, 0);
  EXPECT_EQ(c.bytes_copied, 0);
  EXPECT_EQ(c.bytes_moved, 0);
}

TEST(Engine, StopsAtTextAcrossTokens) {
  Request request{.prompt = prompt_ids(), .max_tokens = 60, .stop = {"be a bawd"}};
  Answer answer = run_one(request);
  EXPECT_EQ(answer.finish, Finish::Stop);
  EXPECT_EQ(answer.text, "I am a bawd, and I'll not ");
}

TEST(Engine, StopsAtEosAndGoesOnWhenAsked) {
  auto greedy = setup().expected.get<std::vector<int32_t>>("greedy_ids");
  Request request{.prompt = prompt_ids(), .max_tokens = 20, .eos = {greedy[6], 1}};
  Answer answer = run_one(request);
  EXPECT_EQ(answer.finish, Finish::Stop);
  EXPECT_EQ(answer.ids, std::vector<int32_t>(greedy.begin(), greedy.begin() + 7));
  std::vector<int32_t> before(greedy.begin(), greedy.begin() + 6);
  EXPECT_EQ(answer.text, setup().tokenizer->decode(before));
  request.ignore_eos = true;
  EXPECT_EQ(run_one(request).ids, std::vector<int32_t>(greedy.begin(), greedy.begin() + 20));
}

TEST(Engine, PromptLogprobsPredictThePrompt) {
  auto greedy = setup().expected.get<std::vector<int32_t>>("greedy_ids");
  Request request{.prompt = prompt_ids(), .max_tokens = 1, .prompt_logprobs = 3};
  for (int i = 0; i < 10; ++i) request.prompt.push_back(greedy[static_cast<size_t>(i)]);
  for (EngineOptions options :
       {EngineOptions{}, EngineOptions{.prefill_chunk = 4}, EngineOptions{.use_cache = false}}) {
    Answer answer = run_one(request, options);
    ASSERT_EQ(answer.prompt_logprobs.size(), request.prompt.size());
    for (size_t i = 2; i < request.prompt.size(); ++i) {
      ASSERT_EQ(answer.prompt_logprobs[i].size(), 3u);
      EXPECT_EQ(answer.prompt_logprobs[i][0].first, greedy[i - 2]);
    }
  }
}

TEST(Engine, CancelEndsARequest) {
  Engine engine(setup().model, setup().tokenizer);
  int64_t id = engine.add({.prompt = prompt_ids(), .max_tokens = 100});
  for (int i = 0; i < 5; ++i) engine.step();
  engine.cancel(id);
  engine.cancel(999);
  Answer rest = run_all(engine)[id];
  EXPECT_EQ(rest.finish, Finish::Interrupt);
  EXPECT_TRUE(rest.ids.empty());
  EXPECT_FALSE(engine.busy());
}

TEST(Engine, TheContextEndsAnAnswer) {
  Answer answer = run_one({.prompt = prompt_ids(), .max_tokens = 100}, {.max_context = 10});
  EXPECT_EQ(answer.ids.size(), 7u);
  EXPECT_EQ(answer.finish, Finish::Length);
  // A prompt that fills it can be scored, not continued.
  Engine engine(setup().model, setup().tokenizer, {.max_context = 3});
  EXPECT_THROW(engine.add({.prompt = prompt_ids(), .max_tokens = 1}), Error);
  const int64_t id = engine.add({.prompt = prompt_ids(), .max_tokens = 0, .prompt_logprobs = 1});
  EXPECT_EQ(run_all(engine)[id].prompt_logprobs.size(), 3u);
}

// The same numbers, not only the same tokens: a seed would not reproduce otherwise.
TEST(Engine, SampledAnswersDoNotDependOnNeighbours) {
  for (Dtype dtype : {Dtype::F32, Dtype::BF16}) {
    auto model = models::load_model(kFolder, {.activations = dtype}).model;
    auto answers = [&](size_t from, size_t to) {
      Engine engine(model, setup().tokenizer, {.prefill_chunk = 6});
      std::map<int64_t, size_t> numbers;
      for (size_t i = from; i < to; ++i) {
        Request request{.prompt = std::vector<int32_t>(1 + 5 * i, 40 + static_cast<int32_t>(i)),
                        .max_tokens = 30,
                        .sampling = {.temperature = 1, .seed = i},
                        .ignore_eos = true,
                        .logprobs = 2};
        numbers[engine.add(request)] = i;
      }
      std::map<size_t, Answer> result;
      for (auto& [id, answer] : run_all(engine)) result[numbers[id]] = std::move(answer);
      return result;
    };
    auto together = answers(0, 5);
    for (size_t i = 0; i < 5; ++i) {
      const Answer alone = answers(i, i + 1)[i];
      ASSERT_EQ(together[i].ids, alone.ids) << i;
      for (size_t t = 0; t < alone.tokens.size(); ++t) {
        EXPECT_EQ(together[i].tokens[t].logprob, alone.tokens[t].logprob) << i << ' ' << t;
        EXPECT_EQ(together[i].tokens[t].top, alone.tokens[t].top) << i << ' ' << t;
      }
    }
  }
}

TEST(Engine, BadRequestsAreErrors) {
  Engine engine(setup().model, setup().tokenizer, {.max_context = 8});
  EXPECT_THROW(engine.add({.prompt = {}}), Error);
  EXPECT_THROW(engine.add({.prompt = {2048}}), Error);
  EXPECT_THROW(engine.add({.prompt = {-1}}), Error);
  EXPECT_THROW(engine.add({.prompt = std::vector<int32_t>(9, 5)}), Error);
  EXPECT_THROW(engine.add({.prompt = {5}, .sampling = {.top_p = 2}}), Error);
  EXPECT_FALSE(engine.busy());
  Engine without(setup().model, nullptr);
  EXPECT_THROW(without.add({.prompt = {5}, .stop = {"x"}}), Error);
}

TEST(Engine, NoTokensAsked) {
  Answer answer = run_one({.prompt = prompt_ids(), .max_tokens = 0});
  EXPECT_TRUE(answer.ids.empty());
  EXPECT_EQ(answer.finish, Finish::Length);
}

}  // namespace
}  // namespace mica::generate
