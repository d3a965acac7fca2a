// What a model's folder says about generating with it: generation_config.json, and config.json
// where that is silent.
//
//   GenerationConfig defaults = read_generation_config(folder, config);
//   request.eos = defaults.eos;
//   request.sampling = defaults.sampling;     // greedy unless the file says do_sample
//
// Read are `eos_token_id` (an id or a list), and where `do_sample` is true `temperature` (1 if
// absent, as in transformers), `top_k`, `top_p`, `min_p` and `repetition_penalty`.
#pragma once

#include <string>
#include <vector>

#include "base/json.h"
#include "generate/sampler.h"

namespace mica::generate {

struct GenerationConfig {
  std::vector<int32_t> eos;
  SamplingOptions sampling;
};

// `config` is the folder's config.json. A missing generation_config.json is no error; a malformed
// one is a ValueError that names the key.
GenerationConfig read_generation_config(const std::string& folder, const Json& config);

}  // namespace mica::generate
