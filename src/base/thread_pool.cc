#include "base/thread_pool.h"

#include <pthread.h>
#include <signal.h>

#include <algorithm>
#include <chrono>
#include <exception>
#include <thread>

#include "base/environment.h"
#include "base/error.h"

namespace mica {
namespace {

constexpr uint32_t kInside = 1;  // unit of the count of workers inside the loop
constexpr uint32_t kOpen = 1u << 12;
constexpr uint32_t kStop = 1u << 13;
constexpr uint32_t kNumber = 1u << 14;  // unit of the loop's number
constexpr uint32_t kInsideMask = kOpen - 1;
constexpr uint32_t kNumberMask = ~(kNumber - 1);
static_assert(ThreadPool::kMaxThreads < static_cast<int>(kInsideMask));

// A thread takes 1 / kShare of what would be its part of the rest, at least 1 / kLeastShare of its
// part of the whole: long stretches first, and short ones at the end, so that all end together.
constexpr int64_t kShare = 2, kLeastShare = 32;
// About what waking a sleeping thread costs: waiting longer than that would be the worse bet.
constexpr std::chrono::microseconds kSpinTime{50};

thread_local bool inside_loop = false;

inline void pause() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("isb" ::: "memory");
#endif
}

// Whether `ready` came true within kSpinTime.
template <class Ready>
bool spin_until(Ready&& ready) {
  using Clock = std::chrono::steady_clock;
  Clock::time_point deadline{};
  for (;;) {
    for (int i = 0; i < 32; ++i) {
      if (ready()) return true;
      pause();
    }
    const auto now = Clock::now();
    if (deadline == Clock::time_point{}) {
      deadline = now + kSpinTime;
    } else if (now > deadline) {
      return false;
    }
  }
}

}  // namespace

// One loop, on the stack of the thread that runs it: chunks are handed out by a counter of grains.
class ThreadPool::Loop {
 public:
  Loop(int64_t n, int64_t grain, int threads, FunctionRef<void(int64_t, int64_t)> body)
      : body_(body), n_(n), grain_(std::max<int64_t>(grain, 1)) {
    grains_ = (n - 1) / grain_ + 1;
    sharers_ = threads * kShare;
    least_ = std::max<int64_t>(1, grains_ / (threads * kLeastShare));
  }

  // Takes and runs one chunk; false if none was left. Never throws.
  bool run_chunk() {
    int64_t first = next_.load(std::memory_order_relaxed), end;
    do {
      if (first >= grains_) return false;
      const int64_t left = grains_ - first;
      end = first + std::min(left, std::max(least_, left / sharers_));
    } while (!next_.compare_exchange_weak(first, end, std::memory_order_relaxed));
    try {
      body_(first * grain_, end == grains_ ? n_ : end * grain_);
    } catch (...) {
      if (!failed_.exchange(true)) error_ = std::current_exception();
      next_.store(grains_, std::memory_order_relaxed);
    }
    return true;
  }

  int64_t grains_left() const { return grains_ - next_.load(std::memory_order_relaxed); }

  void rethrow() const {
    if (error_) std::rethrow_exception(error_);
  }

 private:
  FunctionRef<void(int64_t, int64_t)> body_;
  int64_t n_, grain_, grains_;
  int64_t sharers_, least_;
  std::exception_ptr error_;
  std::atomic<bool> failed_{false};
  alignas(64) std::atomic<int64_t> next_{0};
};

ThreadPool& ThreadPool::shared() {
  // Never destroyed: workers may outlive the end of main.
  static ThreadPool& pool = *[] {
    auto* made = new ThreadPool;
    pthread_atfork(nullptr, nullptr, [] { shared().forget_workers(); });
    return made;
  }();
  return pool;
}

ThreadPool::ThreadPool() { threads_ = std::min(usable_cpus(), kMaxThreads); }

void ThreadPool::set_threads(int n) {
  MICA_ASSERT(!inside_loop);
  n = std::min(n <= 0 ? usable_cpus() : n, kMaxThreads);
  while (owned_.exchange(true)) std::this_thread::sleep_for(kSpinTime);
  if (n != threads_.load()) stop_workers();
  threads_ = n;
  owned_ = false;
}

void ThreadPool::run(int64_t n, int64_t grain, FunctionRef<void(int64_t, int64_t)> body) {
  if (inside_loop) {
    body(0, n);
    return;
  }
  Loop loop(n, grain, threads(), body);
  bool left = true;
  while (left) {
    if (!owned_.load(std::memory_order_relaxed) && !owned_.exchange(true)) {
      share(loop);
      owned_ = false;
      break;
    }
    left = loop.run_chunk();
  }
  loop.rethrow();
}

