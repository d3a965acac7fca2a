// TracedGraph: what a traced function built between its sources and its outputs, in an order that
// transforms can walk. For src/transforms.
//
//   TraceScope scope;
//   Arrays sources = {scope.track(x)};
//   Arrays outputs = f(sources);
//   TracedGraph graph(outputs, sources, Follow::Derivatives);
//   for (size_t k = 0; k < graph.nodes().size(); ++k) …
//
// Only nodes that depend on a source are in it; whatever else they read was captured from outside.
// Values are numbered: the sources first, then the outputs of node 0, of node 1, ….
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "core/trace.h"

namespace mica {

// What transforms take and give. Python's nested arguments are flattened before (core/tree.h).
using ArraysFunction = std::function<Arrays(const Arrays&)>;

namespace transforms {

// Fresh traced arrays with the values of `arrays`.
Arrays track_all(TraceScope& scope, const Arrays& arrays);

// Derivatives flow through floating values only.
enum class Follow { Derivatives, Everything };

class TracedGraph {
 public:
  // `sources` are the fresh arrays of the trace: nothing they depend on is newer than the first of
  // them.
  TracedGraph(std::span<const Array> outputs, std::span<const Array> sources, Follow follow);

  std::span<Node* const> nodes() const { return nodes_; }  // inputs before users
  size_t values() const { return values_; }
  // The number of output 0 of node k; further outputs follow.
  size_t first_value(size_t k) const { return first_values_[k]; }
  // The number of a value, -1 if no source has a say in it.
  int64_t number(const Array& array) const;

 private:
  bool follows(Dtype dtype) const { return follow_ == Follow::Everything || is_floating(dtype); }
  bool depends(const Node& node) const;
  size_t find(uint64_t id) const;
  void number_node(const Node& node);

  // An open table by node id. Ids of one trace are close to each other, so their low bits spread
  // well and neighbours share cache lines.
  struct Place {
    uint64_t id = 0;
    size_t first_value = 0;
  };

  Arrays outputs_;  // keeps the nodes alive
  Follow follow_;
  std::vector<Node*> nodes_;
  std::vector<size_t> first_values_;
  std::vector<Place> table_;
  size_t values_ = 0;
};

}  // namespace transforms
}  // namespace mica
