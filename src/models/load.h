// Loading a model from a local folder in Hugging Face layout.
//
//   LoadedModel loaded = load_model("path/to/folder");
//   loaded.model->forward(…);
//
// config.json says what the model is, the safetensors files hold its weights, which are used in
// place. Every tensor that the model asks for must be there with the right shape, and none besides,
// except those that the model's page calls ignorable. MLX-quantized folders ("quantization" in
// config.json) run as stored.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>

#include "base/json.h"
#include "io/checkpoint.h"
#include "models/model.h"

namespace mica::models {

struct LoadOptions {
  std::optional<Dtype> activations;  // absent: the checkpoint's
  int64_t memory_limit = 0;  // bytes for weights, cache and workspace; 0: what the system has
  int64_t context = 0;  // positions to plan the cache for; 0: 4096 or what the model has, if less
  int64_t pass_tokens = 512;  // most tokens of a forward pass
  bool all_logits = false;    // of each of them, not only of the last
  int64_t answer_bytes = 0;   // what the caller gathers besides
  // Products with 4-bit and 8-bit matrices take activations as they are, not rounded to 8 bits for
  // speed (ops/quantized.h).
  bool exact = false;
};

struct LoadedModel {
  std::shared_ptr<Model> model;
  Json config;
  int64_t weight_bytes = 0;
  nn::ParameterCount parameters;
};

// Throws IoError (missing, unreadable), ValueError (malformed, missing or surplus tensors, wrong
// shapes), Unsupported (types and quantizations that Mica does not run), OutOfMemory with the
// estimate.
LoadedModel load_model(const std::string& folder, const LoadOptions& options = {});

// Where a parameter lies: elements `first` … of a tensor.
struct StoredParameter {
  std::string tensor;
  int64_t first = 0;
};

// What a folder holds for a model, from headers alone: the model's arrays are empty, its matrices
// know how they are stored. Checks and errors are those of load_model, but for memory.
struct Inventory {
  std::shared_ptr<Model> model;
  Json config;
  std::shared_ptr<const io::Checkpoint> checkpoint;
  std::map<std::string, StoredParameter> parameters;  // by the model's keys
};
Inventory take_inventory(const std::string& folder);

// "quantization" of config.json, or what it says of one matrix; `otherwise` for keys that are
// absent. ValueErrors name the key; Unsupported for other modes than affine.
nn::Quantization read_quantization(const Json& json, nn::Quantization otherwise = {});

// The activations' dtype that a checkpoint was made for.
Dtype stored_activations(const io::Checkpoint& checkpoint);

// The sum that load_model compares with the memory there is; `options` with a context.
struct MemoryEstimate {
  int64_t weights = 0, cache = 0, workspace = 0;
  int64_t total() const { return weights + cache + workspace; }
};
MemoryEstimate estimate_memory(const ModelInfo& info, int64_t weight_bytes,
                               const LoadOptions& options);

}  // namespace mica::models
