// Reads and writes at places that are data, element by element.
#include "ops/index.h"

#include <algorithm>

#include "backends/ref/ref.h"

namespace mica::ref {

namespace {

int64_t index_at(const View& indices, const Dims& place, int64_t extent, int axis, const char* op) {
  return ops::resolve_index(load<int64_t>(indices, offset(indices, place)), extent, axis, op);
}

Dims part(const Dims& index, size_t from, size_t count) {
  return Dims(std::span<const int64_t>(index.data() + from, count));
}

void take(const KernelCall& call) {
  int axis = call.as<ops::TakeParams>().axis;
  const View &a = call.inputs[0], &indices = call.inputs[1], &out = call.outputs[0];
  size_t before = static_cast<size_t>(axis), rank = indices.shape.size();
  for_each(out.shape, [&](const Dims& index) {
    Dims from = part(index, 0, before);
    from.push_back(index_at(indices, part(index, before, rank), a.shape[axis], axis, "take"));
    for (size_t i = before + rank; i < index.size(); ++i) from.push_back(index[i]);
    copy_element(a, offset(a, from), out, offset(out, index));
  });
}

void take_along_axis(const KernelCall& call) {
  int axis = call.as<ops::TakeParams>().axis;
  const View &a = call.inputs[0], &indices = call.inputs[1], &out = call.outputs[0];
  for_each(out.shape, [&](const Dims& index) {
    Dims from = index;
    from[axis] = index_at(indices, index, a.shape[axis], axis, "take_along_axis");
    copy_element(a, offset(a, from), out, offset(out, index));
  });
}

// Adds to `corner` where the blocks at a place of the index arrays start; checks that they fit.
void find_corner(std::span<const View> indices, const std::vector<int>& axes, const Dims& place,
                 const Shape& extents, std::span<const int64_t> block, const char* op,
                 Dims& corner) {
  for (size_t i = 0; i < axes.size(); ++i) {
    int64_t start = index_at(indices[i], place, extents[axes[i]], axes[i], op);
    ops::check_block(op, start, block[axes[i]], axes[i], extents[axes[i]]);
    corner[axes[i]] += start;
  }
}

void gather(const KernelCall& call) {
  const auto& params = call.as<ops::GatherParams>();
  const View &a = call.inputs[0], &out = call.outputs[0];
  size_t rank = a.shape.size(), lead = out.shape.size() - rank;
  for_each(out.shape, [&](const Dims& index) {
    Dims from = part(index, lead, rank);
    find_corner(call.inputs.subspan(1), params.axes, part(index, 0, lead), a.shape, params.sizes,
                "gather", from);
    copy_element(a, offset(a, from), out, offset(out, index));
  });
}

template <class T>
T combine(ScatterMode mode, T old, T update) {
  switch (mode) {
    case ScatterMode::Add: return old + update;
    case ScatterMode::Prod: return old * update;
    case ScatterMode::Max: return old >= update || old != old ? old : update;
    case ScatterMode::Min: return old <= update || old != old ? old : update;
    default: return update;
  }
}

// Sums of floating elements are kept as double in `wide` until all updates are in.
struct Accumulator {
  Accumulator(const View& target, ScatterMode mode) : target(target), mode(mode) {
    if (!is_floating(target.dtype)) return;
    wide.resize(static_cast<size_t>(target.size()));
    for (size_t i = 0; i < wide.size(); ++i) wide[i] = load(target, static_cast<int64_t>(i));
  }
  void update(int64_t to, const View& updates, int64_t from) {
    if (!wide.empty())
      wide[to] = combine(mode, wide[to], load(updates, from));
    else if (target.dtype == Dtype::U64)
      integer<uint64_t>(to, updates, from);
    else
      integer<int64_t>(to, updates, from);
  }
  template <class T>
  void integer(int64_t to, const View& updates, int64_t from) {
    T old = load<T>(target, to), update = load<T>(updates, from);
    store(target, to, static_cast<T>(combine<T>(mode, old, update)));
  }
  void finish() {
    for (size_t i = 0; i < wide.size(); ++i) store(target, static_cast<int64_t>(i), wide[i]);
  }

