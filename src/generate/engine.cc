#include "generate/engine.h"

#include <algorithm>

#include "generate/stop_text.h"
#include "ops/elementwise.h"
#include "ops/shape.h"

namespace mica::generate {

using models::LogitsAt;

const char* finish_name(Finish finish) {
  switch (finish) {
    case Finish::Stop: return "stop";
    case Finish::Length: return "length";
    case Finish::Interrupt: return "interrupt";
    case Finish::None: break;
  }
  return "none";
}

struct Engine::Sequence {
  int64_t id;
  Request request;
  nn::SequenceCache cache;
  Sampler sampler;
  StopText stop;
  std::optional<tokenizers::StreamDecoder> decoder;
  std::vector<int32_t> ids;  // prompt, then output
  int64_t generated = 0;
  int64_t prefilled = 0;   // of `ids`, in this run over them
  int64_t to_prefill = 0;  // the prompt; after a restart all ids so far
  bool finished = false;
  std::vector<std::vector<TokenLogprob>> prompt_logprobs;

  bool waiting() const { return prefilled < to_prefill; }
  bool restarted() const { return waiting() && generated > 0; }
};

Engine::Engine(std::shared_ptr<models::Model> model,
               std::shared_ptr<const tokenizers::Tokenizer> tokenizer, EngineOptions options)
    : model_(std::move(model)), tokenizer_(std::move(tokenizer)), options_(options) {
  if (options_.prefill_chunk < 1)
    throw_value("prefill chunk must be at least 1, got {}", options_.prefill_chunk);
  if (options_.max_context < 0)
    throw_value("max context must not be negative, got {}", options_.max_context);
  if (options_.settle) settler_.emplace(*model_);
}

Engine::~Engine() = default;

int64_t Engine::context_limit() const {
  const auto& info = model_->info();
  int64_t limit = options_.max_context > 0 ? options_.max_context : INT64_MAX;
  if (info.learned_positions) limit = std::min(limit, info.max_positions);
  return limit;
}

int64_t Engine::add(Request request) {
  int64_t vocabulary = model_->info().vocabulary;
  auto length = static_cast<int64_t>(request.prompt.size());
  if (length == 0) throw_value("the prompt is empty: at least one token is needed");
  for (int64_t i = 0; i < length; ++i) {
    const int32_t id = request.prompt[static_cast<size_t>(i)];
    if (id < 0 || id >= vocabulary)
      throw_value(
          "prompt: id {} at position {} is outside of the vocabulary of {} tokens (0 to {})", id, i,
          vocabulary, vocabulary - 1);
  }
  if (const int64_t room = context_limit() - length; room < 0 || (room == 0 && request.max_tokens))
    throw_value("the prompt has {} tokens, the context has room for {}{}{}", length,
                context_limit(), room == 0 ? ", none for new ones" : "",
                context_limit() == options_.max_context
                    ? ""
                    : " (this model has learned positions, which end there)");
  if (request.max_tokens < 0)
    throw_value("max tokens must not be negative, got {}", request.max_tokens);
  if (!request.stop.empty() && !tokenizer_)
    throw_value("stop strings need a tokenizer, and this model has none");
  request.sampling.check(vocabulary);
  auto sequence = std::make_unique<Sequence>(Sequence{next_request_,
                                                      {},
                                                      model_->make_cache(options_.use_cache),
                                                      Sampler(request.sampling, request.prompt),
                                                      StopText(request.stop),
                                                      std::nullopt,
                                                      request.prompt});
  sequence->cache.expect(length);
  sequence->to_prefill = length;
  if (tokenizer_) sequence->decoder.emplace(*tokenizer_, true);
  sequence->request = std::move(request);
  sequences_.push_back(std::move(sequence));
  return next_request_++;
}

void Engine::cancel(int64_t request) {
  for (auto& sequence : sequences_) {
    if (sequence->id != request || sequence->finished) continue;
    sequence->finished = true;
    Event event{.request = request, .finish = Finish::Interrupt};
    finish_text(*sequence, event);
    pending_.push_back(std::move(event));
  }
  drop_finished();
}

bool Engine::busy() const { return !sequences_.empty() || !pending_.empty(); }

int64_t Engine::cache_bytes() const {
  int64_t total = 0;
  for (const auto& sequence : sequences_) total += sequence->cache.bytes();
  return total;
}

std::vector<Event> Engine::step() {
  std::vector<Event> events = std::move(pending_);
  pending_.clear();
  Sequence* waiting = next_to_prefill();
  try {
    if (waiting)
      prefill(*waiting, events);
    else if (!sequences_.empty())
      decode(events);
  } catch (...) {
    // State of the sequences of this pass may be gone: they all end here.
    if (waiting)
      waiting->finished = true;
    else
      for (auto& sequence : sequences_) sequence->finished = true;
    drop_finished();
    throw;
  }
  peak_cache_bytes_ = std::max(peak_cache_bytes_, cache_bytes());
  drop_finished();
  return events;
}

// New prompts come first; restarted sequences take turns with a step of those that decode.
Engine::Sequence* Engine::next_to_prefill() {
  Sequence* restarted = nullptr;
  bool any_ready = false;
  for (auto& sequence : sequences_) {
    if (sequence->waiting() && !sequence->restarted()) return sequence.get();
    if (sequence->restarted() && !restarted) restarted = sequence.get();
    any_ready |= !sequence->waiting();
  }
  if (any_ready && decode_next_) restarted = nullptr;
  decode_next_ = restarted != nullptr;
  return restarted;
}

// Evaluated float32 logits [B, L or 1, V], with the state of the batch.
Array Engine::run(const std::vector<int32_t>& ids, nn::Batch& batch, LogitsAt at) {
  Shape shape{static_cast<int64_t>(batch.size()), batch.tokens()};
  Array logits = astype(model_->forward(Array::from<int32_t>(ids, shape), batch, at), Dtype::F32);
  logits.eval();
  if (settler_) settler_->after_pass();
  return logits;
}

void Engine::prefill(Sequence& sequence, std::vector<Event>& events) {
  const auto& ids = sequence.ids;
  int64_t total = sequence.to_prefill;
  bool rows = sequence.request.prompt_logprobs >= 0 && sequence.generated == 0;
  int64_t first = options_.use_cache ? sequence.prefilled : 0;
  int64_t last = options_.use_cache ? std::min(total, first + options_.prefill_chunk) : total;
  nn::Batch batch({&sequence.cache}, last - first);
  Array logits =
      run({ids.begin() + first, ids.begin() + last}, batch, rows ? LogitsAt::All : LogitsAt::Last);
  if (options_.use_cache) batch.advance();
  sequence.prefilled = last;
  auto bytes = logits.host_bytes();
  auto vocabulary = static_cast<size_t>(logits.shape(2));
  const float* values = reinterpret_cast<const float*>(bytes.get());
  for (int64_t i = 0; rows && i < logits.shape(1); ++i) {
    std::span<const float> row(values + static_cast<size_t>(i) * vocabulary, vocabulary);
    sequence.prompt_logprobs.push_back(top_logprobs(row, sequence.request.prompt_logprobs));
  }
  if (sequence.waiting()) return;
  std::vector<float> last_row(values + (static_cast<size_t>(logits.shape(1)) - 1) * vocabulary,
                              values + static_cast<size_t>(logits.shape(1)) * vocabulary);
  Event event = accept(sequence, last_row);
  event.prompt_logprobs = std::move(sequence.prompt_logprobs);
  events.push_back(std::move(event));
  // Sequences that restart at every token take turns.
  auto own = std::find_if(sequences_.begin(), sequences_.end(),
                          [&](const auto& other) { return other.get() == &sequence; });
  std::rotate(own, own + 1, sequences_.end());
}

void Engine::decode(std::vector<Event>& events) {
  auto ready = std::stable_partition(sequences_.begin(), sequences_.end(),
                                     [](const auto& sequence) { return !sequence->waiting(); });
  size_t count = std::min(static_cast<size_t>(ready - sequences_.begin()),
                          static_cast<size_t>(options_.use_cache ? options_.max_batch : 1));
  std::vector<nn::SequenceCache*> caches;
  std::vector<int32_t> ids;
  for (size_t i = 0; i < count; ++i) {
    Sequence& sequence = *sequences_[i];
    caches.push_back(&sequence.cache);
    if (options_.use_cache)
      ids.push_back(sequence.ids.back());
    else
      ids = sequence.ids;
  }
  nn::Batch batch(std::move(caches), static_cast<int64_t>(ids.size() / count));
  Array logits = run(ids, batch, LogitsAt::Last);
  if (options_.use_cache) batch.advance();
  auto values = logits.to_vector<float>();
  size_t vocabulary = values.size() / count;
  for (size_t i = 0; i < count; ++i)
    events.push_back(accept(*sequences_[i], {values.data() + i * vocabulary, vocabulary}));
  // Those that had to wait for a place in the batch come first next time.
  std::rotate(sequences_.begin(), sequences_.begin() + static_cast<ptrdiff_t>(count),
              sequences_.end());
}

// Samples, and decides whether the answer goes on.
Event Engine::accept(Sequence& sequence, std::span<float> logits) {
  const Request& request = sequence.request;
  Event event{.request = sequence.id};
  if (request.max_tokens == 0) {
    sequence.finished = true;
    event.finish = Finish::Length;
    return event;
  }
  std::vector<float> raw;
  if (request.logprobs >= 0) raw.assign(logits.begin(), logits.end());
  TokenInfo token;
  token.id = sequence.sampler.sample(logits);
  if (request.logprobs >= 0) {
    token.logprob = logprob_of(raw, token.id);
    token.top = top_logprobs(raw, request.logprobs);
  }
  sequence.ids.push_back(token.id);
  ++sequence.generated;
  bool eos = !request.ignore_eos &&
             std::find(request.eos.begin(), request.eos.end(), token.id) != request.eos.end();
  // Ids that only pad the embedding have no text.
  bool has_text = sequence.decoder && token.id < tokenizer_->vocab_size();
  if (has_text && !eos) event.text = sequence.stop.add(sequence.decoder->add(token.id));
  event.token = std::move(token);
  auto length = static_cast<int64_t>(sequence.ids.size());
  if (eos || sequence.stop.found())
    event.finish = Finish::Stop;
  else if (sequence.generated >= request.max_tokens || length >= context_limit())
    event.finish = Finish::Length;
  if (event.finish != Finish::None) {
    sequence.finished = true;
    finish_text(sequence, event);
  } else if (sequence.cache.outgrown(length)) {
    sequence.cache.restart(length);
    sequence.prefilled = 0;
    sequence.to_prefill = length;
  }
  return event;
}

// The text that was held back: half characters, possible beginnings of stop strings.
void Engine::finish_text(Sequence& sequence, Event& event) {
  if (!sequence.decoder || sequence.stop.found()) return;
  event.text += sequence.stop.add(sequence.decoder->finish());
  if (sequence.stop.found()) {
    if (event.finish == Finish::Length) event.finish = Finish::Stop;
  } else {
    event.text += sequence.stop.finish();
  }
}

void Engine::drop_finished() {
  std::erase_if(sequences_, [](const auto& sequence) { return sequence->finished; });
}

}  // namespace mica::generate
