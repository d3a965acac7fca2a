#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backends/cpu/copy.cc"
#include "backends/cpu/highway_targets.h"

#include <hwy/foreach_target.h>

#include <algorithm>
#include <cstring>

#include "backends/cpu/copy.h"
#include "backends/cpu/strided.h"
#include "backends/cpu/tile_io.h"
#include "backends/cpu/transpose-inl.h"
#include "base/thread_pool.h"

#ifndef MICA_CPU_COPY_ONCE_
#define MICA_CPU_COPY_ONCE_
namespace mica::cpu {

// Elements in a cache line: the edge of the tiles that are transposed at once, so that each line is
// read and written whole.
template <class T>
inline constexpr int64_t kLine = 64 / sizeof(T);

// A block of rows x columns: element (r, c) of the result is from[r + c * column_stride].
struct TransposeBlock {
  const void* from;
  const void* next;  // where the next block starts: fetched ahead
  int64_t column_stride;
  void* to;
  int64_t row_stride;
  int64_t rows, columns;
  bool stream;
};
using TransposeFunction = void (*)(const TransposeBlock&);

}  // namespace mica::cpu
#endif

HWY_BEFORE_NAMESPACE();
namespace mica::cpu::HWY_NAMESPACE {

// A tile that lies densely into another, by squares of one 16-byte vector's width: interleaving the
// halves of a square log2(width) times transposes it.
template <class T>
void transpose_dense(const T* from, T* to) {
  constexpr int64_t kEdge = kLine<T>;
#if HWY_TARGET == HWY_SCALAR
  for (int64_t r = 0; r < kEdge; ++r)
    for (int64_t c = 0; c < kEdge; ++c) to[r * kEdge + c] = from[c * kEdge + r];
#else
  const hn::Full128<T> d;
  constexpr int64_t kWidth = 16 / sizeof(T);
  for (int64_t r = 0; r < kEdge; r += kWidth) {
    for (int64_t c = 0; c < kEdge; c += kWidth) {
      hn::Vec<decltype(d)> square[kWidth], next[kWidth];
      for (int64_t i = 0; i < kWidth; ++i) square[i] = hn::Load(d, from + (c + i) * kEdge + r);
      for (int64_t step = 1; step < kWidth; step *= 2) {
        for (int64_t i = 0; i < kWidth / 2; ++i) {
          next[2 * i] = hn::InterleaveLower(d, square[i], square[i + kWidth / 2]);
          next[2 * i + 1] = hn::InterleaveUpper(d, square[i], square[i + kWidth / 2]);
        }
        for (int64_t i = 0; i < kWidth; ++i) square[i] = next[i];
      }
      for (int64_t i = 0; i < kWidth; ++i) hn::Store(square[i], d, to + (r + i) * kEdge + c);
    }
  }
#endif
}

HWY_INLINE void store_line(const void* line, void* to, bool stream) {
  const hn::CappedTag<uint8_t, 64> d;
  auto* from = static_cast<const uint8_t*>(line);
  for (size_t i = 0; i < 64; i += hn::Lanes(d)) {
    auto v = hn::Load(d, from + i);
    if (stream)
      hn::Stream(v, d, static_cast<uint8_t*>(to) + i);
    else
      hn::StoreU(v, d, static_cast<uint8_t*>(to) + i);
  }
}

// A whole tile. Source lines are read once, into the first-level cache: they may lie a power of two
// apart, where they evict each other.
template <class T>
HWY_INLINE void transpose_tile(const T* from, int64_t column_stride, T* to, int64_t row_stride,
                               bool stream) {
  constexpr int64_t kEdge = kLine<T>;
  alignas(64) T dense[kEdge * kEdge], lines[kEdge * kEdge];
  for (int64_t c = 0; c < kEdge; ++c) std::memcpy(dense + c * kEdge, from + c * column_stride, 64);
  transpose_dense(dense, lines);
  for (int64_t r = 0; r < kEdge; ++r) store_line(lines + r * kEdge, to + r * row_stride, stream);
}

#if HWY_TARGET != HWY_SCALAR
// 32-bit elements, by squares of a vector's width in registers.
template <>
HWY_INLINE void transpose_tile(const uint32_t* from, int64_t column_stride, uint32_t* to,
                               int64_t row_stride, bool stream) {
  const F32 d;
  constexpr int64_t kEdge = kLine<uint32_t>, kWidth = hn::MaxLanes(F32());
  auto* source = reinterpret_cast<const float*>(from);
  auto* target = reinterpret_cast<float*>(to);
  for (int64_t r = 0; r < kEdge; r += kWidth) {
    for (int64_t c = 0; c < kEdge; c += kWidth) {
      VF32 square[kWidth];
      for (int64_t i = 0; i < kWidth; ++i)
        square[i] = hn::LoadU(d, source + (c + i) * column_stride + r);
      transpose(square);
      for (int64_t i = 0; i < kWidth; ++i) {
        float* out = target + (r + i) * row_stride + c;
        if (stream)
          hn::Stream(square[i], d, out);
        else
          hn::StoreU(square[i], d, out);
      }
    }
  }
}
#endif

// A tile that the block's edge cuts.
template <class T>
void transpose_part(const T* from, int64_t column_stride, T* to, int64_t row_stride, int64_t rows,
                    int64_t columns) {
  constexpr int64_t kEdge = kLine<T>;
  alignas(64) T dense[kEdge * kEdge] = {}, lines[kEdge * kEdge];
  for (int64_t c = 0; c < columns; ++c)
    std::memcpy(dense + c * kEdge, from + c * column_stride, static_cast<size_t>(rows) * sizeof(T));
  transpose_dense(dense, lines);
  for (int64_t r = 0; r < rows; ++r)
    std::memcpy(to + r * row_stride, lines + r * kEdge, static_cast<size_t>(columns) * sizeof(T));
}

// Few rows: each is collected from the columns and written by lines.
template <class T>
void transpose_few_rows(const TransposeBlock& block) {
  constexpr int64_t kChunk = 256;
  alignas(64) T chunk[kChunk];
  for (int64_t begin = 0; begin < block.columns; begin += kChunk) {
    int64_t count = std::min(kChunk, block.columns - begin);
    auto* from = static_cast<const T*>(block.from) + begin * block.column_stride;
    for (int64_t r = 0; r < block.rows; ++r) {
      for (int64_t c = 0; c < count; ++c) chunk[c] = from[c * block.column_stride + r];
      T* to = static_cast<T*>(block.to) + r * block.row_stride + begin;
      int64_t whole = block.stream ? count / kLine<T> * kLine<T> : 0;
      for (int64_t c = 0; c < whole; c += kLine<T>) store_line(chunk + c, to + c, true);
      std::memcpy(to + whole, chunk + whole, static_cast<size_t>(count - whole) * sizeof(T));
    }
  }
}

template <class T>
void transpose_few_columns(const TransposeBlock& block) {
  auto* from = static_cast<const T*>(block.from);
  auto* to = static_cast<T*>(block.to);
  for (int64_t r = 0; r < block.rows; ++r, to += block.row_stride)
    for (int64_t c = 0; c < block.columns; ++c) to[c] = from[r + c * block.column_stride];
}

template <class T>
void transpose(const TransposeBlock& block) {
  constexpr int64_t kEdge = kLine<T>;
  if (block.rows <= kEdge / 4) return transpose_few_rows<T>(block);
  if (block.columns <= kEdge / 4) return transpose_few_columns<T>(block);
  for (int64_t r = 0; r < block.rows; r += kEdge) {
    for (int64_t c = 0; c < block.columns; c += kEdge) {
      int64_t rows = std::min(kEdge, block.rows - r), columns = std::min(kEdge, block.columns - c);
      int64_t at = r + c * block.column_stride;
      auto* next = static_cast<const T*>(block.next) + at;
      for (int64_t i = 0; i < columns; ++i) prefetch_far(next + i * block.column_stride);
      auto* from = static_cast<const T*>(block.from) + at;
      auto* to = static_cast<T*>(block.to) + r * block.row_stride + c;
      if (rows == kEdge && columns == kEdge)
        transpose_tile(from, block.column_stride, to, block.row_stride, block.stream);
      else
        transpose_part(from, block.column_stride, to, block.row_stride, rows, columns);
    }
  }
}

TransposeFunction choose_transpose(size_t element_bytes) {
  switch (element_bytes) {
    case 1: return &transpose<uint8_t>;
    case 2: return &transpose<uint16_t>;
    case 4: return &transpose<uint32_t>;
    default: return &transpose<uint64_t>;
  }
}

}  // namespace mica::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace mica::cpu {

