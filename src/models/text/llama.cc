// Llama: Touvron et al. 2023 (arXiv:2302.13971), Llama 3 (arXiv:2407.21783).
#include "models/text/decoder.h"

namespace mica::models {

std::unique_ptr<Model> make_llama(const Json& json) {
  DecoderConfig c{.model_type = "llama",
                  .vocabulary = 32000,
                  .width = 4096,
                  .layers = 32,
                  .heads = 32,
                  .mlp_width = 11008,
                  .max_positions = 2048};
  read_common(json, c);
  c.qkv_bias = c.o_bias = json.get<bool>("attention_bias", false);
  c.mlp_bias = json.get<bool>("mlp_bias", false);
  read_rope_of(json, {}, c);
  return make_decoder(std::move(c));
}

}  // namespace mica::models
