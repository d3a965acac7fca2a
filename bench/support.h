// What the benchmarks share: test data, rates, and the streaming read that decoding is compared
// with.
#pragma once

#include <benchmark/benchmark.h>

#include <atomic>
#include <cstdint>
#include <vector>

#include "base/thread_pool.h"
#include "core/array.h"
#include "ops/elementwise.h"
#include "ops/random.h"

namespace mica {

inline Array noise(const Shape& shape, Dtype dtype = Dtype::F32) {
  return astype(random::normal(shape), dtype).eval();
}

// A counter in units of 10^9 per second, by the benchmark's clock; `work` is that of one iteration.
inline void rate(benchmark::State& state, const char* name, double work) {
  state.counters[name] = benchmark::Counter(work * 1e-9 * static_cast<double>(state.iterations()),
                                            benchmark::Counter::kIsRate);
}

// Reads a block, larger than any cache, once per iteration: the ceiling of everything that reads
// memory once.
inline void streaming_read(benchmark::State& state, int64_t bytes) {
  std::vector<uint64_t> block(static_cast<size_t>(bytes) / 8, 3);
  for (auto _ : state) {
    std::atomic<uint64_t> total{0};
    ThreadPool::shared().parallel_for(static_cast<int64_t>(block.size()), 1 << 16,
                                      [&](int64_t begin, int64_t end) {
                                        uint64_t sum[32] = {};
                                        for (int64_t i = begin; i + 32 <= end; i += 32)
                                          for (int j = 0; j < 32; ++j)
                                            sum[j] += block[static_cast<size_t>(i + j)];
                                        for (uint64_t s : sum) total += s;
                                      });
    benchmark::DoNotOptimize(total.load());
  }
  rate(state, "GB/s", static_cast<double>(bytes));
}

}  // namespace mica
