// Region: elementwise operations, casts and broadcasts as one kernel, with an optional trailing
// reduction. One form feeds every backend.
//
// All instructions share one iteration space, the shape of the region's elementwise outputs (or of
// the reduction's input). Values are numbered: 0 … inputs-1 are the inputs, broadcast to the space;
// then one value per instruction, in order. Every value is rounded to its own dtype, without
// contraction, so that a region gives the very bits that its operations give one by one. For that,
// a reduction always runs as a region, fused or not, and adds in an order that depends on shapes
// only.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "core/op.h"

namespace mica {

struct ReduceParams {
  std::vector<int> axes;  // sorted, non-negative, not empty
  bool keep = true;       // the reduced axes, with extent 1
  static constexpr auto fields() {
    return std::tuple(field("axes", &ReduceParams::axes), field("keep", &ReduceParams::keep));
  }
};

struct RegionInstruction {
  const Op* op;          // an elementwise op (at most three arguments)
  Dtype dtype;           // of the result
  Dtype argument_dtype;  // of the arguments (all have the same one, but for `select`: its first is
                         // bool)
  uint8_t arity;
  int16_t arguments[3];  // value numbers
  int32_t node;          // which node's parameters: an index into RegionCall::params
};

struct RegionOutput {
  int16_t value;
  Dtype dtype;
};

struct Region {
  std::vector<Dtype> inputs;
  std::vector<RegionInstruction> instructions;
  std::vector<RegionOutput> outputs;  // elementwise ones; the reduction's output comes after them
  // With a reduction: what is reduced; `axes` of the iteration space.
  const Op* reduction = nullptr;
  int16_t reduced_value = -1;
  Dtype reduction_dtype = Dtype::F32;  // of its result
  std::vector<int> axes;
};

}  // namespace mica
