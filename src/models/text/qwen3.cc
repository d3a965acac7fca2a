// Qwen 3: Yang et al. 2025 (arXiv:2505.09388). Llama with RMS norms of queries and keys per head.
#include "models/text/decoder.h"

namespace mica::models {

std::unique_ptr<Model> make_qwen3(const Json& json) {
  DecoderConfig c{.model_type = "qwen3",
                  .vocabulary = 151936,
                  .width = 4096,
                  .layers = 32,
                  .heads = 32,
                  .key_heads = 32,
                  .head_dims = 128,
                  .mlp_width = 22016,
                  .max_positions = 32768,
                  .qk_norm = true};
  read_common(json, c);
  c.qkv_bias = c.o_bias = json.get<bool>("attention_bias", false);
  read_rope_of(json, {}, c);
  read_alternating_windows(json, c);
  return make_decoder(std::move(c));
}

}  // namespace mica::models
