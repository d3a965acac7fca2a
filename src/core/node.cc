#include "core/node.h"

#include <algorithm>
#include <cstdlib>

#include "core/counters.h"
#include "core/trace.h"

namespace mica {

namespace {

std::atomic<uint64_t> next_id{1};
std::atomic<int64_t> live{0};

// Blocks of nodes by size class of 64 bytes, kept per thread as linked lists. A thread that
// releases what others built keeps a bounded number. Trivial destruction: arrays of static lifetime
// may be released after the thread's own destructors have run.
struct BlockPool {
  static constexpr size_t kClasses = 16;
  static constexpr uint32_t kKept = 4096;

  void* heads[kClasses];
  uint32_t counts[kClasses];
  bool gone;

  void* take(size_t bytes, uint16_t& block_class);
  void give(void* block, uint16_t block_class);
};
constinit thread_local BlockPool block_pool{};

struct BlockPoolCleaner {
  bool used = false;
  ~BlockPoolCleaner() {
    block_pool.gone = true;
    for (void*& head : block_pool.heads) {
      while (void* block = head) {
        head = *static_cast<void**>(block);
        std::free(block);
      }
    }
  }
};
thread_local BlockPoolCleaner block_pool_cleaner;

void* BlockPool::take(size_t bytes, uint16_t& block_class) {
  size_t index = (bytes + 63) / 64;
  block_class = static_cast<uint16_t>(std::min(index, kClasses));
  if (index < kClasses && heads[index]) {
    void* block = heads[index];
    heads[index] = *static_cast<void**>(block);
    --counts[index];
    return block;
  }
  void* block = std::malloc(index * 64);
  if (!block) throw Error(ErrorKind::OutOfMemory, "out of memory while building a graph");
  return block;
}

void BlockPool::give(void* block, uint16_t block_class) {
  if (block_class >= kClasses || gone || counts[block_class] >= kKept) {
    std::free(block);
    return;
  }
  block_pool_cleaner.used = true;  // constructs it, so that the lists are freed with the thread
  *static_cast<void**>(block) = heads[block_class];
  heads[block_class] = block;
  ++counts[block_class];
}

// Dead nodes of this thread that wait for destruction, linked through Node::next_dead.
struct ReleaseQueue {
  Node* head;
  bool running;