void ThreadPool::share(Loop& loop) {
  start_workers();
  loop_ = &loop;
  ticket_.fetch_add(kNumber | kOpen);
  wake_workers(loop.grains_left() - 1);
  inside_loop = true;
  while (loop.run_chunk()) {
  }
  inside_loop = false;
  ticket_.fetch_and(~kOpen);
  wait_for_workers();
}

void ThreadPool::start_workers() {
  if (started_ != 0 || threads() == 1) return;
  // Signals for the process are for the user's threads; faults must reach the thread that made
  // them.
  sigset_t blocked, before;
  sigfillset(&blocked);
  for (int signal : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT, SIGSYS, SIGPROF}) {
    sigdelset(&blocked, signal);
  }
  pthread_sigmask(SIG_SETMASK, &blocked, &before);
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
  // A user's thread may be pinned to one core; its workers are not.
  const CpuMask mask = process_affinity();
  pthread_attr_setaffinity_np(&attributes, mask.size() * sizeof(mask[0]),
                              reinterpret_cast<const cpu_set_t*>(mask.data()));
  const auto entry = [](void* last) -> void* {
    pthread_setname_np(pthread_self(), "mica-worker");
    inside_loop = true;  // what runs on a worker is inside a loop
    shared().work(static_cast<uint32_t>(reinterpret_cast<uintptr_t>(last)));
    return nullptr;
  };
  void* last = reinterpret_cast<void*>(uintptr_t{ticket_.load() & kNumberMask});
  for (; started_ < threads() - 1; ++started_) {
    alive_.fetch_add(1);
    pthread_t thread;
    if (pthread_create(&thread, &attributes, entry, last) != 0) {
      alive_.fetch_sub(1);  // fewer workers are slower, not wrong
      break;
    }
  }
  pthread_attr_destroy(&attributes);
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

void ThreadPool::stop_workers() {
  ticket_.fetch_or(kStop);
  ticket_.notify_all();
  for (int32_t alive; (alive = alive_.load()) != 0;) alive_.wait(alive);
  ticket_.fetch_and(~kStop);
  started_ = 0;
}

void ThreadPool::wake_workers(int64_t wanted) {
  const int32_t sleepers = sleepers_.load();
  if (sleepers == 0) return;
  // Those that spin come by themselves.
  wanted -= started_ - sleepers;
  if (wanted >= sleepers) {
    ticket_.notify_all();
  } else {
    for (; wanted > 0; --wanted) ticket_.notify_one();
  }
}

void ThreadPool::wait_for_workers() {
  const auto alone = [&] { return (ticket_.load() & kInsideMask) == 0; };
  if (spin_until(alone)) return;
  for (;;) {
    caller_waits_ = 1;
    if (alone()) return;
    caller_waits_.wait(1);
  }
}

void ThreadPool::leave_loop() {
  const uint32_t before = ticket_.fetch_sub(kInside);
  if ((before & kInsideMask) != 1 || (before & kOpen)) return;
  if (caller_waits_.exchange(0) != 0) caller_waits_.notify_all();
}

// The life of a worker; `seen` is the number of the last loop that it need not join.
void ThreadPool::work(uint32_t seen) {
  while (!(next_ticket(seen) & kStop)) {
    const uint32_t ticket = ticket_.fetch_add(kInside);
    if (ticket & kOpen) {  // it may have closed, or be a newer one
      seen = ticket & kNumberMask;
      while (loop_->run_chunk()) {
      }
    }
    leave_loop();
  }
  if (alive_.fetch_sub(1) == 1) alive_.notify_all();
}

// Waits, spinning first, for a loop other than `seen` or for the end.
uint32_t ThreadPool::next_ticket(uint32_t seen) {
  uint32_t ticket;
  const auto news = [&] {
    ticket = ticket_.load();
    return (ticket & kStop) || ((ticket & kOpen) && (ticket & kNumberMask) != seen);
  };
  // Woken too late for a short loop, it spins again: the next one is likely near.
  while (!spin_until(news)) {
    sleepers_.fetch_add(1);
    if (!news()) ticket_.wait(ticket);
    sleepers_.fetch_sub(1);
  }
  return ticket;
}

// In the child of a fork, where the workers do not exist and the owner may not either.
void ThreadPool::forget_workers() {
  ticket_ = 0;
  sleepers_ = 0;
  caller_waits_ = 0;
  owned_ = false;
  alive_ = 0;
  started_ = 0;
}

}  // namespace mica
