// Sampler: the next token from logits.
//
// Steps, in this order: logit bias, penalties (repetition over prompt and output, presence and
// frequency over the output), temperature, top-k, top-p, min-p. Each filter works on what the one
// before left. Temperature 0 takes the largest logit after bias and penalties; the lowest id wins
// ties.
#pragma once

#include <cstdint>
#include <optional>
#include <random>
#include <span>
#include <unordered_map>
#include <utility>
#include <vector>

namespace mica::generate {

struct SamplingOptions {
  double temperature = 0;
  int64_t top_k = 0;  // 0: all
  double top_p = 1;   // nucleus (Holtzman et al. 2020, arXiv:1904.09751)
  double min_p = 0;   // of the largest probability (Nguyen et al. 2024, arXiv:2407.01082)
  double repetition_penalty = 1;  // Keskar et al. 2019, arXiv:1909.05858
  double presence_penalty = 0;
  double frequency_penalty = 0;
  std::vector<std::pair<int32_t, double>> logit_bias;
  std::optional<uint64_t> seed;  // absent: a random one

  // ValueError naming the option and its range.
  void check(int64_t vocabulary) const;
};

class Sampler {
 public:
  Sampler(const SamplingOptions& options, std::span<const int32_t> prompt);
  // logits: float32, one per id; changed in place.
  int32_t sample(std::span<float> logits);

 private:
  void adjust(std::span<float> logits) const;
  int32_t draw(std::span<const float> logits);

  SamplingOptions options_;
  std::unordered_map<int32_t, int64_t> in_prompt_, in_output_;  // how often
  std::mt19937_64 random_;
};

// One token and the logarithm of its probability.
using TokenLogprob = std::pair<int32_t, float>;
// log softmax of the id's logit.
float logprob_of(std::span<const float> logits, int32_t id);
// The k most probable, best first, the lower id first among equals.
std::vector<TokenLogprob> top_logprobs(std::span<const float> logits, int64_t k);

}  // namespace mica::generate
