#include "transforms/cotangent_sum.h"

#include <algorithm>
#include <utility>

#include "core/trace.h"
#include "ops/elementwise.h"
#include "ops/index.h"

namespace mica::transforms {

namespace {

// Slices of one array that are looked at before they are added as any arrays are.
constexpr int kMaxSlices = 64;

template <class P>
const P& params_of(const Node& node) {
  return *static_cast<const P*>(node.params);
}

// Unless it was evaluated: then it is as good as any other array.
const Node* pending(const Array& a, const Op& op) {
  const Node* node = a.node();
  bool unevaluated = node->state.load(std::memory_order_acquire) == NodeState::Unevaluated;
  return node->op == &op && unevaluated ? node : nullptr;
}

bool is_zeros(const Array& a) {
  const Node* fill = a.node()->op == &ops::fill_op ? a.node() : nullptr;
  return fill && is_floating(a.dtype()) && params_of<ops::FillParams>(*fill).real == 0;
}

// A scatter that adds updates to zeros, or null.
const Node* scattered(const Array& a) {
  const Node* node = pending(a, ops::scatter_op);
  if (node && params_of<ops::ScatterParams>(*node).mode != ScatterMode::Add) return nullptr;
  if (!node) {
    node = pending(a, ops::scatter_axis_op);
    if (node && params_of<ops::ScatterAxisParams>(*node).mode != ScatterMode::Add) return nullptr;
  }
  return node && is_zeros(node->inputs[0]) ? node : nullptr;
}

// The same operation on another array.
Array applied_to(const Array& target, const Node& node) {
  Arrays inputs(node.inputs, node.inputs + node.input_count);
  inputs[0] = target;
  return rebuild(node, inputs)[0];
}

// Whether two slices share no place: along some axis one ends before the other begins.
bool apart(const Node& a, const Node& b) {
  const Shape &shape_a = a.inputs[1].shape(), &shape_b = b.inputs[1].shape();
  auto range = [](const Node& node, const Shape& shape, size_t axis) {
    const auto& params = params_of<ops::SliceUpdateParams>(node);
    int64_t first = params.start[axis], last = first + (shape[axis] - 1) * params.stride[axis];
    return std::pair(std::min(first, last), std::max(first, last));
  };
  for (size_t axis = 0; axis < shape_a.size(); ++axis) {
    if (shape_a[axis] == 0 || shape_b[axis] == 0) return true;
    auto [first_a, last_a] = range(a, shape_a, axis);
    auto [first_b, last_b] = range(b, shape_b, axis);
    if (last_a < first_b || last_b < first_a) return true;
  }
  return false;
}

// Whether `sum` is zeros with slices in it, all apart from that of `slice`.
bool takes_slice(const Array& sum, const Node& slice) {
  const Array* at = &sum;
  for (int i = 0; i < kMaxSlices; ++i) {
    const Node* node = pending(*at, ops::slice_update_op);
    if (!node) return i > 0 && is_zeros(*at);
    if (!apart(*node, slice)) return false;
    at = &node->inputs[0];
  }
  return false;
}

}  // namespace

void accumulate(Array& sum, Array term, Stream stream) {
  if (!term.defined()) return;
  if (!sum.defined()) {
    sum = std::move(term);
    return;
  }
  if (const Node* node = scattered(term)) {
    sum = applied_to(sum, *node);
  } else if (const Node* earlier = scattered(sum)) {
    sum = applied_to(term, *earlier);
  } else {
    const Node* slice = pending(term, ops::slice_update_op);
    bool joins = slice && is_zeros(slice->inputs[0]) && takes_slice(sum, *slice);
    sum = joins ? applied_to(sum, *slice) : add(sum, term, stream);
  }
}

}  // namespace mica::transforms
