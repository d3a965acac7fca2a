#include "core/single.h"

#include <algorithm>

#include "core/buffer.h"
#include "core/counters.h"
#include "core/profiler.h"
#include "core/run.h"
#include "core/segment.h"
#include "core/trace.h"

namespace mica {

namespace {

constexpr uint32_t kMostInputs = 4;
// More than these, and it may take longer than some microseconds (Runner::is_brief).
constexpr int64_t kMostElements = 2048;
constexpr Device kHost{DeviceKind::Cpu};

bool is_host_data(const Node& node) {
  if (node.output_count != 1 || node.state.load(std::memory_order_acquire) != NodeState::Done)
    return false;
  const ArrayData* data = node.slots[0].data;
  return data && data->buffer->valid_on(DeviceKind::Cpu) && !data->buffer->mapped_file();
}

// Under the graph lock, as the others.
bool claim(Node& node, Evaluation& evaluation) {
  if (node.state.load(std::memory_order_acquire) != NodeState::Unevaluated ||
      node.input_count == 0 || node.input_count > kMostInputs)
    return false;
  for (const Array& input : node.input_span()) {
    if (!is_host_data(*input.node())) return false;
  }
  node.claim = &evaluation;
  node.state.store(NodeState::Claimed, std::memory_order_release);
  return true;
}

void leave(Node& node, NodeState state) {
  node.claim = nullptr;
  node.state.store(state, std::memory_order_release);
}

// The node, its distinct inputs in order of appearance, and what its call gets. References are as
// in a segment: ~e for input e, 0 for the output.
class Single {
 public:
  explicit Single(Node& node) : node_(node), out_(node.slots[0]) {}

  // Finds the plan and all memory. False, with nothing changed, if the call needs more than that.
  bool bind(PlanMemo& plans, KeyWords& key) {
    Backend& backend = backend_of(kHost);
    auto [kind, kernel] = resolve_step(node_, backend);
    if (kind == StepKind::Alias || !number_inputs()) return false;
    write_key(kind, key);
    if (!is_small(kind)) return false;
    const Plan* plan = plans.find(key);
    if (!plan) return false;
    region_ = plan->steps[0].region.get();
    kernel_ = kernel;
    return region_ ? bind_region(backend) : bind_kernel();
  }

  void run() {
    try {
      std::span<const View> inputs(views_, view_count_ - 1), outputs(views_ + view_count_ - 1, 1);
      std::span<std::byte> workspace = workspace_bytes();
      if (region_) {
        const void* params = node_.params;
        backend_of(kHost).run({region_->program.get(),
                               &region_->region,
                               shape_of(region_->space),
                               inputs,
                               outputs,
                               {&params, region_->param_nodes.size()},
                               workspace});
      } else {
        kernel_->run({node_.op, node_.params, inputs, outputs, workspace});
      }
    } catch (const Error& error) {
      throw in_operation(error, *node_.op, node_.input_span());
    }
    detail::count(detail::live_counters.kernels);
    memory_->written(kHost);
  }

  // The output's data; after run.
  ArrayData* take_data() {
    return new ArrayData{std::move(memory_), offset_, row_major(out_.shape)};
  }

 private:
  struct Input {
    Slot* slot;
    uint32_t uses;
    int32_t shape_class;
  };

  const Slot& slot_of(int32_t ref) const { return ref < 0 ? *inputs_[~ref].slot : out_; }
  const Shape& shape_of(int32_t ref) const { return slot_of(ref).shape; }
  std::span<std::byte> workspace_bytes() const {
    if (!workspace_) return {};
    return {workspace_->reserve(kHost), workspace_->bytes()};
  }

  bool number_inputs() {
    for (uint32_t i = 0; i < node_.input_count; ++i) {
      Slot* slot = node_.inputs[i].slot();
      int32_t e = 0;
      while (e < input_count_ && inputs_[e].slot != slot) ++e;
      if (e == input_count_) inputs_[input_count_++] = {slot, 0, class_of(slot->shape, e)};
      ++inputs_[e].uses;
      refs_[i] = ~e;
    }
    return elements(out_.shape) > 0;
  }

  // Of a shape that comes after those of the first `count` inputs.
  int32_t class_of(const Shape& shape, int32_t count) {
    for (int32_t e = 0; e < count; ++e) {
      if (inputs_[e].slot->shape == shape) return inputs_[e].shape_class;
    }
    return classes_++;
  }

  // The key of the segment that has only this node.
  void write_key(StepKind kind, KeyWords& key) {
    key.clear();
    key.push_back(key_of_node(node_, kind));
    for (uint32_t i = 0; i < node_.input_count; ++i) {
      const Input& input = inputs_[~refs_[i]];
      key.push_back(key_of_input(refs_[i], input.slot->dtype, input.shape_class));
    }
    if (node_.params) node_.op->params->append_key(node_.params, false, key);
    key.push_back(key_of_output(out_.dtype, class_of(out_.shape, input_count_)));
    key.push_back(1);  // the output is held by who evaluates it
  }

  bool is_small(StepKind kind) const {
    const bool updates = kind == StepKind::Kernel && node_.op->updates_first_input;
    int64_t touched = updates ? 0 : elements(out_.shape);
    for (uint32_t i = updates; i < node_.input_count; ++i)
      touched += std::max(elements(shape_of(refs_[i])), elements(out_.shape) * !updates);
    return touched <= kMostElements;
  }

