// Node: one application of an op, and the slots that hold its outputs. For core and transforms;
// users hold Arrays.
//
// A node, its slots, its inputs and its parameters are one pooled block. A slot lives as long as
// handles point at it; the node lives as long as any slot does. Release is iterative: a chain of a
// million nodes does not overflow the stack. An evaluated node drops its inputs unless a trace
// holds it.
#pragma once

#include <atomic>
#include <cstdint>
#include <exception>
#include <memory>

#include "core/array.h"
#include "core/blocks.h"
#include "core/op.h"

namespace mica {

class Evaluation;

// Where an evaluated slot lies.
struct ArrayData {
  std::shared_ptr<Buffer> buffer;
  int64_t offset = 0;  // elements
  Strides strides;

  static void* operator new(size_t bytes) { return take_block(bytes); }
  static void operator delete(void* block, size_t bytes) { give_block(block, bytes); }
};

enum class NodeState : uint8_t {
  Unevaluated,
  Claimed,  // an evaluation has taken it
  Done,
  Failed,  // `error` says why; reading rethrows it
};

struct Node {
  const Op* op = nullptr;
  // Unique; creation order within a thread, and inputs have smaller ids than the nodes that use
  // them.
  uint64_t id = 0;
  Stream stream;
  std::atomic<NodeState> state{NodeState::Unevaluated};
  bool traced = false;       // a transform needs its inputs even after evaluation
  uint32_t block_bytes = 0;  // of the pooled block
  uint32_t output_count = 0;
  std::atomic<uint32_t> live_slots{0};  // those with handles; only kept for several outputs
  uint32_t input_count = 0;
  Slot* slots = nullptr;
  Array* inputs = nullptr;
  void* params = nullptr;
  // Scratch of the evaluation that is collecting (under the graph lock).
  uint32_t mark = 0;
  uint32_t mark_index = 0;
  Evaluation* claim = nullptr;  // while Claimed
  Node* next_dead = nullptr;    // while waiting for destruction
  std::exception_ptr* error = nullptr;

  std::span<const Array> input_span() const { return {inputs, input_count}; }
  Application application() const { return {input_span(), {}, params, stream}; }
};

// Drops the inputs of a node (iteratively, whatever dies with them).
void drop_inputs(Node& node) noexcept;
// Number of nodes alive in the process; for tests.
int64_t live_nodes();

// A Done node over memory that exists; op is the internal `constant`.
Array make_constant(std::shared_ptr<Buffer> buffer, const Shape& shape, Dtype dtype,
                    Strides strides, int64_t offset);

extern const Op constant_op;     // evaluated data, no inputs
extern const Op placeholder_op;  // what transforms trace with: evaluating it is an error
extern const Op alias_op;        // the same elements as its input: a fresh identity for a trace

}  // namespace mica
