#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backends/cpu/copy.cc"
#include "backends/cpu/highway_targets.h"

#include <hwy/foreach_target.h>

#include <hwy/highway.h>

#include <algorithm>
#include <cstring>

#include "backends/cpu/copy.h"
#include "backends/cpu/strided.h"
#include "backends/cpu/tile_io.h"
#include "base/thread_pool.h"

#ifndef MICA_CPU_COPY_ONCE_
#define MICA_CPU_COPY_ONCE_
namespace mica::cpu {

// Edge of the blocks that are transposed in the first-level cache; a row of one is whole cache
// lines.
template <class T>
inline constexpr int64_t kEdge = sizeof(T) == 8   ? 32
                                 : sizeof(T) == 1 ? 128
                                                  : 64;

// A block of rows x columns: element (r, c) of the result is from[r + c * column_stride].
struct TransposeBlock {
  const void* from;
  const void* next;  // where the next block of the same size starts: fetched ahead
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

namespace hn = hwy::HWY_NAMESPACE;

#if HWY_TARGET == HWY_SCALAR

template <class T>
void transpose_square(const T* from, T* to, int64_t row_stride, bool) {
  for (int64_t r = 0; r < kEdge<T>; ++r)
    for (int64_t c = 0; c < kEdge<T>; ++c) to[r * row_stride + c] = from[c * kEdge<T> + r];
}

#else

// A full block that lies densely, by squares of one 16-byte vector's width: interleaving the halves
// of a square log2(width) times transposes it.
template <class T>
void transpose_square(const T* from, T* to, int64_t row_stride, bool stream) {
  const hn::Full128<T> d;
  constexpr int64_t kWidth = 16 / sizeof(T), kBlock = kEdge<T>;
  for (int64_t r = 0; r < kBlock; r += kWidth) {
    for (int64_t c = 0; c < kBlock; c += kWidth) {
      hn::Vec<decltype(d)> square[kWidth], next[kWidth];
      for (int64_t i = 0; i < kWidth; ++i) square[i] = hn::LoadU(d, from + (c + i) * kBlock + r);
      for (int64_t step = 1; step < kWidth; step *= 2) {
        for (int64_t i = 0; i < kWidth / 2; ++i) {
          next[2 * i] = hn::InterleaveLower(d, square[i], square[i + kWidth / 2]);
          next[2 * i + 1] = hn::InterleaveUpper(d, square[i], square[i + kWidth / 2]);
        }
        for (int64_t i = 0; i < kWidth; ++i) square[i] = next[i];
      }
      for (int64_t i = 0; i < kWidth; ++i) {
        T* out = to + (r + i) * row_stride + c;
        if (stream)
          hn::Stream(square[i], d, out);
        else
          hn::StoreU(square[i], d, out);
      }
    }
  }
}

#endif

// The source is read whole lines at a time into the cache before it is transposed: its columns may
// lie a power of two apart, where lines evict each other.
template <class T>
void transpose(const TransposeBlock& block) {
  constexpr int64_t kBlock = kEdge<T>;
  alignas(64) T dense[kBlock * kBlock];
  auto* from = static_cast<const T*>(block.from);
  auto* to = static_cast<T*>(block.to);
  auto* next = static_cast<const T*>(block.next);
  for (int64_t c = 0; c < block.columns; ++c) {
    for (int64_t r = 0; r < block.rows; r += 64 / sizeof(T))
      __builtin_prefetch(next + c * block.column_stride + r);
    std::memcpy(dense + c * kBlock, from + c * block.column_stride,
                static_cast<size_t>(block.rows) * sizeof(T));
  }
  if (block.rows == kBlock && block.columns == kBlock) {
    transpose_square(dense, to, block.row_stride, block.stream);
    return;
  }
  for (int64_t r = 0; r < block.rows; ++r)
    for (int64_t c = 0; c < block.columns; ++c)
      to[r * block.row_stride + c] = dense[c * kBlock + r];
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

int64_t edge_of(size_t element_bytes) {
  return element_bytes == 8   ? kEdge<uint64_t>
         : element_bytes == 1 ? kEdge<uint8_t>
                              : kEdge<uint32_t>;
}

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

void run(const Transposition& t, size_t element_bytes, const std::byte* from, std::byte* to) {
  auto bytes = static_cast<int64_t>(element_bytes);
  int64_t edge = edge_of(element_bytes);
  int64_t down = (t.rows + edge - 1) / edge, across = (t.columns + edge - 1) / edge;
  int64_t matrices = elements(t.shape), total = matrices * t.rows * t.columns * bytes;
  bool stream = total >= kStreamBytes && reinterpret_cast<uintptr_t>(to) % kStreamAlign == 0 &&
                t.row_stride * bytes % static_cast<int64_t>(kStreamAlign) == 0;
  TransposeFunction transpose_block = HWY_DYNAMIC_DISPATCH(choose_transpose)(element_bytes);
  int64_t grain = std::max<int64_t>(1, kTaskBytes / (edge * edge * bytes));
  ThreadPool::shared().parallel_for(
      matrices * down * across, grain, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) {
          int64_t in, out, r = i / across % down * edge, c = i % across * edge;
          t.offsets(i / across / down, in, out);
          bool aligned =
              (out + r * t.row_stride + c) * bytes % static_cast<int64_t>(kStreamAlign) == 0;
          const std::byte* block = from + (in + r + c * t.column_stride) * bytes;
          transpose_block({block, block + edge * t.column_stride * bytes, t.column_stride,
                           to + (out + r * t.row_stride + c) * bytes, t.row_stride,
                           std::min(edge, t.rows - r), std::min(edge, t.columns - c),
                           stream && aligned});
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