HWY_EXPORT(choose_transpose);

namespace {

constexpr int64_t kStreamBytes = int64_t{8} << 20;
constexpr int64_t kTaskBytes = int64_t{128} << 10;

// A copy whose last axis is dense on one side only: `rows` is the axis that is dense in the source.
// The remaining axes are walked.
struct Transposition {
  Shape shape;  // without the two axes
  Strides from, to;
  int64_t rows, columns, column_stride, row_stride;

  void offsets(int64_t number, int64_t& in, int64_t& out) const {
    in = out = 0;
    for (size_t i = shape.size(); i-- > 0; number /= shape[i]) {
      in += number % shape[i] * from[i];
      out += number % shape[i] * to[i];
    }
  }
};

// How a transposition is cut into blocks. Few lines of many columns are in the second-level cache
// at a time; the walk is along the lines, so that those of the next block follow those of this one.
class BlockWalk {
 public:
  BlockWalk(const Transposition& t, int64_t element_bytes)
      : t_(t), high_(kBlockLines * kLineBytes / element_bytes), wide_(kBlockColumns) {
    // What is left of one side goes to the other.
    if (t.rows < high_) wide_ = std::max(wide_, high_ * wide_ / t.rows / high_ * high_);
    if (t.columns < wide_ / 4) high_ = std::max(high_, high_ * wide_ / t.columns / high_ * high_);
    down_ = (t.rows + high_ - 1) / high_;
    across_ = (t.columns + wide_ - 1) / wide_;
  }

