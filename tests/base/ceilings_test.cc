// A timing is never a test: only that every measurement does its work and gives a finite figure,
// with any number of threads.
#include "base/ceilings.h"

#include <gtest/gtest.h>

#include <cmath>

#include "base/error.h"
#include "base/memory_info.h"
#include "base/thread_pool.h"

namespace mica {
namespace {

TEST(Ceilings, GiveFiguresWithAnyNumberOfThreads) {
  for (int threads : {1, 3}) {
    ThreadPool::shared().set_threads(threads);
    MemoryReader reader(int64_t{8} << 20);
    for (double figure :
         {reader.read(), arithmetic_ceiling(Arithmetic::Float32),
          arithmetic_ceiling(Arithmetic::Bfloat16), arithmetic_ceiling(Arithmetic::Int8)}) {
      EXPECT_TRUE(std::isfinite(figure));
      EXPECT_GT(figure, 1e6);
    }
  }
  ThreadPool::shared().set_threads(0);
}

TEST(Ceilings, TheBlockIsGivenBack) {
  const uint64_t before = memory_usage().anonymous;
  {
    MemoryReader reader(int64_t{64} << 20);
    EXPECT_GE(memory_usage().anonymous, before + (uint64_t{64} << 20));
  }
  EXPECT_LT(memory_usage().anonymous, before + (uint64_t{32} << 20));
}

TEST(Ceilings, TooLargeABlockIsAnError) { EXPECT_THROW(MemoryReader(int64_t{1} << 55), Error); }

}  // namespace
}  // namespace mica
