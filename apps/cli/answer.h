// The answer to one request: run, streamed or gathered, timed, and told as JSON or statistics.
#pragma once

#include <chrono>
#include <string>
#include <vector>

#include "generate/engine.h"

namespace mica::cli {

class Answer {
 public:
  // Time counts from here. Streams text to standard output unless `gather`.
  explicit Answer(bool gather) : gather_(gather) {}

  void loaded(int64_t weight_bytes);
  // Runs the request to its end, or until Ctrl-C after the step that it met. `has_text`: the engine
  // has a tokenizer; without one ids are streamed.
  void run(generate::Engine& engine, generate::Request request, bool has_text);

  int64_t length() const { return static_cast<int64_t>(prompt_.size() + tokens_.size()); }
  bool was_interrupted() const { return finish_ == generate::Finish::Interrupt; }
  // The object of `mica generate --format json`, on one line.
  std::string json() const;
  // "prompt 3 tokens, 120.1 tokens/s; ..."
  std::string statistics() const;

 private:
  using Clock = std::chrono::steady_clock;

  void take(generate::Event event);
  void stream(const generate::Event& event);
  double prompt_rate() const;
  double generation_rate() const;

  bool gather_, has_text_ = false, wants_logprobs_ = false, wants_prompt_logprobs_ = false;
  Clock::time_point start_ = Clock::now(), loaded_ = start_, first_ = start_, last_ = start_;
  int64_t weight_bytes_ = 0, cache_bytes_ = 0;
  std::vector<int32_t> prompt_;
  std::vector<generate::TokenInfo> tokens_;
  std::vector<std::vector<generate::TokenLogprob>> prompt_logprobs_;
  std::string text_;
  generate::Finish finish_ = generate::Finish::None;
};

}  // namespace mica::cli