  struct Place {
    int64_t from, to;  // offsets in elements
    int64_t rows, columns;
  };
  int64_t count() const { return elements(t_.shape) * down_ * across_; }
  int64_t block_elements() const { return std::min(high_, t_.rows) * std::min(wide_, t_.columns); }
  Place operator[](int64_t i) const {
    int64_t r = i % down_ * high_, c = i / down_ % across_ * wide_;
    Place place{0, 0, std::min(high_, t_.rows - r), std::min(wide_, t_.columns - c)};
    t_.offsets(i / down_ / across_, place.from, place.to);
    place.from += r + c * t_.column_stride;
    place.to += r * t_.row_stride + c;
    return place;
  }

 private:
  static constexpr int64_t kLineBytes = 64, kBlockLines = 4, kBlockColumns = 256;

  const Transposition& t_;
  int64_t high_, wide_, down_, across_;
};

void run(const Transposition& t, size_t element_bytes, const std::byte* from, std::byte* to) {
  auto bytes = static_cast<int64_t>(element_bytes);
  BlockWalk blocks(t, bytes);
  int64_t count = blocks.count();
  bool stream = elements(t.shape) * t.rows * t.columns * bytes >= kStreamBytes &&
                t.row_stride * bytes % static_cast<int64_t>(kStreamAlign) == 0;
  TransposeFunction transpose_block = HWY_DYNAMIC_DISPATCH(choose_transpose)(element_bytes);
  int64_t grain = std::max<int64_t>(1, kTaskBytes / (blocks.block_elements() * bytes));
  ThreadPool::shared().parallel_for(count, grain, [&](int64_t begin, int64_t end) {
    auto place = blocks[begin];
    for (int64_t i = begin; i < end; ++i) {
      auto next = i + 1 < count ? blocks[i + 1] : place;
      std::byte* target = to + place.to * bytes;
      bool aligned = reinterpret_cast<uintptr_t>(target) % kStreamAlign == 0;
      transpose_block({from + place.from * bytes, from + next.from * bytes, t.column_stride, target,
                       t.row_stride, place.rows, place.columns, stream && aligned});
      place = next;
    }
    if (stream) stream_fence();
  });
}

}  // namespace

void copy_strided(const View& from, const View& to) {
  if (from.size() == 0) return;
  Shape shape = from.shape;
  Strides strides = from.strides;
  merge_axes(shape, strides);
  size_t rank = shape.size();
  size_t dense = rank;
  for (size_t i = 0; i + 1 < rank; ++i) {
    if (strides[i] == 1) dense = i;
  }
  bool transposed = rank >= 2 && dense < rank && strides[rank - 1] != 1 && strides[rank - 1] != 0;
  if (!transposed) return copy_block(from, to);
  Strides dense_strides = row_major(shape);
  Transposition t{shape,           strides,           dense_strides,       shape[dense],
                  shape[rank - 1], strides[rank - 1], dense_strides[dense]};
  for (Dims* dims : {&t.shape, &t.from, &t.to}) {
    dims->erase(rank - 1);
    dims->erase(dense);
  }
  run(t, static_cast<size_t>(size_of(from.dtype)), from.data, to.data);
}

}  // namespace mica::cpu
#endif
