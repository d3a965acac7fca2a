// mica inspect: what a model's folder holds, from its headers and configuration.
#include <algorithm>
#include <filesystem>
#include <map>

#include "base/json.h"
#include "base/json_writer.h"
#include "base/strings.h"
#include "common.h"
#include "io/checkpoint.h"
#include "models/load.h"
#include "models/registry.h"
#include "subcommand.h"

namespace mica::cli {
namespace {

// "bfloat16"; as in the file where arrays have no such type.
std::string type_name(const std::string& stored) {
  try {
    return dtype_name(io::dtype_of_safetensors(stored, ""));
  } catch (const Error&) {
    return stored;
  }
}

std::string size(int64_t bytes) { return human_size(static_cast<uint64_t>(bytes)); }

struct TypeTotal {
  int64_t tensors = 0, elements = 0, bytes = 0;
};

class Report {
 public:
  Report(const std::string& folder, std::optional<int64_t> context,
         const std::optional<std::string>& activations);
  std::string json(bool tensors) const;
  std::string text(bool tensors) const;

 private:
  int64_t packed_bits(const std::string& name) const;
  void write_memory(JsonWriter& json) const;
  void write_tensors(JsonWriter& json) const;
  void write_quantization(JsonWriter& json) const;
  std::string quantization_text() const;
  std::string model_text() const;

  std::string folder_, model_type_, unsupported_;
  std::vector<std::string> architectures_;
  Json config_;
  io::Checkpoint checkpoint_;
  std::optional<Json> quantization_;
  std::optional<models::ModelInfo> info_;  // of a supported model
  std::map<std::string, TypeTotal> types_;
  int64_t parameters_ = 0, context_ = 0;
  models::MemoryEstimate memory_;
};

Report::Report(const std::string& folder, std::optional<int64_t> context,
               const std::optional<std::string>& activations)
    : folder_(folder), config_(Json::load(folder + "/config.json")), checkpoint_(folder) {
  model_type_ = config_.get<std::string>("model_type");
  architectures_ = config_.get<std::vector<std::string>>("architectures", {});
  quantization_ = config_.find("quantization");
  if (!quantization_) quantization_ = config_.find("quantization_config");
  try {
    const auto model = models::make_model(config_);
    model->set_activations(activations ? dtype_from_name(*activations)
                                       : models::stored_activations(checkpoint_));
    info_ = model->info();
  } catch (const Error& error) {
    unsupported_ = error.what();
  }
  for (const auto& [name, tensor] : checkpoint_.tensors()) {
    const io::TensorEntry& entry = *tensor.entry;
    const auto bytes = static_cast<int64_t>(entry.end - entry.begin);
    const auto width = static_cast<int64_t>(io::safetensors_dtype_size(entry.dtype));
    TypeTotal& type = types_[type_name(entry.dtype)];
    ++type.tensors;
    type.elements += bytes / width;
    type.bytes += bytes;
    // A quantized matrix counts unpacked, its scales and biases not at all.
    const std::string stem = name.substr(0, name.rfind('.'));
    if (const int64_t bits = packed_bits(stem + ".weight"); bits == 0)
      parameters_ += bytes / width;
    else if (name.ends_with(".weight"))
      parameters_ += bytes * 8 / bits;
    else if (!name.ends_with(".scales") && !name.ends_with(".biases"))
      parameters_ += bytes / width;
  }
  if (info_) {
    context_ = context.value_or(std::min<int64_t>(info_->max_positions, 4096));
    memory_ = models::estimate_memory(*info_, checkpoint_.bytes(), {.context = context_});
  }
}

// Bits per element of a packed matrix; 0 if the tensor is not one.
int64_t Report::packed_bits(const std::string& name) const {
  const io::TensorEntry* entry = checkpoint_.find(name);
  const std::string stem = name.substr(0, name.size() - std::string_view(".weight").size());
  if (!quantization_ || !entry || entry->dtype != "U32" || !checkpoint_.find(stem + ".scales"))
    return 0;
  int64_t bits = quantization_->get<int64_t>("bits", 0);
  if (auto own = quantization_->find(stem); own && own->is_object())
    bits = own->get<int64_t>("bits", bits);
  return bits > 0 ? bits : 0;
}

void Report::write_quantization(JsonWriter& json) const {
  json.key("quantization");
  if (!quantization_) {
    json.null();
    return;
  }
  json.begin_object();
  for (const char* key : {"bits", "group_size"}) {
    json.key(key);
    auto number = quantization_->find(key);
    number && number->is_number() ? json.value(number->as<int64_t>()) : json.null();
  }
  auto method = quantization_->find("quant_method");
  if (!method) method = quantization_->find("mode");
  json.key("mode").value(method && method->is_string() ? method->as<std::string>() : "affine");
  json.end_object();
}

void Report::write_memory(JsonWriter& json) const {
  json.key("memory");
  if (!info_) {
    json.null();
    return;
  }
  json.begin_object().key("context").value(context_).key("weights_bytes").value(memory_.weights);
  json.key("cache_bytes").value(memory_.cache).key("workspace_bytes").value(memory_.workspace);
  json.key("total_bytes").value(memory_.total()).end_object();
}

void Report::write_tensors(JsonWriter& json) const {
  json.key("tensors").begin_array();
  for (const auto& [name, tensor] : checkpoint_.tensors()) {
    const io::TensorEntry& entry = *tensor.entry;
    json.begin_object().key("name").value(name).key("dtype").value(type_name(entry.dtype));
    json.key("shape").value(entry.shape).key("bytes").value(entry.end - entry.begin);
    json.key("file").value(
        std::filesystem::path(checkpoint_.files()[tensor.file]).filename().string());
    json.end_object();
  }
  json.end_array();
}

std::string Report::json(bool tensors) const {
  JsonWriter json;
  json.begin_object().key("path").value(folder_).key("model_type").value(model_type_);
  json.key("architectures").value(architectures_).key("supported").value(info_.has_value());
  json.key("parameters").value(parameters_).key("bytes").value(checkpoint_.bytes());
  json.key("dtypes").begin_object();
  for (const auto& [name, type] : types_) {
    json.key(name).begin_object().key("tensors").value(type.tensors);
    json.key("elements").value(type.elements).key("bytes").value(type.bytes).end_object();
  }
  json.end_object();
  write_quantization(json);
  auto number = [&](const char* key, int64_t value) {
    json.key(key);
    info_ ? json.value(value) : json.null();
  };
  number("layers", info_ ? info_->layers : 0);
  number("vocabulary", info_ ? info_->vocabulary : 0);
  number("context_length", info_ ? info_->max_positions : 0);
  write_memory(json);
  if (tensors) write_tensors(json);
  return json.end_object().take() + '\n';
}

std::string Report::quantization_text() const {
  if (!quantization_) return "none";
  JsonWriter json;
  json.begin_object();
  write_quantization(json);
  const Json q = Json::parse(json.end_object().text()).at("quantization");
  std::string text = q.get<std::string>("mode");
  if (q.has("bits")) text += fmt::format(", {} bits", q.get<int64_t>("bits"));
  if (q.has("group_size")) text += fmt::format(", groups of {}", q.get<int64_t>("group_size"));
  return text;
}

std::string Report::model_text() const {
  if (!info_) return "not supported     " + unsupported_ + '\n';
  std::string text =
      fmt::format("layers            {}\nvocabulary        {}\ncontext length    {}{}\n",
                  info_->layers, info_->vocabulary, info_->max_positions,
                  info_->learned_positions ? " (learned positions)" : "");
  return text +
         fmt::format("memory            {} for {} tokens: weights {}, cache {}, workspace {}\n",
                     size(memory_.total()), context_, size(memory_.weights), size(memory_.cache),
                     size(memory_.workspace));
}

std::string Report::text(bool tensors) const {
  std::string text =
      fmt::format("folder            {}\narchitecture      {}{}\n", folder_, model_type_,
                  architectures_.empty() ? "" : fmt::format(" ({})", join(architectures_, ", ")));
  text += fmt::format("parameters        {} ({})\n", count_text(parameters_), parameters_);
  const size_t files = checkpoint_.files().size();
  text += fmt::format("weights           {} in {} tensors, {} file{}\n", size(checkpoint_.bytes()),
                      checkpoint_.tensors().size(), files, files == 1 ? "" : "s");
  for (const auto& [name, type] : types_)
    text += fmt::format("  {:<16}{} in {} tensors\n", name, size(type.bytes), type.tensors);
  text += fmt::format("quantization      {}\n", quantization_text()) + model_text();
  if (tensors) text += '\n';
  for (const auto& [name, tensor] : checkpoint_.tensors()) {
    if (!tensors) break;
    const io::TensorEntry& entry = *tensor.entry;
    text += fmt::format("{:<60} {:<9} [{}] {}\n", name, type_name(entry.dtype),
                        fmt::join(entry.shape, ", "), human_size(entry.end - entry.begin));
  }
  return text;
}

class Inspect : public Subcommand {
 public:
  const char* summary() const override { return "tells what a model is and what it needs"; }

