// Phi 3 and 4-mini: Abdin et al. 2024 (arXiv:2404.14219). Llama with joined matrices and longrope.
#include "models/text/decoder.h"

namespace mica::models {

std::unique_ptr<Model> make_phi3(const Json& json) {
  DecoderConfig c{.model_type = "phi3",
                  .vocabulary = 32064,
                  .width = 3072,
                  .layers = 32,
                  .heads = 32,
                  .mlp_width = 8192,
                  .max_positions = 4096,
                  .norm_eps = 1e-5};
  read_common(json, c);
  c.names.qkv = "self_attn.qkv_proj";
  c.names.gate_up = "mlp.gate_up_proj";
  read_rope_of(
      json, {.partial_in_default = true, .original_max_positions = 4096, .only_longrope = true}, c);
  c.windows.assign(static_cast<size_t>(c.layers), read_window(json, 0));
  return make_decoder(std::move(c));
}

}  // namespace mica::models
