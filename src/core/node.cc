#include "core/node.h"

#include <algorithm>
#include <cstdlib>
#include <mutex>

#include "core/counters.h"
#include "core/trace.h"
#include "core/workshop.h"

namespace mica {

constinit thread_local Workshop workshop{};

namespace {

// All workshops, and what threads that have ended did. Never destroyed.
struct Workshops {
  std::mutex mutex;
  Workshop* first = nullptr;
  std::atomic<int64_t> live{0}, built{0};
  int64_t built_at_reset = 0;
  std::atomic<uint64_t> next_id{1};

  int64_t sum(OwnCount Workshop::* part, int64_t total) const {
    for (const Workshop* at = first; at; at = at->next)
      total += (at->*part).value.load(std::memory_order_relaxed);
    return total;
  }
};
Workshops& workshops() {
  static auto* all = new Workshops;
  return *all;
}

// Closes the workshop when the thread ends.
struct Closing {
  bool used = false;
  ~Closing() {
    Workshops& all = workshops();
    std::lock_guard lock(all.mutex);
    Workshop** at = &all.first;
    while (*at != &workshop) at = &(*at)->next;
    *at = workshop.next;
    all.live += workshop.live.value;
    all.built += workshop.built.value;
    workshop.open = false;
    workshop.pool.clear();
  }
};
thread_local Closing closing;

void count_live(Workshop& own, int64_t by) {
  if (own.open) [[likely]]
    own.live.add(by);
  else
    workshops().live += by;
}

// An id of this thread's, larger than those of the inputs: ids come in runs, and a run begins after
// every id that anyone has got.
uint64_t take_id(Workshop& own, std::span<const Array> inputs) {
  constexpr uint64_t kRun = 1024;
  uint64_t newest = 0;
  for (const Array& input : inputs) newest = std::max(newest, input.slot()->node->id);
  if (own.next_id == own.end_id || newest >= own.next_id) {
    own.next_id = workshops().next_id.fetch_add(kRun, std::memory_order_relaxed);
    own.end_id = own.next_id + kRun;
  }
  return own.next_id++;
}

// After the last reference to a slot: returns the node if it died with it. `counted`: the slot's
// count says so already; else who calls is alone with the slot.
Node* end_of(Workshop& own, Slot* slot, bool counted) noexcept {
  Node* node = slot->node;
  if (node->output_count == 1) return node;
  if (!counted && slot->refs.fetch_sub(1, std::memory_order_acq_rel) != 1) return nullptr;
  // A trace may ask for an output that nobody holds: derivative rules read all of them.
  if (!node->traced || own.trace_depth == 0) {
    delete slot->data;
    slot->data = nullptr;
  }
  return node->live_slots.fetch_sub(1, std::memory_order_acq_rel) == 1 ? node : nullptr;
}

// Drops one reference; returns the node if it died with it.
Node* unref(Workshop& own, Slot* slot) noexcept {
  if (slot->refs.load(std::memory_order_acquire) == 1) return end_of(own, slot, false);
  if (slot->refs.fetch_sub(1, std::memory_order_acq_rel) != 1) return nullptr;
  return end_of(own, slot, true);
}

void bury(Workshop& own, Node* node) {
  node->next_dead = own.dead;
  own.dead = node;
}

void destroy(Workshop& own, Node* node) noexcept {
  for (uint32_t i = 0; i < node->input_count; ++i) {
    Slot* slot = node->inputs[i].slot();
    if (Node* dead = slot ? unref(own, slot) : nullptr) bury(own, dead);
  }
  if (node->params) node->op->params->destroy(node->params);
  delete node->error;
  for (uint32_t i = 0; i < node->output_count; ++i) {
    delete node->slots[i].data;
    node->slots[i].~Slot();
  }
  size_t bytes = node->block_bytes;
  node->~Node();
  own.pool.give(node, bytes, own.open);
  count_live(own, -1);
}

// Iteratively, whatever dies with them.
void release(Workshop& own, Node* node) noexcept {
  bury(own, node);
  if (own.releasing) return;
  own.enter();
  own.releasing = true;
  while (Node* dead = own.dead) {
    own.dead = dead->next_dead;
    destroy(own, dead);
  }
  own.releasing = false;
}

constexpr size_t align_up(size_t at, size_t align) { return (at + align - 1) / align * align; }

bool any_traced(const Workshop& own, const Array* inputs, size_t count) {
  if (own.trace_depth == 0) return false;
  for (size_t i = 0; i < count; ++i) {
    if (inputs[i].node()->traced) return true;
  }
  return false;
}

Node* allocate_node(Workshop& own, size_t outputs, size_t inputs, const ParamsType* params) {
  size_t slots_at = align_up(sizeof(Node), alignof(Slot));
  size_t inputs_at = align_up(slots_at + outputs * sizeof(Slot), alignof(Array));
  size_t params_at = inputs_at + inputs * sizeof(Array);
  if (params) params_at = align_up(params_at, params->align);
  own.enter();
  size_t bytes = params_at + (params ? params->size : 0);
  auto* block = static_cast<std::byte*>(own.pool.take(bytes));
  auto* node = new (block) Node;
  node->block_bytes = static_cast<uint32_t>(bytes);
  node->slots = reinterpret_cast<Slot*>(block + slots_at);
  node->inputs = reinterpret_cast<Array*>(block + inputs_at);
  node->params = params ? block + params_at : nullptr;
  node->output_count = static_cast<uint32_t>(outputs);
  node->input_count = static_cast<uint32_t>(inputs);
  count_live(own, 1);
  return node;
}

void fill_slot(Node* node, size_t index, Shape&& shape, Dtype dtype) {
  auto* slot = new (&node->slots[index]) Slot;
  slot->node = node;
  slot->shape = std::move(shape);
  slot->dtype = dtype;
}

// The node, its outputs as inferred; its inputs and parameters are not constructed yet.
Node* raw_node(const Op& op, std::span<const Array> inputs, const void* params, Stream stream) {
  constexpr size_t kInlineOutputs = 4;
  Workshop& own = workshop;
  const Application app{inputs, {}, params, own.resolve(stream)};
  size_t outputs = op.count_outputs ? op.count_outputs(app) : static_cast<size_t>(op.outputs);
  auto build = [&](std::span<OutputSpec> specs) {
    op.infer(app, specs);
    Node* node = allocate_node(own, outputs, app.inputs.size(), op.params);
    node->op = &op;
    node->id = take_id(own, app.inputs);
    node->stream = app.stream;
    node->traced = any_traced(own, app.inputs.data(), app.inputs.size());
    for (size_t i = 0; i < outputs; ++i)
      fill_slot(node, i, std::move(specs[i].shape), specs[i].dtype);
    own.built.add(1);
    return node;
  };
  if (outputs == 1) {
    OutputSpec one;
    return build({&one, 1});
  }
  OutputSpec few[kInlineOutputs];
  if (outputs <= kInlineOutputs) return build({few, outputs});
  std::vector<OutputSpec> many(outputs);
  return build(many);
}

void infer_constant(const Application&, std::span<OutputSpec>) { MICA_ASSERT(false); }
void infer_alias(const Application& app, std::span<OutputSpec> outputs) {
  outputs[0] = {app.inputs[0].shape(), app.inputs[0].dtype()};
}
bool view_alias(const Application&, const Shape&, ViewLayout&) { return true; }
Arrays vjp_alias(const Application&, std::span<const Array> cotangents, const std::vector<bool>&) {
  return {cotangents[0]};
}
Arrays jvp_alias(const Application&, std::span<const Array> tangents) { return {tangents[0]}; }
Batched vmap_alias(const Application& app, std::span<const int> axes) {
  return {{app.inputs[0]}, {axes[0]}};
}

}  // namespace

void Workshop::enter_first() {
  if (closing.used) return;
  closing.used = true;
  Workshops& all = workshops();
  std::lock_guard lock(all.mutex);
  next = all.first;
  all.first = this;
  open = true;
}

void* BlockPool::take_new(size_t bytes) {
  void* block = std::malloc(bytes);
  if (!block) throw Error(ErrorKind::OutOfMemory, "out of memory for nodes of a graph");
  return block;
}

void BlockPool::give(void* block, size_t bytes, bool keep) {
  size_t index = (bytes + 63) / 64;
  if (!keep || index >= kClasses || counts[index] >= kKept) {
    std::free(block);
    return;
  }
  *static_cast<void**>(block) = heads[index];
  heads[index] = block;
  ++counts[index];
}

void BlockPool::clear() {
  for (void*& head : heads) {
    while (void* block = head) {
      head = *static_cast<void**>(block);
      std::free(block);
    }
  }
}

const Op constant_op{.name = "constant", .infer = &infer_constant};
const Op placeholder_op{.name = "placeholder", .infer = &infer_constant};
const Op alias_op{.name = "alias",
                  .view = &view_alias,
                  .infer = &infer_alias,
                  .vjp = &vjp_alias,
                  .jvp = &jvp_alias,
                  .vmap = &vmap_alias};

void* take_block(size_t bytes) {
  workshop.enter();
  return workshop.pool.take(bytes);
}

void give_block(void* block, size_t bytes) noexcept {
  workshop.enter();
  workshop.pool.give(block, bytes, workshop.open);
}

namespace detail {

Node* build_node(const Op& op, std::span<const Array> inputs, const void* params,
                 void (*place)(void* to, const void* from), Stream stream) {
  Node* node = raw_node(op, inputs, params, stream);
  for (size_t i = 0; i < inputs.size(); ++i) new (&node->inputs[i]) Array(inputs[i]);
  if (op.params) place(node->params, params);
  return node;
}

Node* build_node_of(const Op& op, std::span<Array> inputs, const void* params,
                    void (*place)(void* to, const void* from), Stream stream) {
  Node* node = raw_node(op, inputs, params, stream);
  for (size_t i = 0; i < inputs.size(); ++i) new (&node->inputs[i]) Array(std::move(inputs[i]));
  if (op.params) place(node->params, params);
  return node;
}

int64_t built_nodes() {
  Workshops& all = workshops();
  std::lock_guard lock(all.mutex);
  return all.sum(&Workshop::built, all.built) - all.built_at_reset;
}

void reset_built_nodes() {
  Workshops& all = workshops();
  std::lock_guard lock(all.mutex);
  all.built_at_reset = all.sum(&Workshop::built, all.built);
}

}  // namespace detail

int64_t live_nodes() {
  Workshops& all = workshops();
  std::lock_guard lock(all.mutex);
  return all.sum(&Workshop::live, all.live);
}

void drop_inputs(Node& node) noexcept {
  uint32_t count = node.input_count;
  node.input_count = 0;
  for (uint32_t i = 0; i < count; ++i) node.inputs[i].~Array();
}

Array make_constant(std::shared_ptr<Buffer> buffer, const Shape& shape, Dtype dtype,
                    Strides strides, int64_t offset) {
  Workshop& own = workshop;
  Node* node = allocate_node(own, 1, 0, nullptr);
  node->op = &constant_op;
  node->id = take_id(own, {});
  node->stream = own.resolve({});
  fill_slot(node, 0, Shape(shape), dtype);
  node->slots[0].data = new ArrayData{std::move(buffer), offset, std::move(strides)};
  node->state.store(NodeState::Done, std::memory_order_release);
  return Array::made_by(node);
}

void Array::end(Slot* slot, bool counted) noexcept {
  Workshop& own = workshop;
  if (Node* dead = end_of(own, slot, counted)) mica::release(own, dead);
}

Array Array::adopt(Slot* slot) {
  Array array;
  array.slot_ = slot;
  return array;
}

Array Array::share(Slot* slot) {
  if (slot->refs.fetch_add(1, std::memory_order_relaxed) == 0 && slot->node->output_count > 1)
    slot->node->live_slots.fetch_add(1, std::memory_order_relaxed);
  return adopt(slot);
}

Array Array::made_by(Node* node) {
  MICA_ASSERT(node->output_count == 1);
  node->slots[0].refs.store(1, std::memory_order_relaxed);  // nobody else knows it yet
  return adopt(&node->slots[0]);
}

Arrays Array::all_of(Node* node) {
  Arrays arrays;
  for (uint32_t i = 0; i < node->output_count; ++i) arrays.push_back(share(&node->slots[i]));
  return arrays;
}

Arrays apply_many(const Op& op, std::span<const Array> inputs, const void* params, Stream stream) {
  return Array::all_of(
      detail::build_node(op, inputs, params, op.params ? op.params->copy : nullptr, stream));
}

Array apply(const Op& op, std::span<const Array> inputs, Stream stream) {
  return Array::made_by(detail::build_node(op, inputs, nullptr, nullptr, stream));
}

}  // namespace mica
