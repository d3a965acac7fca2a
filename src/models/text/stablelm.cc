// StableLM 2 and 3B-4E1T: Bellagente et al. 2024 (arXiv:2402.17834). Llama with layer norms and a
// quarter of each head rotated.
#include "models/text/decoder.h"

namespace mica::models {

std::unique_ptr<Model> make_stablelm(const Json& json) {
  DecoderConfig c{.model_type = "stablelm",
                  .vocabulary = 50304,
                  .width = 2560,
                  .layers = 32,
                  .heads = 32,
                  .key_heads = 32,
                  .mlp_width = 6912,
                  .max_positions = 4096,
                  .norm = nn::NormKind::Layer};
  read_common(json, c);
  c.norm_eps = json.get<double>("layer_norm_eps", 1e-5);
  c.qkv_bias = json.get<bool>("use_qkv_bias", false);
  c.parallel = json.get<bool>("use_parallel_residual", false);
  if (json.get<bool>("qk_layernorm", false))
    json.fail_at("qk_layernorm", "is not supported: a norm of its own for each head");
  read_rope_of(json, {.partial_factor = 0.25, .partial_in_default = true}, c);
  return make_decoder(std::move(c));
}

}  // namespace mica::models
