// Mistral: Jiang et al. 2023 (arXiv:2310.06825). Llama with a sliding window in every layer.
#include "models/text/decoder.h"

namespace mica::models {

std::unique_ptr<Model> make_mistral(const Json& json) {
  DecoderConfig c{.model_type = "mistral",
                  .vocabulary = 32000,
                  .width = 4096,
                  .layers = 32,
                  .heads = 32,
                  .key_heads = 8,
                  .mlp_width = 14336,
                  .max_positions = 131072};
  read_common(json, c);
  read_rope_of(json, {}, c);
  int64_t window = read_window(json, 4096);
  if (!read_layer_types(json, window, c)) c.windows.assign(static_cast<size_t>(c.layers), window);
  return make_decoder(std::move(c));
}

}  // namespace mica::models
