// Phi 1, 1.5 and 2: Li et al. 2023 (arXiv:2309.05463). Attention and MLP side by side on one layer
// norm, biases everywhere, half of each head rotated.
#include "models/text/decoder.h"

namespace mica::models {

std::unique_ptr<Model> make_phi(const Json& json) {
  DecoderConfig c{.model_type = "phi",
                  .vocabulary = 51200,
                  .width = 2048,
                  .layers = 24,
                  .heads = 32,
                  .mlp_width = 8192,
                  .max_positions = 2048,
                  .activation = "gelu_new",
                  .norm = nn::NormKind::Layer,
                  .norm_eps = 1e-5,
                  .gated_mlp = false,
                  .parallel = true};
  read_common(json, c);
  c.norm_eps = json.get<double>("layer_norm_eps", c.norm_eps);
  c.qkv_bias = c.o_bias = c.mlp_bias = c.head_bias = true;
  c.qk_norm = json.get<bool>("qk_layernorm", false);
  c.qk_norm_kind = nn::NormKind::Layer;
  c.names.final_norm = "model.final_layernorm";
  c.names.o = "self_attn.dense";
  c.names.q_norm = "self_attn.q_layernorm";
  c.names.k_norm = "self_attn.k_layernorm";
  c.names.up = "mlp.fc1";
  c.names.down = "mlp.fc2";
  read_rope_of(json, {.partial_factor = 0.5, .partial_in_default = true}, c);
  return make_decoder(std::move(c));
}

}  // namespace mica::models
