// Buffer: bytes that belong to no device. It knows where its valid copies are and moves bytes only
// when an operation on another device needs them; devices that share the host's memory share one
// copy.
#pragma once

#include <atomic>
#include <cstddef>
#include <memory>
#include <mutex>

#include "core/memory.h"

namespace mica {

class MappedFile;

class Buffer {
 public:
  // Uninitialised memory on a device. Throws OutOfMemory.
  static std::shared_ptr<Buffer> create(size_t bytes, Device device);
  // Host memory owned by someone else, kept alive by `owner`. Read-only memory is never written in
  // place.
  static std::shared_ptr<Buffer> wrap(void* data, size_t bytes, std::shared_ptr<const void> owner,
                                      bool writable);
  // A mapped file: read-only, counted apart, checked for truncation after it was read.
  static std::shared_ptr<Buffer> map(std::shared_ptr<const MappedFile> file);

  Buffer(size_t bytes) : bytes_(bytes) {}
  ~Buffer();
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;

  size_t bytes() const { return bytes_; }
  bool writable() const { return writable_; }
  bool valid_on(DeviceKind kind) const {
    return valid_.load(std::memory_order_acquire) & bit(kind);
  }
  // Memory on the device, without regard to what it holds; allocated if there is none yet.
  std::byte* reserve(Device device);
  // Makes the device's copy valid, moving bytes if needed, and returns it.
  std::byte* read(Device device);
  // The device's copy was or will be written: it is the only valid one.
  void written(Device device) { valid_.store(bit(device.kind), std::memory_order_release); }
  const MappedFile* mapped_file() const { return file_.get(); }

 private:
  static uint8_t bit(DeviceKind kind) { return static_cast<uint8_t>(1u << static_cast<int>(kind)); }

  size_t bytes_;
  std::atomic<uint8_t> valid_{0};
  bool writable_ = true;
  std::mutex mutex_;  // guards what follows while copies are made
  Allocation copies_[kDeviceKinds];
  void* foreign_ = nullptr;  // host memory that is not ours
  std::shared_ptr<const void> owner_;
  std::shared_ptr<const MappedFile> file_;
};

}  // namespace mica
