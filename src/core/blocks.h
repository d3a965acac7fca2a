// Small blocks of memory that come and go with nodes: lists by size, kept per thread.
#pragma once

#include <cstddef>

namespace mica {

// Aligned as operator new's; OutOfMemory if there is none. Any thread may give a block back, with
// the size that was asked for.
void* take_block(size_t bytes);
void give_block(void* block, size_t bytes) noexcept;

// For std::allocate_shared.
template <class T>
struct BlockAllocator {
  using value_type = T;
  BlockAllocator() = default;
  template <class U>
  BlockAllocator(const BlockAllocator<U>&) {}
  T* allocate(size_t count) { return static_cast<T*>(take_block(count * sizeof(T))); }
  void deallocate(T* block, size_t count) noexcept { give_block(block, count * sizeof(T)); }
  friend bool operator==(BlockAllocator, BlockAllocator) { return true; }
};

}  // namespace mica
