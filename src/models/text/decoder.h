// The decoder that most text models are: attention and a feed-forward part per layer, with options.
//
// Families that differ only in options are a page each beside this file: they fill a DecoderConfig
// from config.json and name their weights. Notation in decoder.cc: B sequences, L tokens, D width,
// H query heads, G key heads, K head size, F feed-forward width, E experts, V vocabulary.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/json.h"
#include "models/model.h"
#include "nn/activation.h"
#include "nn/linear.h"
#include "nn/moe.h"
#include "nn/norm.h"
#include "nn/rope.h"

namespace mica::models {

// Keys of a family's checkpoint, relative to the layer where they belong to one. An empty name: the
// family has no such part.
struct WeightNames {
  std::string embedding = "model.embed_tokens";
  std::string positions;  // learned ones
  std::string layers = "model.layers";
  std::string final_norm = "model.norm";
  std::string head = "lm_head";
  std::string attention_norm = "input_layernorm";
  std::string attention_out_norm;  // between attention and its residual (Gemma 2)
  std::string mlp_norm = "post_attention_layernorm";
  std::string mlp_out_norm;
  std::string q = "self_attn.q_proj", k = "self_attn.k_proj", v = "self_attn.v_proj";
  std::string qkv;  // one matrix for the three
  std::string o = "self_attn.o_proj";
  std::string q_norm = "self_attn.q_norm", k_norm = "self_attn.k_norm";
  std::string gate = "mlp.gate_proj", up = "mlp.up_proj", down = "mlp.down_proj";
  std::string gate_up;  // one matrix for the two
  nn::ExpertNames experts;
  // Of the decoder's keys: as above, then what files have instead; the bare decoder's have none.
  std::vector<std::string> prefixes{"model.", ""};
  // Ends of keys that older files hold besides: buffers that are computed, not learned.
  std::vector<std::string> ignorable{"rotary_emb.inv_freq"};
};

struct DecoderConfig {
  std::string model_type;
  int64_t vocabulary = 0, width = 0, layers = 0, heads = 0, key_heads = 0, head_dims = 0,
          mlp_width = 0;
  int64_t max_positions = 0;
  std::string activation = "silu";
  nn::NormKind norm = nn::NormKind::Rms;
  double norm_eps = 1e-6;
  std::optional<nn::RopeConfig> rope = {};  // absent: learned positions
  bool qkv_bias = false, o_bias = false, mlp_bias = false, head_bias = false;
  bool gated_mlp = true;  // down(act(gate(x)) · up(x)), else down(act(up(x)))
  bool qk_norm = false;   // of queries and keys, per head (Qwen 3)
  nn::NormKind qk_norm_kind = nn::NormKind::Rms;
  bool parallel = false;            // attention and MLP read the same norm and add up (Phi)
  bool transposed_linears = false;  // GPT-2 stores [inputs, outputs]
  bool tied_head = false;
  double attention_scale = 0;   // of the scores; 0: 1 / sqrt(K)
  bool scale_by_layer = false;  // divides by layer number + 1 too (GPT-2)
  double embedding_scale = 1;   // rounded to the activations' dtype
  double attention_softcap = 0, final_softcap = 0;
  std::vector<int64_t> windows = {};  // per layer, 0: full attention
  int64_t experts = 0, experts_per_token = 0;
  WeightNames names = {};

  // ValueError naming what does not fit together.
  void check() const;
};

// What a family's page gives to the registry.
std::unique_ptr<Model> make_decoder(DecoderConfig config);

// Bounds of what a configuration may ask for, far above any model, so that crafted ones take
// neither memory nor time: of widths and the like, of layers, and of heads, their sizes and
// experts.
inline constexpr int64_t kMostSize = int64_t{1} << 31, kMostLayers = 1 << 14, kMostHeads = 1 << 16;
// A size from 1 to `most`; `otherwise` if the key is absent. ValueError naming the key.
int64_t read_size(const Json& json, const char* key, int64_t otherwise, int64_t most = kMostSize);
// Reads what all families name alike, with the family's defaults already in `config`: sizes (key
// heads 0: as many as heads; head size 0: width / heads), activation, epsilon, tied head.
// ValueErrors name the key.
void read_common(const Json& json, DecoderConfig& config);
// Rotary embeddings, after the sizes.
void read_rope_of(const Json& json, const nn::RopeDefaults& defaults, DecoderConfig& config);
// `sliding_window`: absent gives `otherwise`, null gives 0.
int64_t read_window(const Json& json, int64_t otherwise);
// A soft cap: absent gives `otherwise`, null gives none.
double read_cap(const Json& json, const char* key, double otherwise);
// Windows from `layer_types` ("sliding_attention", "full_attention"); false if there are none.
bool read_layer_types(const Json& json, int64_t window, DecoderConfig& config);
// Qwen's rule: `use_sliding_window`, and `max_window_layers` full layers first.
void read_alternating_windows(const Json& json, DecoderConfig& config);

}  // namespace mica::models
