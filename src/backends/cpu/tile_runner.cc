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
  inputs_.resize(call.inputs.size());
  for (size_t i = 0; i < inputs_.size(); ++i) bind_input(call.inputs[i], inputs_[i]);
  outputs_.clear();
  for (const RegionStore& store : program_->stores)
    outputs_.push_back(bind_output(store, call.outputs[static_cast<size_t>(store.output)]));
}

void RegionBinding::bind_input(const View& view, BoundInput& input) const {
  input.data = view.data;
  if (view.contiguous()) {
    input.kind = InputKind::Dense;
  } else if (one_element(view)) {
    input.kind = InputKind::Uniform;
  } else {
    input.kind = InputKind::Strided;
    input.shape = view.shape;
    input.strides = view.strides;
    merge_axes(input.shape, input.strides);
    if (input.shape.size() == 2 && input.strides[0] == 0 && input.strides[1] == 1) {
      input.kind = InputKind::Periodic;
      input.period = input.shape[1];
    }
  }
}

BoundOutput RegionBinding::bind_output(const RegionStore& store, const View& view) const {
  bool shared = false, read_later = false;
  for (size_t i = 0; i < inputs_.size(); ++i) {
    if (inputs_[i].data != view.data) continue;
    shared = true;
    read_later |= store.written_before(program_->inputs[i]);
  }
  bool stream = !shared && total_ * store.bytes >= kStreamBytes &&
                reinterpret_cast<uintptr_t>(view.data) % kStreamAlign == 0;
  // Written where it lies, an input must not be read again; what was streamed is not read again
  // either.
  bool direct = !read_later && (store.end || (store.direct && !stream));
  LinkFunction end = stream && store.end ? store.end_stream
                     : store.end         ? store.end
                                         : program_->end_in_tile;
  return {view.data, end, direct, stream};
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
  size_t tiles = registers + 2 * inputs + program_.fills.size(), links = program_.links.size();
  registers_ = arena.reserve(tiles * tile + staging + values * sizeof(void*) +
                             links * sizeof(Link) + inputs * sizeof(int64_t));
  blocks_ = registers_ + registers * tile;
  fills_ = blocks_ + 2 * inputs * tile;
  staging_ = fills_ + program_.fills.size() * tile;
  values_ = reinterpret_cast<void**>(staging_ + staging);
  links_ = reinterpret_cast<Link*>(values_ + values);
  splat_rows_ = reinterpret_cast<int64_t*>(links_ + links);
  std::fill_n(splat_rows_, inputs, -1);
  for (size_t v = 0; v < values; ++v) values_[v] = register_at(static_cast<int16_t>(v));
  set_constants();
  auto at = [&](int16_t v) { return v < 0 ? nullptr : values_[v]; };
  for (size_t l = 0; l < links; ++l)
    links_[l] = {program_.links[l].run, at(program_.links[l].p), at(program_.links[l].q)};
}

void TileRunner::set_constants() {
  int64_t count = std::min(kTile, (binding_.total_ + kChainPad - 1) / kChainPad * kChainPad);
  for (size_t i = 0; i < binding_.inputs_.size(); ++i) {
    const BoundInput& input = binding_.inputs_[i];
    const RegionInput& kind = program_.inputs[i];
    if (input.kind == InputKind::Uniform) {
      values_[i] = own_block(i);
      splat(input.data, static_cast<size_t>(kind.bytes), count,
            kind.widen ? staging_ : own_block(i));
      if (kind.widen) kind.widen(staging_, reinterpret_cast<float*>(own_block(i)), count);
    } else if (input.kind == InputKind::Periodic && input.period < kTile) {
      int64_t needed = std::min(input.period + kTile, binding_.total_);
      for (int64_t at = 0; at < needed; at += kTile)
        load_block(i, at, std::min(kTile, needed - at), own_block(i) + at * kind.tile_bytes);
    }
  }
  for (size_t f = 0; f < program_.fills.size(); ++f) {
    const RegionFill& fill = program_.fills[f];
    std::byte* block = fills_ + f * program_.tile_bytes;
    values_[fill.value] = block;
    const void* params = binding_.call_->params[static_cast<size_t>(fill.node)];
    splat_fill(*static_cast<const ops::FillParams*>(params), fill.dtype,
               fill.whole_tile ? count : 1, block);
  }
}

// Points the values that move at this tile: inputs that are read and outputs that are written in
// place.
void TileRunner::place(int64_t start, bool whole) {
  in_place_ = whole || !program_.computes;
  for (size_t i = 0; i < binding_.inputs_.size(); ++i) {
    const BoundInput& input = binding_.inputs_[i];
    const RegionInput& kind = program_.inputs[i];
    if (input.kind == InputKind::Dense && !kind.widen) {
      const std::byte* at =
          in_place_ ? input.data + start * kind.bytes : register_at(static_cast<int16_t>(i));
      values_[i] = const_cast<std::byte*>(at);
    } else if (input.kind == InputKind::Periodic) {
      place_period(i, start);
    } else if (input.kind == InputKind::Strided) {
      place_strided(i, start);
    }
  }
  for (size_t o = 0; o < program_.stores.size(); ++o) {
    const BoundOutput& output = binding_.outputs_[o];
    const RegionStore& store = program_.stores[o];
    if (!output.direct) continue;
    values_[store.value] = whole ? output.data + start * store.bytes : register_at(store.value);
    const RegionStep& step = program_.steps[static_cast<size_t>(store.defined_at)];
    const bool kept = store.kept_by >= 0;
    if (kept ? !store.end : step.kind != RegionStep::Kind::Chain) continue;
    const LinkFunction in_tile = kept ? program_.keep_in_tile : program_.end_in_tile;
    links_[kept ? store.kept_by : step.first + step.links].run = whole ? output.end : in_tile;
    streamed_ |= whole && output.stream;
  }
  for (const LinkPatch& patch : program_.patches)
    (patch.second ? links_[patch.link].q : links_[patch.link].p) = values_[patch.value];
}

