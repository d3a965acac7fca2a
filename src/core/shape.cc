#include "core/shape.h"

#include <algorithm>

#include "base/error.h"

namespace mica {

void Dims::grow(size_t count) {
  size_t capacity = std::max<size_t>(count, 2 * capacity_);
  auto* heap = new int64_t[capacity];
  std::memcpy(heap, data(), size_ * sizeof(int64_t));
  free_heap();
  heap_ = heap;
  capacity_ = static_cast<uint32_t>(capacity);
}

void Dims::push_back(int64_t value) {
  reserve(size_ + 1);
  data()[size_++] = value;
}

void Dims::insert(size_t at, int64_t value) {
  reserve(size_ + 1);
  std::memmove(data() + at + 1, data() + at, (size_ - at) * sizeof(int64_t));
  data()[at] = value;
  ++size_;
}

void Dims::erase(size_t at) {
  std::memmove(data() + at, data() + at + 1, (size_ - at - 1) * sizeof(int64_t));
  --size_;
}

void Dims::resize(size_t count) {
  reserve(count);
  for (size_t i = size_; i < count; ++i) data()[i] = 0;
  size_ = static_cast<uint32_t>(count);
}

void detail::throw_too_many(const Shape& shape) {
  throw_value("an array of shape {} has too many elements", shape);
}

bool is_row_major(const Shape& shape, const Strides& strides) {
  int64_t expected = 1;
  for (size_t i = shape.size(); i-- > 0;) {
    if (shape[i] == 0) return true;
    if (shape[i] != 1 && strides[i] != expected) {
      return elements(shape) == 0;
    }
    expected *= shape[i];
  }
  return true;
}

Shape broadcast_shapes(const Shape& a, const Shape& b, const char* name) {
  const Shape& longer = a.size() >= b.size() ? a : b;
  const Shape& shorter = a.size() >= b.size() ? b : a;
  Shape result = longer;
  size_t lead = longer.size() - shorter.size();
  for (size_t i = 0; i < shorter.size(); ++i) {
    int64_t x = longer[lead + i], y = shorter[i];
    if (x == y || y == 1) continue;
    if (x != 1) throw_value("[{}] shapes {} and {} do not broadcast", name, a, b);
    result[lead + i] = y;
  }
  return result;
}

Strides broadcast_strides(const Shape& shape, const Strides& strides, const Shape& target) {
  Strides result = target;
  size_t lead = target.size() - shape.size();
  for (size_t i = 0; i < lead; ++i) result[i] = 0;
  for (size_t i = 0; i < shape.size(); ++i) {
    result[lead + i] = shape[i] == 1 && target[lead + i] != 1 ? 0 : strides[i];
  }
  return result;
}

int normalize_axis(int64_t axis, size_t rank, const char* name) {
  int64_t count = static_cast<int64_t>(rank);
  if (axis < -count || axis >= count)
    throw_index("[{}] axis {} is out of range for an array of {} axes", name, axis, rank);
  return static_cast<int>(axis < 0 ? axis + count : axis);
}

std::vector<int> normalize_axes(std::span<const int> axes, size_t rank, const char* name) {
  std::vector<int> result;
  result.reserve(axes.size());
  for (int axis : axes) result.push_back(normalize_axis(axis, rank, name));
  std::sort(result.begin(), result.end());
  if (std::adjacent_find(result.begin(), result.end()) != result.end())
    throw_value("[{}] an axis is given twice", name);
  return result;
}

std::string to_string(const Dims& dims) {
  if (dims.size() == 1) return fmt::format("({},)", dims[0]);
  return fmt::format("({})", fmt::join(dims.begin(), dims.end(), ", "));
}

}  // namespace mica
