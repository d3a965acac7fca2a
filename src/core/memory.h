// Raw memory of a device: cached by size class, bounded, counted. For Buffer; users see
// core/counters.h.
#pragma once

#include <cstddef>

#include "core/device.h"

namespace mica {

struct Allocation {
  void* data = nullptr;
  size_t bytes = 0;  // what was really taken: the size class
};

// 64-byte aligned. Zero bytes give a valid, unique block. Throws OutOfMemory with the figures.
Allocation allocate(DeviceKind kind, size_t bytes);
void release(DeviceKind kind, Allocation allocation) noexcept;
void count_mapped(int64_t bytes) noexcept;

}  // namespace mica
