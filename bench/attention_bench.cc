// Attention and the row operations against their ceilings, measured in the same run: a matrix
// product of the same size for prefill, streaming reads for decoding, a copy for softmax and norms.
#include <cmath>
#include <cstring>

#include "bench/support.h"
#include "ops/attention.h"
#include "ops/matmul.h"
#include "ops/norm.h"
#include "ops/rope.h"
#include "ops/shape.h"
#include "ops/softmax.h"

namespace mica {
namespace {

void MatrixProduct(benchmark::State& state) {
  const int64_t n = state.range(0);
  Array a = noise({n, n}), b = noise({n, n});
  for (auto _ : state) matmul(a, b).eval();
  rate(state, "GFLOP/s", 2.0 * static_cast<double>(n * n * n));
}
BENCHMARK(MatrixProduct)->Arg(2048)->Unit(benchmark::kMillisecond)->UseRealTime();

// Arguments: length, query heads, key heads, head size. Half of the scores are computed.
void Prefill(benchmark::State& state, Dtype dtype) {
  const int64_t L = state.range(0), H = state.range(1), G = state.range(2), K = state.range(3);
  Array q = noise({1, H, L, K}, dtype), k = noise({1, G, L, K}, dtype),
        v = noise({1, G, L, K}, dtype);
  AttentionOptions options{.scale = 1 / std::sqrt(static_cast<double>(K)), .causal = true};
  for (auto _ : state) attention(q, k, v, options).eval();
  rate(state, "GFLOP/s", 2.0 * static_cast<double>(H * L * (L + 1) * K));
}
BENCHMARK_CAPTURE(Prefill, f32, Dtype::F32)
    ->Args({4096, 32, 32, 128})
    ->Args({2048, 32, 8, 128})
    ->Args({512, 8, 8, 64})
    ->Unit(benchmark::kMillisecond)
    ->UseRealTime();
BENCHMARK_CAPTURE(Prefill, bf16, Dtype::BF16)
    ->Args({2048, 32, 8, 128})
    ->Unit(benchmark::kMillisecond)
    ->UseRealTime();

// Arguments: context, query heads, key heads, head size. One new token.
void Decode(benchmark::State& state, Dtype dtype) {
  const int64_t S = state.range(0), H = state.range(1), G = state.range(2), K = state.range(3);
  Array q = noise({1, H, 1, K}, dtype), k = noise({1, G, S, K}, dtype),
        v = noise({1, G, S, K}, dtype);
  AttentionOptions options{.scale = 1 / std::sqrt(static_cast<double>(K)), .causal = true};
  for (auto _ : state) attention(q, k, v, options).eval();
  rate(state, "GB/s", static_cast<double>(k.nbytes() + v.nbytes()));
}
BENCHMARK_CAPTURE(Decode, bf16, Dtype::BF16)
    ->Args({32768, 32, 32, 128})
    ->Args({32768, 32, 8, 128})
    ->Args({1024, 32, 8, 128})
    ->Unit(benchmark::kMicrosecond)
    ->UseRealTime();
BENCHMARK_CAPTURE(Decode, f32, Dtype::F32)
    ->Args({32768, 32, 8, 128})
    ->Unit(benchmark::kMicrosecond)
    ->UseRealTime();

// The keys and values of Decode's largest case.
void StreamingRead(benchmark::State& state) { streaming_read(state, int64_t{512} << 20); }
BENCHMARK(StreamingRead)->Unit(benchmark::kMicrosecond)->UseRealTime();

// Rows of 4096 float32, as many; bytes count reading and writing once.
constexpr int64_t kRows = 4096;

template <class F>
void rows(benchmark::State& state, F&& f) {
  Array x = noise({kRows, kRows});
  for (auto _ : state) f(x).eval();
  rate(state, "GB/s", 2.0 * static_cast<double>(x.nbytes()));
}
void Copy(benchmark::State& state) {
  std::vector<float> from(kRows * kRows, 1), to(kRows * kRows, 2);
  for (auto _ : state) {
    ThreadPool::shared().parallel_for(kRows, 16, [&](int64_t begin, int64_t end) {
      std::memcpy(to.data() + begin * kRows, from.data() + begin * kRows,
                  static_cast<size_t>((end - begin) * kRows) * sizeof(float));
    });
    benchmark::ClobberMemory();
  }
  rate(state, "GB/s", 2.0 * kRows * kRows * sizeof(float));
}
void Softmax(benchmark::State& state) {
  rows(state, [](const Array& x) { return softmax(x, std::vector<int>{-1}); });
}
void RmsNorm(benchmark::State& state) {
  Array weight = noise({kRows});
  rows(state, [&](const Array& x) { return rms_norm(x, weight, 1e-5); });
}
void LayerNorm(benchmark::State& state) {
  Array weight = noise({kRows}), bias = noise({kRows});
  rows(state, [&](const Array& x) { return layer_norm(x, weight, bias, 1e-5); });
}
// 32 heads of 128 features at 4096 positions.
void Rope(benchmark::State& state) {
  Array offset = Array::from<int32_t>({0}, {});
  rows(state, [&](const Array& x) {
    return rope(reshape(x, {1, 32, kRows, kRows / 32}), offset, {.dims = kRows / 32});
  });
}
BENCHMARK(Copy)->Unit(benchmark::kMillisecond)->UseRealTime();
BENCHMARK(Softmax)->Unit(benchmark::kMillisecond)->UseRealTime();
BENCHMARK(RmsNorm)->Unit(benchmark::kMillisecond)->UseRealTime();
BENCHMARK(LayerNorm)->Unit(benchmark::kMillisecond)->UseRealTime();
BENCHMARK(Rope)->Unit(benchmark::kMillisecond)->UseRealTime();

}  // namespace
}  // namespace mica
