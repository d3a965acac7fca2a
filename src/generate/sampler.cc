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

double sum_of(const std::vector<Candidate>& candidates) {
  double sum = 0;
  for (const Candidate& c : candidates) sum += c.weight;
  return sum;
}

// Neither NaN nor ruled out by -inf.
bool possible(float logit) { return logit > -std::numeric_limits<float>::infinity(); }

// The lowest id with the largest logit.
int32_t best_of(std::span<const float> logits) {
  size_t best = logits.size();
  for (size_t i = 0; i < logits.size(); ++i) {
    if (possible(logits[i]) && (best == logits.size() || logits[i] > logits[best])) best = i;
  }
  return static_cast<int32_t>(best);
}

// Weights become probabilities, up to a factor. Logits are taken off the best one before they are
// divided, so that small temperatures do not overflow.
void weigh(std::vector<Candidate>& candidates, double temperature) {
  const double top = std::min_element(candidates.begin(), candidates.end(), better)->weight;
  for (Candidate& c : candidates)
    c.weight = c.weight == top ? 1 : std::exp((c.weight - top) / temperature);
}

// Keeps the best candidates that together have the share `top_p`, best first. They are few of many
// as a rule, so blocks that grow are taken off and sorted until it is reached.
void keep_nucleus(std::vector<Candidate>& candidates, double top_p) {
  const double wanted = top_p * sum_of(candidates);
  double sum = 0;
  size_t kept = 0;
  for (size_t block = 128; kept < candidates.size() && (kept == 0 || sum < wanted); block *= 4) {
    const auto first = candidates.begin() + static_cast<ptrdiff_t>(kept);
    const size_t size = std::min(block, candidates.size() - kept);
    const auto last = first + static_cast<ptrdiff_t>(size);
    if (last != candidates.end()) std::nth_element(first, last, candidates.end(), better);
    std::sort(first, last, better);
    for (size_t i = 0; i < size && (kept == 0 || sum < wanted); ++i)
      sum += candidates[kept++].weight;
  }
  candidates.resize(kept);
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
  int32_t id = best_of(logits);
  if (id == static_cast<int32_t>(logits.size()))
    throw_value(
        "no token can be chosen: every logit is NaN or -inf; the weights or the activations' dtype "
        "do not fit the model, or the logit bias rules everything out");
  if (options_.temperature > 0) id = draw(logits);
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
    if (possible(logits[i])) candidates.push_back({static_cast<int32_t>(i), logits[i]});
  }
  auto k = static_cast<size_t>(options_.top_k);
  if (k > 0 && k < candidates.size()) {
    std::nth_element(candidates.begin(), candidates.begin() + static_cast<ptrdiff_t>(k),
                     candidates.end(), better);
    candidates.resize(k);
  }
  weigh(candidates, options_.temperature);
  if (options_.top_p < 1) keep_nucleus(candidates, options_.top_p);
  // The best one weighs 1.
  if (options_.min_p > 0)
    std::erase_if(candidates, [&](const Candidate& c) { return c.weight < options_.min_p; });
  double at = static_cast<double>(random_() >> 11) * 0x1p-53 * sum_of(candidates);
  int32_t chosen = 0;
  for (const Candidate& c : candidates) {
    if (c.weight == 0) continue;
    chosen = c.id;  // the last one too if rounding leaves a rest
    if (at < c.weight) break;
    at -= c.weight;
  }
  return chosen;
}

float logprob_of(std::span<const float> logits, int32_t id) {
  return static_cast<float>(logits[static_cast<size_t>(id)] - log_sum(logits));
}

std::vector<TokenLogprob> top_logprobs(std::span<const float> logits, int64_t k) {
  std::vector<int32_t> ids(logits.size());
  std::iota(ids.begin(), ids.end(), 0);
  auto count = std::min<size_t>(static_cast<size_t>(k), ids.size());
  // NaN is no number to sort by: it comes last.
  auto rank = [&](int32_t id) {
    const float logit = logits[static_cast<size_t>(id)];
    return std::isnan(logit) ? -std::numeric_limits<float>::infinity() : logit;
  };
  std::partial_sort(ids.begin(), ids.begin() + static_cast<ptrdiff_t>(count), ids.end(),
                    [&](int32_t a, int32_t b) {
                      float x = rank(a), y = rank(b);
                      return x != y ? x > y : a < b;
                    });
  double total = log_sum(logits);
  std::vector<TokenLogprob> result;
  for (size_t i = 0; i < count; ++i)
    result.emplace_back(ids[i], static_cast<float>(logits[static_cast<size_t>(ids[i])] - total));
  return result;
}

}  // namespace mica::generate
