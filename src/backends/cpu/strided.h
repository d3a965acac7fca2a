// Copies between strided blocks: what joins, gathers and slice updates are made of. Copies into
// row-major memory, with transposes, are in copy.h.
#pragma once

#include <cstddef>

#include "core/view.h"

namespace mica::cpu {

// A block shape with the strides of both sides, axes merged: made once, run at many places.
class StridedCopy {
 public:
  StridedCopy(const Shape& shape, const Strides& from, const Strides& to, size_t element_bytes);

  // Copies one block, on the calling thread.
  void run(const std::byte* from, std::byte* to) const { rows(from, to, 0, row_count_); }
  // Copies one block, in parallel if it is large.
  void run_parallel(const std::byte* from, std::byte* to) const;
  int64_t bytes() const { return row_count_ * row_ * static_cast<int64_t>(element_); }
  // Whether the block is one row, dense on both sides.
  bool dense() const { return row_count_ == 1 && row_from_ == 1 && row_to_ == 1; }

 private:
  void rows(const std::byte* from, std::byte* to, int64_t begin, int64_t end) const;
  void offsets(int64_t row, Dims& index, int64_t& from, int64_t& to) const;
  void row(const std::byte* from, std::byte* to, int64_t begin, int64_t end) const;
  void elements(const std::byte* from, std::byte* to, int64_t count) const;

  size_t element_;
  Shape outer_;  // all merged axes but the last
  Strides from_, to_;
  int64_t row_ = 1, row_from_ = 1, row_to_ = 1;  // the last axis
  int64_t row_count_ = 1;
  bool stream_ = false;  // past the caches
};

// All elements of a view to a view of the same shape, neither of which overlaps the other.
void copy_block(const View& from, const View& to);

// The part of a view that starts at `start` along one axis, `extent` long.
View part_of(const View& view, size_t axis, int64_t start, int64_t extent);

}  // namespace mica::cpu
