#include "transforms/traced_graph.h"

#include <algorithm>
#include <bit>

namespace mica::transforms {

Arrays track_all(TraceScope& scope, const Arrays& arrays) {
  Arrays tracked;
  tracked.reserve(arrays.size());
  for (const Array& array : arrays) tracked.push_back(scope.track(array));
  return tracked;
}

TracedGraph::TracedGraph(std::span<const Array> outputs, std::span<const Array> sources,
                         Follow follow)
    : outputs_(outputs.begin(), outputs.end()), follow_(follow) {
  if (sources.empty()) return;
  uint64_t first_id = sources[0].node()->id;
  for (const Array& source : sources) first_id = std::min(first_id, source.node()->id);
  std::vector<Node*> candidates = traced_nodes(outputs_, first_id);
  table_.resize(std::bit_ceil(2 * (candidates.size() + sources.size())));
  for (const Array& source : sources) number_node(*source.node());
  nodes_.reserve(candidates.size());
  first_values_.reserve(candidates.size());
  for (Node* node : candidates) {
    bool source = table_[find(node->id)].id != 0;
    if (source || !depends(*node)) continue;
    nodes_.push_back(node);
    first_values_.push_back(values_);
    number_node(*node);
  }
}

// The place of a node's id, or the empty one where it belongs.
size_t TracedGraph::find(uint64_t id) const {
  size_t mask = table_.size() - 1;
  size_t at = id & mask;
  while (table_[at].id != 0 && table_[at].id != id) at = (at + 1) & mask;
  return at;
}

void TracedGraph::number_node(const Node& node) {
  table_[find(node.id)] = {node.id, values_};
  values_ += node.output_count;
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
  if (!array.defined() || table_.empty() || !follows(array.dtype())) return -1;
  const Node* node = array.node();
  const Place& place = table_[find(node->id)];
  if (place.id == 0) return -1;
  return static_cast<int64_t>(place.first_value) + (array.slot() - node->slots);
}

}  // namespace mica::transforms
