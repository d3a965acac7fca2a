#include "core/memory.h"

#include <unistd.h>

#include <bit>
#include <mutex>
#include <vector>

#include "core/backend.h"
#include "core/counters.h"

namespace mica {

namespace detail {
AtomicCounters live_counters;
}

namespace {

// Multiples of 64 up to 1 KiB, then eight steps per power of two: at most an eighth is wasted.
constexpr size_t kSmall = 1024, kSmallStep = 64, kLargest = size_t{1} << 62;
constexpr size_t size_class(size_t bytes) {
  if (bytes <= kSmall)
    return bytes == 0 ? kSmallStep : (bytes + kSmallStep - 1) / kSmallStep * kSmallStep;
  size_t step = std::bit_floor(bytes - 1) / 8;
  return (bytes + step - 1) / step * step;
}
// Numbers the classes, given the size of one.
constexpr size_t class_number(size_t bytes) {
  if (bytes <= kSmall) return bytes / kSmallStep;
  size_t power = std::bit_floor(bytes - 1);
  auto doublings = static_cast<size_t>(std::countr_zero(power)) - 10;
  return kSmall / kSmallStep + 8 * doublings + (bytes - power) / (power / 8);
}
constexpr size_t kClasses = class_number(kLargest) + 1;
static_assert(class_number(kSmall) == 16 && class_number(size_class(1025)) == 17 &&
              class_number(2048) == 24 && class_number(size_class(2049)) == 25);

int64_t physical_memory() {
  return static_cast<int64_t>(sysconf(_SC_PHYS_PAGES)) *
         static_cast<int64_t>(sysconf(_SC_PAGESIZE));
}

struct Pool {
  std::mutex mutex;
  // By class: blocks of one size.
  struct Blocks {
    size_t bytes = 0;
    std::vector<void*> blocks;
  };
  std::vector<Blocks> free = std::vector<Blocks>(kClasses);
  MemoryUse use;
  int64_t most = 0;  // that was in use at once, ever
};

// AddressSanitizer finds late uses only of memory that went back to the system.
#ifdef MICA_ADDRESS_SANITIZER
constexpr int64_t kCacheLimit = 0;
#else
constexpr int64_t kCacheLimit = int64_t{1} << 30;
#endif

struct Memory {
  Pool pools[kDeviceKinds];
  std::atomic<int64_t> limit{physical_memory()};
  std::atomic<int64_t> cache_limit{kCacheLimit};
  std::atomic<bool> cache_limit_set{kCacheLimit == 0};
  std::atomic<int64_t> mapped{0};
};

// Never destroyed: arrays with static lifetime outlive any order of destruction.
Memory& memory() {
  static auto* instance = new Memory;
  return *instance;
}

Pool& pool_of(DeviceKind kind) { return memory().pools[static_cast<int>(kind)]; }

// Until a limit is set, what was in use at once before may be kept besides, so that the steps of a
// training do not ask the system for the same memory again and again.
int64_t cache_room(const Pool& pool) {
  const int64_t limit = memory().cache_limit;
  return memory().cache_limit_set ? limit : limit + pool.most - pool.use.active;
}

void trim(DeviceKind kind, Pool& pool, int64_t keep) {
  for (auto& [bytes, blocks] : pool.free) {
    while (pool.use.cached > keep && !blocks.empty()) {
      backend_of(kind)->release(blocks.back(), bytes);
      blocks.pop_back();
      pool.use.cached -= static_cast<int64_t>(bytes);
    }
  }
}

void* take(DeviceKind kind, Pool& pool, size_t bytes) {
  auto& kept = pool.free[class_number(bytes)].blocks;
  if (!kept.empty()) {
    void* data = kept.back();
    kept.pop_back();
    pool.use.cached -= static_cast<int64_t>(bytes);
    return data;
  }
  int64_t wanted = pool.use.active + static_cast<int64_t>(bytes);
  if (wanted > memory().limit) return nullptr;
  if (wanted + pool.use.cached > memory().limit) trim(kind, pool, memory().limit - wanted);
  void* data = backend_of(Device{kind}).allocate(bytes);
  if (!data && pool.use.cached) {
    trim(kind, pool, 0);
    data = backend_of(kind)->allocate(bytes);
  }
  return data;
}

}  // namespace

Allocation allocate(DeviceKind kind, size_t bytes) {
  if (bytes > kLargest) throw Error(ErrorKind::OutOfMemory, "cannot allocate {} bytes", bytes);
  size_t rounded = size_class(bytes);
  Pool& pool = pool_of(kind);
  std::lock_guard lock(pool.mutex);
  void* data = take(kind, pool, rounded);
  if (!data) {
    const int64_t limit = memory().limit.load();
    const bool limited = pool.use.active + static_cast<int64_t>(rounded) > limit;
    throw Error(ErrorKind::OutOfMemory, "out of memory on {}: {} bytes wanted, {} in use, {}",
                device_name({kind}), bytes, pool.use.active,
                limited ? fmt::format("the limit is {} (set_memory_limit)", limit)
                        : "the system gives no more");
  }
  pool.use.active += static_cast<int64_t>(rounded);
  pool.use.peak = std::max(pool.use.peak, pool.use.active);
  pool.most = std::max(pool.most, pool.use.active);
  return {data, rounded};
}

void release(DeviceKind kind, Allocation allocation) noexcept {
  Pool& pool = pool_of(kind);
  std::lock_guard lock(pool.mutex);
  auto bytes = static_cast<int64_t>(allocation.bytes);
  pool.use.active -= bytes;
  if (pool.use.cached + bytes > cache_room(pool)) {
    backend_of(kind)->release(allocation.data, allocation.bytes);
    return;
  }
  auto& kept = pool.free[class_number(allocation.bytes)];
  kept.bytes = allocation.bytes;
  kept.blocks.push_back(allocation.data);
  pool.use.cached += bytes;
}

void count_mapped(int64_t bytes) noexcept { memory().mapped += bytes; }

Counters counters() {
  auto& live = detail::live_counters;
  return {live.kernels,      live.lowered,     live.plan_hits,       live.plan_misses,
          live.bytes_copied, live.bytes_moved, detail::built_nodes()};
}

void reset_counters() {
  auto& live = detail::live_counters;
  for (auto* counter : {&live.kernels, &live.lowered, &live.plan_hits, &live.plan_misses,
                        &live.bytes_copied, &live.bytes_moved}) {
    *counter = 0;
  }
  detail::reset_built_nodes();
}

MemoryUse memory_use(DeviceKind kind) {
  Pool& pool = pool_of(kind);
  std::lock_guard lock(pool.mutex);
  return pool.use;
}

int64_t mapped_bytes() { return memory().mapped; }

void reset_peak_memory() {
  for (Pool& pool : memory().pools) {
    std::lock_guard lock(pool.mutex);
    pool.use.peak = pool.use.active;
  }
}

int64_t set_memory_limit(int64_t bytes) { return memory().limit.exchange(bytes); }
int64_t memory_limit() { return memory().limit; }

namespace {
void trim_all(int64_t keep) {
  for (int kind = 0; kind < kDeviceKinds; ++kind) {
    Pool& pool = memory().pools[kind];
    std::lock_guard lock(pool.mutex);
    if (pool.use.cached > keep) trim(static_cast<DeviceKind>(kind), pool, keep);
  }
}
}  // namespace

int64_t set_cache_limit(int64_t bytes) {
  int64_t previous = memory().cache_limit.exchange(bytes);
  memory().cache_limit_set = true;
  trim_all(bytes);
  return previous;
}

void clear_cache() { trim_all(0); }

}  // namespace mica
