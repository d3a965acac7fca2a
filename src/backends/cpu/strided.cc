#include "backends/cpu/strided.h"

#include <algorithm>
#include <cstring>

#include "backends/cpu/row_moves.h"
#include "backends/cpu/tile_io.h"
#include "base/thread_pool.h"

namespace mica::cpu {

namespace {

constexpr int64_t kGrainBytes = 256 << 10;  // what is worth handing to another thread
constexpr int64_t kChunkBytes = 4096;
constexpr int64_t kStreamBytes = int64_t{8} << 20;  // blocks that would not stay in the caches

template <class T>
void copy_elements(const std::byte* from, std::byte* to, int64_t count, int64_t from_stride,
                   int64_t to_stride) {
  auto* source = reinterpret_cast<const T*>(from);
  auto* target = reinterpret_cast<T*>(to);
  if (to_stride == 1 && from_stride == 0) {
    std::fill_n(target, count, *source);
  } else if (to_stride == 1 && from_stride == 2) {  // constant steps become vectors
    for (int64_t i = 0; i < count; ++i) target[i] = source[i * 2];
  } else if (to_stride == 1 && from_stride == -1) {
    for (int64_t i = 0; i < count; ++i) target[i] = source[-i];
  } else if (to_stride == 1) {
#pragma GCC unroll 4
    for (int64_t i = 0; i < count; ++i, source += from_stride) target[i] = *source;
  } else {
    for (int64_t i = 0; i < count; ++i) target[i * to_stride] = source[i * from_stride];
  }
}

}  // namespace

StridedCopy::StridedCopy(const Shape& shape, const Strides& from, const Strides& to,
                         size_t element_bytes)
    : element_(element_bytes) {
  for (size_t i = 0; i < shape.size(); ++i) {
    if (shape[i] == 1) continue;
    bool merge =
        !outer_.empty() && from_.back() == from[i] * shape[i] && to_.back() == to[i] * shape[i];
    if (merge) {
      outer_.back() *= shape[i];
      from_.back() = from[i];
      to_.back() = to[i];
    } else {
      outer_.push_back(shape[i]);
      from_.push_back(from[i]);
      to_.push_back(to[i]);
    }
  }
  if (outer_.empty()) return;
  row_ = outer_.back();
  row_from_ = from_.back();
  row_to_ = to_.back();
  for (Dims* dims : {&outer_, &from_, &to_}) dims->erase(dims->size() - 1);
  for (int64_t extent : outer_) row_count_ *= extent;
  stream_ = bytes() >= kStreamBytes;
}

void StridedCopy::row(const std::byte* from, std::byte* to, int64_t begin, int64_t end) const {
  auto size = static_cast<int64_t>(element_);
  from += begin * row_from_ * size;
  to += begin * row_to_ * size;
  int64_t count = end - begin;
  if (row_from_ == 1 && row_to_ == 1) {
    return move_rows({from, 0, to, 0, 1, count * size, stream_});
  }
  constexpr auto kAlign = static_cast<int64_t>(kStreamAlign);
  bool whole_lines =
      (count * size) % kAlign == 0 && reinterpret_cast<uintptr_t>(to) % kStreamAlign == 0;
  if (stream_ && row_to_ == 1 && whole_lines) {
    // Collected in the cache, then stored past it.
    alignas(kStreamAlign) std::byte chunk[kChunkBytes];
    for (int64_t each = kChunkBytes / size; count > 0; count -= each) {
      each = std::min(each, count);
      elements(from, chunk, each);
      move_rows({chunk, 0, to, 0, 1, each * size, true});
      from += each * row_from_ * size;
      to += each * size;
    }
    return;
  }
  elements(from, to, count);
}

// Elements of a row, from one to the next.
void StridedCopy::elements(const std::byte* from, std::byte* to, int64_t count) const {
  switch (element_) {
    case 1: return copy_elements<uint8_t>(from, to, count, row_from_, row_to_);
    case 2: return copy_elements<uint16_t>(from, to, count, row_from_, row_to_);
    case 4: return copy_elements<uint32_t>(from, to, count, row_from_, row_to_);
    default: return copy_elements<uint64_t>(from, to, count, row_from_, row_to_);
  }
}

void StridedCopy::offsets(int64_t row, Dims& index, int64_t& from, int64_t& to) const {
  from = to = 0;
  index.resize(outer_.size());
  for (size_t i = outer_.size(); i-- > 0;) {
    index[i] = row % outer_[i];
    row /= outer_[i];
    from += index[i] * from_[i];
    to += index[i] * to_[i];
  }
}

void StridedCopy::rows(const std::byte* from, std::byte* to, int64_t begin, int64_t end) const {
  auto size = static_cast<int64_t>(element_);
  Dims index;
  int64_t source = 0, target = 0;
  offsets(begin, index, source, target);
  bool dense = row_from_ == 1 && row_to_ == 1;
  size_t rank = outer_.size();
  while (begin < end) {
    // Rows along the last of the outer axes, as many as there are.
    int64_t run = rank ? std::min(end - begin, outer_.back() - index.back()) : 1;
    int64_t from_step = rank ? from_.back() * size : 0, to_step = rank ? to_.back() * size : 0;
    const std::byte* first = from + source * size;
    std::byte* out = to + target * size;
    if (dense) {
      move_rows({first, from_step, out, to_step, run, row_ * size, stream_});
    } else {
      for (int64_t r = 0; r < run; ++r) row(first + r * from_step, out + r * to_step, 0, row_);
    }
    begin += run;
    if (begin < end) offsets(begin, index, source, target);
  }
  if (stream_) stream_fence();
}

void StridedCopy::run_parallel(const std::byte* from, std::byte* to) const {
  if (bytes() <= kGrainBytes) return run(from, to);
  auto size = static_cast<int64_t>(element_);
  int64_t row_bytes = std::max<int64_t>(row_ * size, 1);
  if (row_bytes < 2 * kGrainBytes) {
    ThreadPool::shared().parallel_for(
        row_count_, std::max<int64_t>(kGrainBytes / row_bytes, 1),
        [&](int64_t begin, int64_t end) { rows(from, to, begin, end); });
    return;
  }
  // Long rows are cut into pieces.
  int64_t pieces = row_bytes / kGrainBytes, width = (row_ + pieces - 1) / pieces;
  ThreadPool::shared().parallel_for(row_count_ * pieces, 1, [&](int64_t begin, int64_t end) {
    Dims index;
    for (int64_t p = begin; p < end; ++p) {
      int64_t source = 0, target = 0, first = p % pieces * width;
      offsets(p / pieces, index, source, target);
      row(from + source * size, to + target * size, first, std::min(first + width, row_));
    }
    if (stream_) stream_fence();
  });
}

void copy_block(const View& from, const View& to) {
  if (to.size() == 0) return;
  StridedCopy copy(to.shape, from.strides, to.strides, static_cast<size_t>(size_of(to.dtype)));
  copy.run_parallel(from.data, to.data);
}

View part_of(const View& view, size_t axis, int64_t start, int64_t extent) {
  View part = view;
  part.data += start * view.strides[axis] * size_of(view.dtype);
  part.shape[axis] = extent;
  return part;
}

}  // namespace mica::cpu
