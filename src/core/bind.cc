// The first half of Runner: layouts and memory.
#include <algorithm>

#include "core/counters.h"
#include "core/run.h"

namespace mica {

namespace {

bool is_empty(const Shape& shape) {
  return std::find(shape.begin(), shape.end(), 0) != shape.end();
}

}  // namespace

bool fits(Layout wanted, const Shape& shape, const Strides& strides) {
  return wanted == Layout::Any || is_row_major(shape, strides) ||
         (wanted == Layout::Rows && (shape.empty() || shape.back() <= 1 || strides.back() == 1));
}

void Runner::clear() {
  values_.clear();
  externals_.clear();
  storages_.clear();
  external_death_.clear();
  free_.clear();
  scratch_.clear();
  calls_.clear();
  step_end_.clear();
  views_.clear();
  moves_.clear();
  params_.clear();
  completed_ = 0;
}

void Runner::bind(const Segment& segment, const Plan& plan) {
  MICA_ASSERT(storages_.empty());  // cleared after the last run
  segment_ = &segment;
  plan_ = &plan;
  values_.resize(segment.values.size());
  bind_externals();
  for (size_t s = 0; s < plan.steps.size(); ++s) {
    const PlanStep& step = plan.steps[s];
    const SegmentNode& node = segment.nodes[static_cast<size_t>(step.node)];
    if (step.region)
      bind_region(step);
    else if (node.kind == StepKind::View)
      bind_view(node);
    else if (node.kind == StepKind::Alias)
      bind_alias(node);
    else
      bind_kernel(step, node);
    bury(step, s);
    step_end_.push_back(calls_.size());
  }
}

void Runner::bind_externals() {
  externals_.resize(segment_->externals.size());
  external_death_.assign(segment_->externals.size(), SIZE_MAX);
  storages_.reserve(externals_.size() + values_.size());
  for (size_t e = 0; e < externals_.size(); ++e) {
    const SegmentExternal& external = segment_->externals[e];
    const ArrayData* data = external.slot->data;
    if (!data || external.uses == 0) continue;  // another output of a node that is needed
    bool alone = !external.kept &&
                 external.slot->refs.load(std::memory_order_acquire) ==
                     static_cast<uint32_t>(external.uses) &&
                 data->buffer.use_count() == 1 && data->buffer->writable();
    DeviceKind kind = data->buffer->valid_on(DeviceKind::Cpu) ? DeviceKind::Cpu : DeviceKind::Ref;
    Place& at = externals_[e];
    at.storage = static_cast<int32_t>(storages_.size());
    at.offset = data->offset;
    at.strides = data->strides;
    Storage& of = storages_.emplace_back();
    of.buffer = data->buffer.get();
    if (alone)
      of.own = data->buffer;
    else
      of.lent = &data->buffer;
    of.live = 1;
    of.device = kind;
    of.ours = alone;
    of.external = true;
  }
}

void Runner::bind_view(const SegmentNode& node) {
  int32_t input = segment_->refs_of(node)[0];
  auto value = static_cast<int32_t>(node.first_value);
  const Place& from = place(input);
  ViewLayout layout{shape_of(input), from.strides, from.offset};
  Application app{{node.inputs, node.input_count}, {}, node.node->params, node.node->stream};
  if (node.node->op->view(app, shape_of(value), layout)) {
    ++storage(from).live;
    place(value) = {from.storage, layout.offset, std::move(layout.strides)};
    return;
  }
  Device device = node.node->stream.device;
  new_storage(value, bytes_of(value), device);
  copy_call(input, storage(place(value)).buffer->reserve(device), device);
}

void Runner::bind_alias(const SegmentNode& node) {
  for (uint32_t o = 0; o < node.node->output_count; ++o) {
    const Place& from = place(segment_->refs_of(node)[o]);
    ++storage(from).live;
    values_[node.first_value + o] = from;
  }
}

void Runner::bind_kernel(const PlanStep& step, const SegmentNode& node) {
  const Op& op = *node.node->op;
  Device device = node.node->stream.device;
  auto refs = segment_->refs_of(node);
  for (uint32_t o = 0; o < node.node->output_count; ++o) {
    auto value = static_cast<int32_t>(node.first_value + o);
    bool updates = o == 0 && op.updates_first_input;
    uint32_t may_alias = o > 0 ? 0u : updates ? 1u : node.kernel->may_alias;
    bool reused = false;
    for (size_t i = 0; i < refs.size() && !reused; ++i) {
      if (may_alias >> i & 1) reused = take_over(value, refs[i], step, device);
    }
    if (reused) continue;
    new_storage(value, bytes_of(value), device);
    if (updates) copy_call(refs[0], storage(place(value)).buffer->reserve(device), device);
  }
  dense_.assign(refs.size(), nullptr);
  for (size_t i = op.updates_first_input ? 1 : 0; i < refs.size(); ++i) {
    if (fits(node.kernel->layout_of(i), shape_of(refs[i]), place(refs[i]).strides)) continue;
    dense_[i] = scratch(bytes_of(refs[i]), device).data();
    copy_call(refs[i], dense_[i], device);
  }
  size_t first = views_.size();
  for (size_t i = 0; i < refs.size(); ++i) {
    push_input(refs[i], device, dense_[i]);
    // Axes of extent 1 may come with any stride; kernels need not know.
    View& view = views_.back();
    if (view.contiguous()) view.strides = row_major(view.shape);
  }
  for (uint32_t o = 0; o < node.node->output_count; ++o)
    push_output(static_cast<int32_t>(node.first_value + o));
  Call& call = open_call(CallKind::Kernel, first, refs.size(), node.node->output_count, device);
  call.node = &node;
  if (!node.kernel->workspace || call.skip) return;
  std::span<const View> all(views_);
  size_t bytes = node.kernel->workspace({&op,
                                         node.node->params,
                                         all.subspan(first, refs.size()),
                                         all.subspan(first + refs.size(), node.node->output_count),
                                         {}});
  if (bytes) call.workspace = scratch(bytes, device);
}

void Runner::bind_region(const PlanStep& step) {
  const RegionStep& region = *step.region;
  const SegmentNode& last = segment_->nodes[static_cast<size_t>(step.node)];
  Device device = last.node->stream.device;
  size_t elementwise = region.region.outputs.size();
  for (size_t o = 0; o < region.outputs.size(); ++o) {
    bool reused = false;
    for (size_t i = 0; o < elementwise && i < region.inputs.size() && !reused; ++i)
      reused = take_over(region.outputs[o], region.inputs[i], step, device);
    if (!reused) new_storage(region.outputs[o], bytes_of(region.outputs[o]), device);
  }
  size_t first = views_.size();
  const Shape& space = shape_of(region.space);
  for (int32_t ref : region.inputs) {
    const Slot& slot = *segment_->slot_of(ref);
    std::byte* data = data_for_read(ref, device);
    View& view = views_.emplace_back(data, slot.dtype, space);
    const Strides& strides = place(ref).strides;
    view.strides = slot.shape == space ? strides : broadcast_strides(slot.shape, strides, space);
  }
  for (int32_t value : region.outputs) push_output(value);
  Call& call =
      open_call(CallKind::Region, first, region.inputs.size(), region.outputs.size(), device);
  call.first_param = static_cast<uint32_t>(params_.size());
  for (int32_t node : region.param_nodes)
    params_.push_back(segment_->nodes[static_cast<size_t>(node)].node->params);
  call.region = &region;
  call.node = &last;
  call.space = &space;
  if (call.skip) return;
  if (size_t bytes = call.backend->region_workspace(region_call(call)))
    call.workspace = scratch(bytes, device);
}

// Ends the lives of what the step used last; their memory and its scratch serve later steps.
void Runner::bury(const PlanStep& step, size_t index) {
  for (auto& used : scratch_) free_.push_back(std::move(used));
  scratch_.clear();
  for (int32_t ref : step.dies) {
    Place& at = place(ref);
    if (at.storage < 0) continue;  // a constant that was copied into regions, or memory taken over
    Storage& of = storage(at);
    if (ref < 0) {
      if (!of.ours) continue;
      external_death_[static_cast<size_t>(~ref)] = index;
    }
    if (--of.live == 0 && of.ours) free_.emplace_back(of.device, of.own);
  }
}

// Counts the elements that calls touch; of those that update an operand, without that operand.
bool Runner::is_brief() const {
  constexpr int64_t kMost = 8192, kMostOfKernels = 2048;
  int64_t work = 0;
  for (const Call& call : calls_) {
    bool updates = call.kind == CallKind::Kernel && call.node->node->op->updates_first_input;
    int64_t touched = 0, weight = call.kind == CallKind::Kernel ? kMost / kMostOfKernels : 1;
    uint32_t views = call.input_count + call.output_count;
    if (call.kind == CallKind::Region) {
      touched = elements(*call.space) * views;
      weight = 1 + static_cast<int64_t>(call.region->region.instructions.size()) / 8;
    } else {
      for (uint32_t v = 0; v < views; ++v) {
        if (!updates || (v != 0 && v != call.input_count))
          touched += views_[call.first_view + v].size();
      }
    }
    work += touched * weight;
    if (work > kMost) return false;
  }
  return true;
}

Runner::Call& Runner::open_call(CallKind kind, size_t first_view, size_t inputs, size_t outputs,
                                Device device) {
  Call& call = calls_.emplace_back();
  call.kind = kind;
  call.device = device;
  call.first_view = static_cast<uint32_t>(first_view);
  call.input_count = static_cast<uint32_t>(inputs);
  call.output_count = static_cast<uint32_t>(outputs);
  call.backend = &backend_of(device);
  call.skip = true;
  for (size_t i = first_view + inputs; i < first_view + inputs + outputs; ++i)
    call.skip &= is_empty(views_[i].shape);
  return call;
}

void Runner::push_input(int32_t ref, Device device, std::byte* dense) {
  const Slot& slot = *segment_->slot_of(ref);
  if (dense)
    views_.emplace_back(dense, slot.dtype, slot.shape, row_major(slot.shape));
  else
    views_.emplace_back(data_for_read(ref, device), slot.dtype, slot.shape, place(ref).strides);
}

void Runner::push_output(int32_t value) {
  const Slot& slot = *segment_->slot_of(value);
  const Place& at = place(value);
  const Storage& of = storage(at);
  std::byte* data = of.buffer->reserve({of.device}) + at.offset * size_of(slot.dtype);
  views_.emplace_back(data, slot.dtype, slot.shape, at.strides);
}

void Runner::copy_call(int32_t from, std::byte* to, Device device) {
  size_t first = views_.size();
  push_input(from, device, nullptr);
  const Slot& slot = *segment_->slot_of(from);
  views_.emplace_back(to, slot.dtype, slot.shape, row_major(slot.shape));
  open_call(CallKind::Copy, first, 1, 1, device);
}

// Moves that a step needs happen just before its call, except those of externals, whose bytes are
// there.
std::byte* Runner::data_for_read(int32_t ref, Device device) {
  const Place& at = place(ref);
  Storage& of = storage(at);
  std::byte* base;
  if (of.external) {
    base = of.buffer->read(device);
  } else {
    base = of.buffer->reserve(device);
    if (device.kind != of.device) moves_.push_back({calls_.size(), of.buffer, device});
  }
  return base + at.offset * size_of(segment_->slot_of(ref)->dtype);
}

std::span<std::byte> Runner::scratch(size_t bytes, Device device) {
  scratch_.emplace_back(device.kind, memory(bytes, device.kind));
  return {scratch_.back().second->reserve(device), bytes};
}

void Runner::new_storage(int32_t value, size_t bytes, Device device) {
  Place& at = place(value);
  at.storage = static_cast<int32_t>(storages_.size());
  at.strides = row_major(shape_of(value));
  Storage& of = storages_.emplace_back();
  of.own = memory(bytes, device.kind);
  of.buffer = of.own.get();
  of.live = 1;
  of.device = device.kind;
  of.ours = true;
}

// Lets an output have the memory of an input that dies in this step, if nothing else lives there.
bool Runner::take_over(int32_t value, int32_t dying, const PlanStep& step, Device device) {
  Place& from = place(dying);
  if (from.storage < 0) return false;
  Storage& of = storage(from);
  const Slot& in = *segment_->slot_of(dying);
  const Slot& out = *segment_->slot_of(value);
  if (!of.ours || of.live != 1 || of.device != device.kind ||
      size_of(in.dtype) != size_of(out.dtype) || !(in.shape == out.shape) ||
      !is_row_major(in.shape, from.strides) ||
      !std::binary_search(step.dies.begin(), step.dies.end(), dying))
    return false;
  of.live = 2;  // the input dies with this step, as every dying reference
  place(value) = {from.storage, from.offset, from.strides};
  return true;
}

std::shared_ptr<Buffer> Runner::memory(size_t bytes, DeviceKind kind) {
  for (auto it = free_.rbegin(); it != free_.rend(); ++it) {
    size_t have = it->second->bytes();
    if (it->first != kind || have < bytes || have > bytes + bytes / 4 + 64) continue;
    auto buffer = std::move(it->second);
    free_.erase(std::next(it).base());
    return buffer;
  }
  return Buffer::create(bytes, {kind});
}

size_t Runner::bytes_of(int32_t ref) const {
  const Slot& slot = *segment_->slot_of(ref);
  return static_cast<size_t>(elements(slot.shape) * size_of(slot.dtype));
}

}  // namespace mica
