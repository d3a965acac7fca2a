#include "models/load.h"

#include <algorithm>
#include <set>

#include "base/memory_info.h"
#include "base/strings.h"
#include "models/registry.h"

namespace mica::models {

namespace {

// "a, b, c and 7 more"
std::string some_of(const std::vector<std::string>& names) {
  constexpr size_t kShown = 8;
  std::vector<std::string> shown;
  for (size_t i = 0; i < std::min(kShown, names.size()); ++i) shown.push_back(printable(names[i]));
  std::string text = join(shown, ", ");
  if (names.size() > kShown) text += fmt::format(" and {} more", names.size() - kShown);
  return text;
}

// Fills a model's parameters from a checkpoint, or with `inventory` only tells where they lie.
class Loader : public nn::Visitor {
 public:
  Loader(const io::Checkpoint& checkpoint, const Json& config, const ModelInfo& info,
         std::string folder, bool exact,
         std::map<std::string, StoredParameter>* inventory = nullptr)
      : checkpoint_(checkpoint),
        config_(config),
        info_(info),
        folder_(std::move(folder)),
        exact_(exact),
        inventory_(inventory) {
    read_default();
  }

  std::optional<nn::Quantization> quantization(const std::optional<nn::Quantization>&) override {
    const std::string end = ".scales";
    auto scales = stored(path() + end);
    packed_ = scales ? path() + ".weight" : "";
    if (!scales) return std::nullopt;
    if (!quantization_) {
      throw_value(
          "{}: tensor '{}' says that the weights are quantized, but config.json has no "
          "'quantization'",
          folder_, scales->key);
    }
    auto own = quantization_->find(scales->key.substr(0, scales->key.size() - end.size()));
    auto result = own && own->is_object() ? read_quantization(*own, default_) : default_;
    if (!exact_) result.activation_bits = 8;
    return result;
  }

  void load(Model& model) {
    try {
      module("", model);
    } catch (const Error& error) {
      // What a layer finds knows neither its place nor the folder.
      if (std::string_view(error.what()).starts_with(folder_)) throw;
      throw Error(error.kind(), fmt::format("{}: '{}': {}", folder_, path(), error.what()));
    }
    check_names();
  }

 protected:
  void on_parameter(const std::string& key, Array& array, const Shape& shape) override {
    auto source = stored(key);
    if (!source) {
      missing_.push_back(key);
      return;
    }
    const Dtype dtype = checkpoint_.dtype(source->key);
    const bool packed = key == packed_;
    if (packed ? dtype != Dtype::U32 : !is_floating(dtype))
      throw_value("{}: tensor '{}' has type {}, not {}", folder_, source->key, dtype,
                  packed ? "uint32 as packed matrices have" : "a floating one");
    if (dtype == Dtype::F64)
      throw_unsupported(
          "{}: tensor '{}' has type float64; weights are float32, float16 or bfloat16", folder_,
          source->key);
    Shape expected = shape;
    if (source->row) expected.insert(0, source->row->count);
    const Shape stored(checkpoint_.find(source->key)->shape);
    if (!(stored == expected))
      throw_value("{}: tensor '{}' has shape {}, the configuration asks for {}", folder_,
                  source->key, stored, expected);
    used_.insert(source->key);
    const int64_t first = source->row ? source->row->index * elements(shape) : 0;
    if (inventory_)
      inventory_->insert_or_assign(key, StoredParameter{source->key, first});
    else
      array = checkpoint_.part(source->key, first, shape);
  }

 private:
  void check_names() const {
    if (!missing_.empty())
      throw_value("{}: {} tensors are missing that a {} model needs: {}", folder_, missing_.size(),
                  info_.model_type, some_of(missing_));
    std::vector<std::string> surplus;
    for (const auto& [name, tensor] : checkpoint_.tensors()) {
      if (!used_.count(name) && !ignorable(name)) surplus.push_back(name);
    }
    if (!surplus.empty())
      throw_value("{}: {} tensors do not belong to this {} model: {}", folder_, surplus.size(),
                  info_.model_type, some_of(surplus));
  }

  void read_default() {
    quantization_ = config_.find("quantization");
    if (auto other = config_.find("quantization_config"); other && !quantization_) {
      auto method = other->get<std::string>("quant_method", "");
      if (!method.empty())
        throw_unsupported(
            "{}: weights quantized by '{}' are not supported; supported: float32, float16, "
            "bfloat16 and MLX's affine quantization",
            other->where(), printable(method));
      quantization_ = other;  // MLX writes it under both names
    }
    if (quantization_) default_ = read_quantization(*quantization_, {});
  }

  // Where a parameter lies: a tensor of its own, or a row of a stack.
  struct Source {
    std::string key;
    std::optional<nn::StackRow> row = {};
  };

  std::optional<Source> stored(const std::string& key) const {
    if (auto own = stored_key(key)) return Source{*own};
    if (!stack_row()) return std::nullopt;
    auto stack = stored_key(stack_row()->name + key.substr(path().size()));
    return stack ? std::optional(Source{*stack, stack_row()}) : std::nullopt;
  }

  // The key as the file has it: as the model names it, or with another of its prefixes.
  std::optional<std::string> stored_key(const std::string& key) const {
    if (checkpoint_.find(key)) return key;
    if (info_.prefixes.empty() || !key.starts_with(info_.prefixes[0])) return std::nullopt;
    std::string rest = key.substr(info_.prefixes[0].size());
    for (const std::string& prefix : info_.prefixes) {
      if (checkpoint_.find(prefix + rest)) return prefix + rest;
    }
    return std::nullopt;
  }

