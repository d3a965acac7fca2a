#include "core/array.h"

#include "core/backend.h"
#include "core/buffer.h"
#include "core/graph.h"
#include "core/node.h"

namespace mica {

Array Array::from_bytes(const void* values, size_t count, const Shape& shape, Dtype dtype) {
  if (static_cast<int64_t>(count) != elements(shape))
    throw_value("[array] {} values given for shape {}", count, shape);
  Device host{DeviceKind::Cpu};
  size_t bytes = count * static_cast<size_t>(size_of(dtype));
  auto buffer = Buffer::create(bytes, host);
  if (bytes) std::memcpy(buffer->read(host), values, bytes);
  return make_constant(std::move(buffer), shape, dtype, row_major(shape), 0);
}

Array Array::from_buffer(std::shared_ptr<Buffer> buffer, const Shape& shape, Dtype dtype,
                         int64_t offset) {
  int64_t end = 0;
  if (offset < 0 || __builtin_add_overflow(offset, elements(shape), &end) ||
      static_cast<size_t>(end) > buffer->bytes() / static_cast<size_t>(size_of(dtype)))
    throw_value("[array] {} of {} at element {} does not fit in {} bytes", shape, dtype, offset,
                buffer->bytes());
  return make_constant(std::move(buffer), shape, dtype, row_major(shape), offset);
}

int64_t Array::shape(int axis) const {
  return slot_->shape[static_cast<size_t>(normalize_axis(axis, slot_->shape.size(), "shape"))];
}

bool Array::evaluated() const {
  return node()->state.load(std::memory_order_acquire) == NodeState::Done;
}

const Array& Array::eval() const {
  if (!evaluated()) mica::eval(std::span<const Array>(this, 1));
  return *this;
}

std::shared_ptr<const std::byte> Array::host_bytes() const {
  eval();
  const ArrayData& data = *slot_->data;
  Device host{DeviceKind::Cpu};
  std::byte* base = data.buffer->read(host);
  int64_t item = size_of(dtype());
  std::byte* first = base + data.offset * item;
  if (is_row_major(shape(), data.strides)) return {data.buffer, first};
  auto dense = Buffer::create(static_cast<size_t>(nbytes()), host);
  View from{first, dtype(), shape(), data.strides};
  View to{dense->read(host), dtype(), shape(), row_major(shape())};
  backend_of(host).copy(from, to);
  return {dense, to.data};
}

template <class T>
std::vector<T> Array::to_vector() const {
  auto bytes = host_bytes();
  std::vector<T> values(static_cast<size_t>(size()));
  dispatch(dtype(), [&](auto tag) {
    using S = typename decltype(tag)::type;
    const S* from = reinterpret_cast<const S*>(bytes.get());
    for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<T>(from[i]);
  });
  return values;
}

template <class T>
T Array::item() const {
  if (size() != 1)
    throw_value("[item] an array of shape {} has {} elements, not one", shape(), size());
  auto bytes = host_bytes();
  return dispatch(dtype(), [&](auto tag) {
    using S = typename decltype(tag)::type;
    return static_cast<T>(*reinterpret_cast<const S*>(bytes.get()));
  });
}

template bool Array::item<bool>() const;
template float Array::item<float>() const;
template double Array::item<double>() const;
template int32_t Array::item<int32_t>() const;
template int64_t Array::item<int64_t>() const;
template uint32_t Array::item<uint32_t>() const;
template std::vector<float> Array::to_vector<float>() const;
template std::vector<double> Array::to_vector<double>() const;
template std::vector<int32_t> Array::to_vector<int32_t>() const;
template std::vector<int64_t> Array::to_vector<int64_t>() const;
template std::vector<uint32_t> Array::to_vector<uint32_t>() const;
template std::vector<uint8_t> Array::to_vector<uint8_t>() const;

}  // namespace mica
