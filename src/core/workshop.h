// What a thread builds and releases nodes with, and what it remembers while it does: one object, so
// that a node is built with one look-up. For core.
#pragma once

#include <atomic>

#include "core/device.h"

namespace mica {

struct Node;

// Blocks of nodes by size class of 64 bytes, kept per thread as linked lists. A thread that
// releases what others built keeps a bounded number.
struct BlockPool {
  static constexpr size_t kClasses = 16;
  static constexpr uint32_t kKept = 4096;

  void* heads[kClasses];
  uint32_t counts[kClasses];

  void* take(size_t bytes) {
    size_t index = (bytes + 63) / 64;
    if (index >= kClasses || !heads[index]) return take_new(index * 64);
    void* block = heads[index];
    heads[index] = *static_cast<void**>(block);
    --counts[index];
    return block;
  }
  void give(void* block, size_t bytes, bool keep);
  void clear();

 private:
  static void* take_new(size_t bytes);
};

// A number that one thread changes and all may read, without the cost of a shared counter.
struct OwnCount {
  std::atomic<int64_t> value;

  void add(int64_t by) {
    value.store(value.load(std::memory_order_relaxed) + by, std::memory_order_relaxed);
  }
};

// Trivial destruction: arrays of static lifetime may be released after the thread's own destructors
// have run.
struct Workshop {
  BlockPool pool;
  uint64_t next_id, end_id;  // ids of its own
  Node* dead;                // nodes that wait for destruction, linked through Node::next_dead
  bool releasing;            // someone further up the stack destroys them
  bool open;                 // registered: counts are summed up, blocks are kept
  OwnCount live, built;
  Workshop* next;   // of all threads
  int trace_depth;  // scopes that trace
  Stream scoped_stream;
  Stream default_streams[kDeviceKinds] = {{{DeviceKind::Cpu}, 0}, {{DeviceKind::Ref}, 0}};

  void enter() {
    if (!open) [[unlikely]]
      enter_first();
  }
  Stream resolve(Stream stream) const {
    if (stream.chosen()) return stream;
    if (scoped_stream.chosen()) return scoped_stream;
    return default_streams[static_cast<int>(default_device().kind)];
  }

 private:
  void enter_first();
};
extern constinit thread_local Workshop workshop;

}  // namespace mica
