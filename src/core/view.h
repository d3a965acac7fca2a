// How an array lies in memory, and what kernels get to see of it.
#pragma once

#include <cstddef>

#include "core/dtype.h"
#include "core/shape.h"

namespace mica {

// Where the elements lie within a buffer: strides and offset count elements.
struct ViewLayout {
  Shape shape;
  Strides strides;
  int64_t offset = 0;
};

// One operand of a kernel: data points at the first element. Elements are aligned to their own size
// only; on the host unless the backend's memory says otherwise.
struct View {
  std::byte* data = nullptr;
  Dtype dtype = Dtype::F32;
  Shape shape;
  Strides strides;

  int64_t size() const { return elements(shape); }
  bool contiguous() const { return is_row_major(shape, strides); }
  // True if the last axis is dense, so that a row is one run of memory.
  bool dense_rows() const { return shape.empty() || shape.back() <= 1 || strides.back() == 1; }
  template <class T>
  T* as() const {
    return reinterpret_cast<T*>(data);
  }
};

}  // namespace mica
