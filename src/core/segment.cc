#include "core/segment.h"

namespace mica {

namespace {

uint64_t hash_shape(const Shape& shape) {
  uint64_t hash = shape.size();
  for (int64_t extent : shape)
    hash = (hash ^ static_cast<uint64_t>(extent)) * 0x9e3779b97f4a7c15ull;
  return hash ^ (hash >> 32);
}

// Numbers distinct shapes in order of appearance.
class ShapeClasses {
 public:
  explicit ShapeClasses(Segment& segment) : shapes_(segment.shapes), table_(segment.shape_table) {
    shapes_.clear();
  }

  int32_t of(const Shape& shape) {
    auto count = static_cast<int32_t>(shapes_.size());
    if (count > kFew) return look_up(shape);
    for (int32_t c = count; c-- > 0;) {
      if (*shapes_[static_cast<size_t>(c)] == shape) return c;
    }
    shapes_.push_back(&shape);
    if (count == kFew) rehash(64);
    return count;
  }

 private:
  static constexpr int32_t kFew = 8;  // looked through one by one

  int32_t look_up(const Shape& shape) {
    size_t at = hash_shape(shape) & (table_.size() - 1);
    while (table_[at] >= 0) {
      if (*shapes_[static_cast<size_t>(table_[at])] == shape) return table_[at];
      at = (at + 1) & (table_.size() - 1);
    }
    auto count = static_cast<int32_t>(shapes_.size());
    shapes_.push_back(&shape);
    table_[at] = count;
    if (2 * shapes_.size() > table_.size()) rehash(4 * table_.size());
    return count;
  }

  void rehash(size_t size) {
    table_.assign(size, -1);
    for (size_t i = 0; i < shapes_.size(); ++i) {
      size_t at = hash_shape(*shapes_[i]) & (size - 1);
      while (table_[at] >= 0) at = (at + 1) & (size - 1);
      table_[at] = static_cast<int32_t>(i);
    }
  }

  std::vector<const Shape*>& shapes_;
  std::vector<int32_t>& table_;
};

class Numberer {
 public:
  Numberer(const Work& work, Segment& segment, uint32_t epoch)
      : work_(work), segment_(segment), epoch_(epoch), classes_(segment) {
    segment_.nodes.clear();
    segment_.refs.clear();
    segment_.values.clear();
    segment_.externals.clear();
    segment_.key.clear();
  }

  void add(const WorkNode& work) {
    std::span<const Array> inputs = work_.inputs_of(work);
    SegmentNode node{work.node,
                     work.kind,
                     work.kernel,
                     inputs.data(),
                     static_cast<uint32_t>(inputs.size()),
                     static_cast<uint32_t>(segment_.refs.size()),
                     static_cast<uint32_t>(segment_.values.size())};
    const Node& of = *work.node;
    auto& key = segment_.key;
    key.push_back(key_of_node(of, work.kind));
    bool kept = work_.keep_traced && of.traced;
    for (const Array& input : inputs) add_input(input.slot(), kept && work.lowering < 0);
    // What a lowering replaced keeps its own inputs alive without being an edge.
    if (work.lowering >= 0) {
      for (const Array& input : of.input_span()) count_use(input.slot(), kept);
    }
    if (of.params && work.kind != StepKind::Alias) of.op->params->append_key(of.params, false, key);
    add_outputs(*work.node);
    segment_.nodes.push_back(node);
  }

  void finish() {
    bool traced = work_.keep_traced;
    uint64_t bits = 0;  // of up to 64 values
    for (size_t i = 0; i < segment_.values.size(); ++i) {
      SegmentValue& value = segment_.values[i];
      uint32_t refs = value.slot->refs.load(std::memory_order_acquire);
      value.held |=
          refs > static_cast<uint32_t>(value.uses) || (traced && value.slot->node->traced);
      bits = bits << 1 | value.held;
      if (i % 64 == 63 || i + 1 == segment_.values.size()) {
        segment_.key.push_back(bits);
        bits = 0;
      }
    }
  }

 private:
  void add_input(Slot* slot, bool kept) {
    int32_t ref = count_use(slot, kept);
    segment_.refs.push_back(ref);
    segment_.key.push_back(key_of_input(ref, slot->dtype, segment_.shape_class_of(ref)));
  }

  int32_t count_use(Slot* slot, bool kept) {
    Node* node = slot->node;
    auto index = static_cast<uint32_t>(slot - node->slots);
    if (node->mark != epoch_) {  // first sight of an evaluated node
      node->mark = epoch_;
      node->mark_index = ~static_cast<uint32_t>(segment_.externals.size());
      for (uint32_t i = 0; i < node->output_count; ++i)
        segment_.externals.push_back({&node->slots[i], 0, classes_.of(node->slots[i].shape)});
    }
    auto base = static_cast<int32_t>(node->mark_index);
    if (base < 0) {
      int32_t external = ~base + static_cast<int32_t>(index);
      ++segment_.externals[static_cast<size_t>(external)].uses;
      segment_.externals[static_cast<size_t>(external)].kept |= kept;
      return ~external;
    }
    int32_t value = base + static_cast<int32_t>(index);
    ++segment_.values[static_cast<size_t>(value)].uses;
    segment_.values[static_cast<size_t>(value)].held |= kept;
    return value;
  }

  void add_outputs(Node& node) {
    node.mark = epoch_;
    node.mark_index = static_cast<uint32_t>(segment_.values.size());
    for (uint32_t i = 0; i < node.output_count; ++i) {
      Slot& slot = node.slots[i];
      int32_t shape_class = classes_.of(slot.shape);
      segment_.values.push_back(
          {&slot, static_cast<int32_t>(segment_.nodes.size()), 0, shape_class, false});
      segment_.key.push_back(key_of_output(slot.dtype, shape_class));
    }
  }

  const Work& work_;
  Segment& segment_;
  uint32_t epoch_;
  ShapeClasses classes_;
};

}  // namespace

void number_segment(const Work& work, size_t first, size_t last, Segment& segment,
                    GraphLock& lock) {
  Numberer numberer(work, segment, lock.new_epoch());
  for (size_t i = first; i < last; ++i) numberer.add(work.nodes[i]);
  numberer.finish();
}

}  // namespace mica
