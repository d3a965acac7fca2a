// Writes at places that are data. Equal places are combined in the order of the updates, whatever
// the number of threads: every element of the target belongs to one thread.
#include <algorithm>
#include <vector>

#include "backends/cpu/lines.h"
#include "backends/cpu/places.h"
#include "backends/cpu/radix.h"
#include "backends/cpu/strided.h"
#include "base/thread_pool.h"
#include "ops/index.h"

namespace mica::cpu {

namespace {

// Updates are combined in this type and rounded once.
template <class T>
struct WideOf {
  using type = T;
};
template <>
struct WideOf<float16_t> {
  using type = float;
};
template <>
struct WideOf<bfloat16_t> {
  using type = float;
};
template <class T>
using Wide = typename WideOf<T>::type;

// Combines a value with an update; NaNs stay, integers wrap around.
template <ScatterMode mode, class W>
W combine(W old, W update) {
  using Arithmetic = std::conditional_t<std::is_integral_v<W>, uint64_t, W>;
  if constexpr (mode == ScatterMode::Add)
    return static_cast<W>(static_cast<Arithmetic>(old) + static_cast<Arithmetic>(update));
  else if constexpr (mode == ScatterMode::Prod)
    return static_cast<W>(static_cast<Arithmetic>(old) * static_cast<Arithmetic>(update));
  else if constexpr (mode == ScatterMode::Max)
    return old >= update || old != old ? old : update;
  else if constexpr (mode == ScatterMode::Min)
    return old <= update || old != old ? old : update;
  else
    return update;
}

template <class F>
void dispatch_mode(ScatterMode mode, F&& f) {
  switch (mode) {
    case ScatterMode::Add: return f(std::integral_constant<ScatterMode, ScatterMode::Add>{});
    case ScatterMode::Prod: return f(std::integral_constant<ScatterMode, ScatterMode::Prod>{});
    case ScatterMode::Max: return f(std::integral_constant<ScatterMode, ScatterMode::Max>{});
    case ScatterMode::Min: return f(std::integral_constant<ScatterMode, ScatterMode::Min>{});
    default: return f(std::integral_constant<ScatterMode, ScatterMode::Set>{});
  }
}

// --- scatter

struct Place {
  int64_t offset;  // of the block's corner in the target
  int64_t update;  // which update goes there
};

// A block of the target in runs of at most kRun elements at one stride.
class BlockRuns {
 public:
  static constexpr int64_t kRun = 256;

  BlockRuns(std::span<const int64_t> block, const Strides& strides)
      : outer_(block), strides_(strides) {
    if (!outer_.empty()) {
      row_ = outer_.back();
      stride_ = strides_.back();
      outer_.erase(outer_.size() - 1);
    }
    per_row_ = (row_ + kRun - 1) / kRun;
  }
  int64_t count() const { return elements(outer_) * per_row_; }
  struct Run {
    int64_t target, update, length, stride;  // starts relative to the block's corner
  };
  Run operator[](int64_t i) const {
    int64_t row = i / per_row_, begin = i % per_row_ * kRun;
    Run run{begin * stride_, row * row_ + begin, std::min(kRun, row_ - begin), stride_};
    for (size_t axis = outer_.size(); axis-- > 0;) {
      run.target += row % outer_[axis] * strides_[axis];
      row /= outer_[axis];
    }
    return run;
  }

