// Dims: a short list of 64-bit integers, inline up to five. Shapes count elements per axis,
// strides count elements (not bytes) between neighbours along an axis.
#pragma once

#include <fmt/format.h>

#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <span>
#include <string>
#include <vector>

namespace mica {

class Dims {
 public:
  static constexpr uint32_t kInline = 5;

  Dims() {}  // not defaulted: `Dims{}` would clear the room for elements
  Dims(std::initializer_list<int64_t> values) { assign(values.begin(), values.size()); }
  Dims(std::span<const int64_t> values) { assign(values.data(), values.size()); }
  Dims(const std::vector<int64_t>& values) { assign(values.data(), values.size()); }
  Dims(size_t count, int64_t value) {
    resize(count);
    for (auto& v : *this) v = value;
  }
  Dims(const Dims& other) { copy(other); }
  Dims(Dims&& other) noexcept { take(other); }
  Dims& operator=(const Dims& other) {
    if (this != &other) copy(other);
    return *this;
  }
  Dims& operator=(Dims&& other) noexcept {
    if (this != &other) {
      free_heap();
      take(other);
    }
    return *this;
  }
  ~Dims() { free_heap(); }

  size_t size() const { return size_; }
  bool empty() const { return size_ == 0; }
  int64_t* data() { return capacity_ == kInline ? inline_ : heap_; }
  const int64_t* data() const { return capacity_ == kInline ? inline_ : heap_; }
  int64_t* begin() { return data(); }
  int64_t* end() { return data() + size_; }
  const int64_t* begin() const { return data(); }
  const int64_t* end() const { return data() + size_; }
  int64_t& operator[](size_t i) { return data()[i]; }
  int64_t operator[](size_t i) const { return data()[i]; }
  int64_t& back() { return data()[size_ - 1]; }
  int64_t back() const { return data()[size_ - 1]; }

  void clear() { size_ = 0; }
  void push_back(int64_t value);
  void insert(size_t at, int64_t value);
  void erase(size_t at);
  void resize(size_t count);  // new elements are zero
  operator std::span<const int64_t>() const { return {data(), size_}; }

  friend bool operator==(const Dims& a, const Dims& b) {
    if (a.size_ != b.size_) return false;
    const int64_t *x = a.data(), *y = b.data();
    for (size_t i = 0; i < a.size_; ++i) {
      if (x[i] != y[i]) return false;
    }
    return true;
  }

 private:
  void assign(const int64_t* values, size_t count) {
    reserve(count);
    int64_t* to = data();
    for (size_t i = 0; i < count; ++i) to[i] = values[i];
    size_ = static_cast<uint32_t>(count);
  }
  // The room is copied whole, whatever its size says: no loop, and what was never written is never
  // read.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
  void copy(const Dims& other) {
    if (capacity_ != kInline || other.capacity_ != kInline) [[unlikely]]
      return assign(other.data(), other.size_);
    size_ = other.size_;
    std::memcpy(inline_, other.inline_, sizeof(inline_));
  }
  void take(Dims& other) {
    size_ = other.size_;
    capacity_ = other.capacity_;
    std::memcpy(inline_, other.inline_, sizeof(inline_));  // the heap pointer lies in the union
    other.size_ = 0;
    other.capacity_ = kInline;
  }
  void free_heap() {
    if (capacity_ != kInline) delete[] heap_;
  }
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic pop
#endif
  void reserve(size_t count) {
    if (count > capacity_) grow(count);
  }
  void grow(size_t count);

  uint32_t size_ = 0;
  uint32_t capacity_ = kInline;
  union {
    int64_t inline_[kInline];
    int64_t* heap_;
  };
};

using Shape = Dims;
using Strides = Dims;

namespace detail {
[[noreturn]] void throw_too_many(const Shape& shape);
}

// Number of elements; 1 for a scalar. Throws ValueError when it does not fit 62 bits.
inline int64_t elements(const Shape& shape) {
  int64_t total = 1;
  bool empty = false;
  for (int64_t extent : shape) {
    if (extent == 0)
      empty = true;
    else if (__builtin_mul_overflow(total, extent, &total) || total > (int64_t{1} << 62))
      detail::throw_too_many(shape);
  }
  return empty ? 0 : total;
}
// Row-major strides of a shape.
inline Strides row_major(const Shape& shape) {
  Strides strides = shape;
  int64_t stride = 1;
  for (size_t i = shape.size(); i-- > 0;) {
    strides[i] = stride;
    if (shape[i] > 1) stride *= shape[i];
  }
  return strides;
}
// True if strides walk the shape in row-major order without gaps (axes of extent 1 do not count).
bool is_row_major(const Shape& shape, const Strides& strides);
// NumPy's broadcasting of two shapes; throws ValueError "[name] shapes (2, 3) and (4,) do not
// broadcast".
Shape broadcast_shapes(const Shape& a, const Shape& b, const char* name);
// Strides that read an array of `shape` and `strides` as if broadcast to `target`.
Strides broadcast_strides(const Shape& shape, const Strides& strides, const Shape& target);
// An axis in -rank … rank-1 made non-negative; throws IndexError naming the operation.
int normalize_axis(int64_t axis, size_t rank, const char* name);
// The same for a list, sorted, without repeats (ValueError); an absent list in callers means all
// axes.
std::vector<int> normalize_axes(std::span<const int> axes, size_t rank, const char* name);

// "(2, 3)", "(4,)", "()".
std::string to_string(const Dims& dims);

}  // namespace mica

template <>
struct fmt::formatter<mica::Dims> : fmt::formatter<std::string_view> {
  template <class Context>
  auto format(const mica::Dims& dims, Context& context) const {
    return fmt::formatter<std::string_view>::format(mica::to_string(dims), context);
  }
};
