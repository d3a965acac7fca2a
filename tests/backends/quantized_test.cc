// Quantized products of the CPU, called directly: every format and path against sums in float64.
#include "backends/cpu/quantized.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "backends/cpu/quantized_int8.h"
#include "base/thread_pool.h"
#include "tests/backends/quantized_matrices.h"
#include "tests/backends/targets.h"

namespace mica::cpu {
namespace {

std::vector<float> product(const Quantized& w, const std::vector<float>& x, bool transpose,
                           bool int8 = false) {
  int64_t k = transpose ? w.columns : w.rows, n = transpose ? w.rows : w.columns;
  int64_t m = static_cast<int64_t>(x.size()) / k;
  std::vector<float> out(static_cast<size_t>(m * n), NAN);
  QuantizedGemm<float> gemm{
      .m = m,
      .n = n,
      .k = k,
      .left = {.data = reinterpret_cast<const std::byte*>(x.data()),
               .dtype = Dtype::F32,
               .vector_stride = k},
      .matrix = w.view,
      .transpose = transpose,
      .int8 = int8,
      .out = {
          .data = reinterpret_cast<std::byte*>(out.data()), .dtype = Dtype::F32, .row_stride = n}};
  std::vector<std::byte> memory(gemm.workspace() + 64);
  auto address = reinterpret_cast<uintptr_t>(memory.data());
  gemm.run({memory.data() + (64 - address % 64) % 64, gemm.workspace()});
  return out;
}

void expect_product(const Quantized& w, int64_t m, bool transpose) {
  int64_t k = transpose ? w.columns : w.rows, n = transpose ? w.rows : w.columns;
  std::vector<float> x = random_rows(m * k, 17), out = product(w, x, transpose);
  for (int64_t i = 0; i < m; ++i)
    for (int64_t j = 0; j < n; ++j) {
      double sum = 0, magnitude = 0;
      for (int64_t e = 0; e < k; ++e) {
        double element = transpose ? w.at(j, e) : w.at(e, j);
        double term = element * static_cast<double>(x[static_cast<size_t>(i * k + e)]);
        sum += term;
        // What a sum of scale * q * x and bias * x apart may lose.
        magnitude +=
            std::fabs(term) + std::fabs(static_cast<double>(x[static_cast<size_t>(i * k + e)]));
      }
      ASSERT_NEAR(out[static_cast<size_t>(i * n + j)], sum, 4e-7 * magnitude)
          << "element " << i << ", " << j;
    }
}

class QuantizedTest : public ::testing::TestWithParam<bool> {
 protected:
  void SetUp() override { disable_byte_products(!GetParam()); }
  void TearDown() override { disable_byte_products(false); }
};

TEST_P(QuantizedTest, EveryFormat) {
  for (int bits : {2, 3, 4, 5, 6, 8})
    for (int group : {16, 32, 64, 128})
      for (Dtype dtype : {Dtype::F32, Dtype::F16, Dtype::BF16}) {
        SCOPED_TRACE(std::to_string(bits) + " bits, group " + std::to_string(group) + ", " +
                     dtype_name(dtype));
        Quantized w(19, 384, group, bits, dtype, static_cast<uint32_t>(bits * group));
        for (int64_t m : {1, 2, 3, 7, 20}) expect_product(w, m, true);
        Quantized turned(45, 256, group, bits, dtype, static_cast<uint32_t>(bits * group));
        for (int64_t m : {1, 3, 20}) expect_product(turned, m, false);
      }
}

TEST_P(QuantizedTest, RowsThatDoNotFillVectors) {
  for (int bits : {4, 8})
    for (int group : {32, 64, 128})
      for (int64_t groups : {1, 2, 3, 5, 15, 16, 17, 33})
        for (int64_t rows : {1, 2, 3, 4, 5, 6, 7}) {
          Quantized w(rows, groups * group, group, bits, Dtype::BF16, 3);
          for (int64_t m : {1, 2, 4, 5}) expect_product(w, m, true);
        }
}

TEST_P(QuantizedTest, LongRows) {
  Quantized w(37, 11008, 64, 4, Dtype::F16, 5);
  for (int64_t m : {1, 16, 17, 40}) expect_product(w, m, true);
  Quantized turned(2100, 64, 64, 4, Dtype::F16, 5);
  for (int64_t m : {1, 40}) expect_product(turned, m, false);
}

TEST_P(QuantizedTest, LargeAndTinyValuesOfX) {
  Quantized w(8, 256, 64, 4, Dtype::F32, 5);
  for (float factor : {1e-42f, 1e-32f, 1e-20f, 1e20f, 1e34f}) {
    std::vector<float> x = random_rows(256, 3);
    for (size_t i = 0; i < x.size(); ++i) x[i] *= i < 64 ? factor : i < 128 ? 0 : 1e-3f * factor;
    std::vector<float> out = product(w, x, true);
    for (int64_t row = 0; row < 8; ++row) {
      double sum = 0, magnitude = 0;
      for (int64_t e = 0; e < 256; ++e) {
        double value = x[static_cast<size_t>(e)];
        sum += value * w.at(row, e);
        magnitude += 2 * std::fabs(value);
      }
      EXPECT_NEAR(out[static_cast<size_t>(row)], sum, 4e-7 * magnitude + 1e-44);
    }
  }
}

TEST_P(QuantizedTest, SameBitsOnAnyNumberOfThreadsAndInAnyBatch) {
  ThreadPool& pool = ThreadPool::shared();
  int before = pool.threads();
  for (int bits : {3, 4, 8}) {
    Quantized w(301, 512, 64, bits, Dtype::BF16, 6);
    std::vector<float> x = random_rows(40 * 512, 9);
    auto rows = [&](int64_t m) { return std::vector<float>(x.begin(), x.begin() + m * 512); };
    pool.set_threads(1);
    std::vector<float> sixteen = product(w, rows(16), true), forty = product(w, rows(40), true);
    for (int threads : {2, 3}) {
      pool.set_threads(threads);
      EXPECT_EQ(product(w, rows(16), true), sixteen);
      EXPECT_EQ(product(w, rows(40), true), forty);
    }
    for (int64_t m : {1, 2, 3, 4, 7}) {
      std::vector<float> some = product(w, rows(m), true);
      EXPECT_TRUE(std::equal(some.begin(), some.end(), sixteen.begin())) << m << " rows";
    }
  }
  pool.set_threads(before);
}

TEST_P(QuantizedTest, TheLargestWorkspaceServesFewerRows) {
  for (int bits : {3, 4})
    for (Dtype dtype : {Dtype::F32, Dtype::BF16})
      for (bool int8 : {false, true}) {
        if (int8 && bits != 4) continue;
        const Quantized w(48, 1536, 64, bits, Dtype::BF16, 7);
        const auto of = [&](int64_t rows) {
          return QuantizedGemm<float>{.m = rows,
                                      .n = w.rows,
                                      .k = w.columns,
                                      .left = {.dtype = dtype, .vector_stride = w.columns},
                                      .matrix = w.view,
                                      .int8 = int8,
                                      .out = {.dtype = dtype, .row_stride = w.rows}};
        };
        for (int64_t rows : {20, 40, 1060, 2300})
          for (int64_t some : {1, 16, 17, 24, 25, 600, 1050, 1051, 2200}) {
            const int64_t fewer = std::min(some, rows);
            EXPECT_LE(of(fewer).workspace(), of(rows).largest_workspace())
                << fewer << " of " << rows << ", " << bits << " bits";
          }
      }
}

// x as the product takes it: a step times integers of eight bits, per group.
std::vector<float> rounded(const std::vector<float>& x, int group) {
  std::vector<float> out(x.size());
  for (size_t i = 0; i < x.size(); i += static_cast<size_t>(group)) {
    float most = 0;
    for (size_t j = i; j < i + static_cast<size_t>(group); ++j)
      most = std::max(most, std::fabs(x[j]));
    for (size_t j = i; j < i + static_cast<size_t>(group); ++j)
      out[j] = most == 0 ? 0 : std::nearbyint(x[j] * (127 / most)) * (most / 127);
  }
  return out;
}

class Int8Test : public TargetTest {
 protected:
  // Runs `body` with the processor's instruction for byte products, and without it.
  template <class F>
  void with_and_without_instruction(F&& body) {
    for (bool disabled : {false, true}) {
      disable_byte_products(disabled);
      body();
    }
    disable_byte_products(false);
  }
};

void expect_int8_product(const Quantized& w, int64_t m) {
  std::vector<float> x = random_rows(m * w.columns, 21), out = product(w, x, true, true);
  std::vector<float> taken = rounded(x, w.view.group_size);
  for (int64_t i = 0; i < m; ++i)
    for (int64_t j = 0; j < w.rows; ++j) {
      double sum = 0, magnitude = 0;
      for (int64_t e = 0; e < w.columns; ++e) {
        double value = taken[static_cast<size_t>(i * w.columns + e)];
        sum += w.at(j, e) * value;
        magnitude += 2 * std::fabs(value);
      }
      ASSERT_NEAR(out[static_cast<size_t>(i * w.rows + j)], sum, 4e-7 * magnitude)
          << "element " << i << ", " << j;
    }
}

TEST_P(Int8Test, EveryFormat) {
  with_and_without_instruction([] {
    for (int bits : {4, 8})
      for (int group : {32, 64, 128})
        for (Dtype dtype : {Dtype::F32, Dtype::F16, Dtype::BF16})
          for (int64_t groups : {1, 3, 17})
            for (int64_t rows : {1, 19, 33}) {
              SCOPED_TRACE(fmt::format("{} bits, group {}, {}, {} groups, {} rows", bits, group,
                                       dtype_name(dtype), groups, rows));
              Quantized w(rows, groups * group, group, bits, dtype, 5);
              for (int64_t m : {1, 2, 3, 5, 12, 13, 26}) expect_int8_product(w, m);
            }
  });
}

TEST_P(Int8Test, LongRowsAndManyRowsOfX) {
  Quantized w(35, 12288 + 64, 64, 4, Dtype::BF16, 5);
  for (int64_t m : {1, 5}) expect_int8_product(w, m);
  Quantized thin(7, 128, 32, 4, Dtype::F16, 5);
  expect_int8_product(thin, 515);
  // Rows at a distance of 4096 bytes are read from copies.
  for (int bits : {4, 8})
    for (int group : {32, 128})
      expect_int8_product(Quantized(17, 4096 * 8 / bits, group, bits, Dtype::BF16, 5), 5);
}

TEST_P(Int8Test, LargestSums) {
  with_and_without_instruction([] {
    for (int bits : {4, 8})
      for (int group : {32, 64, 128})
        for (float sign : {1.0f, -1.0f}) {
          SCOPED_TRACE(fmt::format("{} bits, group {}, sign {}", bits, group, sign));
          Quantized w(16, 5 * group, group, bits, Dtype::BF16, 5);
          std::fill(w.words.begin(), w.words.end(), ~uint32_t{0});
          for (int64_t m : {1, 2, 3, 5}) {
            const std::vector<float> x(static_cast<size_t>(m * w.columns), sign);
            const std::vector<float> out = product(w, x, true, true);
            for (int64_t j = 0; j < w.rows; ++j) {
              double sum = 0;
              for (int64_t e = 0; e < w.columns; ++e) sum += sign * w.at(j, e);
              for (int64_t i = 0; i < m; ++i)
                ASSERT_NEAR(out[static_cast<size_t>(i * w.rows + j)], sum, 1e-5 * std::fabs(sum));
            }
          }
        }
  });
}

TEST_P(Int8Test, SameBitsOnAnyNumberOfThreadsAndInAnyBatch) {
  ThreadPool& pool = ThreadPool::shared();
  int before = pool.threads();
  for (int bits : {4, 8}) {
    Quantized w(301, 8192 + 512, 64, bits, Dtype::BF16, 6);
    std::vector<float> x = random_rows(40 * w.columns, 9);
    pool.set_threads(1);
    std::vector<float> all = product(w, x, true, true);
    for (int threads : {1, 3}) {
      pool.set_threads(threads);
      for (int64_t m : {1, 2, 3, 7, 40}) {
        std::vector<float> rows(x.begin(), x.begin() + m * w.columns);
        std::vector<float> some = product(w, rows, true, true);
        EXPECT_TRUE(std::equal(some.begin(), some.end(), all.begin())) << m << " rows";
      }
    }
  }
  pool.set_threads(before);
}

// Whatever group it is, among groups of zeros.
TEST_P(Int8Test, RowsThatCannotBeRoundedAreMultipliedExactly) {
  for (int group : {32, 64, 128}) {
    const int64_t columns = 18 * group;
    Quantized w(20, columns, group, 4, Dtype::F32, 5);
    for (int64_t m : {2, 5})
      for (int64_t place : {int64_t{54}, columns - 1})
        for (float odd : {INFINITY, -INFINITY, NAN, -NAN, 1e-33f}) {
          std::vector<float> x = random_rows(m * columns, 3), rounded = product(w, x, true, true);
          std::fill(x.begin() + columns, x.begin() + 2 * columns, 0.0f);
          x[static_cast<size_t>(columns + place)] = odd;
          std::vector<float> out = product(w, x, true, true), exact = product(w, x, true);
          for (size_t i = 0; i < exact.size(); ++i) {
            float expected = i / 20 == 1 ? exact[i] : rounded[i];
            ASSERT_TRUE(out[i] == expected || (std::isnan(out[i]) && std::isnan(expected)))
                << "group " << group << ", " << m << " rows, " << odd << " at " << place;
          }
        }
  }
}

TEST_P(Int8Test, GroupsOfZerosCountNothing) {
  for (int bits : {4, 8})
    for (int group : {32, 64, 128}) {
      Quantized w(20, 18 * group, group, bits, Dtype::BF16, 5);
      std::vector<float> x(static_cast<size_t>(w.columns), -0.0f);
      EXPECT_EQ(product(w, x, true, true), std::vector<float>(20)) << bits << " bits, " << group;
      std::fill(x.end() - group, x.end(), 2.0f);
      const std::vector<float> out = product(w, x, true, true);
      for (int64_t j = 0; j < w.rows; ++j) {
        double sum = 0;
        for (int64_t e = w.columns - group; e < w.columns; ++e) sum += 2 * w.at(j, e);
        EXPECT_NEAR(out[static_cast<size_t>(j)], sum, 1e-4) << bits << " bits, " << group;
      }
    }
}

INSTANTIATE_TEST_SUITE_P(Targets, Int8Test, all_targets(), target_name);

INSTANTIATE_TEST_SUITE_P(Paths, QuantizedTest, ::testing::Values(true, false),
                         [](const auto& info) { return info.param ? "integers" : "floats"; });

}  // namespace
}  // namespace mica::cpu