 private:
  Shape outer_;
  Strides strides_;
  int64_t row_ = 1, stride_ = 1, per_row_ = 1;
};

// One run of the block at places[begin … end), which are equal: all their updates into the target.
template <ScatterMode mode, class T>
void update_run(T* target, const T* updates, std::span<const Place> places, int64_t block,
                const BlockRuns::Run& run) {
  Wide<T> sums[BlockRuns::kRun];
  T* to = target + places[0].offset + run.target;
  for (int64_t i = 0; i < run.length; ++i) sums[i] = static_cast<Wide<T>>(to[i * run.stride]);
  for (const Place& place : places) {
    const T* from = updates + place.update * block + run.update;
    for (int64_t i = 0; i < run.length; ++i)
      sums[i] = combine<mode>(sums[i], static_cast<Wide<T>>(from[i]));
  }
  for (int64_t i = 0; i < run.length; ++i) to[i * run.stride] = T(sums[i]);
}

// The workspace of a scatter: places, sorted; scratch for sorting; where runs of equal places
// begin.
struct ScatterPlan {
  std::span<Place> places;
  std::span<Place> scratch;
  std::span<int64_t> groups;  // one more than there are, the end last
};

size_t place_count(const KernelCall& call) {
  const Shape& updates = call.inputs.back().shape;
  size_t lead = updates.size() - call.outputs[0].shape.size();
  return static_cast<size_t>(elements(Shape(std::span<const int64_t>(updates.data(), lead))));
}

size_t sorted_bytes(size_t count) {
  return count * (2 * sizeof(Place) + sizeof(int64_t)) + sizeof(int64_t);
}

BlockPlaces places_of(const KernelCall& call, std::span<const int64_t> block) {
  const auto& axes = call.as<ops::ScatterParams>().axes;
  return {call.inputs.subspan(1, axes.size()), axes, call.outputs[0], block, "scatter"};
}

// `offsets` is the last part of the workspace, which the groups take over.
ScatterPlan plan_scatter(const KernelCall& call, std::span<const int64_t> block) {
  size_t count = place_count(call);
  auto* places = reinterpret_cast<Place*>(call.workspace.data());
  auto* offsets = reinterpret_cast<int64_t*>(places + 2 * count);
  places_of(call, block).read_all({offsets, count});
  for (size_t i = 0; i < count; ++i) places[i] = {offsets[i], static_cast<int64_t>(i)};
  radix_sort(places, places + count, static_cast<int64_t>(count),
             [](const Place& place) { return static_cast<uint64_t>(place.offset); });
  size_t groups = 0;
  for (size_t i = 0; i < count; ++i) {
    if (i == 0 || places[i].offset != places[i - 1].offset)
      offsets[groups++] = static_cast<int64_t>(i);
  }
  offsets[groups] = static_cast<int64_t>(count);
  return {{places, count}, {places + count, count}, {offsets, groups + 1}};
}

template <ScatterMode mode, class T>
void scatter_groups(const KernelCall& call, const ScatterPlan& plan, std::span<const int64_t> block,
                    bool disjoint) {
  const View &updates = call.inputs.back(), &out = call.outputs[0];
  BlockRuns runs(block, row_major(out.shape));
  auto per_block = elements(Shape(block)), groups = static_cast<int64_t>(plan.groups.size()) - 1;
  int64_t run_count = runs.count(), total = groups * run_count;
  int64_t grain = std::max<int64_t>(1, total * 16384 / std::max<int64_t>(updates.size(), 1));
  auto range = [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      int64_t group = i / run_count;
      auto places =
          plan.places.subspan(plan.groups[group], plan.groups[group + 1] - plan.groups[group]);
      update_run<mode>(out.as<T>(), updates.as<T>(), places, per_block, runs[i % run_count]);
    }
  };
  if (disjoint)
    ThreadPool::shared().parallel_for(total, grain, range);
  else
    range(0, total);
}

// Single elements of half types are summed in a float32 copy of the target, unless it is much
// larger than what changes in it.
bool has_wide_copy(const KernelCall& call) {
  const View &updates = call.inputs.back(), &out = call.outputs[0];
  return is_half(out.dtype) && out.size() <= 4 * updates.size();
}

// The shape of one update.
std::span<const int64_t> block_of(const KernelCall& call) {
  const Shape& updates = call.inputs.back().shape;
  size_t rank = call.outputs[0].shape.size();
  return {updates.data() + updates.size() - rank, rank};
}

// Blocks at different places overlap only if they extend along an indexed axis.
bool disjoint_blocks(const KernelCall& call, std::span<const int64_t> block) {
  const auto& axes = call.as<ops::ScatterParams>().axes;
  return std::all_of(axes.begin(), axes.end(), [&](int axis) { return block[axis] == 1; });
}

// Whether updates are contiguous rows of the target that can be applied one after the other: half
// types are rounded once, so their updates of one place are collected first.
bool updates_rows(const KernelCall& call, std::span<const int64_t> block) {
  const Shape& shape = call.outputs[0].shape;
  size_t lead = 0;
  while (lead < block.size() && block[lead] == 1) ++lead;
  for (size_t i = lead + 1; i < block.size(); ++i) {
    if (block[i] != shape[i]) return false;
  }
  return !is_half(call.outputs[0].dtype) && disjoint_blocks(call, block);
}

size_t scatter_workspace(const KernelCall& call) {
  size_t count = place_count(call);
  if (static_cast<int64_t>(count) != call.inputs.back().size())
    return updates_rows(call, block_of(call)) ? 0 : sorted_bytes(count);
  if (has_wide_copy(call)) return static_cast<size_t>(call.outputs[0].size()) * sizeof(float);
  return is_half(call.outputs[0].dtype) ? sorted_bytes(count) : 0;
}

// Single elements. Many threads each apply the updates that fall into their part of the target, in
// their order; for few, reading all indices costs more than it gives.
template <ScatterMode mode, class T>
void scatter_singles(const KernelCall& call, std::span<const int64_t> block) {
  constexpr bool kCopied = !std::is_same_v<T, Wide<T>>;
  const View &updates = call.inputs.back(), &out = call.outputs[0];
  const T* from = updates.as<T>();
  T* target = out.as<T>();
  Wide<T>* sums;
  if constexpr (kCopied)
    sums = reinterpret_cast<Wide<T>*>(call.workspace.data());
  else
    sums = target;
  BlockPlaces places = places_of(call, block);
  auto& pool = ThreadPool::shared();
  int64_t size = out.size(), count = updates.size();
  int64_t parts = count < 65536 || pool.threads() < 8 ? 1 : pool.threads();
  int64_t width = (size + parts - 1) / parts;
  pool.parallel_for(parts, 1, [&](int64_t begin, int64_t end) {
    int64_t low = begin * width, high = std::min(end * width, size);
    if constexpr (kCopied) std::copy(target + low, target + high, sums + low);
    places.for_each_chunk(
        0, count, BlockPlaces::kMostAhead,
        [&](int64_t first, std::span<const int64_t> offsets, std::span<const int64_t> later) {
          for (size_t i = 0; i < offsets.size(); ++i) {
            if (i < later.size()) __builtin_prefetch(sums + later[i], 1, 2);
            const int64_t at = offsets[i];
            if (at < low || at >= high) continue;
            sums[at] = combine<mode>(sums[at],
                                     static_cast<Wide<T>>(from[first + static_cast<int64_t>(i)]));
          }
        });
    if constexpr (kCopied) {
      for (int64_t i = low; i < high; ++i) target[i] = T(sums[i]);
    }
  });
}

template <ScatterMode mode, class T>
void update_row(T* __restrict target, const T* __restrict updates, int64_t length) {
  for (int64_t i = 0; i < length; ++i)
    target[i] = T(combine<mode>(static_cast<Wide<T>>(target[i]), static_cast<Wide<T>>(updates[i])));
}

// Rows, as they come: each thread applies those whose places are its own. Places are spread over
// the threads, because frequent ones often lie together. Rows of the target are fetched ahead.
template <ScatterMode mode, class T>
void scatter_rows(const KernelCall& call, std::span<const int64_t> block) {
  constexpr int64_t kAheadBytes = 4096, kRowStart = 1024, kMaxParts = 16;
  const View &updates = call.inputs.back(), &out = call.outputs[0];
  BlockPlaces places = places_of(call, block);
  int64_t length = elements(Shape(block));
  auto start = std::min(length * static_cast<int64_t>(sizeof(T)), kRowStart);
  auto ahead = static_cast<size_t>(kAheadBytes / std::max<int64_t>(start, 64));
  auto& pool = ThreadPool::shared();
  int64_t parts = updates.size() < 65536 ? 1 : std::min<int64_t>(pool.threads(), kMaxParts);
  const size_t own_ahead = std::max<size_t>(1, ahead / static_cast<size_t>(parts));
  pool.parallel_for(parts, 1, [&](int64_t begin, int64_t end) {
    auto mine = [&, all = end - begin == parts](int64_t at) {
      auto mixed = static_cast<uint64_t>(at) * 0x9e3779b97f4a7c15u >> 32;
      auto owner = static_cast<int64_t>(mixed * static_cast<uint64_t>(parts) >> 32);
      return all || (owner >= begin && owner < end);
    };
    places.for_each_chunk(
        0, updates.size() / length, ahead,
        [&](int64_t first, std::span<const int64_t> offsets, std::span<const int64_t> later) {
          // Which are this thread's is chance, so they are listed without a branch, with those
          // that follow in the next piece and are fetched only.
          const size_t known = std::max(offsets.size(), later.empty() ? 0 : ahead + later.size());
          uint16_t own[BlockPlaces::kChunk + BlockPlaces::kMostAhead];
          size_t count = 0, here = 0;
          for (size_t i = 0; i < known; ++i) {
            own[count] = static_cast<uint16_t>(i);
            count += mine(offsets.data()[i]);
            here = i + 1 == offsets.size() ? count : here;
          }
          auto fetch = [&](size_t j) {
            auto* row = reinterpret_cast<const std::byte*>(out.as<T>() + offsets.data()[own[j]]);
            for (int64_t at = 0; at < start; at += 64) __builtin_prefetch(row + at, 1, 2);
          };
          for (size_t j = 0; first == 0 && j < std::min(own_ahead, count); ++j) fetch(j);
          const T* from = updates.as<T>() + first * length;
          for (size_t j = 0; j < here; ++j) {
            if (j + own_ahead < count) fetch(j + own_ahead);
            update_row<mode>(out.as<T>() + offsets[own[j]], from + own[j] * length, length);
          }
        });
  });
}

void scatter(const KernelCall& call) {
  const auto& params = call.as<ops::ScatterParams>();
  const View &updates = call.inputs.back(), &out = call.outputs[0];
  if (updates.size() == 0) return;
  std::span<const int64_t> block = block_of(call);
  bool single = elements(Shape(block)) == 1 && (!is_half(out.dtype) || has_wide_copy(call));
  bool rows = updates_rows(call, block);
  dispatch(out.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    dispatch_mode(params.mode, [&](auto mode) {
      if (single)
        scatter_singles<mode.value, T>(call, block);
      else if (rows)
        scatter_rows<mode.value, T>(call, block);
      else
        scatter_groups<mode.value, T>(call, plan_scatter(call, block), block,
                                      disjoint_blocks(call, block));
    });
  });
}

