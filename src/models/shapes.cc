#include "models/shapes.h"

#include "base/strings.h"

namespace mica::models {

namespace {

// Published configurations: meta-llama/Llama-3.2-1B, meta-llama/Llama-3.1-8B, Qwen/Qwen3-0.6B,
// openai-community/gpt2; the mixture has the widths of allenai/OLMoE-1B-7B in Mixtral's
// architecture.
constexpr NamedShape kShapes[] = {
    {"llama-1b", "Llama 3.2 1B", R"({
  "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 128256,
  "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16,
  "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 64, "hidden_act": "silu",
  "max_position_embeddings": 131072, "rms_norm_eps": 1e-05, "rope_theta": 500000.0,
  "rope_scaling": {"rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0,
    "high_freq_factor": 4.0, "original_max_position_embeddings": 8192},
  "tie_word_embeddings": true})"},
    {"llama-8b", "Llama 3.1 8B", R"({
  "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 128256,
  "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
  "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128, "hidden_act": "silu",
  "max_position_embeddings": 131072, "rms_norm_eps": 1e-05, "rope_theta": 500000.0,
  "rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
    "high_freq_factor": 4.0, "original_max_position_embeddings": 8192},
  "tie_word_embeddings": false})"},
    {"qwen3-0.6b", "Qwen 3 0.6B", R"({
  "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "vocab_size": 151936,
  "hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 28,
  "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128, "hidden_act": "silu",
  "max_position_embeddings": 40960, "rms_norm_eps": 1e-06, "rope_theta": 1000000.0,
  "tie_word_embeddings": true})"},
    {"moe-7b-a1b", "Mixtral's architecture: 64 experts, 8 active, 6.9 billion, 1.2 active", R"({
  "architectures": ["MixtralForCausalLM"], "model_type": "mixtral", "vocab_size": 50304,
  "hidden_size": 2048, "intermediate_size": 1024, "num_hidden_layers": 16,
  "num_attention_heads": 16, "num_key_value_heads": 16, "head_dim": 128, "hidden_act": "silu",
  "num_local_experts": 64, "num_experts_per_tok": 8, "max_position_embeddings": 4096,
  "rms_norm_eps": 1e-05, "rope_theta": 10000.0, "tie_word_embeddings": false})"},
    {"gpt2-124m", "GPT-2", R"({
  "architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "vocab_size": 50257, "n_embd": 768,
  "n_layer": 12, "n_head": 12, "n_positions": 1024, "activation_function": "gelu_new",
  "layer_norm_epsilon": 1e-05, "tie_word_embeddings": true})"},
    {"tiny-llama", "for trying things out: 0.4 million parameters", R"({
  "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 512,
  "hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2,
  "num_attention_heads": 4, "num_key_value_heads": 2, "hidden_act": "silu",
  "max_position_embeddings": 2048, "rms_norm_eps": 1e-05, "rope_theta": 10000.0,
  "tie_word_embeddings": false})"},
    {"tiny-moe", "the same with 8 experts, 2 active", R"({
  "architectures": ["MixtralForCausalLM"], "model_type": "mixtral", "vocab_size": 512,
  "hidden_size": 128, "intermediate_size": 128, "num_hidden_layers": 2,
  "num_attention_heads": 4, "num_key_value_heads": 2, "hidden_act": "silu",
  "num_local_experts": 8, "num_experts_per_tok": 2, "max_position_embeddings": 2048,
  "rms_norm_eps": 1e-05, "rope_theta": 10000.0, "tie_word_embeddings": false})"},
};

// GPT-2 has its own word for the depth.
std::string depth_key(const Json& config) {
  return config.has("n_layer") ? "n_layer" : "num_hidden_layers";
}

}  // namespace

std::span<const NamedShape> named_shapes() { return kShapes; }

const NamedShape& find_shape(const std::string& name) {
  std::vector<std::string> known;
  for (const NamedShape& shape : kShapes) {
    if (name == shape.name) return shape;
    known.push_back(shape.name);
  }
  const auto meant = closest(name, known);
  throw_value("unknown shape '{}'; {}known: {}", excerpt(name),
              meant ? fmt::format("did you mean '{}'? ", *meant) : "", join(known, ", "));
}

Json shape_config(const NamedShape& shape, const ShapeOptions& options) {
  Json config = Json::parse(shape.config, shape.name);
  const std::string key = depth_key(config);
  const auto depth = config.get<int64_t>(key);
  if (options.layers < 0 || options.layers > depth)
    throw_value("the shape {} has {} layers: it cannot have {}", shape.name, depth, options.layers);
  if (options.layers > 0) config.set(key, options.layers);
  if (options.quantization) {
    config.set("quantization", Json::object()
                                   .set("group_size", options.quantization->group_size)
                                   .set("bits", options.quantization->bits));
  }
  return config;
}

}  // namespace mica::models
