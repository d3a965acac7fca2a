// What the families' pages share in reading config.json.
#include <algorithm>

#include "models/text/decoder.h"

namespace mica::models {

int64_t read_size(const Json& json, const char* key, int64_t otherwise, int64_t most) {
  const auto value = json.get<int64_t>(key, otherwise);
  if (value < 1 || value > most) json.fail_at(key, "must be between 1 and {}, not {}", most, value);
  return value;
}

namespace {
// Present and null: an explicit "none", unlike an absent key.
bool is_null(const Json& json, std::string_view key) {
  for (const auto& [name, value] : json.members()) {
    if (name == key) return value.is_null();
  }
  return false;
}
}  // namespace

void read_common(const Json& json, DecoderConfig& config) {
  auto size = [&](const char* key, int64_t& value, int64_t most = kMostSize) {
    value = read_size(json, key, value, most);
  };
  size("vocab_size", config.vocabulary);
  size("hidden_size", config.width);
  size("intermediate_size", config.mlp_width);
  size("num_hidden_layers", config.layers, kMostLayers);
  size("num_attention_heads", config.heads, kMostHeads);
  if (config.key_heads == 0 || is_null(json, "num_key_value_heads"))
    config.key_heads = config.heads;
  size("num_key_value_heads", config.key_heads, kMostHeads);
  size("max_position_embeddings", config.max_positions);
  if (config.head_dims == 0) {
    if (!json.has("head_dim") && config.width % config.heads != 0)
      json.fail_at("hidden_size", "{} does not divide into {} attention heads", config.width,
                   config.heads);
    config.head_dims = std::max<int64_t>(config.width / config.heads, 1);
  }
  size("head_dim", config.head_dims, kMostHeads);
  config.activation = json.get<std::string>("hidden_act", config.activation);
  config.norm_eps = json.get<double>("rms_norm_eps", config.norm_eps);
  config.tied_head = json.get<bool>("tie_word_embeddings", config.tied_head);
}

void read_rope_of(const Json& json, const nn::RopeDefaults& defaults, DecoderConfig& config) {
  config.rope = nn::read_rope(json, config.head_dims, config.max_positions, defaults);
}

bool read_layer_types(const Json& json, int64_t window, DecoderConfig& config) {
  auto types = json.find("layer_types");
  if (!types) return false;
  auto names = types->as<std::vector<std::string>>();
  if (static_cast<int64_t>(names.size()) != config.layers)
    json.fail_at("layer_types", "must name {} layers, not {}", config.layers, names.size());
  config.windows.clear();
  for (const std::string& name : names) {
    if (name != "full_attention" && name != "sliding_attention")
      json.fail_at("layer_types", "'{}' is not known; known: full_attention, sliding_attention",
                   name);
    config.windows.push_back(name == "sliding_attention" ? window : 0);
  }
  return true;
}

int64_t read_window(const Json& json, int64_t otherwise) {
  if (is_null(json, "sliding_window")) return 0;
  auto window = json.get<int64_t>("sliding_window", otherwise);
  if (window < 0 || (window == 0 && otherwise != 0))
    json.fail_at("sliding_window", "must be positive or null, not {}", window);
  return window;
}

double read_cap(const Json& json, const char* key, double otherwise) {
  if (is_null(json, key)) return 0;
  auto cap = json.get<double>(key, otherwise);
  if (!(cap > 0 && cap <= 1e30)) json.fail_at(key, "must be positive or null, not {}", cap);
  return cap;
}

void read_alternating_windows(const Json& json, DecoderConfig& config) {
  int64_t window = json.get<bool>("use_sliding_window", false) ? read_window(json, 4096) : 0;
  if (read_layer_types(json, window, config)) return;
  auto full = json.get<int64_t>("max_window_layers", 28);
  for (int64_t i = 0; i < config.layers; ++i) config.windows.push_back(i >= full ? window : 0);
}

}  // namespace mica::models