  void declare(Options& options) override {
    options
        .about(
            "Reads the configuration and the headers of the weights, not the weights: "
            "architecture, parameters, bytes per type, quantization, context length, and the "
            "memory that generating at a context length takes.")
        .example("mica inspect path/to/model", "a summary")
        .example("mica inspect path/to/model --context 32768 --tensors --format json",
                 "memory for 32768 tokens, and every tensor, for programs");
    options.group("Model").argument("DIR", folder_, "the same as --model");
    common_.declare_model(options);
    options
        .integer("--context", "N", context_,
                 "tokens to estimate memory for (default: 4096, or what the model has if less)", 1)
        .choice("--dtype", kActivationTypes, dtype_,
                "type of activations to estimate memory for (default: the checkpoint's)")
        .flag("--tensors", tensors_, "list every tensor");
    common_.declare_rest(options);
  }

  int run() override {
    if (folder_ && common_.model) throw_usage("DIR and --model exclude each other");
    if (folder_) common_.model = folder_;
    common_.apply();
    const Report report(model_folder(common_), context_, dtype_);
    if (common_.json())
      write_output(report.json(tensors_));
    else
      write_untrusted(report.text(tensors_));
    return kSuccess;
  }

 private:
  CommonOptions common_;
  std::optional<std::string> folder_, dtype_;
  std::optional<int64_t> context_;
  bool tensors_ = false;
};

}  // namespace

std::unique_ptr<Subcommand> inspect_command() { return std::make_unique<Inspect>(); }

}  // namespace mica::cli
