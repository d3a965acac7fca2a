#include "base/thread_pool.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <limits>
#include <mutex>
#include <set>
#include <stdexcept>
#include <thread>
#include <vector>

#include "base/environment.h"

// The child of the fork test starts threads, which the thread sanitizer would refuse.
extern "C" const char* __tsan_default_options() { return "die_after_fork=0"; }

namespace mica {
namespace {

class ThreadPoolTest : public testing::Test {
 protected:
  void SetUp() override { pool.set_threads(4); }
  void TearDown() override { pool.set_threads(0); }

  // Runs a loop and expects every index to have been visited once.
  void expect_covers(int64_t n, int64_t grain) {
    std::vector<std::atomic<int>> visits(static_cast<size_t>(n));
    pool.parallel_for(n, grain, [&](int64_t begin, int64_t end) {
      ASSERT_LT(begin, end);
      ASSERT_EQ(begin % std::max<int64_t>(grain, 1), 0);
      for (int64_t i = begin; i < end; ++i) visits[static_cast<size_t>(i)].fetch_add(1);
    });
    for (const auto& count : visits) ASSERT_EQ(count.load(), 1);
  }

  // Runs loops until one was seen on `threads` threads.
  void expect_threads(size_t threads) {
    std::set<std::thread::id> seen;
    for (int attempt = 0; attempt < 2000 && seen.size() < threads; ++attempt) {
      std::mutex mutex;
      seen.clear();
      pool.parallel_for(8 * pool.threads(), 1, [&](int64_t, int64_t) {
        {
          std::lock_guard lock(mutex);
          seen.insert(std::this_thread::get_id());
        }
        std::this_thread::sleep_for(std::chrono::microseconds(100));
      });
    }
    EXPECT_EQ(seen.size(), threads);
  }

  ThreadPool& pool = ThreadPool::shared();
};

TEST_F(ThreadPoolTest, CoversEveryIndexOnce) {
  for (int64_t n : {1, 2, 3, 31, 32, 33, 1000, 4096}) {
    for (int64_t grain : {-1, 0, 1, 3, 7, 64, 5000}) expect_covers(n, grain);
  }
}

TEST_F(ThreadPoolTest, StretchesGrowShorterUntilTheEnd) {
  pool.set_threads(2);
  std::mutex mutex;
  std::vector<std::pair<int64_t, int64_t>> stretches;
  pool.parallel_for(26 * 8, 8, [&](int64_t begin, int64_t end) {
    std::lock_guard lock(mutex);
    stretches.emplace_back(begin / 8, (end - begin) / 8);
  });
  std::sort(stretches.begin(), stretches.end());
  std::vector<int64_t> grains;
  for (const auto& stretch : stretches) grains.push_back(stretch.second);
  EXPECT_EQ(grains, (std::vector<int64_t>{6, 5, 3, 3, 2, 1, 1, 1, 1, 1, 1, 1}));
}

TEST_F(ThreadPoolTest, ZeroAndNegativeCallNothing) {
  for (int64_t n : {int64_t{0}, int64_t{-1}, std::numeric_limits<int64_t>::min()}) {
    pool.parallel_for(n, 1, [](int64_t, int64_t) { FAIL(); });
  }
}

TEST_F(ThreadPoolTest, HugeLoopDoesNotOverflow) {
  constexpr int64_t kMax = std::numeric_limits<int64_t>::max();
  for (int64_t grain : {int64_t{1}, int64_t{1} << 40, kMax / 2 + 1, kMax - 1, kMax}) {
    std::atomic<int64_t> total{0}, last{0};
    pool.parallel_for(kMax, grain, [&](int64_t begin, int64_t end) {
      total.fetch_add(end - begin);
      if (end == kMax) last.store(end);
    });
    EXPECT_EQ(total.load(), kMax);
    EXPECT_EQ(last.load(), kMax);
  }
}

TEST_F(ThreadPoolTest, OneGrainIsOneCallOnTheCaller) {
  int calls = 0;
  pool.parallel_for(100, 100, [&](int64_t begin, int64_t end) {
    ++calls;
    EXPECT_EQ(begin, 0);
    EXPECT_EQ(end, 100);
  });
  EXPECT_EQ(calls, 1);
}

TEST_F(ThreadPoolTest, UsesItsThreads) { expect_threads(4); }

TEST_F(ThreadPoolTest, NestedLoopsRunOnTheirThread) {
  std::atomic<int64_t> sum{0};
  pool.parallel_for(64, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const auto self = std::this_thread::get_id();
      pool.parallel_for(100, 1, [&](int64_t b, int64_t e) {
        EXPECT_EQ(std::this_thread::get_id(), self);
        sum.fetch_add(e - b);
      });
    }
  });
  EXPECT_EQ(sum.load(), 6400);
}

