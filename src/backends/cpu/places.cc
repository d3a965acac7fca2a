#include "backends/cpu/places.h"

#include <algorithm>

#include "base/thread_pool.h"
#include "ops/index.h"

namespace mica::cpu {

void add_offsets(const View& indices, const IndexedAxis& along, int64_t* offsets) {
  dispatch(indices.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    if constexpr (std::is_integral_v<T>) {
      const T* values = indices.as<T>();
      ThreadPool::shared().parallel_for(indices.size(), 16384, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) {
          int64_t at = ops::resolve_index(static_cast<int64_t>(values[i]), along.extent, along.axis,
                                          along.op);
          if (at > along.extent - along.block) {
            ops::check_block(along.op, at, along.block, along.axis, along.extent);
          }
          offsets[i] += at * along.stride;
        }
      });
    }
  });
}

void block_offsets(std::span<const View> indices, std::span<const int> axes, const View& a,
                   std::span<const int64_t> block, const char* op, std::span<int64_t> offsets) {
  std::fill(offsets.begin(), offsets.end(), 0);
  for (size_t i = 0; i < axes.size(); ++i) {
    int axis = axes[i];
    add_offsets(indices[i], {op, axis, a.shape[axis], block[axis], a.strides[axis]},
                offsets.data());
  }
}

int64_t index_value(const View& indices, int64_t i) {
  int64_t value = 0;
  dispatch(indices.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    if constexpr (std::is_integral_v<T>) value = static_cast<int64_t>(indices.as<T>()[i]);
  });
  return value;
}

View block_at(const View& a, const View& starts, std::span<const int> axes, const Shape& block,
              const char* op) {
  View part = a;
  part.shape = block;
  for (size_t i = 0; i < axes.size(); ++i) {
    int axis = axes[i];
    int64_t start = index_value(starts, static_cast<int64_t>(i));
    ops::check_block(op, start, block[axis], axis, a.shape[axis]);
    part.data += start * a.strides[axis] * size_of(a.dtype);
  }
  return part;
}

}  // namespace mica::cpu
