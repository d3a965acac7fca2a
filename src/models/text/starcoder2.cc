// StarCoder 2: Lozhkov et al. 2024 (arXiv:2402.19173). Layer norms, biases everywhere, a plain MLP,
// a sliding window.
#include "models/text/decoder.h"

namespace mica::models {

std::unique_ptr<Model> make_starcoder2(const Json& json) {
  DecoderConfig c{.model_type = "starcoder2",
                  .vocabulary = 49152,
                  .width = 3072,
                  .layers = 30,
                  .heads = 24,
                  .key_heads = 2,
                  .mlp_width = 12288,
                  .max_positions = 4096,
                  .activation = "gelu_pytorch_tanh",
                  .norm = nn::NormKind::Layer,
                  .gated_mlp = false,
                  .tied_head = true};
  read_common(json, c);
  c.norm_eps = json.get<double>("norm_epsilon", 1e-5);
  c.qkv_bias = c.o_bias = c.mlp_bias = json.get<bool>("use_bias", true);
  c.names.up = "mlp.c_fc";
  c.names.down = "mlp.c_proj";
  read_rope_of(json, {}, c);
  c.windows.assign(static_cast<size_t>(c.layers), read_window(json, 0));
  return make_decoder(std::move(c));
}

}  // namespace mica::models