  const View& target;
  ScatterMode mode;
  std::vector<double> wide;
};

void scatter(const KernelCall& call) {
  const auto& params = call.as<ops::ScatterParams>();
  const View &updates = call.inputs.back(), &out = call.outputs[0];
  auto indices = call.inputs.subspan(1, params.axes.size());
  size_t rank = out.shape.size(), lead = updates.shape.size() - rank;
  std::span<const int64_t> block(updates.shape.data() + lead, rank);
  Accumulator sums(out, params.mode);
  for_each(updates.shape, [&](const Dims& index) {
    Dims to = part(index, lead, rank);
    find_corner(indices, params.axes, part(index, 0, lead), out.shape, block, "scatter", to);
    sums.update(offset(out, to), updates, offset(updates, index));
  });
  sums.finish();
}

void scatter_axis(const KernelCall& call) {
  auto [axis, mode] = call.as<ops::ScatterAxisParams>();
  const View &indices = call.inputs[1], &updates = call.inputs[2], &out = call.outputs[0];
  const char* name = mode == ScatterMode::Add ? "scatter_add_axis" : "put_along_axis";
  Accumulator sums(out, mode);
  for_each(updates.shape, [&](const Dims& index) {
    Dims to = index;
    to[axis] = index_at(indices, index, out.shape[axis], axis, name);
    sums.update(offset(out, to), updates, offset(updates, index));
  });
  sums.finish();
}

void slice_update(const KernelCall& call) {
  const auto& params = call.as<ops::SliceUpdateParams>();
  const View &update = call.inputs[1], &out = call.outputs[0];
  for_each(update.shape, [&](const Dims& index) {
    Dims to = params.start;
    for (size_t i = 0; i < to.size(); ++i) to[i] += index[i] * params.stride[i];
    copy_element(update, offset(update, index), out, offset(out, to));
  });
}

// The corner of a block whose starts are data.
Dims block_corner(const View& starts, const std::vector<int>& axes, const Shape& block,
                  const Shape& extents, const char* op) {
  Dims corner(extents.size(), 0);
  for (size_t i = 0; i < axes.size(); ++i) {
    Dims place(starts.shape.size(), static_cast<int64_t>(i));
    corner[axes[i]] = load<int64_t>(starts, offset(starts, place));
    ops::check_block(op, corner[axes[i]], block[axes[i]], axes[i], extents[axes[i]]);
  }
  return corner;
}

Dims sum(Dims a, const Dims& b) {
  for (size_t i = 0; i < a.size(); ++i) a[i] += b[i];
  return a;
}

void dynamic_slice(const KernelCall& call) {
  const View &a = call.inputs[0], &out = call.outputs[0];
  Dims corner = block_corner(call.inputs[1], call.as<ops::DynamicSliceParams>().axes, out.shape,
                             a.shape, "slice");
  for_each(out.shape, [&](const Dims& index) {
    copy_element(a, offset(a, sum(corner, index)), out, offset(out, index));
  });
}

void dynamic_slice_update(const KernelCall& call) {
  const View &update = call.inputs[1], &out = call.outputs[0];
  const auto& axes = call.as<ops::DynamicSliceParams>().axes;
  Dims corner = block_corner(call.inputs[2], axes, update.shape, out.shape, "slice_update");
  for_each(update.shape, [&](const Dims& index) {
    copy_element(update, offset(update, index), out, offset(out, sum(corner, index)));
  });
}

void ragged_slice_update(const KernelCall& call) {
  auto [axis, ring] = call.as<ops::RaggedParams>();
  const View &update = call.inputs[1], &starts = call.inputs[2], &out = call.outputs[0];
  int64_t capacity = out.shape[axis], rows = update.shape[axis];
  for_each(update.shape, [&](const Dims& index) {
    int64_t start = load<int64_t>(starts, index[0] * starts.strides[0]);
    if (!ring || start < 0) ops::check_block("ragged_slice_update", start, rows, axis, capacity);
    if (ring && index[axis] < rows - capacity) return;  // overwritten by a later row
    Dims to = index;
    to[axis] = ring ? (start + index[axis]) % capacity : start + index[axis];
    copy_element(update, offset(update, index), out, offset(out, to));
  });
}

}  // namespace

void index_kernels(KernelTable& registry) {
  registry.add(ops::take_op, {.run = &take});
  registry.add(ops::take_along_axis_op, {.run = &take_along_axis});
  registry.add(ops::gather_op, {.run = &gather});
  registry.add(ops::scatter_op, {.run = &scatter});
  registry.add(ops::scatter_axis_op, {.run = &scatter_axis});
  registry.add(ops::slice_update_op, {.run = &slice_update});
  registry.add(ops::dynamic_slice_op, {.run = &dynamic_slice});
  registry.add(ops::dynamic_slice_update_op, {.run = &dynamic_slice_update});
  registry.add(ops::ragged_slice_update_op, {.run = &ragged_slice_update});
}

}  // namespace mica::ref
