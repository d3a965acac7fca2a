#include "backends/cpu/places.h"

#include <algorithm>

#include "base/thread_pool.h"
#include "ops/index.h"

namespace mica::cpu {

namespace {

// Adds index * stride to each offset. The common case has no branches; what is out of range is
// looked for afterwards.
template <bool unit, class I>
bool add_indices(const I* indices, int64_t count, int64_t extent, int64_t block, int64_t stride,
                 int64_t* offsets) {
  uint64_t outside = 0;
  for (int64_t i = 0; i < count; ++i) {
    auto at = static_cast<int64_t>(indices[i]);
    at += at < 0 ? extent : 0;
    outside |= static_cast<uint64_t>(at) |
               (static_cast<uint64_t>(extent - block) - static_cast<uint64_t>(at));  // a sign bit
    // Unsigned, because a wild index may overflow before it is refused.
    uint64_t step = unit ? static_cast<uint64_t>(at)
                         : static_cast<uint64_t>(at) * static_cast<uint64_t>(stride);
    offsets[i] = static_cast<int64_t>(static_cast<uint64_t>(offsets[i]) + step);
  }
  return static_cast<int64_t>(outside) >= 0;
}

}  // namespace

void BlockPlaces::read(int64_t begin, int64_t end, int64_t* offsets) const {
  std::fill_n(offsets, end - begin, 0);
  for (size_t n = 0; n < axes_.size(); ++n) {
    int axis = axes_[n];
    int64_t extent = a_.shape[axis], size = block_[axis];
    dispatch(indices_[n].dtype, [&](auto tag) {
      using I = typename decltype(tag)::type;
      if constexpr (std::is_integral_v<I>) {
        const I* indices = indices_[n].as<I>() + begin;
        int64_t stride = a_.strides[axis];
        auto add = stride == 1 ? &add_indices<true, I> : &add_indices<false, I>;
        if (add(indices, end - begin, extent, size, stride, offsets)) return;
        for (int64_t i = 0; i < end - begin; ++i) {
          int64_t at = ops::resolve_index(static_cast<int64_t>(indices[i]), extent, axis, op_);
          ops::check_block(op_, at, size, axis, extent);
        }
      }
    });
  }
}

void BlockPlaces::read_all(std::span<int64_t> offsets) const {
  ThreadPool::shared().parallel_for(
      static_cast<int64_t>(offsets.size()), 16384,
      [&](int64_t begin, int64_t end) { read(begin, end, offsets.data() + begin); });
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