  void push(Node* node) {
    node->next_dead = head;
    head = node;
  }
};
constinit thread_local ReleaseQueue release_queue{};

// Drops one reference; returns the node if it died with it.
Node* unref(Slot* slot) noexcept {
  if (slot->refs.fetch_sub(1, std::memory_order_acq_rel) != 1) return nullptr;
  Node* node = slot->node;
  // A trace may ask for an output that nobody holds: derivative rules read all of them.
  if (!node->traced || TraceScope::depth() == 0) {
    delete slot->data;
    slot->data = nullptr;
  }
  return node->live_slots.fetch_sub(1, std::memory_order_acq_rel) == 1 ? node : nullptr;
}

void destroy_into_queue(Node* node) noexcept {
  for (uint32_t i = 0; i < node->input_count; ++i) {
    Slot* slot = node->inputs[i].slot();
    if (Node* dead = slot ? unref(slot) : nullptr) release_queue.push(dead);
  }
  if (node->params) node->op->params->destroy(node->params);
  delete node->error;
  for (uint32_t i = 0; i < node->output_count; ++i) {
    delete node->slots[i].data;
    node->slots[i].~Slot();
  }
  uint16_t block_class = node->block_class;
  node->~Node();
  block_pool.give(node, block_class);
  live.fetch_sub(1, std::memory_order_relaxed);
}

void run_queue() noexcept {
  if (release_queue.running) return;
  release_queue.running = true;
  while (Node* node = release_queue.head) {
    release_queue.head = node->next_dead;
    destroy_into_queue(node);
  }
  release_queue.running = false;
}

void release_slot(Slot* slot) noexcept {
  if (Node* dead = unref(slot)) {
    release_queue.push(dead);
    run_queue();
  }
}

constexpr size_t align_up(size_t at, size_t align) { return (at + align - 1) / align * align; }

bool any_traced(const Array* inputs, size_t count) {
  if (TraceScope::depth() == 0) return false;
  for (size_t i = 0; i < count; ++i) {
    if (inputs[i].node()->traced) return true;
  }
  return false;
}

Node* allocate_node(size_t outputs, size_t inputs, const ParamsType* params) {
  size_t slots_at = align_up(sizeof(Node), alignof(Slot));
  size_t inputs_at = align_up(slots_at + outputs * sizeof(Slot), alignof(Array));
  size_t params_at = inputs_at + inputs * sizeof(Array);
  if (params) params_at = align_up(params_at, params->align);
  uint16_t block_class = 0;
  auto* block = static_cast<std::byte*>(
      block_pool.take(params_at + (params ? params->size : 0), block_class));
  auto* node = new (block) Node;
  node->block_class = block_class;
  node->slots = reinterpret_cast<Slot*>(block + slots_at);
  node->inputs = reinterpret_cast<Array*>(block + inputs_at);
  node->params = params ? block + params_at : nullptr;
  node->output_count = static_cast<uint32_t>(outputs);
  node->input_count = static_cast<uint32_t>(inputs);
  live.fetch_add(1, std::memory_order_relaxed);
  return node;
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

const Op constant_op{.name = "constant", .infer = &infer_constant};
const Op placeholder_op{.name = "placeholder", .infer = &infer_constant};
const Op alias_op{.name = "alias",
                  .view = &view_alias,
                  .infer = &infer_alias,
                  .vjp = &vjp_alias,
                  .jvp = &jvp_alias,
                  .vmap = &vmap_alias};

namespace detail {

Node* build_node(const Op& op, const Array* inputs, size_t input_count, const void* params,
                 void (*place)(void* to, const void* from), Stream stream) {
  constexpr size_t kInlineOutputs = 4;
  OutputSpec few[kInlineOutputs];
  stream = resolve(stream);
  Application application{{inputs, input_count}, {}, params, stream};
  size_t outputs =
      op.count_outputs ? op.count_outputs(application) : static_cast<size_t>(op.outputs);
  std::vector<OutputSpec> many(outputs > kInlineOutputs ? outputs : 0);
  std::span<OutputSpec> specs(many.empty() ? few : many.data(), outputs);
  op.infer(application, specs);
  Node* node = allocate_node(outputs, input_count, op.params);
  node->op = &op;
  node->id = next_id.fetch_add(1, std::memory_order_relaxed);
  node->stream = stream;
  node->traced = any_traced(inputs, input_count);
  for (size_t i = 0; i < outputs; ++i) {
    auto* slot = new (&node->slots[i]) Slot;
    slot->node = node;
    slot->shape = std::move(specs[i].shape);
    slot->dtype = specs[i].dtype;
  }
  for (size_t i = 0; i < input_count; ++i) new (&node->inputs[i]) Array(inputs[i]);
  if (op.params) place(node->params, params);
  count(live_counters.nodes);
  return node;
}

}  // namespace detail

int64_t live_nodes() { return live; }

void drop_inputs(Node& node) noexcept {
  uint32_t count = node.input_count;
  node.input_count = 0;
  for (uint32_t i = 0; i < count; ++i) node.inputs[i].~Array();
}

Array make_constant(std::shared_ptr<Buffer> buffer, const Shape& shape, Dtype dtype,
                    Strides strides, int64_t offset) {
  Node* node = allocate_node(1, 0, nullptr);
  node->op = &constant_op;
  node->id = next_id.fetch_add(1, std::memory_order_relaxed);
  node->stream = resolve({});
  auto* slot = new (&node->slots[0]) Slot;
  slot->node = node;
  slot->shape = shape;
  slot->dtype = dtype;
  slot->data = new ArrayData{std::move(buffer), offset, std::move(strides)};
  node->state.store(NodeState::Done, std::memory_order_release);
  return Array::first_of(node);
}

void Array::retain() const {
  if (slot_) slot_->refs.fetch_add(1, std::memory_order_relaxed);
}

void Array::release() noexcept {
  if (slot_) release_slot(slot_);
  slot_ = nullptr;
}

Node* Array::node() const { return slot_->node; }

Array Array::adopt(Slot* slot) {
  Array array;
  array.slot_ = slot;
  return array;
}

Array Array::share(Slot* slot) {
  if (slot->refs.fetch_add(1, std::memory_order_relaxed) == 0)
    slot->node->live_slots.fetch_add(1, std::memory_order_relaxed);
  return adopt(slot);
}

Array Array::first_of(Node* node) {
  MICA_ASSERT(node->output_count == 1);
  return share(&node->slots[0]);
}

Arrays Array::all_of(Node* node) {
  Arrays arrays;
  for (uint32_t i = 0; i < node->output_count; ++i) arrays.push_back(share(&node->slots[i]));
  return arrays;
}

Arrays apply_many(const Op& op, std::span<const Array> inputs, const void* params, Stream stream) {
  return Array::all_of(detail::build_node(op, inputs.data(), inputs.size(), params,
                                          op.params ? op.params->copy : nullptr, stream));
}

Array apply(const Op& op, std::span<const Array> inputs, Stream stream) {
  return Array::first_of(
      detail::build_node(op, inputs.data(), inputs.size(), nullptr, nullptr, stream));
}

Array apply(const Op& op, std::initializer_list<Array> inputs, Stream stream) {
  return Array::first_of(
      detail::build_node(op, inputs.begin(), inputs.size(), nullptr, nullptr, stream));
}

}  // namespace mica
