#include "transforms/traced_graph.h"

#include <algorithm>

namespace mica::transforms {

Arrays track_all(TraceScope& scope, const Arrays& arrays) {
  Arrays tracked;
  for (const Array& array : arrays) tracked.push_back(scope.track(array));
  return tracked;
}

TracedGraph::TracedGraph(std::span<const Array> outputs, std::span<const Array> sources,
                         Follow follow)
    : outputs_(outputs.begin(), outputs.end()), follow_(follow) {
  if (sources.empty()) return;
  uint64_t first_id = sources[0].node()->id;
  for (const Array& source : sources) {
    first_id = std::min(first_id, source.node()->id);
    first_of_node_.emplace(source.node(), values_++);
  }
  std::vector<Node*> candidates = traced_nodes(outputs_, first_id);
  nodes_.reserve(candidates.size());
  first_values_.reserve(candidates.size());
  first_of_node_.reserve(candidates.size() + sources.size());
  for (Node* node : candidates) {
    if (first_of_node_.count(node) || !depends(*node)) continue;
    nodes_.push_back(node);
    first_values_.push_back(values_);
    first_of_node_.emplace(node, values_);
    values_ += node->output_count;
  }
}

bool TracedGraph::depends(const Node& node) const {
  bool carries = false;
  for (uint32_t i = 0; i < node.output_count; ++i) carries |= follows(node.slots[i].dtype);
  if (!carries) return false;
  for (const Array& input : node.input_span()) {
    if (number(input) >= 0) return true;
  }
  return false;
}

int64_t TracedGraph::number(const Array& array) const {
  if (!array.defined() || !follows(array.dtype())) return -1;
  const Node* node = array.node();
  auto found = first_of_node_.find(node);
  if (found == first_of_node_.end()) return -1;
  return static_cast<int64_t>(found->second) + (array.slot() - node->slots);
}

}  // namespace mica::transforms
