#include "transforms/checkpoint.h"

#include "ops/create.h"
#include "ops/softmax.h"
#include "transforms/compile.h"
#include "transforms/support.h"
#include "transforms/vmap.h"

namespace mica {
namespace {

// Layers whose intermediate results are much larger than what passes between them, and are kept for
// the derivatives.
Array wide_layer(const Array& x, const Array& w) {
  Array wide = sin(expand_dims(x, {1}) * w);  // (n, k)
  for (int i = 0; i < 3; ++i) wide = softmax(wide * 3.0, {{-1}});
  return sum(sin(wide) * wide, {{1}}) * (1.0 / 64);
}

struct Network {
  static constexpr int kLayers = 8;
  Arrays parameters;
  Network() {
    parameters.push_back(astype(linspace(0.1, 1, 4096), Dtype::F32).eval());
    for (int i = 0; i < kLayers; ++i) parameters.push_back(linspace(0.2 + 0.01 * i, 1, 64).eval());
  }
  // a[0]: the input; a[1 …]: the layers' weights.
  static Arrays loss(const Arrays& a, bool save_memory) {
    Array x = a[0];
    for (size_t i = 1; i < a.size(); ++i) {
      ArraysFunction layer = [](const Arrays& in) { return Arrays{wide_layer(in[0], in[1])}; };
      x = (save_memory ? checkpoint(layer) : layer)({x, a[i]})[0];
    }
    return {sum(x * x)};
  }
};

std::vector<int> all_arguments() {
  std::vector<int> argnums;
  for (int i = 0; i <= Network::kLayers; ++i) argnums.push_back(i);
  return argnums;
}

struct Measured {
  std::vector<float> values;
  int64_t peak;
};

Measured run(const std::function<Arrays(const Arrays&)>& step, const Arrays& parameters) {
  eval(step(parameters));  // plans and caches are made
  clear_cache();
  int64_t before = memory_use(DeviceKind::Cpu).active;
  Arrays results = step(parameters);
  reset_peak_memory();
  eval(results);
  Measured result{{}, memory_use(DeviceKind::Cpu).peak - before};
  for (const Array& output : results) {
    for (float value : output.to_vector<float>()) result.values.push_back(value);
  }
  return result;
}

ArraysFunction training_step(bool save_memory) {
  return [=](const Arrays& a) {
    auto result = value_and_grad([=](const Arrays& p) { return Network::loss(p, save_memory); },
                                 all_arguments())(a);
    Arrays all = result.values;
    all.insert(all.end(), result.grads.begin(), result.grads.end());
    return all;
  };
}

TEST(Checkpoint, SameResultsInLessMemory) {
  Network network;
  Measured plain = run(training_step(false), network.parameters);
  Measured saved = run(training_step(true), network.parameters);
  EXPECT_EQ(plain.values, saved.values);
  EXPECT_LT(saved.peak, plain.peak / 2);
}

TEST(Checkpoint, SavesMemoryInsideCompileToo) {
  Network network;
  Measured plain = run(compile(training_step(false)), network.parameters);
  Measured saved = run(compile(training_step(true)), network.parameters);
  EXPECT_EQ(plain.values, saved.values);
  EXPECT_LT(saved.peak, plain.peak / 2);
}

TEST(Checkpoint, CallsTheFunctionOnce) {
  int calls = 0;
  auto f = checkpoint([&](const Arrays& a) {
    ++calls;
    return Arrays{sum(sin(a[0]))};
  });
  expect_values(grad(f)({vector_of({0.5})})[0], {std::cos(0.5)});
  EXPECT_EQ(calls, 1);
}

TEST(Checkpoint, ReachesWhatTheFunctionCaptures) {
  Array c = vector_of({2, 3});
  auto g = [&](const Arrays& a) {
    Array w = a[1] * 2.0;
    auto f = checkpoint([&](const Arrays& in) { return Arrays{sum(in[0] * w * c)}; });
    return Arrays{f({a[0]})[0] + sum(w)};
  };
  Arrays grads = grad(g, {0, 1})({vector_of({5, 7}), vector_of({11, 13})});
  expect_values(grads[0], {44, 78});
  expect_values(grads[1], {2 * 10 + 2, 2 * 21 + 2});
}

TEST(Checkpoint, Nests) {
  auto f = [](const Arrays& a) { return Arrays{sin(a[0]) * a[0]}; };
  auto inner = checkpoint(f);
  auto outer = checkpoint([&](const Arrays& a) { return Arrays{sum(inner(inner(a))[0])}; });
  auto plain = [&](const Arrays& a) { return Arrays{sum(f(f(a))[0])}; };
  Array x = vector_of({0.5, 1.5});
  auto expected = grad(plain)({x})[0].to_vector<double>();
  expect_values(grad(outer)({x})[0], expected);
  expect_values(compile(grad(outer))({x})[0], expected);
  auto second = [](ArraysFunction h) {
    return grad([h](const Arrays& a) { return Arrays{sum(grad(h)(a)[0])}; });
  };
  expect_values(second(outer)({x})[0], second(plain)({x})[0].to_vector<double>());
}

TEST(Checkpoint, UnderVmapAndJvp) {
  auto f = checkpoint([](const Arrays& a) { return Arrays{sum(sin(a[0]) * a[1])}; });
  Array x = reshape(vector_of({0.1, 0.2, 0.3, 0.4}), {2, 2}).eval();
  Array w = vector_of({1, 10});
  std::vector<double> expected{std::cos(0.1), 10 * std::cos(0.2), std::cos(0.3),
                               10 * std::cos(0.4)};
  expect_values(vmap(grad(f), {0, std::nullopt})({x, w})[0], expected);
  auto batch = [&](const Arrays& a) { return Arrays{sum(vmap(f, {0, std::nullopt})(a)[0])}; };
  Arrays grads = grad(batch, {0, 1})({x, w});
  expect_values(grads[0], expected);
  expect_values(grads[1], {std::sin(0.1) + std::sin(0.3), std::sin(0.2) + std::sin(0.4)});
  Array row = vector_of({0.1, 0.2});
  expect_values(jvp(f, {row, w}, {w, zeros_like(w)}).derivatives[0],
                {std::cos(0.1) + 100 * std::cos(0.2)});
}

TEST(Checkpoint, MayEvaluateInside) {
  auto f = checkpoint([](const Arrays& a) {
    Array y = sin(a[0]);
    y.eval();
    return Arrays{sum(y * y)};
  });
  expect_values(grad(f)({vector_of({0.5})})[0], {2 * std::sin(0.5) * std::cos(0.5)});
}

}  // namespace
}  // namespace mica
