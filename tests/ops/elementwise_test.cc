#include "ops/elementwise.h"

#include <cmath>
#include <limits>

#include "base/expect_error.h"
#include "ops/create.h"
#include "ops/function.h"
#include "ops/on_devices.h"

namespace mica {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

Array of(Dtype dtype) { return fill({2}, 1, dtype); }

TEST(Elementwise, PromotesToTheCommonType) {
  EXPECT_EQ((of(Dtype::I32) + of(Dtype::F16)).dtype(), Dtype::F16);
  EXPECT_EQ((of(Dtype::F16) + of(Dtype::BF16)).dtype(), Dtype::F32);
  EXPECT_EQ((of(Dtype::U8) + of(Dtype::I8)).dtype(), Dtype::I16);
  EXPECT_EQ((of(Dtype::I32) / of(Dtype::I32)).dtype(), Dtype::F32);
  EXPECT_EQ(exp(of(Dtype::I64)).dtype(), Dtype::F32);
  EXPECT_EQ(exp(of(Dtype::BF16)).dtype(), Dtype::BF16);
  EXPECT_EQ(floor(of(Dtype::I64)).dtype(), Dtype::I64);
  EXPECT_EQ(less(of(Dtype::I32), of(Dtype::F32)).dtype(), Dtype::Bool);
  EXPECT_EQ(left_shift(of(Dtype::Bool), of(Dtype::Bool)).dtype(), Dtype::U8);
}

TEST(Elementwise, NumbersAreWeaklyTyped) {
  EXPECT_EQ((of(Dtype::F16) * 2.5).dtype(), Dtype::F16);
  EXPECT_EQ((of(Dtype::I8) * 2).dtype(), Dtype::I8);
  EXPECT_EQ((of(Dtype::I8) * 2.0).dtype(), Dtype::F32);
  EXPECT_EQ((of(Dtype::Bool) + 1).dtype(), Dtype::I32);
  EXPECT_EQ((of(Dtype::Bool) + 1.0f).dtype(), Dtype::F32);
  EXPECT_EQ((of(Dtype::F64) + true).dtype(), Dtype::F64);
  EXPECT_EQ(where(of(Dtype::Bool), of(Dtype::BF16), 0).dtype(), Dtype::BF16);
  on_devices([] {
    expect_array(1 - reals({1, 2, 3}), {3}, {0, -1, -2});
    expect_array(6 / reals({1, 2, 3}), {3}, {6, 3, 2});
    expect_array(maximum(0, ints({-1, 4})), {2}, {0, 4});
  });
}

TEST(Elementwise, Broadcasts) {
  on_devices([] {
    expect_array(counting({2, 1}) + counting({3}), {2, 3}, {0, 1, 2, 1, 2, 3});
    expect_array(counting({0, 3}) * counting({3}), {0, 3}, {});
    expect_array(where(less(counting({2, 1}), 1), counting({3}), -counting({1})), {2, 3},
                 {0, 1, 2, 0, 0, 0});
  });
  expect_error(ErrorKind::Value, "[multiply] shapes (2,) and (3,) do not broadcast",
               [] { counting({2}) * counting({3}); });
}

TEST(Elementwise, IntegersDivideRoundingDown) {
  on_devices([] {
    expect_array(floor_divide(ints({7, -7, 7, -7, 5}), ints({2, 2, -2, -2, 0})), {5},
                 {3, -4, -4, 3, 0});
    expect_array(remainder(ints({7, -7, 7, -7, 5}), ints({2, 2, -2, -2, 0})), {5},
                 {1, 1, -1, -1, 0});
    auto [quotient, rest] = divmod(reals({7.5f, -7.5f}), reals({2, 2}));
    expect_array(quotient, {2}, {3, -4});
    expect_array(rest, {2}, {1.5, 0.5});
    expect_array(power(ints({3, -2, 2}), ints({4, 3, -1})), {3}, {81, -8, 0});
  });
}

TEST(Elementwise, ExtremesPropagateNaN) {
  on_devices([] {
    for (const Array& a : {maximum(reals({kNaN, 1, 1}), reals({1, kNaN, 2})),
                           minimum(reals({kNaN, 1, 1}), reals({1, kNaN, 2}))}) {
      auto values = a.to_vector<float>();
      EXPECT_TRUE(std::isnan(values[0]) && std::isnan(values[1]) && !std::isnan(values[2]));
    }
  });
}

TEST(Elementwise, RoundsHalvesToEven) {
  on_devices([] {
    expect_array(round(reals({0.5f, 1.5f, -2.5f})), {3}, {0, 2, -2});
    expect_array(round(reals({1250, 1350}), -2), {2}, {1200, 1400});
    expect_array(round(ints({1250, 1350}), -2), {2}, {1200, 1400});
    EXPECT_FLOAT_EQ(round(reals({1.23456f}), 3).item<float>(), 1.235f);
  });
}

TEST(Elementwise, Casts) {
  on_devices([] {
    expect_array(astype(reals({1.9f, -1.9f, kNaN, 1e20f, -kInf}), Dtype::I32), {5},
                 {1, -1, 0, INT32_MAX, INT32_MIN});
    expect_array(astype(ints({300, -1}), Dtype::U8), {2}, {44, 255});
    expect_array(astype(reals({0, 0.1f, kNaN}), Dtype::Bool), {3}, {0, 1, 1});
    expect_array(astype(reals({70000, 1 + 1e-3f}), Dtype::F16), {2}, {HUGE_VAL, 1 + 1.0 / 1024});
  });
  Array same = reals({1});
  EXPECT_EQ(astype(same, Dtype::F32).id(), same.id());
}

TEST(Elementwise, ClipAndNanToNum) {
  on_devices([] {
    expect_array(clip(reals({-3, 0.5f, 3}), Scalar(0), Scalar(1)), {3}, {0, 0.5, 1});
    expect_array(clip(ints({-3, 5}), {}, Scalar(2)), {2}, {-3, 2});
    expect_array(nan_to_num(reals({kNaN, kInf, -kInf, 2}), 1, 5.0, -5.0), {4}, {1, 5, -5, 2});
    EXPECT_EQ(nan_to_num(reals({kInf})).item<float>(), std::numeric_limits<float>::max());
    expect_array(isclose(reals({1, kInf, kNaN, 1}), reals({1 + 1e-7f, kInf, kNaN, 1.1f})), {4},
                 {1, 1, 0, 0});
    expect_array(isclose(reals({kNaN}), reals({kNaN}), 1e-5, 1e-8, true), {1}, {1});
    expect_array(isposinf(reals({kInf, -kInf, 1})), {3}, {1, 0, 0});
    expect_array(isneginf(reals({kInf, -kInf, 1})), {3}, {0, 1, 0});
  });
  expect_error(ErrorKind::Value, "[clip]", [] { clip(reals({1}), Array(), Array()); });
}

TEST(Elementwise, RefusesTypesWithoutAMeaning) {
  expect_error(ErrorKind::Value, "[negative]", [] { -of(Dtype::Bool); });
  expect_error(ErrorKind::Value, "[bitwise_and] needs integers or bool, got float32",
               [] { bitwise_and(of(Dtype::F32), of(Dtype::I32)); });
  expect_error(ErrorKind::Value, "negative extent", [] { fill({-1}, 0, Dtype::F32); });
}

TEST(Elementwise, BooleansInvertLogically) {
  on_devices([] {
    expect_array(bitwise_invert(less(counting({3}), 1)), {3}, {0, 1, 1});
    expect_array(logical_and(ints({0, 2, 3}), reals({1, 0, 0.5f})), {3}, {0, 0, 1});
  });
}

TEST(Elementwise, IntegersKeepAllTheirBits) {
  int64_t large = (int64_t{1} << 62) + 1;
  on_devices([&] {
    EXPECT_EQ(fill({}, large, Dtype::I64).item<int64_t>(), large);
    EXPECT_EQ((fill({}, large, Dtype::I64) - 1).item<int64_t>(), large - 1);
  });
}

TEST(Elementwise, EveryRowOfTheTableIsAFunction) {
#define MICA_UNARY(name, kind, low, high, scalar, dx, doc) \
  EXPECT_NE(FunctionRegistry::shared().find(#name), nullptr);
#define MICA_BINARY(name, kind, low, high, scalar, dx, dy, doc) \
  EXPECT_NE(FunctionRegistry::shared().find(#name), nullptr);
#include "ops/elementwise.def"
}

// Rows longer than a tile, of which one operand is read in place, repeated or strided.
TEST(Elementwise, BroadcastsAlongEveryAxis) {
  for (Dtype dtype : {Dtype::F32, Dtype::BF16, Dtype::I32})
    for (int64_t columns : {5, 256, 700, 1024}) {
      const Shape shape{3, 4, columns};
      Array a = counting(shape, dtype);
      std::vector<double> left = a.to_vector<double>();
      for (int axes = 0; axes < 8; ++axes) {
        Shape own = shape;
        for (size_t axis = 0; axis < 3; ++axis)
          if (axes >> axis & 1) own[axis] = 1;
        Array b = astype(remainder(counting(own), 17), dtype).eval();
        std::vector<double> right = b.to_vector<double>(), expected;
        for (int64_t i = 0; i < std::ssize(left); ++i) {
          int64_t at[] = {i / columns / 4, i / columns % 4, i % columns}, place = 0;
          for (size_t axis = 0; axis < 3; ++axis)
            place = place * own[axis] + (own[axis] == 1 ? 0 : at[axis]);
          expected.push_back(right[static_cast<size_t>(place)]);
        }
        Array zero = zeros(shape, dtype).eval();
        expect_array(maximum(zero + b, zero), shape, expected);
        expect_array(maximum(b, zero) * full(shape, 1, dtype), shape, expected);
      }
    }
}

}  // namespace
}  // namespace mica
