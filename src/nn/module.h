// Module: a part of a network that names its arrays by checkpoint key.
//
//   struct Block : nn::Module {
//     void visit(nn::Visitor& v) override { v.module("mlp", mlp); v.module("norm", norm); }
//     …
//   };
//
// One walk serves all: loading, saving, counting, quantizing, freezing. A module is built from its
// configuration with empty arrays; a visitor fills, reads or replaces them.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "core/array.h"

namespace mica::nn {

class Visitor;

class Module {
 public:
  virtual ~Module() = default;
  // Names every array and every part, always in the same order.
  virtual void visit(Visitor& visitor) = 0;
};

// How a matrix is stored: MLX's affine format, `scales` and `biases` per group of `group_size`
// columns.
struct Quantization {
  int group_size = 64;
  int bits = 4;
  int activation_bits = 0;  // 8: products may take activations as integers (ops/quantized.h)
  friend bool operator==(const Quantization&, const Quantization&) = default;
};

// Another way to store a part that is one of `count` equal ones: as row `index` of arrays with one
// more axis in front, under `name` beside the part's own.
struct StackRow {
  std::string name;
  int64_t index = 0, count = 0;
};

class Visitor {
 public:
  virtual ~Visitor() = default;

  // An array of the module that is being visited. `shape` is what the configuration asks for.
  void parameter(const char* name, Array& array, const Shape& shape);
  void module(std::string_view name, Module& part);
  // The same for a part that checkpoints may also store as a row of a stack.
  void module(std::string_view name, Module& part, StackRow row);
  // What the matrix of the module being visited is stored as; visitors that load answer from the
  // checkpoint, others leave it as it is.
  virtual std::optional<Quantization> quantization(const std::optional<Quantization>& current) {
    return current;
  }

 protected:
  virtual void on_parameter(const std::string& key, Array& array, const Shape& shape) = 0;
  // Key of the module being visited, without a final dot: "model.layers.0.mlp.up_proj".
  const std::string& path() const { return path_; }
  // Whether it may come from a stack: `name` is then a whole key like path().
  const std::optional<StackRow>& stack_row() const { return stack_row_; }

 private:
  std::string path_;
  std::optional<StackRow> stack_row_;
};

// Number of elements and bytes of all parameters as stored.
struct ParameterCount {
  int64_t elements = 0;  // of the matrices as if unpacked
  int64_t bytes = 0;
};
ParameterCount count_parameters(Module& module);

}  // namespace mica::nn
