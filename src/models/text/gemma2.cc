// Gemma 2: Gemma Team 2024 (arXiv:2408.00118). Norms around both parts, soft caps, every other
// layer with a sliding window, embeddings scaled by sqrt(width).
#include <cmath>

#include "models/text/decoder.h"

namespace mica::models {

std::unique_ptr<Model> make_gemma2(const Json& json) {
  DecoderConfig c{.model_type = "gemma2",
                  .vocabulary = 256000,
                  .width = 2304,
                  .layers = 26,
                  .heads = 8,
                  .key_heads = 4,
                  .head_dims = 256,
                  .mlp_width = 9216,
                  .max_positions = 8192,
                  .norm = nn::NormKind::RmsPlusOne,
                  .tied_head = true};
  read_common(json, c);
  if (json.get<bool>("use_bidirectional_attention", false))
    json.fail_at("use_bidirectional_attention", "is not supported: a decoder looks back only");
  c.activation = json.get<std::string>("hidden_activation", "gelu_pytorch_tanh");
  c.qkv_bias = c.o_bias = json.get<bool>("attention_bias", false);
  auto scalar = json.get<double>("query_pre_attn_scalar", 256);
  if (!(scalar > 0 && std::isfinite(scalar)))
    json.fail_at("query_pre_attn_scalar", "must be positive, not {}", scalar);
  c.attention_scale = 1 / std::sqrt(scalar);
  c.attention_softcap = read_cap(json, "attn_logit_softcapping", 50);
  c.final_softcap = read_cap(json, "final_logit_softcapping", 30);
  c.embedding_scale = std::sqrt(static_cast<double>(c.width));
  c.names.attention_out_norm = "post_attention_layernorm";
  c.names.mlp_norm = "pre_feedforward_layernorm";
  c.names.mlp_out_norm = "post_feedforward_layernorm";
  read_rope_of(json, {}, c);
  int64_t window = read_window(json, 4096);
  if (!read_layer_types(json, window, c)) {
    for (int64_t i = 0; i < c.layers; ++i) c.windows.push_back(i % 2 == 0 ? window : 0);
  }
  return make_decoder(std::move(c));
}

}  // namespace mica::models