TEST_F(ThreadPoolTest, SeveralCallersAtOnce) {
  std::atomic<int64_t> sum{0};
  std::vector<std::thread> callers;
  for (int caller = 0; caller < 4; ++caller) {
    callers.emplace_back([&] {
      for (int round = 0; round < 500; ++round) {
        std::atomic<int64_t> own{0};
        pool.parallel_for(64 + round, 2, [&](int64_t b, int64_t e) { own.fetch_add(e - b); });
        ASSERT_EQ(own.load(), 64 + round);
        sum.fetch_add(own.load());
      }
    });
  }
  for (auto& caller : callers) caller.join();
  EXPECT_EQ(sum.load(), 4 * (500 * 64 + 500 * 499 / 2));
}

TEST_F(ThreadPoolTest, RethrowsTheFirstExceptionAndSkipsTheRest) {
  for (int round = 0; round < 200; ++round) {
    std::atomic<int> calls{0};
    try {
      pool.parallel_for(int64_t{1} << 40, 1, [&](int64_t, int64_t) {
        calls.fetch_add(1);
        throw std::runtime_error("broken chunk");
      });
      FAIL();
    } catch (const std::runtime_error& error) {
      EXPECT_STREQ(error.what(), "broken chunk");
    }
    EXPECT_LE(calls.load(), 4);
  }
  expect_covers(1000, 1);
}

TEST_F(ThreadPoolTest, ExceptionInANestedLoopReachesTheOuterCaller) {
  EXPECT_THROW(pool.parallel_for(16, 1,
                                 [&](int64_t, int64_t) {
                                   pool.parallel_for(16, 1, [](int64_t, int64_t) { throw 7; });
                                 }),
               int);
  EXPECT_THROW(pool.parallel_for(1, 1, [](int64_t, int64_t) { throw 7; }), int);
}

TEST_F(ThreadPoolTest, ChangesItsThreadCount) {
  for (int threads : {1, 3, 2, 5, 1}) {
    pool.set_threads(threads);
    EXPECT_EQ(pool.threads(), threads);
    expect_covers(1000, 1);
    expect_threads(static_cast<size_t>(threads));
  }
  pool.set_threads(0);
  EXPECT_EQ(pool.threads(), usable_cpus());
  pool.set_threads(-3);
  EXPECT_EQ(pool.threads(), usable_cpus());
  EXPECT_THROW(pool.parallel_for(2, 1, [&](int64_t, int64_t) { pool.set_threads(9); }),
               std::logic_error);
}

TEST_F(ThreadPoolTest, ChangesItsThreadCountWhileLoopsRun) {
  std::atomic<bool> stop{false};
  std::atomic<int> loops{0};
  std::thread caller([&] {
    for (; !stop.load(); loops.fetch_add(1)) {
      std::atomic<int64_t> sum{0};
      pool.parallel_for(100, 1, [&](int64_t b, int64_t e) { sum.fetch_add(e - b); });
      ASSERT_EQ(sum.load(), 100);
    }
  });
  for (int round = 0; round < 50 || loops.load() < 50; ++round) pool.set_threads(1 + round % 4);
  stop = true;
  caller.join();
}

// Exits with 0 if loops work and workers start in the child.
int child_status(ThreadPool& pool) {
  const pid_t child = fork();
  if (child == 0) {
    alarm(20);
    std::atomic<int64_t> sum{0};
    std::atomic<bool> other{false};
    const auto self = std::this_thread::get_id();
    for (int round = 0; round < 2000 && !other; ++round) {
      sum = 0;
      pool.parallel_for(64, 1, [&](int64_t b, int64_t e) {
        sum.fetch_add(e - b);
        if (std::this_thread::get_id() != self) other = true;
        std::this_thread::sleep_for(std::chrono::microseconds(50));
      });
      if (sum != 64) _exit(1);
    }
    pool.set_threads(2);
    _exit(other ? 0 : 2);
  }
  int status = -1;
  waitpid(child, &status, 0);
  return status;
}

TEST_F(ThreadPoolTest, WorksInTheChildOfAFork) {
  expect_threads(4);
  EXPECT_EQ(child_status(pool), 0);
  expect_covers(1000, 1);
}

TEST_F(ThreadPoolTest, WorksInAChildForkedWhileAnotherThreadRunsALoop) {
  std::atomic<bool> running{false}, stop{false};
  std::thread caller([&] {
    pool.parallel_for(4, 1, [&](int64_t, int64_t) {
      running = true;
      while (!stop.load()) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    });
  });
  while (!running) std::this_thread::yield();
  EXPECT_EQ(child_status(pool), 0);
  stop = true;
  caller.join();
}

TEST_F(ThreadPoolTest, SleepsWhenIdle) {
  expect_threads(4);
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  timespec before{}, after{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &before);
  std::this_thread::sleep_for(std::chrono::milliseconds(100));
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &after);
  const double used = static_cast<double>(after.tv_sec - before.tv_sec) +
                      1e-9 * static_cast<double>(after.tv_nsec - before.tv_nsec);
  EXPECT_LT(used, 0.03);
}

}  // namespace
}  // namespace mica
