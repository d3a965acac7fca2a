// Qwen 2 and 2.5: Yang et al. 2024 (arXiv:2407.10671). Llama with biases on queries, keys and
// values.
#include "models/text/decoder.h"

namespace mica::models {

std::unique_ptr<Model> make_qwen2(const Json& json) {
  DecoderConfig c{.model_type = "qwen2",
                  .vocabulary = 151936,
                  .width = 4096,
                  .layers = 32,
                  .heads = 32,
                  .key_heads = 32,
                  .mlp_width = 22016,
                  .max_positions = 32768};
  read_common(json, c);
  c.qkv_bias = true;
  read_rope_of(json, {}, c);
  read_alternating_windows(json, c);
  return make_decoder(std::move(c));
}

}  // namespace mica::models
