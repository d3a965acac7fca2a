// Decoding is reading: bytes per second of a linear layer at one token against a streaming read of
// the same run. The matrices together are larger than any cache. Bytes are those of the stored
// matrices.
#include "bench/support.h"
#include "ops/create.h"
#include "ops/join.h"
#include "ops/matmul.h"
#include "ops/quantized.h"
#include "ops/shape.h"

namespace mica {
namespace {

constexpr int64_t kWidth = 8192;
constexpr int64_t kBytes = int64_t{640} << 20;  // of all matrices of a case
constexpr int64_t kMatrices = 4;

void StreamingRead(benchmark::State& state) { streaming_read(state, kBytes); }
BENCHMARK(StreamingRead)->Unit(benchmark::kMillisecond)->UseRealTime();

// Rows that repeat, which reading does not notice and which are made fast.
Array matrix(int64_t rows, Dtype dtype) {
  return tile(noise({rows / 32, kWidth}, dtype), {32, 1}).eval();
}
Array token() { return full({1, kWidth}, 0.5f, Dtype::F32).eval(); }

void Dense(benchmark::State& state, Dtype dtype) {
  Arrays matrices;
  for (int64_t i = 0; i < kMatrices; ++i)
    matrices.push_back(matrix(kBytes / kMatrices / kWidth / size_of(dtype), dtype));
  Array x = token();
  for (auto _ : state) {
    Arrays products;
    for (const Array& w : matrices) products.push_back(matmul(x, transpose(w)));
    eval(products);
  }
  rate(state, "GB/s", static_cast<double>(kMatrices * matrices[0].nbytes()));
}
BENCHMARK_CAPTURE(Dense, bfloat16, Dtype::BF16)->Unit(benchmark::kMillisecond)->UseRealTime();
BENCHMARK_CAPTURE(Dense, float32, Dtype::F32)->Unit(benchmark::kMillisecond)->UseRealTime();

// Arguments: bits, group size.
void Quantized(benchmark::State& state) {
  auto bits = static_cast<int>(state.range(0)), group = static_cast<int>(state.range(1));
  int64_t rows = kBytes / kMatrices / kWidth * 8 / bits, bytes = 0;
  std::vector<Arrays> matrices;
  for (int64_t i = 0; i < kMatrices; ++i) {
    matrices.push_back(quantize(matrix(rows, Dtype::BF16), group, bits));
    eval(matrices.back());
    for (const Array& part : matrices.back()) bytes += part.nbytes();
  }
  Array x = token();
  for (auto _ : state) {
    Arrays products;
    for (const Arrays& m : matrices)
      products.push_back(quantized_matmul(x, m[0], m[1], m[2], true, group, bits));
    eval(products);
  }
  rate(state, "GB/s", static_cast<double>(bytes));
}
BENCHMARK(Quantized)
    ->Args({4, 64})
    ->Args({4, 32})
    ->Args({8, 64})
    ->Unit(benchmark::kMillisecond)
    ->UseRealTime();

}  // namespace
}  // namespace mica
