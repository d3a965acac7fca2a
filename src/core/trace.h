// Tracing: what transforms use to see the graph that a function builds.
//
//   TraceScope scope;
//   Array x = scope.track(value);      // grad, vjp, jvp: has a value, may be evaluated inside
//   Array p = placeholder(shape, dtype); // vmap, compile: has none; evaluating it is a ValueError
//   Array y = f(x);                    // nodes that depend on tracked arrays keep their inputs
//
// Trace state belongs to the thread. While a scope is alive on the thread that built them, traced
// nodes keep their inputs through eval; afterwards eval detaches them like any others.
#pragma once

#include "core/node.h"

namespace mica {

class TraceScope {
 public:
  TraceScope();
  ~TraceScope();
  TraceScope(const TraceScope&) = delete;
  TraceScope& operator=(const TraceScope&) = delete;

  // A fresh traced array with the value of `a`.
  Array track(const Array& a);

  // Depth of scopes on this thread; 0 outside transforms.
  static int depth();
  // Called for what is evaluated inside the scope: its inputs are dropped when the outermost scope
  // ends.
  static void remember(Node& node);
};

// A traced array without a value.
Array placeholder(const Shape& shape, Dtype dtype);

// The nodes that `outputs` depend on, inputs before users, down to (not including) what is not
// traced or older than the node numbered `since`.
std::vector<Node*> traced_nodes(std::span<const Array> outputs, uint64_t since = 0);

// Rebuilds one node with other inputs (shapes may differ); params are copied from `node`.
Arrays rebuild(const Node& node, std::span<const Array> inputs);

}  // namespace mica
