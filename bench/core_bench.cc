// What a node costs: building, planning (a cache hit), running and releasing, on arrays too small
// to matter. Figures are per node.
#include <benchmark/benchmark.h>

#include "core/array.h"
#include "core/counters.h"
#include "core/plan.h"
#include "ops/create.h"
#include "ops/elementwise.h"
#include "ops/shape.h"

namespace mica {
namespace {

void per_node(benchmark::State& state, int64_t nodes) {
  state.counters["ns/node"] =
      benchmark::Counter(static_cast<double>(state.iterations() * nodes),
                         benchmark::Counter::kIsRate | benchmark::Counter::kInvert);
}

Array small() { return Array::from<float>(std::vector<float>(8, 0.5f), {8}); }

Array chain(const Array& x, int64_t nodes) {
  Array y = x;
  for (int64_t i = 0; i < nodes; ++i) y = i % 2 ? add(y, x) : multiply(y, x);
  return y;
}

void BuildAndRelease(benchmark::State& state) {
  Array x = small();
  for (auto _ : state) benchmark::DoNotOptimize(chain(x, state.range(0)));
  per_node(state, state.range(0));
}
BENCHMARK(BuildAndRelease)->Arg(100)->Arg(1000);

// Build, plan from the cache, run fused, release.
void FusedChain(benchmark::State& state) {
  Array x = small();
  for (auto _ : state) chain(x, state.range(0)).eval();
  per_node(state, state.range(0));
}
BENCHMARK(FusedChain)->Arg(5)->Arg(100)->Arg(1000);

// Nodes that cannot fuse: views between the operations.
void UnfusedChain(benchmark::State& state) {
  Array x = small();
  for (auto _ : state) {
    Array y = x;
    for (int64_t i = 0; i < state.range(0) / 2; ++i)
      y = reshape(negative(y), i % 2 ? Shape{8} : Shape{2, 4});
    y.eval();
  }
  per_node(state, state.range(0));
}
BENCHMARK(UnfusedChain)->Arg(100)->Arg(1000);

void OneSmallOp(benchmark::State& state) {
  Array x = small();
  for (auto _ : state) add(x, x).eval();
  per_node(state, 1);
}
BENCHMARK(OneSmallOp);

// The first evaluation of a new graph: everything but compilation, which the interpreter does not
// need.
void FirstPlan(benchmark::State& state) {
  Array x = small();
  size_t limit = set_plan_cache_limit(1);
  int64_t length = 0;
  for (auto _ : state) {
    length = (length + 1) % 2;
    Array y = x;
    for (int64_t i = 0; i < state.range(0) + length; ++i)
      y = i % 3 ? reshape(exp(y), {8}) : add(y, x);
    y.eval();
  }
  set_plan_cache_limit(limit);
  per_node(state, state.range(0));
}
BENCHMARK(FirstPlan)->Arg(100)->Arg(500)->Unit(benchmark::kMicrosecond);

// The five-operation chain on 16.7 million elements, with the bytes that must move: one read, one
// write.
void FiveOpChain(benchmark::State& state) {
  Array x = Array::from<float>(std::vector<float>(1 << 24, 0.5f), {1 << 24});
  for (auto _ : state) {
    Array y = (maximum(x * 1.5f + 0.25f, x) - 0.25f) * x;
    y.eval();
  }
  state.SetBytesProcessed(state.iterations() * 8 * (1 << 24));
}
BENCHMARK(FiveOpChain)->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace mica
