#include "ops/reduce.h"

#include <cmath>

#include "base/expect_error.h"
#include "core/counters.h"
#include "ops/create.h"
#include "ops/on_devices.h"
#include "transforms/autograd.h"

namespace mica {
namespace {

TEST(Reduce, OverAxes) {
  on_devices([] {
    Array a = counting({2, 3});
    expect_array(sum(a), {}, {15});
    expect_array(sum(a, {{0}}), {3}, {3, 5, 7});
    expect_array(sum(a, {{-1}}, true), {2, 1}, {3, 12});
    expect_array(sum(a, {{1, 0}}, true), {1, 1}, {15});
    expect_array(sum(a, Axes(std::vector<int>{})), {2, 3}, {0, 1, 2, 3, 4, 5});
    expect_array(prod(a + 1, {{1}}), {2}, {6, 120});
    expect_array(max(a, {{0}}), {3}, {3, 4, 5});
    expect_array(min(a), {}, {0});
    expect_array(all(a, {{1}}), {2}, {0, 1});
    expect_array(any(a * 0), {}, {0});
  });
}

TEST(Reduce, Types) {
  auto of = [](Dtype dtype) { return fill({2}, 1, dtype); };
  EXPECT_EQ(sum(of(Dtype::Bool)).dtype(), Dtype::I32);
  EXPECT_EQ(sum(of(Dtype::U8)).dtype(), Dtype::U32);
  EXPECT_EQ(prod(of(Dtype::I16)).dtype(), Dtype::I32);
  EXPECT_EQ(sum(of(Dtype::I64)).dtype(), Dtype::I64);
  EXPECT_EQ(sum(of(Dtype::F16)).dtype(), Dtype::F16);
  EXPECT_EQ(max(of(Dtype::U8)).dtype(), Dtype::U8);
  EXPECT_EQ(mean(of(Dtype::I32)).dtype(), Dtype::F32);
  EXPECT_EQ(mean(of(Dtype::BF16)).dtype(), Dtype::BF16);
  EXPECT_EQ(all(of(Dtype::F32)).dtype(), Dtype::Bool);
}

TEST(Reduce, HalfTypesAccumulateWide) {
  on_devices([] {
    Array a = fill({4096}, 20, Dtype::F16);  // the sum, 81920, does not fit
    EXPECT_EQ(mean(a).item<float>(), 20);
    EXPECT_EQ(sum(fill({3000}, 1, Dtype::BF16)).item<float>(), 3008);  // to the nearest bfloat16
  });
}

TEST(Reduce, MeanAndSpread) {
  on_devices([] {
    Array a = reals({1, 2, 3, 4});
    EXPECT_EQ(mean(a).item<float>(), 2.5f);
    EXPECT_EQ(var(a).item<float>(), 1.25f);
    EXPECT_FLOAT_EQ(var(a, {}, false, 1).item<float>(), 5.0f / 3);
    EXPECT_FLOAT_EQ(std(a).item<float>(), std::sqrt(1.25f));
    expect_array(mean(counting({2, 2}), {{0}}, true), {1, 2}, {1, 2});
    EXPECT_TRUE(std::isnan(mean(zeros({0})).item<float>()));
  });
}

TEST(Reduce, OfNothing) {
  on_devices([] {
    expect_array(sum(zeros({0, 2}), {{0}}), {2}, {0, 0});
    expect_array(prod(zeros({0})), {}, {1});
    expect_array(all(zeros({0})), {}, {1});
    expect_array(any(zeros({0})), {}, {0});
    expect_array(max(zeros({0, 3}), {{1}}), {0}, {});
  });
  expect_error(ErrorKind::Value, "[max] an array of shape (0, 3) has no elements",
               [] { max(zeros({0, 3}), {{0}}); });
}

TEST(Reduce, RefusesWrongAxes) {
  expect_error(ErrorKind::Index, "[sum] axis 2 is out of range", [] { sum(zeros({2, 3}), {{2}}); });
  expect_error(ErrorKind::Value, "twice", [] { sum(zeros({2, 3}), {{1, -1}}); });
}

TEST(Reduce, Comparisons) {
  on_devices([] {
    EXPECT_TRUE(array_equal(counting({3}), ints({0, 1, 2})).item<bool>());
    EXPECT_FALSE(array_equal(counting({3}), counting({1, 3})).item<bool>());
    EXPECT_FALSE(array_equal(reals({NAN}), reals({NAN})).item<bool>());
    EXPECT_TRUE(array_equal(reals({NAN}), reals({NAN}), true).item<bool>());
    EXPECT_TRUE(allclose(reals({1, 2}), reals({1 + 1e-7f, 2})).item<bool>());
    EXPECT_FALSE(allclose(reals({1, 2}), reals({1.1f, 2})).item<bool>());
  });
}

// Derivatives where the sweep's random samples do not go: ties and zeros.
TEST(Reduce, DerivativesOfTiesAndZeros) {
  on_devices([] {
    auto gradient = [](Array (*f)(const Array&), const Array& x) {
      return grad(std::function<Array(const Array&)>(f))(x);
    };
    expect_array(gradient([](const Array& x) { return max(x); }, reals({1, 3, 3})), {3},
                 {0, 0.5, 0.5});
    expect_array(gradient([](const Array& x) { return prod(x); }, reals({2, 0, 3})), {3},
                 {0, 6, 0});
    expect_array(gradient([](const Array& x) { return prod(x); }, reals({0, 0, 3})), {3},
                 {0, 0, 0});
    expect_array(gradient([](const Array& x) { return sum(power(x, 2)); }, reals({0, -3})), {2},
                 {0, -6});
  });
}

TEST(Reduce, AFusedChainAndItsSumAreOneKernel) {
  Array x = counting({64, 64}).eval();
  reset_counters();
  Array y = sum(exp(x * -0.5) + 1, {{1}});
  y.eval();
  EXPECT_EQ(counters().kernels, 1);
}

}  // namespace
}  // namespace mica
