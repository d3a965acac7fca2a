// Exact products of bfloat16 rows with quantized matrices, against sums in float64. Where the
// processor has no fast pairs, other kernels pass the same tests.
#include "backends/cpu/quantized_pairs.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "base/thread_pool.h"
#include "tests/backends/quantized_matrices.h"

namespace mica::cpu {
namespace {

std::vector<bfloat16_t> random_halves(int64_t count, uint32_t seed) {
  std::vector<float> values = random_rows(count, seed);
  return {values.begin(), values.end()};
}

template <class Out>
std::vector<Out> product(const Quantized& w, const std::vector<bfloat16_t>& x,
                         const std::vector<int64_t>& chosen = {}) {
  const int64_t k = w.columns, n = w.rows;
  const auto m =
      static_cast<int64_t>(chosen.empty() ? x.size() / static_cast<size_t>(k) : chosen.size());
  std::vector<Out> out(static_cast<size_t>(m * n), Out(NAN));
  QuantizedGemm<float> gemm{.m = m,
                            .n = n,
                            .k = k,
                            .left = {.data = reinterpret_cast<const std::byte*>(x.data()),
                                     .dtype = Dtype::BF16,
                                     .vector_stride = k,
                                     .chosen = chosen.empty() ? nullptr : chosen.data()},
                            .matrix = w.view,
                            .out = {.data = reinterpret_cast<std::byte*>(out.data()),
                                    .dtype = dtype_of<Out>,
                                    .row_stride = n}};
  std::vector<std::byte> memory(gemm.workspace() + 64);
  auto address = reinterpret_cast<uintptr_t>(memory.data());
  gemm.run({memory.data() + (64 - address % 64) % 64, gemm.workspace()});
  return out;
}

// Some units of float32 in sums of scale * (q + 2^bits) * x, whose terms are up to three times |x|
// in these matrices.
void expect_product(const Quantized& w, const std::vector<bfloat16_t>& x) {
  const std::vector<float> out = product<float>(w, x);
  const int64_t m = static_cast<int64_t>(x.size()) / w.columns;
  for (int64_t i = 0; i < m; ++i)
    for (int64_t j = 0; j < w.rows; ++j) {
      double sum = 0, magnitude = 0;
      for (int64_t e = 0; e < w.columns; ++e) {
        double value = static_cast<float>(x[static_cast<size_t>(i * w.columns + e)]);
        sum += w.at(j, e) * value;
        magnitude += 2 * std::fabs(value);
      }
      ASSERT_NEAR(out[static_cast<size_t>(i * w.rows + j)], sum, 4e-7 * magnitude)
          << "element " << i << ", " << j;
    }
}

TEST(QuantizedPairs, EveryFormat) {
  for (int bits : {2, 3, 4, 5, 6, 8})
    for (int group : {32, 64, 128})
      for (Dtype dtype : {Dtype::F32, Dtype::F16, Dtype::BF16})
        for (int64_t groups : {1, 3, 17}) {
          SCOPED_TRACE(fmt::format("{} bits, group {}, {}, {} groups", bits, group,
                                   dtype_name(dtype), groups));
          Quantized w(35, groups * group, group, bits, dtype, static_cast<uint32_t>(bits + group));
          for (int64_t m : {1, 2, 3, 4, 5, 24, 31})
            expect_product(w, random_halves(m * w.columns, 8));
        }
}

TEST(QuantizedPairs, RowsThatDoNotFillTiles) {
  for (int64_t rows : {1, 2, 4, 5, 15, 16, 31, 33})
    for (int64_t m : {1, 6, 25, 29}) {
      Quantized w(rows, 192, 64, 4, Dtype::BF16, 3);
      expect_product(w, random_halves(m * w.columns, 4));
    }
}

TEST(QuantizedPairs, LongRowsAndManyRowsOfX) {
  Quantized w(37, 11008, 64, 4, Dtype::F16, 5);
  for (int64_t m : {1, 40}) expect_product(w, random_halves(m * w.columns, 6));
  Quantized thin(40, 128, 32, 8, Dtype::BF16, 5);
  expect_product(thin, random_halves(1100 * thin.columns, 7));
}

TEST(QuantizedPairs, SumsAreRoundedOnce) {
  Quantized w(45, 2304, 64, 4, Dtype::BF16, 5);
  for (int64_t m : {3, 30}) {
    const std::vector<bfloat16_t> x = random_halves(m * w.columns, 6);
    const std::vector<float> sums = product<float>(w, x);
    const std::vector<bfloat16_t> rounded = product<bfloat16_t>(w, x);
    for (size_t i = 0; i < sums.size(); ++i)
      ASSERT_EQ(static_cast<float>(rounded[i]), static_cast<float>(bfloat16_t(sums[i])));
  }
}

TEST(QuantizedPairs, ChosenRows) {
  Quantized w(33, 256, 64, 4, Dtype::BF16, 5);
  const std::vector<bfloat16_t> x = random_halves(20 * w.columns, 6);
  for (size_t count : {1, 5, 26}) {
    std::vector<int64_t> chosen;
    std::vector<bfloat16_t> gathered;
    for (size_t i = 0; i < count; ++i) {
      chosen.push_back(static_cast<int64_t>(i * 7 % 20));
      const auto row = x.begin() + chosen.back() * w.columns;
      gathered.insert(gathered.end(), row, row + w.columns);
    }
    EXPECT_EQ(product<float>(w, x, chosen), product<float>(w, gathered));
  }
}

TEST(QuantizedPairs, ValuesOutOfRange) {
  Quantized w(20, 256, 64, 4, Dtype::F32, 5);
  for (int64_t m : {2, 26})
    for (float odd : {INFINITY, -INFINITY, NAN, 1e-36f, 3e38f}) {
      std::vector<bfloat16_t> x = random_halves(m * w.columns, 3);
      const std::vector<float> before = product<float>(w, x);
      std::fill(x.begin() + 256, x.begin() + 512, bfloat16_t(0.0f));
      x[310] = bfloat16_t(odd);
      const std::vector<float> out = product<float>(w, x);
      for (size_t i = 0; i < out.size(); ++i) {
        if (i / 20 != 1) {
          EXPECT_EQ(out[i], before[i]);
          continue;
        }
        const auto row = static_cast<int64_t>(i % 20);
        const float exact = static_cast<float>(x[310]) * static_cast<float>(w.at(row, 54));
        EXPECT_TRUE(std::isfinite(exact)
                        ? std::fabs(out[i] - exact) <= 1e-6f * std::fabs(static_cast<float>(x[310]))
                    : std::isnan(exact) ? std::isnan(out[i])
                                        : out[i] == exact)
            << out[i] << ", not " << exact;
      }
    }
}

TEST(QuantizedPairs, SameBitsOnAnyNumberOfThreads) {
  ThreadPool& pool = ThreadPool::shared();
  const int before = pool.threads();
  Quantized w(301, 2048, 64, 4, Dtype::BF16, 6);
  for (int64_t m : {1, 6, 40}) {
    const std::vector<bfloat16_t> x = random_halves(m * w.columns, 9);
    pool.set_threads(1);
    const std::vector<float> one = product<float>(w, x);
    for (int threads : {2, 3}) {
      pool.set_threads(threads);
      EXPECT_EQ(product<float>(w, x), one);
    }
  }
  pool.set_threads(before);
}

}  // namespace
}  // namespace mica::cpu
