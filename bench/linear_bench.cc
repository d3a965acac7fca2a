// Decoding is reading: bytes per second of Linear at one token against a streaming read of the same
// run. The matrices together are larger than any cache. Random weights; bytes are those of the
// stored matrix.
#include <benchmark/benchmark.h>

#include "base/thread_pool.h"
#include "core/array.h"
#include "core/counters.h"
#include "ops/create.h"
#include "ops/elementwise.h"
#include "ops/matmul.h"
#include "ops/quantized.h"
#include "ops/shape.h"

namespace mica {
namespace {

constexpr int64_t kWidth = 8192;
constexpr int64_t kBytes = int64_t{640} << 20;  // of all matrices of a case

// Sum of a large block, the ceiling of everything that reads memory once.
void StreamingRead(benchmark::State& state) {
  std::vector<uint64_t> block(static_cast<size_t>(kBytes) / 8, 3);
  for (auto _ : state) {
    std::atomic<uint64_t> total{0};
    ThreadPool::shared().parallel_for(
        static_cast<int64_t>(block.size()), 1 << 16, [&](int64_t begin, int64_t end) {
          uint64_t sum[8] = {};
          for (int64_t i = begin; i + 8 <= end; i += 8) {
            for (int j = 0; j < 8; ++j) sum[j] += block[static_cast<size_t>(i + j)];
          }
          total += sum[0] + sum[1] + sum[2] + sum[3] + sum[4] + sum[5] + sum[6] + sum[7];
        });
    benchmark::DoNotOptimize(total.load());
  }
  state.SetBytesProcessed(state.iterations() * kBytes);
}
BENCHMARK(StreamingRead)->Unit(benchmark::kMillisecond)->UseRealTime();

Array noise(int64_t rows) {
  Array i = reshape(arange(rows * kWidth, Dtype::I32), {rows, kWidth});
  return sin(astype(i, Dtype::F32) * 0.7f);
}

void Dense(benchmark::State& state, Dtype dtype) {
  int64_t rows = kBytes / 4 / kWidth / size_of(dtype);
  Arrays matrices;
  for (int i = 0; i < 4; ++i) matrices.push_back(astype(noise(rows), dtype).eval());
  Array x = full({1, kWidth}, 0.5f, Dtype::F32);
  x.eval();
  for (auto _ : state) {
    Arrays products;
    for (const Array& w : matrices) products.push_back(matmul(x, transpose(w)));
    eval(products);
  }
  state.SetBytesProcessed(state.iterations() * 4 * matrices[0].nbytes());
}
BENCHMARK_CAPTURE(Dense, bfloat16, Dtype::BF16)->Unit(benchmark::kMillisecond)->UseRealTime();
BENCHMARK_CAPTURE(Dense, float32, Dtype::F32)->Unit(benchmark::kMillisecond)->UseRealTime();

void Quantized(benchmark::State& state) {
  auto bits = static_cast<int>(state.range(0)), group = static_cast<int>(state.range(1));
  int64_t rows = kBytes / 4 / kWidth * 8 / bits;
  struct Matrix {
    Array packed, scales, biases;
  };
  std::vector<Matrix> matrices;
  int64_t bytes = 0;
  for (int i = 0; i < 4; ++i) {
    Arrays parts = quantize(astype(noise(rows), Dtype::BF16), group, bits);
    eval(parts);
    for (const Array& part : parts) bytes += part.nbytes();
    matrices.push_back({parts[0], parts[1], parts[2]});
  }
  Array x = full({1, kWidth}, 0.5f, Dtype::F32);
  x.eval();
  for (auto _ : state) {
    Arrays products;
    for (const Matrix& m : matrices)
      products.push_back(quantized_matmul(x, m.packed, m.scales, m.biases, true, group, bits));
    eval(products);
  }
  state.SetBytesProcessed(state.iterations() * bytes);
}
BENCHMARK(Quantized)
    ->Args({4, 64})
    ->Args({4, 32})
    ->Args({8, 64})
    ->Unit(benchmark::kMillisecond)
    ->UseRealTime();

}  // namespace
}  // namespace mica
