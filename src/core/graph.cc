#include "core/graph.h"

#include <algorithm>

#include "core/counters.h"
#include "core/trace.h"

namespace mica {

namespace {

struct GraphState {
  std::mutex mutex;
  uint32_t epoch = 0;
};

GraphState& graph() {
  static auto* state = new GraphState;
  return *state;
}

// Chooses how a node runs on its device.
class Resolver {
 public:
  explicit Resolver(Work& work) : work_(work) {}

  WorkNode resolve(Node* node) {
    const Op& op = *node->op;
    if (&op == &placeholder_op) {
      throw_value(
          "[eval] an array inside vmap or compile has no value: evaluating, printing or reading it "
          "there is not "
          "possible; return it from the function instead");
    }
    if (op.view) return {node, StepKind::View, nullptr, -1, node->id};
    auto [kind, kernel] = resolve_step(*node, backend_for(node->stream.device));
    if (kind != StepKind::Alias) return {node, kind, kernel, -1, node->id};
    if (!op.lower) {
      throw_unsupported("[{}] has no kernel on device '{}' for these inputs and no lowering",
                        op.name, device_name(node->stream.device));
    }
    work_.lowered.push_back(op.lower(node->application()));
    detail::count(detail::live_counters.lowered);
    return {node, StepKind::Alias, nullptr, static_cast<int32_t>(work_.lowered.size()) - 1,
            node->id};
  }

 private:
  Backend& backend_for(Device device) {
    if (!backend_ || device != device_) {
      backend_ = &backend_of(device);
      device_ = device;
    }
    return *backend_;
  }

  Work& work_;
  Device device_;
  Backend* backend_ = nullptr;
};

// Depth-first, inputs before users, without recursion.
class Collector {
 public:
  Collector(Work& work, uint32_t epoch) : work_(work), resolver_(work), epoch_(epoch) {}

  void collect(Node* root) {
    visit(root, root->id);
    auto& open = work_.open;
    while (!open.empty()) {
      WorkFrame& top = open.back();
      std::span<const Array> inputs = work_.inputs_of(top.work);
      if (top.next < inputs.size()) {
        visit(inputs[top.next++].node(), top.work.rank);
      } else {
        work_.nodes.push_back(top.work);
        open.pop_back();
      }
    }
  }

 private:
  void visit(Node* node, uint64_t rank) {
    if (node->mark == epoch_) return;
    node->mark = epoch_;
    switch (node->state.load(std::memory_order_acquire)) {
      case NodeState::Done: return;
      case NodeState::Failed: std::rethrow_exception(*node->error);
      case NodeState::Claimed: {
        auto& latch = node->claim->latch();
        if (std::find(work_.waits.begin(), work_.waits.end(), latch) == work_.waits.end())
          work_.waits.push_back(latch);
        return;
      }
      case NodeState::Unevaluated: break;
    }
    WorkNode work = resolver_.resolve(node);
    work.rank = std::min(work.rank, rank);
    work_.open.push_back({work, 0});
  }

  Work& work_;
  Resolver resolver_;
  uint32_t epoch_;
};

}  // namespace

Resolution resolve_step(const Node& node, const Backend& backend) {
  const Op& op = *node.op;
  if (op.elementwise && backend.has_elementwise(op)) return {StepKind::Elementwise, nullptr};
  if (op.reduce != Reduce::None) return {StepKind::Reduction, nullptr};
  const Kernel* kernel = backend.kernels().find(op);
  if (kernel && (!kernel->accepts || kernel->accepts(node.application())))
    return {StepKind::Kernel, kernel};
  return {StepKind::Alias, nullptr};
}

GraphLock::GraphLock() : lock_(graph().mutex) {}
GraphLock::GraphLock(Later) : lock_(graph().mutex, std::defer_lock) {}
void GraphLock::hold() {
  if (!lock_.owns_lock()) lock_.lock();
}
void GraphLock::let_go() {
  if (lock_.owns_lock()) lock_.unlock();
}
uint32_t GraphLock::new_epoch() { return ++graph().epoch; }

void Latch::open() {
  std::lock_guard lock(mutex_);
  open_ = true;
  condition_.notify_all();
}

void Latch::wait() {
  std::unique_lock lock(mutex_);
  condition_.wait(lock, [&] { return open_; });
}

const std::shared_ptr<Latch>& Evaluation::latch() {
  if (!latch_) latch_ = std::make_shared<Latch>();
  return latch_;
}

void Evaluation::finish() {
  if (auto latch = std::move(latch_)) latch->open();
}

void collect(std::span<const Array> roots, Work& work, GraphLock& lock) {
  work.keep_traced = TraceScope::depth() > 0;
  Collector collector(work, lock.new_epoch());
  for (const Array& root : roots) collector.collect(root.node());
  for (WorkNode& claimed : work.nodes) {
    claimed.node->claim = work.evaluation.get();
    claimed.node->state.store(NodeState::Claimed, std::memory_order_release);
    if (work.keep_traced && claimed.node->traced) TraceScope::remember(*claimed.node);
  }
}

void unclaim(Work& work, size_t first, size_t last) {
  GraphLock lock;
  for (size_t i = first; i < last; ++i) {
    work.nodes[i].node->claim = nullptr;
    work.nodes[i].node->state.store(NodeState::Unevaluated, std::memory_order_release);
  }
}

}  // namespace mica
