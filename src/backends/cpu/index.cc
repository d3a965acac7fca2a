// Reads at places that are data: take, take_along_axis, gather, slices.
#include "ops/index.h"

#include <algorithm>

#include "backends/cpu/lines.h"
#include "backends/cpu/places.h"
#include "backends/cpu/row_moves.h"
#include "backends/cpu/rows.h"
#include "backends/cpu/strided.h"
#include "backends/cpu/tile_io.h"
#include "base/thread_pool.h"

namespace mica::cpu {

namespace {

constexpr int64_t kGrainBytes = 64 << 10;
constexpr int64_t kFarBytes = int64_t{4} << 20;     // elements worth fetching ahead
constexpr int64_t kStreamBytes = int64_t{8} << 20;  // results that would not stay in the caches

int64_t grain_for(int64_t bytes_each) {
  return std::max<int64_t>(kGrainBytes / std::max<int64_t>(bytes_each, 1), 1);
}

// Calls f(TypeTag<T>) with an unsigned integer as wide as the elements.
template <class F>
void dispatch_width(Dtype dtype, F&& f) {
  switch (size_of(dtype)) {
    case 1: return f(TypeTag<uint8_t>{});
    case 2: return f(TypeTag<uint16_t>{});
    case 4: return f(TypeTag<uint32_t>{});
    default: return f(TypeTag<uint64_t>{});
  }
}

// Copies the block at each of `count` places of `a` to `out`, `step` elements apart.
void copy_blocks(const StridedCopy& block, const View& a, const BlockPlaces& places, int64_t count,
                 const View& out, int64_t step) {
  int64_t size = size_of(a.dtype);
  auto& pool = ThreadPool::shared();
  if (block.bytes() == size) {
    constexpr size_t kAhead = 64;
    bool far = a.size() * size >= kFarBytes;
    dispatch_width(a.dtype, [&](auto tag) {
      using T = typename decltype(tag)::type;
      const T* from = a.as<T>();
      T* to = out.as<T>();
      pool.parallel_for(count, 16384, [&](int64_t begin, int64_t end) {
        places.for_each_chunk(
            begin, end, kAhead,
            [&](int64_t i, std::span<const int64_t> offsets, std::span<const int64_t> later) {
              const size_t fetched = far ? later.size() : 0;
              size_t n = 0;
              for (; n < fetched; ++n) {
                __builtin_prefetch(from + later[n], 0, 2);
                to[(i + static_cast<int64_t>(n)) * step] = from[offsets[n]];
              }
              for (; n < offsets.size(); ++n)
                to[(i + static_cast<int64_t>(n)) * step] = from[offsets[n]];
            });
      });
    });
    return;
  }
  if (block.dense() && block.bytes() < 8 * kGrainBytes) {
    // Rows.
    bool stream = count * block.bytes() >= kStreamBytes;
    pool.parallel_for(count, grain_for(block.bytes()), [&](int64_t begin, int64_t end) {
      places.for_each_chunk(begin, end, 0, [&](int64_t i, std::span<const int64_t> offsets, auto) {
        gather_rows({a.data, size, out.data + i * step * size, step * size,
                     static_cast<int64_t>(offsets.size()), block.bytes(), stream},
                    offsets.data());
      });
      if (stream) stream_fence();
    });
    return;
  }
  auto copy_range = [&](int64_t begin, int64_t end) {
    places.for_each(begin, end, [&](int64_t i, int64_t at) {
      block.run_parallel(a.data + at * size, out.data + i * step * size);
    });
  };
  // Few large blocks are copied one by one, each by all threads.
  if (block.bytes() >= 8 * kGrainBytes)
    copy_range(0, count);
  else
    pool.parallel_for(count, grain_for(block.bytes()), copy_range);
}

// Short pieces of many rows: row by row, so that memory is read in order.
void take_within_rows(const View& a, size_t axis, std::span<const int64_t> offsets,
                      const View& out) {
  View heads = a;  // the rows before the axis, one per last element
  heads.shape.resize(axis + 1);
  heads.strides.resize(axis + 1);
  heads.shape[axis] = 1;
  Shape piece(std::span<const int64_t>(a.shape.data() + axis + 1, a.shape.size() - axis - 1));
  Strides from(std::span<const int64_t>(a.strides.data() + axis + 1, piece.size()));
  StridedCopy copy(piece, from, row_major(piece), static_cast<size_t>(size_of(a.dtype)));
  int64_t length = elements(piece), size = size_of(a.dtype),
          row = static_cast<int64_t>(offsets.size()) * length;
  ThreadPool::shared().parallel_for(
      row_count(heads), grain_for(row * size), [&](int64_t begin, int64_t end) {
        RowWalk walk(heads, begin);
        for (int64_t r = begin; r < end; ++r, walk.next()) {
          if (length == 1) {
            dispatch_width(a.dtype, [&](auto tag) {
              using T = typename decltype(tag)::type;
              const T* source = a.as<T>() + walk.offset();
              T* target = out.as<T>() + r * row;
              for (size_t i = 0; i < offsets.size(); ++i) target[i] = source[offsets[i]];
            });
            continue;
          }
          for (size_t i = 0; i < offsets.size(); ++i) {
            copy.run(a.data + (walk.offset() + offsets[i]) * size,
                     out.data + (r * row + static_cast<int64_t>(i) * length) * size);
          }
        }
      });
}

// Columns and other short pieces: their indices are read once and kept.
bool takes_within_rows(const View& a, int axis) {
  Extents e(a.shape, axis);
  return e.before > 1 && e.after * size_of(a.dtype) < 256;
}

size_t take_workspace(const KernelCall& call) {
  if (!takes_within_rows(call.inputs[0], call.as<ops::TakeParams>().axis)) return 0;
  return static_cast<size_t>(call.inputs[1].size()) * sizeof(int64_t);
}

void take(const KernelCall& call) {
  int axis = call.as<ops::TakeParams>().axis;
  const View &a = call.inputs[0], &indices = call.inputs[1], &out = call.outputs[0];
  Shape unit(a.shape.size(), 1);
  BlockPlaces places({&indices, 1}, {&axis, 1}, a, unit, "take");
  if (takes_within_rows(a, axis)) {
    std::span offsets(reinterpret_cast<int64_t*>(call.workspace.data()),
                      static_cast<size_t>(indices.size()));
    places.read_all(offsets);
    return take_within_rows(a, static_cast<size_t>(axis), offsets, out);
  }
  // The block that one index selects, and where it goes: the axes of the indices lie between.
  Shape shape = a.shape;
  Strides from = a.strides, to = row_major(out.shape);
  for (size_t i = 0; i < indices.shape.size(); ++i) to.erase(axis);
  shape.erase(axis);
  from.erase(axis);
  StridedCopy block(shape, from, to, static_cast<size_t>(size_of(a.dtype)));
  copy_blocks(block, a, places, indices.size(), out, Extents(a.shape, axis).after);
}

void gather(const KernelCall& call) {
  const auto& params = call.as<ops::GatherParams>();
  const View &a = call.inputs[0], &out = call.outputs[0];
  BlockPlaces places(call.inputs.subspan(1), params.axes, a, params.sizes, "gather");
  StridedCopy block(params.sizes, a.strides, row_major(params.sizes),
                    static_cast<size_t>(size_of(a.dtype)));
  int64_t step = elements(params.sizes);
  copy_blocks(block, a, places, out.size() / step, out, step);
}

template <class T, class I>
void take_along(const View& a, const View& indices, const View& out, int axis) {
  // Walks rows of the last axis; `a` stands still along the indexed one.
  View still = a;
  still.shape = indices.shape;
  still.strides[axis] = 0;
  int64_t length = row_length(indices), extent = a.shape[axis], stride = a.strides[axis];
  int64_t step = still.strides.back(), index_step = indices.strides.back();
  ThreadPool::shared().parallel_for(
      row_count(indices), grain_for(length * 8), [&](int64_t begin, int64_t end) {
        RowWalk from(still, begin), at(indices, begin);
        for (int64_t r = begin; r < end; ++r, from.next(), at.next()) {
          const T* source = a.as<T>() + from.offset();
          const I* index = indices.as<I>() + at.offset();
          T* target = out.as<T>() + r * length;
          for (int64_t k = 0; k < length; ++k) {
            auto wanted = static_cast<int64_t>(index[k * index_step]);
            target[k] = source[k * step + stride * ops::resolve_index(wanted, extent, axis,
                                                                      "take_along_axis")];
          }
        }
      });
}

void take_along_axis(const KernelCall& call) {
  int axis = call.as<ops::TakeParams>().axis;
  const View &a = call.inputs[0], &indices = call.inputs[1], &out = call.outputs[0];
  dispatch(indices.dtype, [&](auto tag) {
    using I = typename decltype(tag)::type;
    if constexpr (std::is_integral_v<I>) {
      dispatch_width(a.dtype, [&](auto width) {
        take_along<typename decltype(width)::type, I>(a, indices, out, axis);
      });
    }
  });
}

void dynamic_slice(const KernelCall& call) {
  const auto& params = call.as<ops::DynamicSliceParams>();
  copy_block(block_at(call.inputs[0], call.inputs[1], params.axes, params.sizes, "slice"),
             call.outputs[0]);
}

}  // namespace

void index_kernels(KernelTable& registry) {
  registry.add(ops::take_op,
               {.run = &take, .layouts = {Layout::Any}, .workspace = &take_workspace});
  registry.add(ops::take_along_axis_op,
               {.run = &take_along_axis, .layouts = {Layout::Any, Layout::Any}});
  registry.add(ops::gather_op, {.run = &gather, .layouts = {Layout::Any}});
  registry.add(ops::dynamic_slice_op, {.run = &dynamic_slice, .layouts = {Layout::Any}});
}

}  // namespace mica::cpu