// --- scatter along an axis

// Updates of one line. Wider sums live in `sums`, one element per element of the line; only those
// that are updated are touched.
template <ScatterMode mode, class T>
void update_line(T* target, const T* updates, const int64_t* places, int64_t count, int64_t step,
                 float* sums) {
  if constexpr (mode == ScatterMode::Set || std::is_same_v<T, Wide<T>>) {
    for (int64_t i = 0; i < count; ++i) {
      T& to = target[places[i] * step];
      to = combine<mode>(to, updates[i * step]);
    }
  } else {
    for (int64_t i = 0; i < count; ++i) sums[places[i]] = target[places[i] * step];
    for (int64_t i = 0; i < count; ++i) sums[places[i]] += updates[i * step];
    for (int64_t i = 0; i < count; ++i) target[places[i] * step] = T(sums[places[i]]);
  }
}

template <ScatterMode mode, class T>
void scatter_lines(const KernelCall& call, int axis) {
  const View &indices = call.inputs[1], &updates = call.inputs[2], &out = call.outputs[0];
  const char* name = mode == ScatterMode::Add ? "scatter_add_axis" : "put_along_axis";
  Extents to(out.shape, axis), from(updates.shape, axis);
  int64_t lines = to.before * to.after;
  int64_t grain = std::max<int64_t>(1, 8192 / std::max<int64_t>(from.extent, 1));
  dispatch(indices.dtype, [&](auto tag) {
    using I = typename decltype(tag)::type;
    if constexpr (std::is_integral_v<I>) {
      ThreadPool::shared().parallel_for(lines, grain, [&](int64_t begin, int64_t end) {
        std::vector<int64_t> places(static_cast<size_t>(from.extent));
        std::vector<float> sums(std::is_same_v<T, Wide<T>> ? 0 : static_cast<size_t>(to.extent));
        for (int64_t line = begin; line < end; ++line) {
          int64_t head = line / to.after, tail = line % to.after;
          int64_t start = head * from.extent * from.after + tail;
          const I* index = indices.as<I>() + start;
          for (int64_t i = 0; i < from.extent; ++i) {
            places[i] = ops::resolve_index(static_cast<int64_t>(index[i * from.after]), to.extent,
                                           axis, name);
          }
          update_line<mode>(out.as<T>() + head * to.extent * to.after + tail,
                            updates.as<T>() + start, places.data(), from.extent, to.after,
                            sums.data());
        }
      });
    }
  });
}

