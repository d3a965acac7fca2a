#include "backends/cpu/tile_runner.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <new>

#include "ops/elementwise.h"

namespace mica::cpu {

namespace {

// Outputs of this size do not stay in the caches until someone reads them.
constexpr int64_t kStreamBytes = int64_t{8} << 20;
// Costs in nanoseconds, roughly, to decide how much work is worth handing to a thread.
constexpr int64_t kTileCost = 10, kStepCost = 15, kChunkCost = 8000;

struct Arena {
  struct Free {
    void operator()(std::byte* p) const { ::operator delete(p, std::align_val_t{64}); }
  };
  std::unique_ptr<std::byte, Free> data;
  size_t size = 0;

  std::byte* reserve(size_t bytes) {
    if (size < bytes) {
      data.reset(static_cast<std::byte*>(::operator new(bytes, std::align_val_t{64})));
      size = bytes;
    }
    return data.get();
  }
};
thread_local Arena arena;

bool one_element(const View& view) {
  for (size_t i = 0; i < view.shape.size(); ++i) {
    if (view.shape[i] != 1 && view.strides[i] != 0) return false;
  }
  return true;
}

// `count` copies of a number as a dtype computes with it.
void splat_fill(const ops::FillParams& fill, Dtype dtype, int64_t count, void* to) {
  dispatch(dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    if constexpr (std::is_same_v<T, float16_t> || std::is_same_v<T, bfloat16_t>) {
      float value = static_cast<float>(T(detail::narrow_to_odd(fill.real)));
      splat(&value, sizeof(value), count, to);
    } else {
      T value;
      if constexpr (std::is_floating_point_v<T>)
        value = static_cast<T>(fill.real);
      else
        value = static_cast<T>(fill.integer);
      splat(&value, sizeof(value), count, to);
    }
  });
}

}  // namespace

RegionBinding& RegionBinding::own() {
  thread_local RegionBinding binding;
  return binding;
}

void RegionBinding::bind(const RegionCall& call) {
  call_ = &call;
  program_ = static_cast<const TileProgram*>(call.program);
  total_ = elements(call.space);
  inputs_.clear();
  outputs_.clear();
  for (const View& view : call.inputs) inputs_.push_back(bind_input(view));
  for (const RegionStore& store : program_->stores)
    bind_output(store, call.outputs[static_cast<size_t>(store.output)]);
}

BoundInput RegionBinding::bind_input(const View& view) const {
  BoundInput input{InputKind::Dense, view.dtype, nullptr, view.data, 1, {}, {}};
  if (is_half(view.dtype)) input.widen = widen_function(view.dtype);
  if (view.contiguous()) return input;
  if (one_element(view)) {
    input.kind = InputKind::Uniform;
    return input;
  }
  input.shape = view.shape;
  input.strides = view.strides;
  merge_axes(input.shape, input.strides);
  input.kind = InputKind::Strided;
  if (input.shape.size() == 2 && input.strides[0] == 0 && input.strides[1] == 1) {
    input.kind = InputKind::Periodic;
    input.period = input.shape[1];
  }
  return input;
}

void RegionBinding::bind_output(const RegionStore& store, const View& view) {
  BoundOutput output{view.data,   size_of(store.dtype),  nullptr,
                     store.value, store.defined_at >= 0, false};
  if (is_half(store.dtype)) output.narrow = narrow_function(store.dtype);
  bool shared = false;
  for (size_t i = 0; i < inputs_.size(); ++i) {
    if (inputs_[i].data != view.data) continue;
    shared = true;
    // Written where it lies, the input must not be read again.
    if (program_->last_use[i] > store.defined_at) output.direct = false;
  }
  bool by_step =
      store.defined_at >= 0 && program_->steps[static_cast<size_t>(store.defined_at)].function;
  output.stream = !shared && total_ * output.element_bytes >= kStreamBytes &&
                  reinterpret_cast<uintptr_t>(view.data) % kStreamAlign == 0;
  output.direct &= by_step && !output.narrow && !output.stream;
  for (const BoundOutput& other : outputs_) output.direct &= other.value != store.value;
  outputs_.push_back(output);
}

int64_t RegionBinding::grain() const {
  int64_t cost =
      kTileCost + kStepCost * static_cast<int64_t>(program_->steps.size() + outputs_.size());
  return std::max<int64_t>(1, kChunkCost / cost);
}

TileRunner::TileRunner(const RegionBinding& binding)
    : binding_(binding), program_(*binding.program_) {
  size_t tile = program_.tile_bytes, inputs = program_.inputs.size(),
         values = program_.register_of.size();
  size_t registers = static_cast<size_t>(program_.registers);
  size_t staging = static_cast<size_t>(kTile) * sizeof(double);
  size_t tiles = registers + 2 * inputs + program_.fills.size();
  registers_ = arena.reserve(tiles * tile + staging + values * sizeof(void*) + 64);
  blocks_ = registers_ + registers * tile;
  fills_ = blocks_ + 2 * inputs * tile;
  staging_ = fills_ + program_.fills.size() * tile;
  values_ = reinterpret_cast<void**>(staging_ + staging);
  for (size_t v = 0; v < values; ++v) values_[v] = register_at(static_cast<int16_t>(v));
  set_constants();
}

