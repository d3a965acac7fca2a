// What the benchmarks share: test data, rates, and the streaming read that decoding is compared
// with.
#pragma once

#include <benchmark/benchmark.h>

#include <atomic>
#include <cstdint>

#include "base/thread_pool.h"
#include "core/array.h"
#include "ops/create.h"
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

// The sum of a range whose size is a multiple of 32.
[[gnu::target_clones("avx512f", "avx2", "default")]] inline uint64_t sum_of(const uint64_t* from,
                                                                            int64_t count) {
  uint64_t sums[32] = {};
  for (int64_t i = 0; i < count; i += 32)
    for (int j = 0; j < 32; ++j) sums[j] += from[i + j];
  uint64_t total = 0;
  for (uint64_t sum : sums) total += sum;
  return total;
}

// Reads a block, larger than any cache, once per iteration: the ceiling of everything that reads
// memory once.
inline void streaming_read(benchmark::State& state, int64_t bytes) {
  constexpr int64_t kPiece = 1 << 16;
  const int64_t pieces = bytes / 8 / kPiece;
  Array block = full({pieces * kPiece}, 3, Dtype::U64).eval();
  auto data = block.host_bytes();
  auto* from = reinterpret_cast<const uint64_t*>(data.get());
  for (auto _ : state) {
    std::atomic<uint64_t> total{0};
    ThreadPool::shared().parallel_for(pieces, 1, [&](int64_t begin, int64_t end) {
      total += sum_of(from + begin * kPiece, (end - begin) * kPiece);
    });
    benchmark::DoNotOptimize(total.load());
  }
  rate(state, "GB/s", static_cast<double>(block.nbytes()));
}

}  // namespace mica