void TileRunner::place_period(size_t i, int64_t start) {
  const BoundInput& input = binding_.inputs_[i];
  const RegionInput& kind = program_.inputs[i];
  int64_t at = start % input.period;
  if (input.period < kTile) {
    values_[i] = own_block(i) + at * kind.tile_bytes;
  } else if (in_place_ && !kind.widen && at + kTile <= input.period) {
    values_[i] = const_cast<std::byte*>(input.data + at * kind.bytes);
  } else {
    values_[i] = register_at(static_cast<int16_t>(i));
  }
}

// A tile inside a dense row is read where it lies; a row that is one element repeated is laid out
// once, not for each of its tiles.
void TileRunner::place_strided(size_t i, int64_t start) {
  const BoundInput& input = binding_.inputs_[i];
  const RegionInput& kind = program_.inputs[i];
  int64_t row = input.shape.back(), at = start % row, index = start / row;
  values_[i] = register_at(static_cast<int16_t>(i));
  if (at + kTile > row) return;
  if (in_place_ && !kind.widen && input.strides.back() == 1) {
    values_[i] = const_cast<std::byte*>(input.data + (input.row_offset(index) + at) * kind.bytes);
  } else if (input.strides.back() == 0) {
    values_[i] = own_block(i);
    if (splat_rows_[i] != index) load_block(i, start, kTile, own_block(i));
    splat_rows_[i] = index;
  }
}

void TileRunner::run(int64_t start, int64_t count) {
  bool whole = count % kChainPad == 0;
  place(start, whole);
  for (const RegionStep& step : program_.steps) {
    switch (step.kind) {
      case RegionStep::Kind::Load: load(step.out, start, count); break;
      case RegionStep::Kind::Function:
        step.function(values_[step.out], values_[step.a], values_[step.b], values_[step.c],
                      padded(count));
        break;
      default: run_chain(links_ + step.first, count, program_.chain_block, values_[step.out]);
    }
  }
  for (size_t o = 0; o < program_.stores.size(); ++o) {
    if (!binding_.outputs_[o].direct || !whole) store(o, start, count);
  }
}

// Fills the register of an input that is not read in place.
void TileRunner::load(int16_t value, int64_t start, int64_t count) {
  auto i = static_cast<size_t>(value);
  std::byte* to = register_at(value);
  if (values_[i] != to) return;
  const BoundInput& input = binding_.inputs_[i];
  const RegionInput& kind = program_.inputs[i];
  int64_t at = input.kind == InputKind::Periodic ? start % input.period : start;
  if (input.kind == InputKind::Strided ||
      (input.kind == InputKind::Periodic && at + count > input.period))
    return load_block(i, start, count, to);
  const std::byte* from = input.data + at * kind.bytes;
#if defined(__GNUC__)
  for (int64_t byte = 0; byte < kTile * kind.bytes; byte += 64)
    __builtin_prefetch(from + kTile * kind.bytes + byte);
#endif
  if (!kind.widen || count % kTilePad != 0) {
    std::memcpy(kind.widen ? staging_ : to, from, static_cast<size_t>(count * kind.bytes));
    from = staging_;
  }
  if (kind.widen) kind.widen(from, reinterpret_cast<float*>(to), padded(count));
}

void TileRunner::load_block(size_t i, int64_t start, int64_t count, void* to) {
  const BoundInput& input = binding_.inputs_[i];
  const RegionInput& kind = program_.inputs[i];
  gather(input.data, static_cast<size_t>(kind.bytes), input.shape, input.strides, start, count,
         kind.widen ? staging_ : to);
  if (kind.widen) kind.widen(staging_, static_cast<float*>(to), padded(count));
}

void TileRunner::store(size_t o, int64_t start, int64_t count) {
  const BoundOutput& output = binding_.outputs_[o];
  const RegionStore& store = program_.stores[o];
  std::byte* to = output.data + start * store.bytes;
  const void* from = values_[store.value];
  auto bytes = static_cast<size_t>(count * store.bytes);
  bool stream = output.stream && bytes % kStreamAlign == 0 &&
                reinterpret_cast<uintptr_t>(to) % kStreamAlign == 0;
  if (store.narrow) {
    bool in_place = !stream && count % kTilePad == 0;
    store.narrow(static_cast<const float*>(from), in_place ? to : staging_, padded(count));
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