void TileRunner::set_constants() {
  int64_t count = padded(std::min(kTile, binding_.total_));
  for (size_t i = 0; i < binding_.inputs_.size(); ++i) {
    const BoundInput& input = binding_.inputs_[i];
    if (input.kind == InputKind::Uniform) {
      values_[i] = own_block(i);
      splat(input.data, static_cast<size_t>(size_of(input.dtype)), count,
            input.widen ? staging_ : own_block(i));
      if (input.widen) input.widen(staging_, reinterpret_cast<float*>(own_block(i)), count);
    } else if (input.kind == InputKind::Periodic && input.period < kTile) {
      int64_t needed = std::min(input.period + kTile, binding_.total_);
      int64_t bytes = size_of(computed_as(input.dtype));
      for (int64_t at = 0; at < needed; at += kTile)
        load_block(input, at, std::min(kTile, needed - at), own_block(i) + at * bytes);
    }
  }
  for (size_t f = 0; f < program_.fills.size(); ++f) {
    const RegionFill& fill = program_.fills[f];
    std::byte* block = fills_ + f * program_.tile_bytes;
    values_[fill.value] = block;
    const void* params = binding_.call_->params[static_cast<size_t>(fill.node)];
    splat_fill(*static_cast<const ops::FillParams*>(params), fill.dtype, count, block);
  }
}

void TileRunner::run(int64_t start, int64_t count) {
  bool whole = count % kTilePad == 0;
  int64_t n = padded(count);
  for (const BoundOutput& output : binding_.outputs_) {
    if (output.direct)
      values_[output.value] =
          whole ? output.data + start * output.element_bytes : register_at(output.value);
  }
  for (const RegionStep& step : program_.steps) {
    if (step.function)
      step.function(values_[step.out], values_[step.a], values_[step.b], values_[step.c], n);
    else
      load(step.out, start, count);
  }
  for (const BoundOutput& output : binding_.outputs_) {
    if (!output.direct || !whole) store(output, start, count);
  }
}

void TileRunner::load(int16_t value, int64_t start, int64_t count) {
  const BoundInput& input = binding_.inputs_[static_cast<size_t>(value)];
  int64_t at = start;
  switch (input.kind) {
    case InputKind::Uniform: return;
    case InputKind::Dense: break;
    case InputKind::Periodic:
      at = start % input.period;
      if (input.period < kTile) {
        values_[value] =
            own_block(static_cast<size_t>(value)) + at * size_of(computed_as(input.dtype));
        return;
      }
      if (at + count <= input.period) break;
      [[fallthrough]];
    case InputKind::Strided:
      values_[value] = register_at(value);
      load_block(input, start, count, values_[value]);
      return;
  }
  // `count` elements in a row.
  const std::byte* from = input.data + at * size_of(input.dtype);
  bool whole = count % kTilePad == 0;
  if (!input.widen && (whole || !program_.computes)) {
    values_[value] = const_cast<std::byte*>(from);
    return;
  }
  values_[value] = register_at(value);
  if (!whole) {
    std::byte* to = input.widen ? staging_ : register_at(value);
    std::memcpy(to, from, static_cast<size_t>(count * size_of(input.dtype)));
    from = staging_;
  }
  if (input.widen) input.widen(from, static_cast<float*>(values_[value]), padded(count));
}

void TileRunner::load_block(const BoundInput& input, int64_t start, int64_t count, void* to) {
  auto bytes = static_cast<size_t>(size_of(input.dtype));
  gather(input.data, bytes, input.shape, input.strides, start, count, input.widen ? staging_ : to);
  if (input.widen) input.widen(staging_, static_cast<float*>(to), padded(count));
}

void TileRunner::store(const BoundOutput& output, int64_t start, int64_t count) {
  std::byte* to = output.data + start * output.element_bytes;
  const void* from = values_[output.value];
  auto bytes = static_cast<size_t>(count * output.element_bytes);
  bool stream = output.stream && bytes % kStreamAlign == 0 &&
                reinterpret_cast<uintptr_t>(to) % kStreamAlign == 0;
  if (output.narrow) {
    bool in_place = !stream && count % kTilePad == 0;
    output.narrow(static_cast<const float*>(from), in_place ? to : staging_, padded(count));
    if (in_place) return;
    from = staging_;
  }
  if (stream) {
    stream_copy(to, from, bytes);
    streamed_ = true;
  } else if (to != from) {
    std::memcpy(to, from, bytes);
  }
}

void TileRunner::finish() {
  if (streamed_) stream_fence();
}

}  // namespace mica::cpu
