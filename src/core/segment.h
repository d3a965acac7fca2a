// A piece of work in numbers: what plans are made from, keyed by and run on.
//
// Values are the outputs of the segment's nodes, numbered in order; externals are evaluated slots
// from outside. A reference is a value number, or ~e for external e. Long graphs are cut into
// segments, so that a plan stays small and repeated structure meets the plan cache.
#pragma once

#include <vector>

#include "core/graph.h"

namespace mica {

struct SegmentNode {
  Node* node;
  StepKind kind;
  const Kernel* kernel;
  const Array* inputs;
  uint32_t input_count;
  uint32_t first_ref;    // its inputs' references: Segment::refs[first_ref …]
  uint32_t first_value;  // its outputs
};

struct SegmentValue {
  Slot* slot;
  int32_t node;         // which node computes it
  int32_t uses = 0;     // edges inside the segment
  int32_t shape_class;  // equal shapes have equal classes
  bool held = false;    // someone outside the segment has a handle, or a trace keeps a user of it
};

struct SegmentExternal {
  Slot* slot;
  int32_t uses = 0;
  int32_t shape_class;
  bool kept = false;  // some of the uses are of nodes that a trace keeps, with their inputs
};

struct Segment {
  std::vector<SegmentNode> nodes;
  std::vector<int32_t> refs;
  std::vector<SegmentValue> values;
  std::vector<SegmentExternal> externals;
  // Structure in words: equal keys have equal plans. Extents, offsets and arguments are not in it.
  KeyWords key;
  // Distinct shapes, by class, and an open table of them once they are many.
  std::vector<const Shape*> shapes;
  std::vector<int32_t> shape_table;

  std::span<const int32_t> refs_of(const SegmentNode& node) const {
    return {refs.data() + node.first_ref, node.input_count};
  }
  Slot* slot_of(int32_t ref) const {
    return ref >= 0 ? values[static_cast<size_t>(ref)].slot
                    : externals[static_cast<size_t>(~ref)].slot;
  }
  int32_t shape_class_of(int32_t ref) const {
    return ref >= 0 ? values[static_cast<size_t>(ref)].shape_class
                    : externals[static_cast<size_t>(~ref)].shape_class;
  }
};

// The words of a key: of a node, of each of its inputs, after its parameters of each of its
// outputs, and at the end of who holds values outside.
inline uint64_t key_of_node(const Node& node, StepKind kind) {
  return static_cast<uint64_t>(node.op->index) << 32 | static_cast<uint64_t>(kind) << 24 |
         static_cast<uint64_t>(node.stream.device.kind) << 16 |
         static_cast<uint16_t>(node.stream.index);
}
inline uint64_t key_of_input(int32_t ref, Dtype dtype, int32_t shape_class) {
  uint64_t word = static_cast<uint32_t>(ref);
  if (ref < 0) word |= static_cast<uint64_t>(dtype) << 32;
  return word | static_cast<uint64_t>(shape_class) << 40;
}
inline uint64_t key_of_output(Dtype dtype, int32_t shape_class) {
  return static_cast<uint64_t>(shape_class) << 8 | static_cast<uint64_t>(dtype);
}

// Numbers the nodes [first, last) of the work; everything they need from outside is evaluated.
void number_segment(const Work& work, size_t first, size_t last, Segment& segment, GraphLock& lock);

}  // namespace mica
