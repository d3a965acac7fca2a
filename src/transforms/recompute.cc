#include "transforms/recompute.h"

#include <algorithm>

#include "ops/shape.h"

namespace mica::transforms {

namespace {

bool is_candidate(const Node& node) {
  return node.op->elementwise && node.output_count == 1 && node.input_count > 0 &&
         elements(node.slots[0].shape) * size_of(node.slots[0].dtype) >= kLeastRecomputed &&
         node.state.load(std::memory_order_acquire) == NodeState::Unevaluated;
}

}  // namespace

Recomputation::Recomputation(const TracedGraph& graph, std::span<const Array> outputs)
    : graph_(graph) {
  auto nodes = graph.nodes();
  if (std::none_of(nodes.begin(), nodes.end(), [](const Node* n) { return is_candidate(*n); }))
    return;
  depth_.assign(graph.values(), 0);
  std::vector<bool> kept(graph.values(), false);
  auto keep = [&](const Array& value) {
    int64_t number = graph.number(value);
    if (number >= 0) kept[static_cast<size_t>(number)] = true;
  };
  for (const Array& output : outputs) keep(output);
  for (const Node* node : nodes) {
    if (node->op->elementwise) continue;
    for (const Array& input : node->input_span()) keep(input);
  }
  for (size_t k = 0; k < nodes.size(); ++k) {
    const size_t value = graph.first_value(k);
    if (kept[value] || !is_candidate(*nodes[k])) continue;
    int depth = 0;
    for (const Array& input : nodes[k]->input_span()) {
      int64_t number = graph.number(input);
      if (number >= 0) depth = std::max<int>(depth, depth_[static_cast<size_t>(number)]);
    }
    if (depth == kLongestChain) continue;
    depth_[value] = static_cast<uint8_t>(depth + 1);
    any_ = true;
  }
}

bool Recomputation::is_recomputed(const Array& value) const {
  int64_t number = graph_.number(value);
  return number >= 0 && depth_[static_cast<size_t>(number)] > 0;
}

Array Recomputation::awaited(const Array& cotangent) const {
  Arrays open = {cotangent};
  for (int looked = 0; !open.empty() && looked < kLongestChain; ++looked) {
    Array a = std::move(open.back());
    open.pop_back();
    if (graph_.number(a) >= 0) continue;
    const Node& node = *a.node();
    if (!node.op->elementwise && !node.op->view && node.input_count > 0) return a;
    for (const Array& input : node.input_span()) open.push_back(input);
  }
  return {};
}

Array Recomputation::again(const Array& value, const Array& cotangent) {
  if (!any_ || !is_recomputed(value)) return value;
  auto found = made_.find(value.slot());
  if (found != made_.end()) return found->second;
  const Node& node = *value.node();
  Arrays inputs(node.input_span().begin(), node.input_span().end());
  bool begins = true;
  for (Array& input : inputs) {
    begins &= !is_recomputed(input);
    input = again(input, cotangent);
  }
  if (begins) {  // a chain
    auto largest = std::max_element(inputs.begin(), inputs.end(), [](const auto& a, const auto& b) {
      return elements(a.shape()) < elements(b.shape());
    });
    if (Array wait = awaited(cotangent); wait.defined())
      *largest = depends(*largest, {wait}, node.stream);
  }
  Array result = rebuild(node, inputs)[0];
  made_.emplace(value.slot(), result);
  return result;
}

}  // namespace mica::transforms
