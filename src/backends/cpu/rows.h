// Rows of a view: what kernels that work along the last axis walk over. Leading axes that follow
// each other without gaps are merged, so that a walk costs an addition a row.
//
//   RowWalk walk(view, begin);               // at row `begin`, in row-major order of the other
//   axes for (int64_t r = begin; r < end; ++r, walk.next()) use(view.as<float>() + walk.offset());
#pragma once

#include <cstdint>

#include "core/view.h"

namespace mica::cpu {

// Calls f(TypeTag<T>{}) for the types that kernels handle as float lanes; float64 has loops of its
// own.
template <class F>
decltype(auto) dispatch_lanes(Dtype dtype, F&& f) {
  if (dtype == Dtype::F32) return f(TypeTag<float>{});
  if (dtype == Dtype::F16) return f(TypeTag<float16_t>{});
  return f(TypeTag<bfloat16_t>{});
}

inline int64_t row_length(const View& view) { return view.shape.empty() ? 1 : view.shape.back(); }
inline int64_t row_count(const View& view) {
  int64_t length = row_length(view);
  return length == 0 ? 0 : view.size() / length;
}

// How results are written: not at all, through the caches, or past them. Kernels that work on
// several rows at once fetch what they read first, this many bytes ahead.
enum class Store : uint8_t { None, Cached, Past };
inline constexpr int64_t kFetchAhead = 8192;

// Large float32 outputs are written past the caches: nothing of them would be left there anyway.
// Rows must begin where vectors of any width may be written so.
inline bool goes_past(const View& y, int64_t length) {
  constexpr int64_t kBytes = int64_t{16} << 20;
  return y.dtype == Dtype::F32 && y.size() * size_of(y.dtype) >= kBytes &&
         reinterpret_cast<uintptr_t>(y.data) % 64 == 0 && length % 16 == 0;
}

class RowWalk {
 public:
  RowWalk(const View& view, int64_t row) {
    for (size_t i = 0; i + 1 < view.shape.size(); ++i) {
      int64_t extent = view.shape[i], stride = view.strides[i];
      if (extent == 1) continue;
      if (!extents_.empty() && strides_.back() == stride * extent) {
        extents_.back() *= extent;
        strides_.back() = stride;
      } else {
        extents_.push_back(extent);
        strides_.push_back(stride);
      }
    }
    index_.resize(extents_.size());
    for (size_t i = extents_.size(); i-- > 0;) {
      index_[i] = row % extents_[i];
      row /= extents_[i];
      offset_ += index_[i] * strides_[i];
    }
  }

  // Elements from the view's first to this row's first.
  int64_t offset() const { return offset_; }
  void next() {
    for (size_t i = extents_.size(); i-- > 0;) {
      offset_ += strides_[i];
      if (++index_[i] < extents_[i]) return;
      offset_ -= extents_[i] * strides_[i];
      index_[i] = 0;
    }
  }

 private:
  Dims extents_, strides_, index_;
  int64_t offset_ = 0;
};

}  // namespace mica::cpu
