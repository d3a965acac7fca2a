#include "ops/sort.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <random>

#include "base/expect_error.h"
#include "base/thread_pool.h"
#include "ops/create.h"
#include "ops/on_devices.h"
#include "ops/reduce.h"
#include "transforms/autograd.h"

namespace mica {
namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfinity = std::numeric_limits<double>::infinity();

TEST(Sort, AlongAxes) {
  on_devices([] {
    Array a = Array::from<float>({3, 1, 2, -1, 5, 0}, {2, 3});
    expect_array(sort(a), {2, 3}, {1, 2, 3, -1, 0, 5});
    expect_array(sort(a, 0), {2, 3}, {-1, 1, 0, 3, 5, 2});
    expect_array(argsort(a), {2, 3}, {1, 2, 0, 0, 2, 1});
    expect_array(argsort(transpose(a), 0), {3, 2}, {1, 0, 2, 2, 0, 1});
    EXPECT_EQ(argsort(a).dtype(), Dtype::U32);
    expect_array(argsort(reals({1, 0, 1, 0})), {4}, {1, 3, 0, 2});
    expect_array(sort(zeros({2, 0})), {2, 0}, {});
  });
  expect_error(ErrorKind::Index, "[sort] axis 1", [] { sort(counting({3}), 1); });
}

TEST(Sort, NansZerosAndInfinities) {
  on_devices([] {
    Array a = Array::from<double>({kNan, 1, -kInfinity, -0.0, 0.0, kInfinity, -1, kNan});
    for (Dtype dtype : {Dtype::F64, Dtype::F32, Dtype::F16, Dtype::BF16}) {
      expect_array(argsort(astype(a, dtype)), {8}, {2, 6, 3, 4, 1, 5, 0, 7});
      std::vector<double> sorted = sort(astype(a, dtype)).to_vector<double>();
      EXPECT_EQ(std::vector<double>(sorted.begin(), sorted.begin() + 6),
                std::vector<double>({-kInfinity, -1, 0, 0, 1, kInfinity}));
      EXPECT_TRUE(std::isnan(sorted[6]) && std::isnan(sorted[7]));
    }
  });
}

// Long lines, sorted by radix and in parts, of every type; equal elements keep their order.
TEST(Sort, LongLinesOfEveryType) {
  std::mt19937_64 random(3);
  for (int kind = 0; kind < kDtypeCount; ++kind) {
    auto dtype = static_cast<Dtype>(kind);
    for (int64_t n : {511, 5000, 200001}) {
      std::vector<double> values(static_cast<size_t>(n));
      for (double& v : values)
        v = std::floor(std::ldexp(static_cast<double>(random() >> 11), -53) * 2000 - 1000);
      Array a = astype(Array::from<double>(values), dtype).eval();
      values = a.to_vector<double>();
      std::vector<double> order(values.size());
      std::iota(order.begin(), order.end(), 0);
      std::stable_sort(order.begin(), order.end(), [&](double i, double j) {
        return values[static_cast<size_t>(i)] < values[static_cast<size_t>(j)];
      });
      EXPECT_EQ(argsort(a).to_vector<double>(), order) << dtype_name(dtype) << ' ' << n;
      std::sort(values.begin(), values.end());
      EXPECT_EQ(sort(a).to_vector<double>(), values) << dtype_name(dtype) << ' ' << n;
    }
  }
}

TEST(Sort, LargeIntegers) {
  on_devices([] {
    std::vector<int64_t> wide{int64_t{1} << 62, -(int64_t{1} << 62), (int64_t{1} << 62) + 1, 0};
    EXPECT_EQ(
        sort(Array::from(wide)).to_vector<int64_t>(),
        std::vector<int64_t>({-(int64_t{1} << 62), 0, int64_t{1} << 62, (int64_t{1} << 62) + 1}));
    expect_array(argmax(view(Array::from(wide), Dtype::U64), 0), {}, {1});
  });
}

TEST(Sort, Partitions) {
  std::mt19937 random(5);
  on_devices([&] {
    std::vector<float> values(300);
    for (float& v : values) v = static_cast<float>(random() % 50);
    Array a = Array::from<float>(values, {3, 100});
    std::vector<double> sorted = sort(a).to_vector<double>();
    for (int64_t kth : {0, 17, 99, -1}) {
      std::vector<double> parts = partition(a, kth).to_vector<double>();
      int64_t k = kth < 0 ? kth + 100 : kth;
      for (int64_t row = 0; row < 3; ++row) {
        auto begin = parts.begin() + row * 100;
        EXPECT_EQ(begin[k], sorted[static_cast<size_t>(row * 100 + k)]);
        EXPECT_LE(*std::max_element(begin, begin + k + 1), begin[k]);
        EXPECT_GE(*std::min_element(begin + k, begin + 100), begin[k]);
        std::sort(begin, begin + 100);
      }
      EXPECT_EQ(parts, sorted);
    }
    std::vector<double> best = topk(a, 5, 1).to_vector<double>();
    for (int64_t row = 0; row < 3; ++row) {
      std::sort(best.begin() + row * 5, best.begin() + row * 5 + 5);
      EXPECT_TRUE(std::equal(best.begin() + row * 5, best.begin() + row * 5 + 5,
                             sorted.begin() + row * 100 + 95));
    }
    EXPECT_EQ(topk(a, 0).shape(), Shape({3, 0}));
  });
  expect_error(ErrorKind::Index, "[argpartition] place 3", [] { partition(counting({3}), 3); });
  expect_error(ErrorKind::Value, "[topk] 4 elements", [] { topk(counting({3}), 4); });
}

TEST(Sort, PlacesOfExtrema) {
  on_devices([] {
    Array a = Array::from<float>({3, 1, 3, -1, 5, 5}, {2, 3});
    expect_array(argmax(a, 1), {2}, {0, 1});
    expect_array(argmin(a, 0, true), {1, 3}, {1, 0, 0});
    expect_array(argmax(a), {}, {4});
    expect_array(argmax(transpose(a), 0), {2}, {0, 1});
    expect_array(argmax(Array::from<double>({1, kNan, 5, kNan}), 0), {}, {1});
    expect_array(argmin(Array::from<double>({kNan, -5}), 0), {}, {0});
    expect_array(argmax(zeros({2, 0}), 0), {0}, {});
  });
  expect_error(ErrorKind::Value, "[argmax] axis 1 of (2, 0) has no elements",
               [] { argmax(zeros({2, 0}), 1); });
}

TEST(Sort, ArgmaxOfLongRows) {
  std::mt19937 random(9);
  for (Dtype dtype : {Dtype::F32, Dtype::BF16, Dtype::F64, Dtype::I32, Dtype::U8}) {
    for (int64_t n : {31, 512, 513, 1025, 50000}) {
      std::vector<double> values(static_cast<size_t>(n));
      for (double& v : values) v = static_cast<double>(random() % 1000);
      Array a = astype(Array::from<double>(values), dtype).eval();
      values = a.to_vector<double>();
      EXPECT_EQ(argmax(a, 0).item<int64_t>(),
                std::max_element(values.begin(), values.end()) - values.begin());
      EXPECT_EQ(argmin(a, 0).item<int64_t>(),
                std::min_element(values.begin(), values.end()) - values.begin());
      if (!is_floating(dtype)) continue;
      values[static_cast<size_t>(n - 1)] = kNan;
      EXPECT_EQ(argmax(astype(Array::from<double>(values), dtype), 0).item<int64_t>(), n - 1);
    }
  }
}

// Along both axes, around the widths of vectors, blocks and tiles: the first of equal elements
// wins, and before them the first NaN.
TEST(Sort, ExtremesOfRowsAndColumns) {
  std::mt19937_64 random(11);
  for (auto [rows, columns] :
       {std::pair{1, 7}, {9, 16}, {17, 65}, {30, 1100}, {64, 2049}, {2049, 19}, {3, 5000}}) {
    for (Dtype dtype : {Dtype::F32, Dtype::F16, Dtype::BF16, Dtype::F64, Dtype::I32}) {
      std::vector<double> values(static_cast<size_t>(rows * columns));
      for (double& v : values) v = static_cast<double>(random() % 120) - 60;
      if (dtype != Dtype::I32)
        for (int k = 0; k < 4; ++k) values[random() % values.size()] = kNan;
      auto first = [&](int64_t from, int64_t step, int64_t count, double sign) {
        auto better = [&](double x, double best) {
          return std::isnan(x) ? !std::isnan(best) : sign * x > sign * best;
        };
        int64_t best = 0;
        for (int64_t i = 1; i < count; ++i)
          if (better(values[from + i * step], values[from + best * step])) best = i;
        return best;
      };
      Array a = astype(Array::from<double>(values, {rows, columns}), dtype);
      for (double sign : {1, -1}) {
        auto place = [&](int axis) {
          return (sign > 0 ? argmax(a, axis) : argmin(a, axis)).to_vector<int64_t>();
        };
        std::vector<int64_t> of_rows, of_columns;
        for (int64_t r = 0; r < rows; ++r) of_rows.push_back(first(r * columns, 1, columns, sign));
        for (int64_t c = 0; c < columns; ++c) of_columns.push_back(first(c, columns, rows, sign));
        EXPECT_EQ(place(1), of_rows) << rows << " x " << columns << " " << dtype_name(dtype);
        EXPECT_EQ(place(0), of_columns) << rows << " x " << columns << " " << dtype_name(dtype);
      }
    }
  }
}

TEST(Sort, RunningOperations) {
  on_devices([] {
    Array a = Array::from<float>({1, 2, 3, 4, 5, 6}, {2, 3});
    expect_array(cumsum(a, 1), {2, 3}, {1, 3, 6, 4, 9, 15});
    expect_array(cumsum(a, 0, true), {2, 3}, {5, 7, 9, 4, 5, 6});
    expect_array(cumsum(a, 1, false, false), {2, 3}, {0, 1, 3, 0, 4, 9});
    expect_array(cumprod(a, 1, true, false), {2, 3}, {6, 3, 1, 30, 6, 1});
    expect_array(cummax(reals({1, 3, 2, 5}), 0), {4}, {1, 3, 3, 5});
    expect_array(cummin(reals({4, 3, 5, 1}), 0, true), {4}, {1, 1, 1, 1});
    expect_array(cummax(reals({4, 3}), 0, false, false), {2}, {-kInfinity, 4});
    expect_array(cummin(ints({4, 3}), 0, false, false), {2},
                 {std::numeric_limits<int32_t>::max(), 4});
    EXPECT_EQ(cumsum(astype(a, Dtype::Bool), 1).dtype(), Dtype::I32);
    EXPECT_NEAR(logcumsumexp(reals({0, 0, 0}), 0).to_vector<double>()[2], std::log(3), 1e-6);
    expect_array(cumsum(transpose(a), 1), {3, 2}, {1, 5, 2, 7, 3, 9});
    const auto nan = static_cast<float>(kNan), inf = static_cast<float>(kInfinity);
    expect_array(isnan(logcumsumexp(reals({1, nan, 2}), 0)), {3}, {0, 1, 1});
    expect_array(isnan(logcumsumexp(reals({1, nan, inf}), 0)), {3}, {0, 1, 1});
    expect_array(logcumsumexp(reals({-inf, 1, inf}), 0), {3}, {-kInfinity, 1, kInfinity});
    // Half types are rounded once: 4096 ones do not stop at 256.
    EXPECT_EQ(cumsum(ones({4096}, Dtype::BF16), 0).to_vector<double>()[4095], 4096);
  });
}

// A product is linear in each of its factors: central differences are its derivative.
TEST(Sort, RunningProductsOfZerosHaveDerivatives) {
  std::vector<double> values = {0.5, -2, 0, 3, 0, 4};
  for (bool reverse : {false, true}) {
    for (bool inclusive : {false, true}) {
      auto f = [&](const Array& a) {
        Array weights = arange(1, 7, 1, Dtype::F64);
        return sum(multiply(cumprod(a, 0, reverse, inclusive), weights));
      };
      std::vector<double> expected;
      for (size_t i = 0; i < values.size(); ++i) {
        std::vector<double> more = values, less = values;
        more[i] += 1;
        less[i] -= 1;
        expected.push_back((f(Array::from<double>(more)).item<double>() -
                            f(Array::from<double>(less)).item<double>()) /
                           2);
      }
      expect_array(grad(f)(Array::from<double>(values)), {6}, expected);
    }
  }
}

TEST(Sort, DoesNotDependOnThreads) {
  std::mt19937 random(1);
  std::vector<float> values(300000);
  for (float& v : values) v = static_cast<float>(random() % 1000);
  Array a = Array::from<float>(values);
  auto& pool = ThreadPool::shared();
  int threads = pool.threads();
  std::vector<std::vector<uint32_t>> orders;
  for (int n : {1, 2, 7}) {
    pool.set_threads(n);
    orders.push_back(argsort(a).to_vector<uint32_t>());
  }
  pool.set_threads(threads);
  EXPECT_EQ(orders[0], orders[1]);
  EXPECT_EQ(orders[0], orders[2]);
}

}  // namespace
}  // namespace mica
