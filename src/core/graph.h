// The graph as evaluation sees it: collecting what is unevaluated, claiming it, waiting for others.
//
// One lock guards collection, claims and publication. An evaluation claims its whole unevaluated
// subgraph at once and waits only for evaluations that claimed before it, so there is no deadlock.
#pragma once

#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <vector>

#include "core/backend.h"
#include "core/node.h"

namespace mica {

// Holds the graph lock; marks of nodes are valid within one epoch of one lock.
class GraphLock {
 public:
  struct Later {};
  GraphLock();
  explicit GraphLock(Later);  // not held yet
  void hold();                // does nothing if it is held
  void let_go();              // does nothing if it is not
  uint32_t new_epoch();

 private:
  std::unique_lock<std::mutex> lock_;
};

// Opens once.
class Latch {
 public:
  void open();
  void wait();

 private:
  std::mutex mutex_;
  std::condition_variable condition_;
  bool open_ = false;
};

// One evaluation in flight; others that need its nodes wait for it.
class Evaluation {
 public:
  // What opens when it is done. Under the graph lock, while it claims a node.
  const std::shared_ptr<Latch>& latch();
  // When it claims nothing any more, so that nobody can begin to wait for it.
  void finish();

 private:
  std::shared_ptr<Latch> latch_;  // if somebody waits
};

enum class StepKind : uint8_t { Elementwise, Reduction, View, Kernel, Alias };

// How a node that is no view runs on its device; StepKind::Alias: as its lowering.
struct Resolution {
  StepKind kind;
  const Kernel* kernel;  // StepKind::Kernel
};
Resolution resolve_step(const Node& node, const Backend& backend);

// A claimed node, resolved for its device.
struct WorkNode {
  Node* node;
  StepKind kind;
  const Kernel* kernel;   // StepKind::Kernel
  int32_t lowering = -1;  // StepKind::Alias: index into Work::lowered; output i is its array i
  uint64_t rank;          // creation order; nodes that a lowering built rank with the lowered node
};

// A node whose inputs are being collected.
struct WorkFrame {
  WorkNode work;
  uint32_t next;  // of its inputs
};

// Everything that one eval has to do, inputs before users.
struct Work {
  std::vector<WorkNode> nodes;
  std::vector<WorkFrame> open;  // while collecting
  std::vector<Arrays> lowered;
  std::vector<std::shared_ptr<Latch>> waits;
  std::unique_ptr<Evaluation> evaluation = std::make_unique<Evaluation>();
  bool keep_traced = false;  // the eval runs inside a trace of this thread

  // As new, but with the memory of its tables.
  void clear() {
    nodes.clear();
    open.clear();
    lowered.clear();
    waits.clear();
  }

  std::span<const Array> inputs_of(const WorkNode& work) const {
    return work.lowering < 0 ? work.node->input_span()
                             : std::span<const Array>(lowered[static_cast<size_t>(work.lowering)]);
  }
};

// Collects into an empty work and claims. Empty if nothing is to be done; throws the error of a
// failed node, ValueError for placeholders, Unsupported for an op without kernel and lowering.
// Nothing is claimed when it throws.
void collect(std::span<const Array> roots, Work& work, GraphLock& lock);

// eval for callers that hold what long work must not keep from others, such as Python's lock:
// `before_long` is called, once at most, before anything that may take more than some microseconds.
// By then it holds nothing else that others wait for.
void eval(std::span<const Array> arrays, const std::function<void()>& before_long);

// Gives back the claims of the nodes [first, last): they are Unevaluated again.
void unclaim(Work& work, size_t first, size_t last);

}  // namespace mica
