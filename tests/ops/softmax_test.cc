#include "ops/softmax.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <random>

#include "base/expect_error.h"
#include "base/thread_pool.h"
#include "ops/create.h"
#include "ops/join.h"
#include "ops/on_devices.h"
#include "ops/reduce.h"

namespace mica {
namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfinity = std::numeric_limits<double>::infinity();

std::vector<double> drawn(int64_t count, double range) {
  std::mt19937_64 random(7);
  std::uniform_real_distribution<double> uniform(-range, range);
  std::vector<double> values(static_cast<size_t>(count));
  for (double& v : values) v = uniform(random);
  return values;
}

Array made(const std::vector<double>& values, const Shape& shape, Dtype dtype) {
  sweep::OnDevice on_ref(DeviceKind::Ref);  // whose casts are the definition
  return astype(Array::from<double>(values, shape), dtype).eval();
}

double exact_logsumexp(const double* row, int64_t n) {
  double largest = *std::max_element(row, row + n), sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += std::exp(row[i] - largest);
  return largest + std::log(sum);
}

// Rows around the lengths of vectors and of the pieces that long rows are cut into.
TEST(Softmax, RowsOfEveryLength) {
  on_devices([] {
    for (int64_t n : {1, 2, 15, 16, 17, 63, 100, 8191, 8192, 8193, 30000}) {
      for (Dtype dtype : {Dtype::F64, Dtype::F32, Dtype::F16, Dtype::BF16}) {
        const double unit = dtype == Dtype::F64   ? 1e-14
                            : dtype == Dtype::F32 ? 2e-6
                            : dtype == Dtype::F16 ? 6e-4
                                                  : 5e-3;
        Array x = made(drawn(2 * n, 5), {2, n}, dtype);
        std::vector<double> in = x.to_vector<double>();
        std::vector<double> p = softmax(x, {{-1}}).to_vector<double>();
        std::vector<double> total = logsumexp(x, {{-1}}).to_vector<double>();
        for (int64_t row = 0; row < 2; ++row) {
          double exact = exact_logsumexp(in.data() + row * n, n);
          EXPECT_NEAR(total[row], exact, unit * (1 + std::abs(exact)));
          for (int64_t i = row * n; i < (row + 1) * n; ++i) {
            double expected = std::exp(in[i] - exact);
            // float16 has few digits for the smallest results.
            ASSERT_NEAR(p[i], expected, unit * expected + (dtype == Dtype::F16 ? 6e-8 : 1e-30))
                << n << " " << dtype_name(dtype);
          }
        }
      }
    }
  });
}

// Bits depend on the row alone: not on its neighbours, on how often it is read, or on how it is
// written, which all depend on how many rows there are.
TEST(Softmax, RowsDoNotDependOnTheirNumber) {
  for (auto [rows, n] :
       {std::pair{50, 5}, {50, 37}, {300, 128}, {9, 1500}, {17, 20001}, {40, 131072}}) {
    for (Dtype dtype : {Dtype::F32, Dtype::BF16}) {
      Array many = astype(Array::from<double>(drawn(rows * n, 9), {rows, n}), dtype);
      Array few = astype(Array::from<double>(drawn(2 * n, 9), {2, n}), dtype);
      std::vector<float> all = softmax(many, {{-1}}).to_vector<float>();
      EXPECT_EQ(std::vector<float>(all.begin(), all.begin() + 2 * n),
                softmax(few, {{-1}}).to_vector<float>())
          << rows << " rows of " << n;
      std::vector<float> sums = logsumexp(many, {{-1}}).to_vector<float>();
      EXPECT_EQ(std::vector<float>(sums.begin(), sums.begin() + 2),
                logsumexp(few, {{-1}}).to_vector<float>())
          << rows << " rows of " << n;
      const float* last = all.data() + (rows - 1) * int64_t{n};
      EXPECT_NEAR(std::accumulate(last, last + n, 0.0), 1, dtype == Dtype::F32 ? 1e-5 : 1e-2);
    }
  }
}

TEST(Softmax, AnyAxes) {
  on_devices([] {
    Array x = Array::from<double>(drawn(24, 2), {2, 3, 4});
    Array e = exp(x);
    auto expect_close = [](const Array& a, const Array& b) {
      ASSERT_EQ(a.shape(), b.shape());
      std::vector<double> left = a.to_vector<double>(), right = b.to_vector<double>();
      for (size_t i = 0; i < left.size(); ++i) EXPECT_NEAR(left[i], right[i], 1e-12);
    };
    for (const Axes& axes : {Axes{{1}}, Axes{{0}}, Axes{{-1, 0}}, Axes{{0, 1}}, Axes{}}) {
      expect_close(softmax(x, axes), e / sum(e, axes, true));
      expect_close(logsumexp(x, axes, true), log(sum(e, axes, true)));
      expect_close(logsumexp(x, axes), log(sum(e, axes)));
    }
    expect_array(softmax(x, std::vector<int>{}), {2, 3, 4}, std::vector<double>(24, 1));
    expect_close(logsumexp(x, std::vector<int>{}), x);
    expect_array(softmax(counting({})), {}, {1});
    expect_close(log_softmax(x, 1), log(softmax(x, {{1}})));
  });
}

TEST(Softmax, SpecialValues) {
  on_devices([] {
    for (Dtype dtype : {Dtype::F64, Dtype::F32, Dtype::BF16}) {
      for (int64_t n : {3, 40, 20000}) {  // 20000: several pieces
        auto row = [&](double first, double rest) {
          Array filler = full({n - 1}, rest, dtype);
          return concatenate({full({1}, first, dtype), filler}, 0);
        };
        auto all_nan = [](const Array& a) {
          std::vector<double> values = a.to_vector<double>();
          return std::all_of(values.begin(), values.end(), [](double v) { return std::isnan(v); });
        };
        EXPECT_TRUE(all_nan(softmax(row(-kInfinity, -kInfinity))));
        EXPECT_TRUE(all_nan(softmax(row(kInfinity, 0))));
        EXPECT_TRUE(all_nan(softmax(row(kNan, 0))));
        EXPECT_EQ(softmax(row(0, -kInfinity)).to_vector<double>()[0], 1);
        EXPECT_EQ(softmax(row(0, -kInfinity)).to_vector<double>()[1], 0);
        EXPECT_EQ(logsumexp(row(-kInfinity, -kInfinity)).item<double>(), -kInfinity);
        EXPECT_EQ(logsumexp(row(kInfinity, 0)).item<double>(), kInfinity);
        EXPECT_EQ(logsumexp(row(2, -kInfinity)).item<double>(), 2);
        EXPECT_TRUE(std::isnan(logsumexp(row(kNan, 0)).item<double>()));
        EXPECT_TRUE(std::isnan(logsumexp(row(kNan, -kInfinity)).item<double>()));
      }
    }
    EXPECT_EQ(logsumexp(zeros({2, 0}), {{1}}).to_vector<double>(),
              std::vector<double>(2, -kInfinity));
    expect_array(softmax(zeros({0, 3}), {{1}}), {0, 3}, {});
    expect_array(softmax(zeros({3, 0}), {{1}}), {3, 0}, {});
    // Far below the largest: the logarithm keeps what softmax loses.
    EXPECT_NEAR(log_softmax(reals({0, -200})).to_vector<double>()[1], -200, 1e-4);
  });
}

TEST(Softmax, Dtypes) {
  EXPECT_EQ(softmax(ints({1, 2})).dtype(), Dtype::F32);
  EXPECT_EQ(logsumexp(zeros({2}, Dtype::Bool)).dtype(), Dtype::F32);
  EXPECT_EQ(softmax(zeros({2}, Dtype::F16), {}, true).dtype(), Dtype::F16);
  EXPECT_EQ(log_softmax(zeros({2}, Dtype::BF16)).dtype(), Dtype::BF16);
  expect_error(ErrorKind::Index, "[softmax] axis 2", [] { softmax(zeros({2, 2}), {{2}}); });
  expect_error(ErrorKind::Value, "[logsumexp]", [] { logsumexp(zeros({2, 2}), {{1, -1}}); });
}

TEST(Softmax, SameForAnyNumberOfThreads) {
  Array rows = made(drawn(300 * 1000, 9), {300, 1000}, Dtype::F32);
  Array line = reshape(rows, {-1}).eval();
  auto run = [&](int threads) {
    ThreadPool::shared().set_threads(threads);
    std::vector<float> all = softmax(rows, {{-1}}).to_vector<float>();
    for (float v : softmax(line).to_vector<float>()) all.push_back(v);
    all.push_back(logsumexp(line).item<float>());
    return all;
  };
  std::vector<float> alone = run(1), together = run(3);
  ThreadPool::shared().set_threads(0);
  EXPECT_EQ(alone, together);
}

}  // namespace
}  // namespace mica
