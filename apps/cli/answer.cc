#include "answer.h"

#include "base/json_writer.h"
#include "base/memory_info.h"
#include "base/strings.h"
#include "common.h"

namespace mica::cli {

using generate::TokenLogprob;

namespace {

double seconds(std::chrono::steady_clock::duration time) {
  return std::chrono::duration<double>(time).count();
}

// Nothing took no time where nothing was made.
double rate(size_t count, double time) {
  return count > 0 && time > 0 ? static_cast<double>(count) / time : 0;
}

void write_pairs(JsonWriter& json, const std::vector<TokenLogprob>& pairs) {
  json.begin_array();
  for (auto [id, logprob] : pairs) json.begin_array().value(id).value(logprob).end_array();
  json.end_array();
}

}  // namespace

void Answer::loaded(int64_t weight_bytes) {
  loaded_ = first_ = last_ = Clock::now();
  weight_bytes_ = weight_bytes;
}

void Answer::run(generate::Engine& engine, generate::Request request, bool has_text) {
  has_text_ = has_text;
  wants_logprobs_ = request.logprobs >= 0;
  wants_prompt_logprobs_ = request.prompt_logprobs >= 0;
  prompt_ = request.prompt;
  const int64_t id = engine.add(std::move(request));
  while (engine.busy()) {
    if (interrupted()) engine.cancel(id);
    for (generate::Event& event : engine.step()) take(std::move(event));
  }
  cache_bytes_ = engine.peak_cache_bytes();
  const bool ends_line = has_text_ ? text_.ends_with('\n') : tokens_.empty();
  if (!gather_ && !ends_line) write_output("\n");
}

void Answer::take(generate::Event event) {
  last_ = Clock::now();
  if (tokens_.empty()) first_ = last_;
  if (!gather_) stream(event);
  text_ += event.text;
  finish_ = event.finish;
  if (!event.prompt_logprobs.empty()) prompt_logprobs_ = std::move(event.prompt_logprobs);
  if (event.token) tokens_.push_back(std::move(*event.token));
}

void Answer::stream(const generate::Event& event) {
  if (has_text_)
    write_untrusted(event.text);
  else if (event.token)
    write_output(fmt::format("{}{}", tokens_.empty() ? "" : ",", event.token->id));
}

// Unknown if Ctrl-C came before the end of the prompt.
double Answer::prompt_rate() const {
  if (was_interrupted() && tokens_.empty()) return 0;
  return rate(prompt_.size(), seconds(first_ - loaded_));
}

// The first token belongs to the prompt's pass.
double Answer::generation_rate() const {
  return tokens_.empty() ? 0 : rate(tokens_.size() - 1, seconds(last_ - first_));
}

std::string Answer::json() const {
  JsonWriter json;
  json.begin_object().key("prompt_ids").value(prompt_).key("ids").begin_array();
  for (const auto& token : tokens_) json.value(token.id);
  json.end_array().key("text");
  has_text_ ? json.value(text_) : json.null();
  json.key("finish_reason").value(generate::finish_name(finish_)).key("logprobs");
  if (wants_logprobs_) {
    json.begin_array();
    for (const auto& token : tokens_) {
      json.begin_object().key("id").value(token.id).key("logprob").value(token.logprob).key("top");
      write_pairs(json, token.top);
      json.end_object();
    }
    json.end_array();
  } else {
    json.null();
  }
  json.key("prompt_logprobs");
  if (wants_prompt_logprobs_) {
    json.begin_array();
    for (const auto& pairs : prompt_logprobs_) write_pairs(json, pairs);
    json.end_array();
  } else {
    json.null();
  }
  json.key("usage").begin_object().key("prompt_tokens").value(prompt_.size());
  json.key("completion_tokens").value(tokens_.size()).key("total_tokens").value(length());
  json.end_object().key("timing").begin_object();
  json.key("load_s").value(seconds(loaded_ - start_));
  json.key("first_token_s").value(seconds(first_ - loaded_));
  json.key("prompt_tokens_per_s").value(prompt_rate());
  json.key("generation_tokens_per_s").value(generation_rate());
  json.end_object().key("memory").begin_object();
  json.key("peak_rss_bytes").value(memory_usage().peak);
  json.key("weights_bytes").value(weight_bytes_).key("cache_bytes").value(cache_bytes_);
  return json.end_object().end_object().take();
}

std::string Answer::statistics() const {
  return fmt::format(
      "prompt {} tokens, {:.1f} tokens/s; generated {} tokens, {:.1f} tokens/s ({}); loaded in "
      "{:.2f} s; peak memory {}",
      prompt_.size(), prompt_rate(), tokens_.size(), generation_rate(),
      generate::finish_name(finish_), seconds(loaded_ - start_), human_size(memory_usage().peak));
}

}  // namespace mica::cli
