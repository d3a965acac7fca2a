#include "transforms/recompute.h"

#include "core/memory.h"
#include "ops/create.h"
#include "ops/softmax.h"
#include "transforms/compile.h"
#include "transforms/support.h"

namespace mica {
namespace {

constexpr int64_t kWide = 2 * transforms::kLeastRecomputed / 4;  // floats of a large array

Array ramp(int64_t n) { return astype(linspace(-2, 2, n), Dtype::F32).eval(); }

// Ten values between a softmax and a softmax.
Array activation(const Array& x) {
  Array y = softmax(x) * 1000.0;
  return softmax(0.5 * y * (1.0 + tanh(0.7978845608 * (y + 0.044715 * y * y * y))));
}

int64_t peak_of(const ArraysFunction& f, const Array& x) {
  eval(f({x}));  // plans are made
  clear_cache();
  int64_t before = memory_use(DeviceKind::Cpu).active;
  Arrays results = f({x});
  reset_peak_memory();
  eval(results);
  return memory_use(DeviceKind::Cpu).peak - before;
}

ArraysFunction derivative_of(std::function<Array(const Array&)> f, int times) {
  return grad([=](const Arrays& a) {
    Array y = a[0];
    for (int i = 0; i < times; ++i) y = f(y);
    return Arrays{sum(y)};
  });
}

// Only the ends of a chain are kept: the two values of softmax for each activation, not twelve.
TEST(Recompute, KeepsTheEndsOfChains) {
  Array x = ramp(kWide);
  const int64_t bytes = kWide * 4;
  EXPECT_LT(peak_of(derivative_of(&activation, 4), x), (2 * 4 + 6) * bytes);
  EXPECT_LT(peak_of(compile(derivative_of(&activation, 4)), x), (2 * 4 + 6) * bytes);
}

// Rows of a large array have the derivatives that they have alone, where nothing is recomputed.
TEST(Recompute, GivesTheSameBits) {
  auto g = [](const Array& x) {
    Array y = sin(x) * 2.0;
    return sum(tanh(y * exp(-y)) * y * y / (1.0 + abs(y)));
  };
  for (Dtype dtype : {Dtype::F32, Dtype::BF16}) {
    Array x = astype(ramp(2 * kWide), dtype).eval();
    auto all = grad(g)(x).to_vector<float>();
    const int64_t part = kWide / 16;
    for (int64_t first = 0; first < 2 * kWide; first += part) {
      auto some = grad(g)(slice_axis(x, 0, first, first + part)).to_vector<float>();
      ASSERT_TRUE(std::equal(some.begin(), some.end(), all.begin() + first)) << first;
    }
  }
}

// A long chain is not computed again from its beginning, but from the last value that was kept.
TEST(Recompute, CutsLongChains) {
  auto nodes = [](int64_t n) {
    Array x = ramp(n);
    int64_t before = counters().nodes;
    grad([](const Array& x) {
      Array y = x;
      for (int i = 0; i < 100; ++i) y = sin(y);
      return sum(y);
    })(x);
    return counters().nodes - before;
  };
  // One more node for each, but for those kept, and what they wait for.
  EXPECT_LE(nodes(kWide), nodes(16) + 100 + 2 * 100 / transforms::kLongestChain);
}

TEST(Recompute, ValuesOfEvaluatedArraysAreRead) {
  Array x = ramp(kWide);
  Array g = grad([](const Array& x) {
    Array y = sin(x);
    y.eval();
    return sum(y * y);
  })(x);
  Array expected = 2.0 * sin(x) * cos(x);
  EXPECT_LT(max(abs(g - expected)).item<float>(), 1e-6);
}

TEST(Recompute, DerivativesOfDerivatives) {
  Array x = ramp(kWide);
  auto f = [](const Array& x) { return sum(sin(x) * exp(x)); };
  Array g = grad([&](const Array& x) { return sum(grad(f)(x) * x); })(x);
  // (f' x)' = f'' x + f', with f'' = 2 exp cos
  Array expected = 2.0 * exp(x) * cos(x) * x + exp(x) * (sin(x) + cos(x));
  EXPECT_LT(max(abs(g - expected)).item<float>(), 1e-4);
}

}  // namespace
}  // namespace mica
