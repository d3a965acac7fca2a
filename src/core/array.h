// Array: a handle to one output of a node of the graph. Nothing is computed until eval, printing or
// reading a value; building a graph allocates no array memory. No device owns an array: its bytes
// move to where an operation needs them.
//
//   Array x = Array::from<float>({1, 2, 3, 4}, {2, 2});
//   Array y = sum(x * x);       // ops/*.h
//   float value = y.item<float>();
//
// Any thread may copy, read and evaluate arrays; handles themselves are not synchronised.
#pragma once

#include <atomic>
#include <cstddef>
#include <memory>
#include <span>
#include <vector>

#include "core/device.h"
#include "core/dtype.h"
#include "core/shape.h"

namespace mica {

struct Node;
struct ArrayData;
class Buffer;
class Array;
using Arrays = std::vector<Array>;

// One output of a node. For core and transforms (core/node.h).
struct Slot {
  Node* node = nullptr;
  std::atomic<uint32_t> refs{0};
  Dtype dtype = Dtype::F32;
  Shape shape;
  ArrayData* data = nullptr;  // set once the node is Done and the slot was held
};

class __attribute__((visibility("default"))) Array {
 public:
  Array() = default;  // no array; `defined()` is false
  Array(const Array& other) : slot_(other.slot_) { retain(); }
  Array(Array&& other) noexcept : slot_(other.slot_) { other.slot_ = nullptr; }
  Array& operator=(const Array& other) {
    Array copy(other);
    std::swap(slot_, copy.slot_);
    return *this;
  }
  Array& operator=(Array&& other) noexcept {
    std::swap(slot_, other.slot_);
    return *this;
  }
  ~Array() {
    if (slot_) release();
  }

  // An evaluated array from host values in row-major order; ValueError if counts differ.
  template <class T>
  static Array from(std::span<const T> values, const Shape& shape) {
    return from_bytes(values.data(), values.size(), shape, dtype_of<T>);
  }
  template <class T>
  static Array from(std::initializer_list<T> values, const Shape& shape) {
    return from<T>(std::span<const T>(values.begin(), values.size()), shape);
  }
  template <class T>
  static Array from(const std::vector<T>& values, const Shape& shape) {
    return from<T>(std::span<const T>(values), shape);
  }
  template <class T>
  static Array from(const std::vector<T>& values) {
    return from<T>(std::span<const T>(values), {static_cast<int64_t>(values.size())});
  }
  static Array from_bytes(const void* values, size_t count, const Shape& shape, Dtype dtype);
  // An evaluated array over memory that exists: a mapped file, NumPy's memory. `offset` counts
  // elements.
  static Array from_buffer(std::shared_ptr<Buffer> buffer, const Shape& shape, Dtype dtype,
                           int64_t offset = 0);

  bool defined() const { return slot_ != nullptr; }
  const Shape& shape() const { return slot_->shape; }
  int64_t shape(int axis) const;  // negative axes count from the end; IndexError
  size_t rank() const { return shape().size(); }
  int64_t size() const { return elements(shape()); }
  Dtype dtype() const { return slot_->dtype; }
  int64_t nbytes() const { return size() * size_of(dtype()); }

  // Evaluates. Throws what the operation threw.
  const Array& eval() const;
  bool evaluated() const;
  // The only element, converted to T; ValueError if there is not exactly one.
  template <class T>
  T item() const;
  // All elements in row-major order, converted to T.
  template <class T>
  std::vector<T> to_vector() const;
  // Evaluates and gives host memory in row-major order, valid while the returned pointer lives: the
  // array's own where it is contiguous, a copy where not.
  std::shared_ptr<const std::byte> host_bytes() const;

  // Identity of the handle's target, for maps and caches.
  const void* id() const { return slot_; }

  // For core and transforms.
  Slot* slot() const { return slot_; }
  Node* node() const { return slot_->node; }
  static Array adopt(Slot* slot);    // takes over one reference
  static Array share(Slot* slot);    // adds a reference
  static Array made_by(Node* node);  // a new node of one output
  static Arrays all_of(Node* node);

 private:
  void retain() const {
    if (slot_) slot_->refs.fetch_add(1, std::memory_order_relaxed);
  }
  // Of a handle that has a slot. Who holds the only reference need not count it down.
  void release() noexcept {
    if (slot_->refs.load(std::memory_order_acquire) == 1)
      end(slot_, false);
    else if (slot_->refs.fetch_sub(1, std::memory_order_acq_rel) == 1)
      end(slot_, true);
  }
  static void end(Slot* slot, bool counted) noexcept;
  Slot* slot_ = nullptr;
};

// Evaluates all; the graphs of several arrays share one plan. `eval` throws the first error.
void eval(std::span<const Array> arrays);
void eval(std::initializer_list<Array> arrays);
// Hands the work to the worker of the default stream and returns at once. An error is thrown by the
// eval or read that meets the arrays.
void async_eval(std::span<const Array> arrays);
// Waits for everything handed to async_eval.
void synchronize();

extern template bool Array::item<bool>() const;
extern template float Array::item<float>() const;
extern template double Array::item<double>() const;
extern template int32_t Array::item<int32_t>() const;
extern template int64_t Array::item<int64_t>() const;
extern template uint32_t Array::item<uint32_t>() const;
extern template std::vector<float> Array::to_vector<float>() const;
extern template std::vector<double> Array::to_vector<double>() const;
extern template std::vector<int32_t> Array::to_vector<int32_t>() const;
extern template std::vector<int64_t> Array::to_vector<int64_t>() const;
extern template std::vector<uint32_t> Array::to_vector<uint32_t>() const;
extern template std::vector<uint8_t> Array::to_vector<uint8_t>() const;

}  // namespace mica
