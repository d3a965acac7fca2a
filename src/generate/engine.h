// Engine: the one decode loop, with continuous batching. It serves the command line, Python and
// servers.
//
//   Engine engine(model, tokenizer);          // tokenizer may be null: ids in, ids out
//   int64_t id = engine.add(request);
//   while (engine.busy()) {
//     for (const Event& event : engine.step()) …
//   }
//
// A step prefills one chunk of one waiting request, or decodes one token of all running ones
// together. A sequence whose rotary frequencies change as it grows (nn/cache/cache.h) is prefilled
// again, so that its answer is that of a run without a cache: once for longrope, at every token
// past the maximum for dynamic. Requests do not influence each other's answers: each has its own
// cache, sampler and text.
#pragma once

#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "generate/sampler.h"
#include "models/model.h"
#include "models/settle.h"
#include "tokenizers/tokenizer.h"

namespace mica::generate {

struct Request {
  std::vector<int32_t> prompt;  // not empty
  int64_t max_tokens = 512;
  SamplingOptions sampling;
  std::vector<int32_t> eos;       // ids that end the answer
  bool ignore_eos = false;        // go on after them
  std::vector<std::string> stop;  // texts that end the answer; need a tokenizer
  int64_t logprobs = -1;          // alternatives per generated token; -1: no log-probabilities
  int64_t prompt_logprobs = -1;   // the same per prompt position
};

enum class Finish { None, Stop, Length, Interrupt };
const char* finish_name(Finish finish);  // "stop", "length", "interrupt"

struct TokenInfo {
  int32_t id = 0;
  float logprob = 0;  // before bias, penalties and temperature; set if logprobs >= 0
  std::vector<TokenLogprob> top;
};

// What a step did for one request.
struct Event {
  int64_t request = 0;
  std::optional<TokenInfo> token;
  std::string text;  // final text that this token completed, perhaps of earlier ones too
  Finish finish = Finish::None;
  // On the first event of a request: per prompt position the best next tokens after it.
  std::vector<std::vector<TokenLogprob>> prompt_logprobs;
};

struct EngineOptions {
  int64_t prefill_chunk = 512;
  int64_t max_context = 0;  // positions per sequence; 0: what the model allows
  bool use_cache = true;    // false: every step computes the whole sequence again
  int64_t max_batch = 64;   // sequences decoded together
  bool settle = true;       // weights move to huge pages after some passes (models/settle.h)
};

class Engine {
 public:
  Engine(std::shared_ptr<models::Model> model,
         std::shared_ptr<const tokenizers::Tokenizer> tokenizer, EngineOptions options = {});
  ~Engine();

  // Takes a request; ValueError for ids outside the vocabulary, an empty prompt, options out of
  // range, or a prompt longer than the context.
  int64_t add(Request request);
  // Ends a request; its last event says Interrupt. Unknown ids are ignored.
  void cancel(int64_t request);
  bool busy() const;
  // When a pass fails its error is thrown, and the requests that took part are gone.
  std::vector<Event> step();
  // Bytes of all caches, and the most that they had after a step.
  int64_t cache_bytes() const;
  int64_t peak_cache_bytes() const { return peak_cache_bytes_; }
  // Longest sequence that a request may reach.
  int64_t context_limit() const;

 private:
  struct Sequence;

  Sequence* next_to_prefill();
  void prefill(Sequence& sequence, std::vector<Event>& events);
  void decode(std::vector<Event>& events);
  Event accept(Sequence& sequence, std::span<float> logits);
  void finish_text(Sequence& sequence, Event& event);
  void drop_finished();
  Array run(const std::vector<int32_t>& ids, nn::Batch& batch, models::LogitsAt at);

  std::shared_ptr<models::Model> model_;
  std::shared_ptr<const tokenizers::Tokenizer> tokenizer_;
  EngineOptions options_;
  std::optional<models::Settler> settler_;
  std::vector<std::unique_ptr<Sequence>> sequences_;
  std::vector<Event> pending_;  // of cancelled requests
  int64_t next_request_ = 1;
  bool decode_next_ = false;  // after a chunk of a restarted sequence
  int64_t peak_cache_bytes_ = 0;
};

}  // namespace mica::generate
