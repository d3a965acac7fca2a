#include "ops/rules.h"

#include <algorithm>

#include "ops/create.h"
#include "ops/shape.h"

namespace mica::ops {

Array batch_first(const Array& a, int axis, size_t rank, Stream s) {
  Array moved = axis < 0 ? expand_dims(a, {0}, s) : moveaxis(a, axis, 0, s);
  if (moved.rank() == rank + 1) return moved;
  Shape shape(rank + 1, 1);
  shape[0] = moved.shape(0);
  std::copy(moved.shape().begin() + 1, moved.shape().end(), shape.end() - (moved.rank() - 1));
  return reshape(moved, shape, s);
}

Array batched(const Array& a, int axis, int64_t batch, Stream s) {
  Array first = batch_first(a, axis, a.rank() - (axis >= 0), s);
  Shape shape = first.shape();
  shape[0] = batch;
  return broadcast_to(first, shape, s);
}

int64_t batch_extent(std::span<const Array> inputs, std::span<const int> axes) {
  for (size_t i = 0; i < axes.size(); ++i) {
    if (axes[i] >= 0) return inputs[i].shape(axes[i]);
  }
  return 1;
}

Array batch_index(int64_t batch, size_t rank, Stream s) {
  Shape shape(rank + 1, 1);
  shape[0] = batch;
  return reshape(arange(batch, Dtype::I32, s), shape, s);
}

std::vector<int> shifted(std::vector<int> axes) {
  for (int& axis : axes) ++axis;
  return axes;
}

Array tangent_or_zeros(const Array& tangent, const Array& primal, Stream s) {
  return tangent.defined() ? tangent : zeros_like(primal, s);
}

}  // namespace mica::ops
