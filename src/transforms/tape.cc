#include "transforms/tape.h"

#include <algorithm>
#include <unordered_map>

namespace mica::transforms {

namespace {

// A value without inputs that is cheap to make again, wherever it is used.
bool is_generator(const Node& node) {
  return node.input_count == 0 && node.op != &constant_op && node.op != &placeholder_op &&
         node.state.load(std::memory_order_acquire) == NodeState::Unevaluated;
}

}  // namespace

void DestroyParams::operator()(void* params) const {
  type->destroy(params);
  ::operator delete(params, std::align_val_t(type->align));
}

// Builds the tape step by step; with `simplify`, looks up each step among those before it.
class Tape::Recorder {
 public:
  Recorder(Tape& tape, const TracedGraph& graph, size_t sources, bool simplify)
      : tape_(tape), graph_(graph), values_(graph.values()), simplify_(simplify) {
    for (size_t i = 0; i < sources; ++i) values_[i] = static_cast<int32_t>(i);
    tape_.value_count_ = static_cast<int32_t>(sources);
    if (simplify) seen_.reserve(graph.nodes().size());
  }

  void add(size_t k) {
    const Node& node = *graph_.nodes()[k];
    if (node.op == &alias_op) {
      values_[graph_.first_value(k)] = reference(node.inputs[0]);
      return;
    }
    int32_t first = record(node);
    for (uint32_t i = 0; i < node.output_count; ++i)
      values_[graph_.first_value(k) + i] = first + static_cast<int32_t>(i);
  }

  // The reference to an array, recording a generator or capturing an array at its first use.
  int32_t reference(const Array& array) {
    int64_t number = graph_.number(array);
    if (number >= 0) return values_[static_cast<size_t>(number)];
    auto found = outside_.find(array.slot());
    if (found != outside_.end()) return found->second;
    int32_t result;
    if (is_generator(*array.node())) {
      result = record(*array.node()) + static_cast<int32_t>(array.slot() - array.node()->slots);
    } else {
      tape_.captured_.push_back(array);
      result = -static_cast<int32_t>(tape_.captured_.size());
    }
    outside_.emplace(array.slot(), result);
    return result;
  }

 private:
  // The number of output 0 of a step that computes what `node` does.
  int32_t record(const Node& node) {
    Step step;
    step.op = node.op;
    step.stream = node.stream;
    step.reference_count = node.input_count;
    step.output_count = node.output_count;
    for (const Array& input : node.input_span()) reference(input);  // generators come first
    step.first_reference = static_cast<uint32_t>(tape_.references_.size());
    for (const Array& input : node.input_span()) tape_.references_.push_back(reference(input));

    bool mergeable = simplify_ && (node.input_count > 0 || elements(node.slots[0].shape) == 1);
    if (mergeable) {
      uint64_t key = hash(node, tape_.references_of(step));
      for (auto [at, end] = seen_.equal_range(key); at != end; ++at) {
        if (!same(tape_.steps_[at->second], node, tape_.references_of(step))) continue;
        tape_.references_.resize(step.first_reference);
        return tape_.steps_[at->second].first_value;
      }
      seen_.emplace(key, tape_.steps_.size());
    }
    copy_params(node, step);
    step.first_value = tape_.value_count_;
    tape_.value_count_ += static_cast<int32_t>(node.output_count);
    tape_.steps_.push_back(std::move(step));
    return tape_.steps_.back().first_value;
  }

  static void copy_params(const Node& node, Step& step) {
    const ParamsType* type = node.op->params;
    if (!type) return;
    void* memory = ::operator new(type->size, std::align_val_t(type->align));
    type->copy(memory, node.params);
    step.params = {memory, DestroyParams{type}};
  }

  uint64_t hash(const Node& node, std::span<const int32_t> references) {
    words_.assign({reinterpret_cast<uintptr_t>(node.op)});
    for (int32_t reference : references) words_.push_back(static_cast<uint64_t>(reference));
    if (node.op->params) node.op->params->append_key(node.params, true, words_);
    uint64_t result = 0;
    for (uint64_t word : words_) {
      result = (result ^ word) * 0x9e3779b97f4a7c15u;
      result ^= result >> 29;
    }
    return result;
  }

  bool same(const Step& step, const Node& node, std::span<const int32_t> references) const {
    auto others = tape_.references_of(step);
    return step.op == node.op && step.stream == node.stream &&
           std::equal(others.begin(), others.end(), references.begin(), references.end()) &&
           (!node.op->params || node.op->params->equal(step.params.get(), node.params));
  }

  Tape& tape_;
  const TracedGraph& graph_;
  std::vector<int32_t> values_;  // of the graph's values
  std::unordered_map<const Slot*, int32_t> outside_;
  bool simplify_;
  std::unordered_multimap<uint64_t, size_t> seen_;
  KeyWords words_;
};

Tape::Tape(std::span<const Array> outputs, std::span<const Array> sources, bool simplify) {
  TracedGraph graph(outputs, sources, Follow::Everything);
  Recorder recorder(*this, graph, sources.size(), simplify);
  for (size_t k = 0; k < graph.nodes().size(); ++k) recorder.add(k);
  for (const Array& output : outputs) outputs_.push_back(recorder.reference(output));
}

Arrays Tape::replay(std::span<const Array> inputs, std::span<const Array> captured) const {
  Arrays values(inputs.begin(), inputs.end());
  values.reserve(static_cast<size_t>(value_count_));
  auto value_of = [&](int32_t reference) -> const Array& {
    return reference < 0 ? captured[static_cast<size_t>(-1 - reference)]
                         : values[static_cast<size_t>(reference)];
  };
  Arrays arguments;
  for (const Step& step : steps_) {
    arguments.clear();
    for (int32_t reference : references_of(step)) arguments.push_back(value_of(reference));
    auto place = step.op->params ? step.op->params->copy : nullptr;
    Node* node = detail::build_node_of(*step.op, arguments, step.params.get(), place, step.stream);
    for (uint32_t i = 0; i < step.output_count; ++i)
      values.push_back(Array::share(&node->slots[i]));
  }
  Arrays result;
  for (int32_t reference : outputs_) result.push_back(value_of(reference));
  return result;
}

}  // namespace mica::transforms
