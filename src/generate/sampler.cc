#include "generate/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "base/error.h"

namespace mica::generate {

namespace {

void check_range(const char* name, double value, double low, double high) {
  if (!(value >= low && value <= high))
    throw_value("{} must be between {} and {}, got {}", name, low, high, value);
}

// log(sum(exp(logits))), accumulated in float64.
double log_sum(std::span<const float> logits) {
  double top = -std::numeric_limits<double>::infinity();
  for (float logit : logits) top = std::max<double>(top, logit);
  if (std::isinf(top)) return top;
  double sum = 0;
  for (float logit : logits) sum += std::exp(logit - top);
  return top + std::log(sum);
}

struct Candidate {
  int32_t id;
  double weight;  // a logit, then a probability
};

bool better(const Candidate& a, const Candidate& b) {
  return a.weight != b.weight ? a.weight > b.weight : a.id < b.id;
}

void normalize(std::vector<Candidate>& candidates) {
  double sum = 0;
  for (const Candidate& c : candidates) sum += c.weight;
  for (Candidate& c : candidates) c.weight /= sum;
}

}  // namespace

void SamplingOptions::check(int64_t vocabulary) const {
  double inf = std::numeric_limits<double>::infinity();
  check_range("temperature", temperature, 0, 1e6);
  check_range("top-k", static_cast<double>(top_k), 0, inf);
  check_range("top-p", top_p, 0, 1);
  check_range("min-p", min_p, 0, 1);
  check_range("repetition penalty", repetition_penalty, 1e-6, 1e6);
  check_range("presence penalty", presence_penalty, -1e6, 1e6);
  check_range("frequency penalty", frequency_penalty, -1e6, 1e6);
  for (auto [id, bias] : logit_bias) {
    if (id < 0 || id >= vocabulary)
      throw_value("logit bias: id {} is outside of the vocabulary of {}", id, vocabulary);
    if (std::isnan(bias)) throw_value("logit bias of id {} is not a number", id);
  }
}

Sampler::Sampler(const SamplingOptions& options, std::span<const int32_t> prompt)
    : options_(options), random_(options.seed ? *options.seed : std::random_device{}()) {
  for (int32_t id : prompt) ++in_prompt_[id];
}

int32_t Sampler::sample(std::span<float> logits) {
  adjust(logits);
  int32_t id = 0;
  if (options_.temperature == 0)
    id = static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
  else
    id = draw(logits);
  ++in_output_[id];
  return id;
}

void Sampler::adjust(std::span<float> logits) const {
  for (auto [id, bias] : options_.logit_bias)
    logits[static_cast<size_t>(id)] += static_cast<float>(bias);
  auto repeat = [&](int32_t id) {
    float& logit = logits[static_cast<size_t>(id)];
    auto penalty = static_cast<float>(options_.repetition_penalty);
    logit = logit > 0 ? logit / penalty : logit * penalty;
  };
  if (options_.repetition_penalty != 1) {
    for (auto& entry : in_prompt_) repeat(entry.first);
    for (auto& entry : in_output_) {
      if (!in_prompt_.count(entry.first)) repeat(entry.first);
    }
  }
  if (options_.presence_penalty == 0 && options_.frequency_penalty == 0) return;
  for (auto [id, count] : in_output_) {
    logits[static_cast<size_t>(id)] -= static_cast<float>(
        options_.presence_penalty + options_.frequency_penalty * static_cast<double>(count));
  }
}

int32_t Sampler::draw(std::span<const float> logits) {
  std::vector<Candidate> candidates;
  candidates.reserve(logits.size());
  for (size_t i = 0; i < logits.size(); ++i) {
    if (!std::isnan(logits[i]))
      candidates.push_back({static_cast<int32_t>(i), logits[i] / options_.temperature});
  }
  if (candidates.empty())
    throw_value("every logit is NaN: the weights or the activations' dtype do not fit the model");
  auto k = static_cast<size_t>(options_.top_k);
  if (k > 0 && k < candidates.size()) {
    std::nth_element(candidates.begin(), candidates.begin() + static_cast<ptrdiff_t>(k),
                     candidates.end(), better);
    candidates.resize(k);
  }
  double top = std::min_element(candidates.begin(), candidates.end(), better)->weight;
  for (Candidate& c : candidates) c.weight = std::exp(c.weight - top);
  normalize(candidates);
  if (options_.top_p < 1) {
    std::sort(candidates.begin(), candidates.end(), better);
    double sum = 0;
    size_t kept = 0;
    while (kept < candidates.size() && (kept == 0 || sum < options_.top_p))
      sum += candidates[kept++].weight;
    candidates.resize(kept);
    normalize(candidates);
  }
  if (options_.min_p > 0) {
    double floor =
        options_.min_p * std::min_element(candidates.begin(), candidates.end(), better)->weight;
    std::erase_if(candidates, [&](const Candidate& c) { return c.weight < floor; });
    normalize(candidates);
  }
  double at = static_cast<double>(random_() >> 11) * 0x1p-53;
  for (const Candidate& c : candidates) {
    if (at < c.weight) return c.id;
    at -= c.weight;
  }
  return candidates.back().id;
}

float logprob_of(std::span<const float> logits, int32_t id) {
  return static_cast<float>(logits[static_cast<size_t>(id)] - log_sum(logits));
}

std::vector<TokenLogprob> top_logprobs(std::span<const float> logits, int64_t k) {
  std::vector<int32_t> ids(logits.size());
  std::iota(ids.begin(), ids.end(), 0);
  auto count = std::min<size_t>(static_cast<size_t>(k), ids.size());
  std::partial_sort(ids.begin(), ids.begin() + static_cast<ptrdiff_t>(count), ids.end(),
                    [&](int32_t a, int32_t b) {
                      float x = logits[static_cast<size_t>(a)], y = logits[static_cast<size_t>(b)];
                      return x != y ? x > y : a < b;
                    });
  double total = log_sum(logits);
  std::vector<TokenLogprob> result;
  for (size_t i = 0; i < count; ++i)
    result.emplace_back(ids[i], static_cast<float>(logits[static_cast<size_t>(ids[i])] - total));
  return result;
}

}  // namespace mica::generate
