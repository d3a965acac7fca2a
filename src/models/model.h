// Model: what every architecture offers to generation, measurement and training.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "nn/cache/cache.h"
#include "nn/module.h"

namespace mica::models {

// What callers need to know of a model without knowing its architecture.
struct ModelInfo {
  std::string model_type;
  int64_t vocabulary = 0;
  int64_t layers = 0;
  int64_t max_positions = 0;  // what it was trained for
  bool learned_positions =
      false;  // positions past the maximum do not exist; else they only degrade
  Dtype activations = Dtype::F32;
  int64_t position_elements = 0;    // of keys and values, per layer and position
  int64_t token_elements = 0;       // of activations that a pass has at once, per token
  int64_t query_elements = 0;       // of all heads' queries of a position, per layer
  std::vector<int64_t> windows;     // per layer; 0: all positions are kept
  std::vector<std::string> tables;  // keys of modules of which a token reads one row
  std::string head;                 // key of the module whose matrix makes the logits
  std::vector<std::string> above;   // beginnings of keys: what only tokens with logits pass
  int64_t experts = 0, experts_per_token = 0;  // of layers that have experts
  std::vector<std::string> prefixes;   // of keys: the model's, then what checkpoints have instead
  std::vector<std::string> ignorable;  // ends of keys that files may hold without need
  // Bytes of cache for one sequence of `length` positions.
  int64_t cache_bytes(int64_t length) const;
  // Of a parameter's key: whether a token reads one row of it; whether only tokens with logits
  // pass it.
  bool is_table(std::string_view key) const;
  bool is_above(std::string_view key) const;
};

// Which positions of a pass get logits.
enum class LogitsAt { All, Last };

class Model : public nn::Module {
 public:
  // ids int32 [B, L] -> logits [B, L, V] (or [B, 1, V]) in the activations' dtype. Keys and values
  // of the batch's sequences are extended; the caller evaluates, then calls batch.advance().
  virtual Array forward(const Array& ids, nn::Batch& batch, LogitsAt at) = 0;
  // State for one sequence; without `keep` a pass sees only its own tokens.
  virtual nn::SequenceCache make_cache(bool keep) const = 0;
  virtual const ModelInfo& info() const = 0;
  // Activations' dtype: float32, float16 or bfloat16. Weights stay as stored.
  virtual void set_activations(Dtype dtype) = 0;
};

}  // namespace mica::models
