// Named shapes: configurations of well-known models, for benchmarks with random weights in real
// sizes.
//
//   Json config = shape_config(find_shape("llama-1b"), {.layers = 4});
//   auto model = make_model(config);
#pragma once

#include <optional>
#include <span>

#include "base/json.h"
#include "nn/module.h"

namespace mica::models {

struct NamedShape {
  const char* name;
  const char* about;
  const char* config;  // config.json of the model that has this shape, without what only text needs
};

std::span<const NamedShape> named_shapes();
// ValueError with the likeliest name and all known ones.
const NamedShape& find_shape(const std::string& name);

struct ShapeOptions {
  std::optional<nn::Quantization> quantization;  // absent: dense
  int64_t layers = 0;                            // fewer than the shape has; 0: all
};
// ValueError for more layers than there are.
Json shape_config(const NamedShape& shape, const ShapeOptions& options = {});

}  // namespace mica::models
