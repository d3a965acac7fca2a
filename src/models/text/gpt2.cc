// GPT-2: Radford et al. 2019. Learned positions, layer norms, matrices stored as [inputs, outputs].
#include "models/text/decoder.h"

namespace mica::models {

std::unique_ptr<Model> make_gpt2(const Json& json) {
  DecoderConfig c{.model_type = "gpt2",
                  .vocabulary = read_size(json, "vocab_size", 50257),
                  .width = read_size(json, "n_embd", 768),
                  .layers = read_size(json, "n_layer", 12, kMostLayers),
                  .heads = read_size(json, "n_head", 12, kMostHeads),
                  .max_positions = read_size(json, "n_positions", 1024),
                  .activation = json.get<std::string>("activation_function", "gelu_new"),
                  .norm = nn::NormKind::Layer,
                  .norm_eps = json.get<double>("layer_norm_epsilon", 1e-5),
                  .gated_mlp = false};
  if (json.get<bool>("add_cross_attention", false))
    json.fail_at("add_cross_attention", "is not supported: there is no encoder");
  if (c.width % c.heads != 0)
    json.fail_at("n_embd", "{} does not divide into {} heads", c.width, c.heads);
  c.key_heads = c.heads;
  c.head_dims = c.width / c.heads;
  c.mlp_width = read_size(json, "n_inner", 4 * c.width, 4 * kMostSize);
  c.qkv_bias = c.o_bias = c.mlp_bias = true;
  c.tied_head = json.get<bool>("tie_word_embeddings", true);
  if (!json.get<bool>("scale_attn_weights", true)) c.attention_scale = 1;
  // MLX's quantized files store [outputs, inputs] as all others do, under keys of their own.
  const bool mlx = json.has("quantization") || json.has("quantization_config");
  c.transposed_linears = !mlx;
  c.scale_by_layer = json.get<bool>("scale_attn_by_inverse_layer_idx", false);
  WeightNames& names = c.names;
  const std::string root = mlx ? "model." : "transformer.";
  names.embedding = root + "wte";
  names.positions = root + "wpe";
  names.layers = root + "h";
  names.final_norm = root + "ln_f";
  names.attention_norm = "ln_1";
  names.mlp_norm = "ln_2";
  names.qkv = "attn.c_attn";
  names.o = "attn.c_proj";
  names.up = "mlp.c_fc";
  names.down = "mlp.c_proj";
  names.prefixes = {root, "transformer.", "", "model."};
  names.ignorable = {"attn.bias", "attn.masked_bias"};  // causal masks
  return make_decoder(std::move(c));
}

}  // namespace mica::models
