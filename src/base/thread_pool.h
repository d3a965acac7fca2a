// The one pool of threads behind every parallel loop of the process.
//
//   ThreadPool::shared().parallel_for(rows, 16, [&](int64_t begin, int64_t end) {
//     for (int64_t row = begin; row < end; ++row) normalize(row);
//   });
//
// The caller takes part; workers start with the first loop that needs them, spin for some
// microseconds after a loop and then sleep, so an idle pool costs nothing. A loop never waits for a
// worker that has not joined it: beside a busy neighbour it degrades to what the caller does alone.
//
// Any thread may run loops. One loop at a time has the workers; the others proceed alone, chunk by
// chunk, until the workers are free. A loop inside a loop runs on its thread.
//
// A child of `fork` starts without workers and gets its own with its first loop. A child forked
// inside a loop's body must not return from it (chunks that other threads had taken do not exist
// there).
#pragma once

#include <atomic>
#include <cstdint>

#include "base/function_ref.h"

namespace mica {

class ThreadPool {
 public:
  // Starts with set_threads(0).
  static ThreadPool& shared();

  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  // Threads that a loop may use, the caller included; at least 1.
  int threads() const { return threads_.load(std::memory_order_relaxed); }

  // 0 means usable_cpus(). At most kMaxThreads. Waits for a running loop; not allowed inside one.
  void set_threads(int n);

  // Calls f(begin, end) for ranges that cover [0, n) exactly once, on up to threads() threads, and
  // returns when all are done. Every begin is a multiple of `grain`, the least number of iterations
  // worth handing out (values below 1 mean 1); a loop of at most one grain is one call on the
  // caller. If calls throw, ranges not yet begun are skipped and the first exception is rethrown
  // here.
  template <class F>
  void parallel_for(int64_t n, int64_t grain, F&& f) {
    if (n <= 0) return;
    if (n <= grain || threads() == 1) {
      f(int64_t{0}, n);
    } else {
      run(n, grain, f);
    }
  }

  static constexpr int kMaxThreads = 1024;

 private:
  class Loop;

  ThreadPool();
  void run(int64_t n, int64_t grain, FunctionRef<void(int64_t, int64_t)> body);
  void share(Loop& loop);
  void start_workers();
  void stop_workers();
  void wake_workers(int64_t wanted);
  void wait_for_workers();
  void work(uint32_t seen);
  uint32_t next_ticket(uint32_t seen);
  void leave_loop();
  void forget_workers();

  // The ticket says all that a worker needs to know: how many workers are inside the loop (low
  // bits), whether the loop may be joined, whether to exit, and the loop's number (high bits).
  alignas(64) std::atomic<uint32_t> ticket_{0};
  std::atomic<int32_t> sleepers_{0};            // workers that a new ticket has to wake
  Loop* loop_ = nullptr;                        // valid while the ticket is open
  std::atomic<uint32_t> caller_waits_{0};       // the owner sleeps until the last worker leaves
  alignas(64) std::atomic<bool> owned_{false};  // a thread has the workers, or changes their number
  std::atomic<int> threads_{1};
  std::atomic<int32_t> alive_{0};  // workers that have not exited
  int started_ = 0;                // guarded by owned_
};

}  // namespace mica