void scatter_axis(const KernelCall& call) {
  auto [axis, mode] = call.as<ops::ScatterAxisParams>();
  bool add = mode == ScatterMode::Add;
  dispatch(call.outputs[0].dtype, [&, axis = axis](auto tag) {
    using T = typename decltype(tag)::type;
    if (add)
      scatter_lines<ScatterMode::Add, T>(call, axis);
    else
      scatter_lines<ScatterMode::Set, T>(call, axis);
  });
}

// --- slice updates

void slice_update(const KernelCall& call) {
  const auto& params = call.as<ops::SliceUpdateParams>();
  View to = call.outputs[0];
  to.shape = call.inputs[1].shape;
  for (size_t i = 0; i < to.shape.size(); ++i) {
    to.data += params.start[i] * to.strides[i] * size_of(to.dtype);
    to.strides[i] *= params.stride[i];
  }
  copy_block(call.inputs[1], to);
}

void dynamic_slice_update(const KernelCall& call) {
  const auto& axes = call.as<ops::DynamicSliceParams>().axes;
  const View& update = call.inputs[1];
  copy_block(update, block_at(call.outputs[0], call.inputs[2], axes, update.shape, "slice_update"));
}

void ragged_slice_update(const KernelCall& call) {
  auto [axis, ring] = call.as<ops::RaggedParams>();
  const View &update = call.inputs[1], &out = call.outputs[0];
  auto along = static_cast<size_t>(axis);
  int64_t capacity = out.shape[axis], rows = update.shape[axis];
  if (update.size() == 0) return;
  for (int64_t b = 0; b < out.shape[0]; ++b) {
    int64_t start = index_value(call.inputs[2], b);
    if (!ring || start < 0) ops::check_block("ragged_slice_update", start, rows, axis, capacity);
    View to = part_of(out, 0, b, 1), from = part_of(update, 0, b, 1);
    // In a ring the rows come in up to two pieces; of more than it holds the last ones stay.
    int64_t row = ring ? std::max<int64_t>(rows - capacity, 0) : 0;
    while (row < rows) {
      int64_t at = ring ? (start + row) % capacity : start + row;
      int64_t piece = std::min(rows - row, capacity - at);
      copy_block(part_of(from, along, row, piece), part_of(to, along, at, piece));
      row += piece;
    }
  }
}

}  // namespace

void index_updates_kernels(KernelTable& registry) {
  registry.add(ops::scatter_op, {.run = &scatter, .workspace = &scatter_workspace});
  registry.add(ops::scatter_axis_op, {.run = &scatter_axis});
  registry.add(ops::slice_update_op,
               {.run = &slice_update, .layouts = {Layout::Contiguous, Layout::Any}});
  registry.add(ops::dynamic_slice_update_op,
               {.run = &dynamic_slice_update, .layouts = {Layout::Contiguous, Layout::Any}});
  registry.add(ops::ragged_slice_update_op,
               {.run = &ragged_slice_update, .layouts = {Layout::Contiguous, Layout::Any}});
}

}  // namespace mica::cpu
