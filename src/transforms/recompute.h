// Values of elementwise operations for their own derivatives.
//
// A derivative of y = f(x) reads x or y, so a chain of elementwise operations would leave each of
// its values in memory until the backward pass: an activation of ten operations ten arrays, written
// in one pass and read in another. Where they are large, only the ends of such a chain are kept,
// which others need anyway, and the values between are computed again by the kernel that computes
// the derivatives: chains are fused, so that costs no memory traffic. Chains are cut after
// kLongestChain operations. Values are the same bits either way.
#pragma once

#include <unordered_map>
#include <vector>

#include "transforms/traced_graph.h"

namespace mica::transforms {

inline constexpr int64_t kLeastRecomputed = int64_t{1} << 20;  // bytes of a value
inline constexpr int kLongestChain = 16;

class Recomputation {
 public:
  // `outputs` of the graph are kept.
  Recomputation(const TracedGraph& graph, std::span<const Array> outputs);

  // Whether any value is computed again.
  bool any() const { return any_; }
  // The value, for a derivative that waits for `cotangent`.
  Array again(const Array& value, const Array& cotangent);

 private:
  bool is_recomputed(const Array& value) const;
  // What the cotangent was computed from by elementwise operations, which may join the kernel: to
  // wait for it keeps a value out of the forward pass. Undefined if there is nothing.
  Array awaited(const Array& cotangent) const;

  const TracedGraph& graph_;
  bool any_ = false;
  std::vector<uint8_t> depth_;  // by value: operations since what is kept; 0 if it is kept itself
  std::unordered_map<const Slot*, Array> made_;
};

}  // namespace mica::transforms
