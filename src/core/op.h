// Op: what graphs hold. One record per operation, in src/ops/, one file per family.
//
// An Op states its shape and dtype rule (`infer`) and, where it has them, its derivative and
// batching rules, its lowering (the operation written with other operations) and sample inputs for
// the sweep. Rules are compositions of public functions, hence differentiable themselves. What is
// missing falls back: vjp and jvp to those of the lowering, jvp to a double vjp, vmap to a loop and
// a stack. Kernels stand in a table per backend (core/backend.h); an operation without one runs as
// its lowering.
#pragma once

#include <functional>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

#include "core/array.h"
#include "core/params.h"

namespace mica {

struct ViewLayout;  // core/view.h

// One use of an op in a graph, as its rules see it.
struct Application {
  std::span<const Array> inputs;
  std::span<const Array> outputs;  // vjp and jvp only: the results of the primal application
  const void* params = nullptr;
  Stream stream;

  template <class P>
  const P& as() const {
    return *static_cast<const P*>(params);
  }
};

// Filled by `infer`: one entry per output.
struct OutputSpec {
  Shape shape;
  Dtype dtype = Dtype::F32;
};

// Result of a batching rule: the batched outputs and where their batch axis lies (-1: not batched).
struct Batched {
  Arrays outputs;
  std::vector<int> axes;
};

// One application for the sweep: builds arrays on its own and returns the outputs of the op.
// `inputs` are given so that the sweep can vary dtype, layout and batch.
struct Sample {
  std::string label;
  // Shapes of the inputs and how to fill them.
  struct Input {
    Shape shape;
    double low = -1, high = 1;  // uniform over [low, high]; integers are drawn from the same range
    bool differentiable = true;
    Dtype dtype = Dtype::F32;
    bool fixed_dtype = false;         // false: the sweep may try other floating types
    std::vector<double> values = {};  // if given: these instead of random ones
  };
  std::vector<Input> inputs;
  std::function<Arrays(std::span<const Array>)> apply;  // calls public functions
  double tolerance = 1;                                 // times the dtype's own tolerance
};

enum class Reduce : uint8_t { None, Sum, Prod, Max, Min, All, Any };

struct Op {
  const char* name;
  const ParamsType* params = nullptr;
  int outputs = 1;
  // For ops whose number of outputs depends on the application; `outputs` is then ignored.
  size_t (*count_outputs)(const Application&) = nullptr;
  // Elementwise ops compute each output element from the elements at the same place of the inputs,
  // broadcast to the output's shape. They are fused into regions; the backends know them by index.
  bool elementwise = false;
  // Reductions may end a region. Params are ReduceParams (core/region.h), which say whether the
  // reduced axes stay with extent 1.
  Reduce reduce = Reduce::None;
  // Output 0 starts as the content of input 0: in place if the plan may donate it, else a copy.
  bool updates_first_input = false;
  // Set for views: strides and offset of the output from those of input 0. False: a copy is needed,
  // after which the output is input 0's elements in row-major order.
  bool (*view)(const Application&, const Shape& output, ViewLayout& layout) = nullptr;

  void (*infer)(const Application&, std::span<OutputSpec> outputs) = nullptr;
  // Cotangents for the inputs marked in `wanted`; an empty Array means zero. Cotangents of outputs
  // that nobody used are given as zeros.
  Arrays (*vjp)(const Application&, std::span<const Array> cotangents,
                const std::vector<bool>& wanted) = nullptr;
  // Tangents of the outputs; an empty tangent of an input means zero.
  Arrays (*jvp)(const Application&, std::span<const Array> tangents) = nullptr;
  // axes[i] is the batch axis of input i or -1; the shapes of `inputs` include it.
  Batched (*vmap)(const Application&, std::span<const int> axes) = nullptr;
  Arrays (*lower)(const Application&) = nullptr;
  std::vector<Sample> (*samples)() = nullptr;

  mutable int index = -1;  // place in the registry, set when the tables are built
};

// The tables of operations, built once on first use from the files of src/ops/.
class OpRegistry {
 public:
  static const OpRegistry& shared();
  std::span<const Op* const> ops() const { return ops_; }
  const Op* find(std::string_view name) const;

  void add(const Op& op);

 private:
  std::vector<const Op*> ops_;
};

// Builds a node and returns its outputs. Checks nothing but what `infer` checks.
Arrays apply_many(const Op& op, std::span<const Array> inputs, const void* params, Stream stream);
// For an op of one output; params (moved in) may be omitted for ops that have none. Inputs given as
// a list in braces are moved into the node.
Array apply(const Op& op, std::span<const Array> inputs, Stream stream);

namespace detail {
// Runs `infer`, allocates the node, calls `place` to construct the parameters in it.
Node* build_node(const Op& op, std::span<const Array> inputs, const void* params,
                 void (*place)(void* to, const void* from), Stream stream);
// The same, and moves the inputs into the node.
Node* build_node_of(const Op& op, std::span<Array> inputs, const void* params,
                    void (*place)(void* to, const void* from), Stream stream);
template <class P>
void place_params(void* to, const void* from) {
  new (to) P(std::move(*static_cast<P*>(const_cast<void*>(from))));
}
}  // namespace detail

template <class P>
  requires(!std::is_pointer_v<P>)
Array apply(const Op& op, std::span<const Array> inputs, P params, Stream stream) {
  return Array::made_by(detail::build_node(op, inputs, &params, &detail::place_params<P>, stream));
}
template <size_t N, class P>
  requires(!std::is_pointer_v<P>)
Array apply(const Op& op, Array (&&inputs)[N], P params, Stream stream) {
  return Array::made_by(
      detail::build_node_of(op, inputs, &params, &detail::place_params<P>, stream));
}
template <size_t N>
Array apply(const Op& op, Array (&&inputs)[N], Stream stream) {
  return Array::made_by(detail::build_node_of(op, inputs, nullptr, nullptr, stream));
}
template <class P>
  requires(!std::is_pointer_v<P>)  // pointers to parameters that exist go to the overload above
Arrays apply_many(const Op& op, std::span<const Array> inputs, P params, Stream stream) {
  return Array::all_of(detail::build_node(op, inputs, &params, &detail::place_params<P>, stream));
}

}  // namespace mica
