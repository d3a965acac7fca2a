#include "ops/create.h"

#include <cmath>
#include <limits>

#include "base/expect_error.h"
#include "ops/on_devices.h"

namespace mica {
namespace {

TEST(Create, Constants) {
  on_devices([] {
    expect_array(full({2, 2}, 3, Dtype::I32), {2, 2}, {3, 3, 3, 3});
    expect_array(full({2, 2}, counting({2})), {2, 2}, {0, 1, 0, 1});
    expect_array(ones({3}, Dtype::Bool), {3}, {1, 1, 1});
    expect_array(zeros({0, 4}), {0, 4}, {});
    EXPECT_EQ(ones_like(counting({2}, Dtype::BF16)).dtype(), Dtype::BF16);
  });
  expect_error(ErrorKind::Value, "negative extent", [] { zeros({2, -1}); });
}

TEST(Create, Arange) {
  on_devices([] {
    expect_array(arange(4), {4}, {0, 1, 2, 3});
    EXPECT_EQ(arange(4).dtype(), Dtype::I32);
    expect_array(arange(1, 2, 0.25, Dtype::F32), {4}, {1, 1.25, 1.5, 1.75});
    expect_array(arange(5, -1, -2, Dtype::I64), {3}, {5, 3, 1});
    expect_array(arange(3, 3, 1, Dtype::F32), {0}, {});
    expect_array(arange(0, 1, -1, Dtype::F32), {0}, {});
    expect_array(arange(0, 5, std::numeric_limits<double>::infinity(), Dtype::F32), {1}, {0});
    std::vector<double> tenths = arange(0, 1000000, 0.1, Dtype::F64).to_vector<double>();
    EXPECT_EQ(tenths[9999999], 9999999 * 0.1);
  });
  expect_error(ErrorKind::Value, "NaN", [] { arange(0, NAN, 1, Dtype::F32); });
  expect_error(ErrorKind::Value, "step is 0", [] { arange(0, 1, 0, Dtype::F32); });
  expect_error(ErrorKind::Value, "too many elements", [] { arange(0, 1e300, 1, Dtype::F32); });
  expect_error(ErrorKind::Value, "bool", [] { arange(0, 2, 1, Dtype::Bool); });
}

TEST(Create, Linspace) {
  on_devices([] {
    expect_array(linspace(0, 1, 5), {5}, {0, 0.25, 0.5, 0.75, 1});
    expect_array(linspace(0, 1, 4, Dtype::F32, false), {4}, {0, 0.25, 0.5, 0.75});
    expect_array(linspace(0, 10, 4, Dtype::I32), {4}, {0, 3, 6, 10});
    expect_array(linspace(2, 9, 1), {1}, {2});
    expect_array(linspace(2, 9, 0), {0}, {});
    std::vector<double> ends = linspace(0.1, 0.7, 50).to_vector<double>();
    EXPECT_EQ(ends.front(), 0.1f);
    EXPECT_EQ(ends.back(), 0.7f);
  });
  expect_error(ErrorKind::Value, "negative number of samples", [] { linspace(0, 1, -1); });
}

TEST(Create, Triangles) {
  on_devices([] {
    expect_array(eye(2, 3), {2, 3}, {1, 0, 0, 0, 1, 0});
    expect_array(eye(3, 3, -1), {3, 3}, {0, 0, 0, 1, 0, 0, 0, 1, 0});
    expect_array(tri(2, 3, 1), {2, 3}, {1, 1, 0, 1, 1, 1});
    expect_array(tri(3, 2, -1), {3, 2}, {0, 0, 1, 0, 1, 1});
    Array a = counting({1, 2, 3}) + 1;
    expect_array(tril(a), {1, 2, 3}, {1, 0, 0, 4, 5, 0});
    expect_array(triu(a, 1), {1, 2, 3}, {0, 2, 3, 0, 0, 6});
    EXPECT_EQ(tril(counting({2, 2}, Dtype::I8)).dtype(), Dtype::I8);
  });
  expect_error(ErrorKind::Value, "[tril] needs at least two axes", [] { tril(counting({3})); });
}

TEST(Create, Diagonals) {
  on_devices([] {
    Array a = counting({3, 4});
    expect_array(diagonal(a), {3}, {0, 5, 10});
    expect_array(diagonal(a, 2), {2}, {2, 7});
    expect_array(diagonal(a, -1), {2}, {4, 9});
    expect_array(diagonal(a, 9), {0}, {});
    expect_array(diagonal(counting({2, 2, 2}), 0, 2, 1), {2, 2}, {0, 3, 4, 7});
    expect_array(diag(reals({1, 2})), {2, 2}, {1, 0, 0, 2});
    expect_array(diag(reals({1, 2}), 1), {3, 3}, {0, 1, 0, 0, 0, 2, 0, 0, 0});
    expect_array(diag(reals({1, 2}), -1), {3, 3}, {0, 0, 0, 1, 0, 0, 0, 2, 0});
    expect_array(diag(a, 1), {3}, {1, 6, 11});
    expect_array(trace(a, 1), {}, {18});
  });
  expect_error(ErrorKind::Value, "[diagonal] the axes are the same",
               [] { diagonal(counting({2, 2}), 0, 1, -1); });
}

TEST(Create, Meshgrid) {
  on_devices([] {
    Arrays xy = meshgrid({reals({1, 2, 3}), reals({5, 6})});
    expect_array(xy[0], {2, 3}, {1, 2, 3, 1, 2, 3});
    expect_array(xy[1], {2, 3}, {5, 5, 5, 6, 6, 6});
    Arrays ij = meshgrid({reals({1, 2, 3}), reals({5, 6})}, true, "ij");
    EXPECT_EQ(ij[0].shape(), Shape({3, 1}));
    EXPECT_EQ(ij[1].shape(), Shape({1, 2}));
  });
  expect_error(ErrorKind::Value, "indexing must be", [] { meshgrid({reals({1})}, false, "yx"); });
}

}  // namespace
}  // namespace mica
