// Conversion of a checkpoint: quantized, dequantized or cast, tensor by tensor.
//
//   ConvertOptions options{.source = "path/to/model", .target = "model-4bit"};
//   options.recipe = QuantizationRecipe{.standard = {64, 4}};
//   Conversion conversion(options);              // reads headers, decides, checks; writes nothing
//   print(conversion.plan().bits_per_weight());
//   conversion.run();                            // the folder appears when it is complete
//
// Which tensors are matrices says the model itself (nn::Module::visit), not their names. A
// quantized result is in MLX's format as MLX-LM writes it: `quantization` in config.json, also as
// `quantization_config`, with an entry for each layer that differs from the standard (for each
// layer, with a mixed recipe); experts stacked; MLX's orientation and keys. The values are bit for
// bit those of `mlx.core.quantize` for the same weights. A dense result has Hugging Face's layout.
//
// Matrices are read from the mapped source and written in pieces of a few MB, so memory does not
// grow with the model.
// Tokenizer, templates, generation_config.json, licences and the like are copied.
//
// Errors: those of load_model; Value for a source that is quantized already (to quantize) or is not
// (to dequantize), and for what a recipe cannot do (tune/recipe.h); Io for a target that is not
// empty (unless `replace`), that is the source or holds it, or for a disk without room.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/dtype.h"
#include "io/safetensors_writer.h"
#include "tune/recipe.h"

namespace mica::tune {

struct ConvertOptions {
  std::string source, target;                // folders; without a target only plan() is of use
  std::optional<QuantizationRecipe> recipe;  // to quantize
  bool dequantize = false;
  std::optional<Dtype> dtype;  // of all floating tensors before they are quantized; none: as stored
  uint64_t shard_bytes = uint64_t{5} << 30;
  bool replace = false;  // a target that holds a model
  // Called between pieces; what it throws ends the conversion, which leaves nothing behind.
  std::function<void()> between = {};
};

// How many matrices, and elements in them, are stored in one way.
struct StorageUse {
  std::optional<nn::Quantization> quantization;  // none: dense
  int64_t matrices = 0, elements = 0;
};

struct ConversionPlan {
  std::string model_type;
  int64_t parameters = 0;
  int64_t source_bytes = 0, bytes = 0;  // of tensors
  std::vector<io::SafetensorsFilePlan> files;
  std::vector<StorageUse> matrices;
  std::vector<std::string> left_dense;  // the matrices that the standard does not fit
  std::vector<std::string> copied;      // names of the other files
  double bits_per_weight() const {
    return 8.0 * static_cast<double>(bytes) / static_cast<double>(parameters);
  }
};

class Conversion {
 public:
  explicit Conversion(ConvertOptions options);
  ~Conversion();
  const ConversionPlan& plan() const;
  void run();

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace mica::tune
