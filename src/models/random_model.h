// Random models: complete folders, as checkpoints lie on disk, for benchmarks and tests that need
// the size and the storage of a model but not its knowledge.
//
//   write_random_model(shape_config(find_shape("llama-1b"), {.quantization = {{64, 4}}}), folder);
//   auto loaded = load_model(folder);
//
// Tensors are those that the model's modules name. Weights look like N(0, 0.02), those of norms
// like N(1, 0.02). Packed matrices are made as they are stored: bell-shaped integers, and scales
// and biases that make them so; experts lie in stacks, as MLX-LM writes them. There is no
// tokenizer. Equal configurations, options and seeds give equal files on every machine.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "base/json.h"
#include "core/dtype.h"

namespace mica::models {

struct RandomModelOptions {
  Dtype dtype = Dtype::BF16;  // of everything that is not packed: float32, float16 or bfloat16
  uint64_t seed = 0;
  std::function<void()> between_pieces = {};  // what it throws ends the work; no files are left
};

// Writes config.json and the weights into an existing folder without a model. A "quantization" of
// the configuration packs every matrix. Throws ValueError for a configuration that no model has or
// a dtype that weights cannot have, Io if the folder cannot be written.
void write_random_model(Json config, const std::string& folder,
                        const RandomModelOptions& options = {});

}  // namespace mica::models
