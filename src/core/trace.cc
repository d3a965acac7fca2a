#include "core/trace.h"

#include "core/graph.h"
#include "core/workshop.h"

namespace mica {

namespace {
thread_local Arrays evaluated_in_trace;
}  // namespace

TraceScope::TraceScope() { ++workshop.trace_depth; }
TraceScope::~TraceScope() {
  if (--workshop.trace_depth > 0) return;
  Arrays evaluated = std::move(evaluated_in_trace);
  evaluated_in_trace.clear();
  for (const Array& array : evaluated) {
    if (array.evaluated()) drop_inputs(*array.node());
  }
}
void TraceScope::remember(Node& node) {
  evaluated_in_trace.push_back(Array::share(&node.slots[0]));
}
int TraceScope::depth() { return workshop.trace_depth; }

Array TraceScope::track(const Array& a) {
  Array tracked = apply(alias_op, {a}, a.node()->stream);
  Node& node = *tracked.node();
  node.traced = true;
  if (a.evaluated() && a.slot()->data) {  // nothing to compute
    node.slots[0].data = new ArrayData(*a.slot()->data);
    node.state.store(NodeState::Done, std::memory_order_release);
    remember(node);
  }
  return tracked;
}

Array placeholder(const Shape& shape, Dtype dtype) {
  Array array = make_constant(nullptr, shape, dtype, row_major(shape), 0);
  Node* node = array.node();
  node->op = &placeholder_op;
  delete node->slots[0].data;
  node->slots[0].data = nullptr;
  node->state.store(NodeState::Unevaluated, std::memory_order_release);
  node->traced = true;
  return array;
}

std::vector<Node*> traced_nodes(std::span<const Array> outputs, uint64_t since) {
  struct Frame {
    Node* node;
    uint32_t next;
  };
  GraphLock lock;
  uint32_t epoch = lock.new_epoch();
  std::vector<Node*> order;
  std::vector<Frame> stack;
  order.reserve(64);
  stack.reserve(32);
  auto visit = [&](Node* node) {
    if (!node->traced || node->id < since || node->mark == epoch) return;
    node->mark = epoch;
    stack.push_back({node, 0});
  };
  for (const Array& output : outputs) {
    visit(output.node());
    while (!stack.empty()) {
      Frame& top = stack.back();
      if (top.next < top.node->input_count) {
        visit(top.node->inputs[top.next++].node());
      } else {
        order.push_back(top.node);
        stack.pop_back();
      }
    }
  }
  return order;
}

Arrays rebuild(const Node& node, std::span<const Array> inputs) {
  return apply_many(*node.op, inputs, node.params, node.stream);
}

}  // namespace mica
