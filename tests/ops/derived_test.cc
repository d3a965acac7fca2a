#include "ops/derived.h"

#include <limits>

#include "base/expect_error.h"
#include "ops/create.h"
#include "ops/on_devices.h"

namespace mica {
namespace {

TEST(Derived, Statistics) {
  on_devices([] {
    Array a = reals({3, -2, 0, 5, 1, 0}), rows = reshape(a, {2, 3});
    expect_array(count_nonzero(rows, {{1}}), {2}, {2, 2});
    auto [low, high] = minmax(rows, {{0}}, true);
    expect_array(low, {1, 3}, {3, -2, 0});
    expect_array(high, {1, 3}, {5, 1, 0});
    expect_array(median(a), {}, {0.5});
    expect_array(median(rows, {{1}}, true), {2, 1}, {0, 1});
    expect_array(isnan(median(reals({1, std::numeric_limits<double>::quiet_NaN(), 2}))), {}, {1});
  });
  EXPECT_EQ(count_nonzero(ones({2})).dtype(), Dtype::I32);
  EXPECT_EQ(median(arange(3)).dtype(), Dtype::F32);
  expect_error(ErrorKind::Value, "[median] of no elements", [] { median(zeros({0})); });
}

TEST(Derived, ElementsAndNeighbours) {
  on_devices([] {
    expect_array(logical_xor(reals({0, 2, 3}), reals({0, 0, 1})), {3}, {0, 1, 0});
    expect_array(trunc(reals({-1.5, 1.5, -0.5})), {3}, {-1, 1, 0});
    expect_array(diff(reals({1, 4, 9, 16})), {3}, {3, 5, 7});
    expect_array(diff(reals({1, 4, 9, 16}), 2), {2}, {2, 2});
    expect_array(diff(astype(reals({1, 0, 1}), Dtype::Bool)), {2}, {1, 1});
    expect_array(unstack(counting({2, 3}), 1)[2], {2}, {2, 5});
  });
  EXPECT_EQ(diff(zeros({2}), 5).shape(), Shape({0}));
  expect_error(ErrorKind::Value, "[diff] the order -1", [] { diff(zeros({2}), -1); });
}

TEST(Derived, Products) {
  on_devices([] {
    expect_array(kron(reals({1, 2}), counting({2, 2})), {2, 4}, {0, 1, 0, 2, 2, 3, 4, 6});
    expect_array(vecdot(counting({2, 3}), reals({1, 1, 2})), {2}, {5, 17});
    expect_array(vecdot(counting({2, 1}), counting({2, 3}), 0), {3}, {3, 4, 5});
  });
  expect_error(ErrorKind::Value, "[vecdot] extents 2 and 3",
               [] { vecdot(zeros({2}), zeros({3})); });
}

}  // namespace
}  // namespace mica