  bool ignorable(const std::string& name) const {
    return std::any_of(info_.ignorable.begin(), info_.ignorable.end(), [&](const std::string& end) {
      return name == end || name.ends_with('.' + end);
    });
  }

  const io::Checkpoint& checkpoint_;
  const Json& config_;
  const ModelInfo& info_;
  std::string folder_;
  bool exact_;
  std::map<std::string, StoredParameter>* inventory_;
  std::optional<Json> quantization_;
  nn::Quantization default_;
  std::string packed_;  // key of the matrix being visited, if it is packed
  std::set<std::string> used_;
  std::vector<std::string> missing_;
};

void check_memory(const MemoryEstimate& need, int64_t limit) {
  if (limit == 0) limit = static_cast<int64_t>(available_memory());
  if (need.total() <= limit) return;
  auto text = [](int64_t bytes) { return human_size(static_cast<uint64_t>(bytes)); };
  throw Error(ErrorKind::OutOfMemory,
              "the model needs about {} (weights {}, cache {}, workspace {}), there are {}; use a "
              "smaller model or "
              "context, or raise the memory limit",
              text(need.total()), text(need.weights), text(need.cache), text(need.workspace),
              text(limit));
}

}  // namespace

nn::Quantization read_quantization(const Json& json, nn::Quantization otherwise) {
  auto mode = json.get<std::string>("mode", "affine");
  if (mode != "affine")
    throw_unsupported("{}: mode '{}' is not supported; supported: affine", json.where(),
                      printable(mode));
  nn::Quantization q{json.get<int>("group_size", otherwise.group_size),
                     json.get<int>("bits", otherwise.bits)};
  constexpr int groups[] = {16, 32, 64, 128}, bits[] = {2, 3, 4, 5, 6, 8};
  if (std::find(std::begin(groups), std::end(groups), q.group_size) == std::end(groups))
    json.fail_at("group_size", "must be 16, 32, 64 or 128, not {}", q.group_size);
  if (std::find(std::begin(bits), std::end(bits), q.bits) == std::end(bits))
    json.fail_at("bits", "must be 2, 3, 4, 5, 6 or 8, not {}", q.bits);
  return q;
}

// The embedding's type says what the checkpoint was made for.
Dtype stored_activations(const io::Checkpoint& checkpoint) {
  for (const char* end :
       {"embed_tokens.scales", "wte.scales", "embed_tokens.weight", "wte.weight"}) {
    for (const auto& [name, tensor] : checkpoint.tensors()) {
      if (name.ends_with(end)) return io::dtype_of_safetensors(tensor.entry->dtype, name);
    }
  }
  return Dtype::F32;
}

// Factors from files and command lines may overflow a product of integers.
static int64_t whole_bytes(double bytes) { return static_cast<int64_t>(std::min(bytes, 1e18)); }

bool ModelInfo::is_table(std::string_view key) const {
  return std::find(tables.begin(), tables.end(), key.substr(0, key.rfind('.'))) != tables.end();
}

bool ModelInfo::is_above(std::string_view key) const {
  return std::any_of(above.begin(), above.end(),
                     [&](const std::string& begin) { return key.starts_with(begin); });
}

int64_t ModelInfo::cache_bytes(int64_t length) const {
  double positions = 0;
  for (int64_t window : windows)
    positions += static_cast<double>(window > 0 ? std::min(window, length) : length);
  return whole_bytes(positions * static_cast<double>(position_elements * size_of(activations)));
}

MemoryEstimate estimate_memory(const ModelInfo& info, int64_t weight_bytes,
                               const LoadOptions& options) {
  const auto tokens = static_cast<double>(std::min(options.pass_tokens, options.context));
  const double rows = options.all_logits ? tokens : 1;
  // Activations are float32 while they are computed; logits are kept in both types, and as a row
  // that is sampled from.
  const double workspace = tokens * static_cast<double>(info.token_elements) * 4 +
                           (rows + 4) * static_cast<double>(info.vocabulary) * 8 + (16 << 20) +
                           static_cast<double>(options.answer_bytes);
  return {weight_bytes, info.cache_bytes(options.context), whole_bytes(workspace)};
}

Inventory take_inventory(const std::string& folder) {
  Inventory inventory;
  inventory.config = Json::load(folder + "/config.json");
  inventory.model = make_model(inventory.config);
  inventory.checkpoint = std::make_shared<const io::Checkpoint>(folder);
  Loader loader(*inventory.checkpoint, inventory.config, inventory.model->info(), folder, true,
                &inventory.parameters);
  loader.load(*inventory.model);
  return inventory;
}

LoadedModel load_model(const std::string& folder, const LoadOptions& given) {
  LoadedModel loaded;
  loaded.config = Json::load(folder + "/config.json");
  loaded.model = make_model(loaded.config);
  const ModelInfo& info = loaded.model->info();
  io::Checkpoint checkpoint(folder);
  loaded.weight_bytes = checkpoint.bytes();
  LoadOptions options = given;
  loaded.model->set_activations(options.activations.value_or(stored_activations(checkpoint)));
  if (options.context <= 0) options.context = std::min<int64_t>(info.max_positions, 4096);
  check_memory(estimate_memory(info, loaded.weight_bytes, options), options.memory_limit);
  Loader loader(checkpoint, loaded.config, info, folder, options.exact);
  loader.load(*loaded.model);
  loaded.parameters = nn::count_parameters(*loaded.model);
  return loaded;
}

}  // namespace mica::models
