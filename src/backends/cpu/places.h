// Index arrays as offsets into memory, checked.
#pragma once

#include <algorithm>
#include <cstdint>

#include "core/backend.h"

namespace mica::cpu {

// Where the blocks of a gather or scatter start: reads index arrays (contiguous, of one shape),
// counts negative indices from the end, and checks that indices and blocks lie inside; IndexErrors
// name `op`.
class BlockPlaces {
 public:
  BlockPlaces(std::span<const View> indices, std::span<const int> axes, const View& a,
              std::span<const int64_t> block, const char* op)
      : indices_(indices), axes_(axes), a_(a), block_(block), op_(op) {}

  // Offsets (in elements of `a`) of the blocks begin … end - 1.
  void read(int64_t begin, int64_t end, int64_t* offsets) const;
  // Of all blocks, in parallel.
  void read_all(std::span<int64_t> offsets) const;
  // Calls f(first, offsets, later) for pieces of the blocks begin … end - 1, so short that their
  // offsets stay in the cache. later[i] is the offset of the block `ahead` after that of
  // offsets[i]; there are fewer of them at the end. Both lie in one array: later[i], if it is
  // there, is offsets.data()[ahead + i]. ahead: at most kMostAhead.
  static constexpr size_t kMostAhead = 64;
  static constexpr int64_t kChunk = 512;  // places of a piece, at most
  template <class F>
  void for_each_chunk(int64_t begin, int64_t end, size_t ahead, F&& f) const {
    int64_t offsets[kChunk + kMostAhead];
    const auto more = static_cast<int64_t>(std::min(ahead, kMostAhead));
    int64_t known = 0;  // of offsets, from `begin` on
    for (; begin < end; begin += kChunk) {
      const int64_t count = std::min(kChunk, end - begin),
                    all = std::min(kChunk + more, end - begin);
      read(begin + known, begin + all, offsets + known);
      auto part = [&](int64_t from, int64_t to) {
        return std::span<const int64_t>(offsets + from,
                                        static_cast<size_t>(std::max(to - from, int64_t{0})));
      };
      f(begin, part(0, count), part(more, all));
      known = all - count;
      std::copy_n(offsets + count, known, offsets);
    }
  }
  // Calls f(i, offset) for blocks begin … end - 1.
  template <class F>
  void for_each(int64_t begin, int64_t end, F&& f) const {
    for_each_chunk(begin, end, 0, [&](int64_t first, std::span<const int64_t> offsets, auto) {
      for (size_t i = 0; i < offsets.size(); ++i) f(first + static_cast<int64_t>(i), offsets[i]);
    });
  }

 private:
  std::span<const View> indices_;
  std::span<const int> axes_;
  const View& a_;
  std::span<const int64_t> block_;
  const char* op_;
};

// Element `i` of a contiguous array of integers.
int64_t index_value(const View& indices, int64_t i);
// The block of a view whose corner along axes[i] is starts[i]; IndexError if it leaves the view.
View block_at(const View& a, const View& starts, std::span<const int> axes, const Shape& block,
              const char* op);

}  // namespace mica::cpu
