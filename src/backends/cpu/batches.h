// The batch axes of products: where each product's operands lie, with axes that are only more rows
// of one product taken out.
#pragma once

#include <span>

#include "core/view.h"

namespace mica::cpu {

class Batches {
 public:
  static constexpr size_t kMaxOperands = 4;

  // Operands and output have batch axes, which broadcast, before their last two axes.
  Batches(std::span<const View> operands, const Shape& out) {
    for (size_t axis = out.size() - 2; axis-- > 0;) {
      if (out[axis] == 1) continue;
      extents_.push_back(out[axis]);
      for (size_t i = 0; i < operands.size() && i < kMaxOperands; ++i)
        strides_[i].push_back(stride(operands[i], out.size(), axis));
    }
    used_ = operands.size();
  }

  // Batches that share all operands but the first, and continue its rows, become rows. The output
  // is row-major.
  void join_rows(int64_t& rows, int64_t& row_stride) {
    while (begin_ < extents_.size() && shares_others(begin_)) {
      int64_t step = strides_[0][begin_];
      if (rows == 1) row_stride = step;
      if (step != rows * row_stride) return;
      rows *= extents_[begin_++];
    }
  }

  // Products that are left.
  int64_t count() const {
    int64_t product = 1;
    for (size_t i = begin_; i < extents_.size(); ++i) product *= extents_[i];
    return product;
  }
  // Elements from an operand's first to where product `index` (row-major) finds it.
  int64_t offset(size_t operand, int64_t index) const {
    int64_t result = 0;
    for (size_t i = begin_; i < extents_.size(); ++i) {
      result += index % extents_[i] * strides_[operand][i];
      index /= extents_[i];
    }
    return result;
  }

 private:
  static int64_t stride(const View& view, size_t rank, size_t axis) {
    size_t lead = rank - view.shape.size();
    if (axis < lead || view.shape[axis - lead] == 1) return 0;
    return view.strides[axis - lead];
  }
  bool shares_others(size_t axis) const {
    for (size_t i = 1; i < used_; ++i)
      if (strides_[i][axis] != 0) return false;
    return true;
  }

  Dims extents_;                // innermost first
  Dims strides_[kMaxOperands];  // of each operand, for the same axes
  size_t begin_ = 0;            // axes before it became rows
  size_t used_ = 0;
};

}  // namespace mica::cpu
