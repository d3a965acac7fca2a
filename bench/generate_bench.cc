// Decoding with the default model: time a token, and what DESIGN says it must not cost: plans that
// miss, bytes that are copied.
#include "base/assets.h"
#include "bench/support.h"
#include "core/counters.h"
#include "generate/engine.h"
#include "models/load.h"

namespace mica {
namespace {

// Argument: sequences decoded together.
void Decode(benchmark::State& state) {
  static auto model = models::load_model(asset_path("shakespeare-3m")).model;
  auto batch = static_cast<size_t>(state.range(0));
  int64_t tokens = 0;
  Counters total;
  for (auto _ : state) {
    state.PauseTiming();
    generate::Engine engine(model, nullptr);
    for (size_t i = 0; i < batch; ++i)
      engine.add({.prompt = {5, 6, 7, 8}, .max_tokens = 128, .ignore_eos = true});
    // Every prompt, and the first tokens, whose shapes are new.
    for (size_t i = 0; i < batch + 4; ++i) engine.step();
    reset_counters();
    state.ResumeTiming();
    for (int i = 0; i < 100; ++i) tokens += static_cast<int64_t>(engine.step().size());
    Counters now = counters();
    total.plan_misses += now.plan_misses;
    total.bytes_copied += now.bytes_copied;
    total.kernels += now.kernels;
  }
  auto per_token = [&](int64_t count) {
    return static_cast<double>(count) / static_cast<double>(tokens);
  };
  state.SetItemsProcessed(tokens);
  state.counters["plan_misses/token"] = per_token(total.plan_misses);
  state.counters["bytes_copied/token"] = per_token(total.bytes_copied);
  state.counters["kernels/token"] = per_token(total.kernels);
}
BENCHMARK(Decode)->Arg(1)->Arg(8)->Unit(benchmark::kMillisecond)->UseRealTime();

}  // namespace
}  // namespace mica