  bool bind_region(Backend& backend) {
    for (size_t i = 0; i < region_->region.outputs.size() * region_->inputs.size() && !memory_; ++i)
      take_over(region_->inputs[i]);
    if (!memory_) memory_ = Buffer::create(bytes_of(out_), kHost);
    const Shape& space = shape_of(region_->space);
    for (int32_t ref : region_->inputs) {
      push_view(ref, space);
      if (!(shape_of(ref) == space)) {
        View& view = views_[view_count_ - 1];
        view.strides = broadcast_strides(shape_of(ref), view.strides, space);
      }
    }
    push_output();
    std::span<const View> all(views_, view_count_);
    size_t bytes = backend.region_workspace({region_->program.get(),
                                             &region_->region,
                                             space,
                                             all.first(view_count_ - 1),
                                             all.last(1),
                                             {},
                                             {}});
    if (bytes) workspace_ = Buffer::create(bytes, kHost);
    return true;
  }

  bool bind_kernel() {
    const bool updates = node_.op->updates_first_input;
    for (uint32_t i = updates; i < node_.input_count; ++i) {
      const Slot& slot = slot_of(refs_[i]);
      if (!fits(kernel_->layout_of(i), slot.shape, slot.data->strides)) return false;
    }
    const uint32_t may_alias = updates ? 1 : kernel_->may_alias;
    for (uint32_t i = 0; i < node_.input_count && !memory_; ++i) {
      if (may_alias >> i & 1) take_over(refs_[i]);
    }
    if (updates && !memory_) return false;
    if (!memory_) memory_ = Buffer::create(bytes_of(out_), kHost);
    for (uint32_t i = 0; i < node_.input_count; ++i) {
      push_view(refs_[i], shape_of(refs_[i]));
      View& view = views_[view_count_ - 1];
      if (view.contiguous()) view.strides = row_major(view.shape);
    }
    push_output();
    if (!kernel_->workspace) return true;
    std::span<const View> all(views_, view_count_);
    size_t bytes =
        kernel_->workspace({node_.op, node_.params, all.first(view_count_ - 1), all.last(1), {}});
    if (bytes) workspace_ = Buffer::create(bytes, kHost);
    return true;
  }

  // Lets the output have the memory of an input that nobody but this node holds.
  void take_over(int32_t ref) {
    const Input& input = inputs_[~ref];
    const Slot& in = *input.slot;
    const ArrayData& data = *in.data;
    if (in.refs.load(std::memory_order_acquire) != input.uses || data.buffer.use_count() != 1 ||
        !data.buffer->writable() || size_of(in.dtype) != size_of(out_.dtype) ||
        !(in.shape == out_.shape) || !is_row_major(in.shape, data.strides))
      return;
    memory_ = data.buffer;
    offset_ = data.offset;
  }

  void push_view(int32_t ref, const Shape& shape) {
    const Slot& slot = slot_of(ref);
    std::byte* data = slot.data->buffer->reserve(kHost) + slot.data->offset * size_of(slot.dtype);
    push(data, slot.dtype, shape, slot.data->strides);
  }
  void push(std::byte* data, Dtype dtype, const Shape& shape, const Strides& strides) {
    View& view = views_[view_count_++];
    view.data = data;
    view.dtype = dtype;
    view.shape = shape;
    view.strides = strides;
  }
  void push_output() {
    std::byte* data = memory_->reserve(kHost) + offset_ * size_of(out_.dtype);
    push(data, out_.dtype, out_.shape, row_major(out_.shape));
  }
  static size_t bytes_of(const Slot& slot) {
    return static_cast<size_t>(elements(slot.shape) * size_of(slot.dtype));
  }

  Node& node_;
  Slot& out_;
  Input inputs_[kMostInputs];
  int32_t input_count_ = 0, classes_ = 0;
  int32_t refs_[kMostInputs];  // by input of the node
  const RegionStep* region_ = nullptr;
  const Kernel* kernel_ = nullptr;
  std::shared_ptr<Buffer> memory_, workspace_;
  int64_t offset_ = 0;
  View views_[kMostInputs + 1];
  size_t view_count_ = 0;
};

}  // namespace

bool eval_single(const Array& root, PlanMemo& plans, KeyWords& key, Evaluation& evaluation) {
  Node& node = *root.node();
  if (node.output_count != 1 || node.op->view || node.stream.device != kHost ||
      TraceScope::depth() > 0 || detail::is_profiling())
    return false;
  GraphLock lock;
  if (!claim(node, evaluation)) return false;
  lock.let_go();
  struct Finish {
    Evaluation& evaluation;
    ~Finish() { evaluation.finish(); }
  } finish{evaluation};
  Single single(node);
  NodeState left = NodeState::Unevaluated;
  try {
    if (!single.bind(plans, key)) {
      lock.hold();
      leave(node, left);
      return false;
    }
    left = NodeState::Failed;
    single.run();
  } catch (...) {
    lock.hold();
    if (left == NodeState::Failed) node.error = new std::exception_ptr(std::current_exception());
    leave(node, left);
    throw;
  }
  node.slots[0].data = single.take_data();
  lock.hold();
  leave(node, NodeState::Done);
  lock.let_go();
  drop_inputs(node);
  return true;
}

}  // namespace mica
