#include "core/buffer.h"

#include "base/mapped_file.h"
#include "core/backend.h"
#include "core/blocks.h"
#include "core/counters.h"

namespace mica {

std::shared_ptr<Buffer> Buffer::create(size_t bytes, Device device) {
  auto buffer = std::allocate_shared<Buffer>(BlockAllocator<Buffer>(), bytes);
  buffer->copies_[static_cast<int>(device.kind)] = allocate(device.kind, bytes);
  buffer->written(device);
  return buffer;
}

std::shared_ptr<Buffer> Buffer::wrap(void* data, size_t bytes, std::shared_ptr<const void> owner,
                                     bool writable) {
  auto buffer = std::make_shared<Buffer>(bytes);
  buffer->foreign_ = data;
  buffer->owner_ = std::move(owner);
  buffer->writable_ = writable;
  buffer->written({DeviceKind::Cpu});
  return buffer;
}

std::shared_ptr<Buffer> Buffer::map(std::shared_ptr<const MappedFile> file) {
  auto bytes = file->bytes();
  auto buffer = wrap(const_cast<std::byte*>(bytes.data()), bytes.size(), file, false);
  buffer->file_ = std::move(file);
  count_mapped(static_cast<int64_t>(bytes.size()));
  return buffer;
}

Buffer::~Buffer() {
  if (file_) count_mapped(-static_cast<int64_t>(bytes_));
  for (int kind = 0; kind < kDeviceKinds; ++kind) {
    if (copies_[kind].data) release(static_cast<DeviceKind>(kind), copies_[kind]);
  }
}

std::byte* Buffer::reserve(Device device) {
  if (device.kind == DeviceKind::Cpu && foreign_) return static_cast<std::byte*>(foreign_);
  Allocation& copy = copies_[static_cast<int>(device.kind)];
  if (!copy.data) copy = allocate(device.kind, bytes_);
  return static_cast<std::byte*>(copy.data);
}

std::byte* Buffer::read(Device device) {
  if (valid_on(device.kind)) return reserve(device);
  // Between two devices that share no memory, bytes pass through the host.
  if (device.kind != DeviceKind::Cpu) read({DeviceKind::Cpu});
  std::lock_guard lock(mutex_);
  std::byte* to = reserve(device);
  if (valid_on(device.kind)) return to;
  if (device.kind != DeviceKind::Cpu) {
    backend_of(device).copy_from_host(to, reserve({DeviceKind::Cpu}), bytes_);
  } else {
    for (int kind = 1; kind < kDeviceKinds; ++kind) {
      auto from = static_cast<DeviceKind>(kind);
      if (!valid_on(from)) continue;
      backend_of(from)->copy_to_host(to, copies_[kind].data, bytes_);
      break;
    }
  }
  detail::count(detail::live_counters.bytes_moved, static_cast<int64_t>(bytes_));
  valid_.fetch_or(bit(device.kind), std::memory_order_release);
  return to;
}

}  // namespace mica
