// Mixtral: Jiang et al. 2024 (arXiv:2401.04088). Mistral with experts for the feed-forward part.
#include "models/text/decoder.h"

namespace mica::models {

std::unique_ptr<Model> make_mixtral(const Json& json) {
  DecoderConfig c{.model_type = "mixtral",
                  .vocabulary = 32000,
                  .width = 4096,
                  .layers = 32,
                  .heads = 32,
                  .key_heads = 8,
                  .mlp_width = 14336,
                  .max_positions = 131072,
                  .norm_eps = 1e-5};
  read_common(json, c);
  read_rope_of(json, {.theta = 1e6}, c);
  c.windows.assign(static_cast<size_t>(c.layers), read_window(json, 0));
  c.experts = read_size(json, "num_local_experts", 8, kMostHeads);
  c.experts_per_token = read_size(json, "num_experts_per_tok", 2, kMostHeads);
  return make_decoder(std::move(c));
}

}  // namespace mica::models
