// The matrix product of the CPU, called directly: every path, layout and instruction set against
// sums in float64.
#include "backends/cpu/gemm.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "base/thread_pool.h"
#include "tests/backends/targets.h"

namespace mica::cpu {
namespace {

enum class Lie { Rows, Columns, Strided, RowsReversed };

// A matrix whose elements lie in one of several ways, with its values as double.
struct Matrix {
  Matrix(int64_t rows, int64_t columns, Dtype dtype, Lie lie, uint32_t seed)
      : rows(rows), columns(columns), dtype(dtype) {
    int64_t gap = lie == Lie::Strided ? 3 : 1;
    row_stride = lie == Lie::Columns ? 1 : columns * gap + (gap - 1);
    column_stride = lie == Lie::Columns ? std::max<int64_t>(rows, 1) : gap;
    int64_t count = rows * row_stride + columns * column_stride + 1;
    bytes.resize(static_cast<size_t>(count * size_of(dtype)));
    first = bytes.data();
    if (lie == Lie::RowsReversed && rows > 0) {
      first += (rows - 1) * row_stride * size_of(dtype);
      row_stride = -row_stride;
    }
    std::mt19937 random(seed);
    std::uniform_real_distribution<double> uniform(-1, 1);
    values.resize(static_cast<size_t>(rows * columns));
    for (int64_t i = 0; i < rows; ++i)
      for (int64_t j = 0; j < columns; ++j)
        dispatch_floating(dtype, "test", [&](auto tag) {
          using T = typename decltype(tag)::type;
          T value(static_cast<float>(uniform(random)));
          reinterpret_cast<T*>(first)[i * row_stride + j * column_stride] = value;
          values[static_cast<size_t>(i * columns + j)] = static_cast<double>(value);
        });
  }
  // The first rows and columns; those of bfloat16 that are left out are NaN.
  void cut(int64_t rows_kept, int64_t columns_kept) {
    std::vector<double> kept;
    for (int64_t i = 0; i < rows; ++i)
      for (int64_t j = 0; j < columns; ++j)
        if (i < rows_kept && j < columns_kept)
          kept.push_back(at(i, j));
        else
          reinterpret_cast<bfloat16_t*>(first)[i * row_stride + j * column_stride] =
              bfloat16_t(NAN);
    rows = rows_kept, columns = columns_kept, values = kept;
  }
  double at(int64_t i, int64_t j) const { return values[static_cast<size_t>(i * columns + j)]; }

  int64_t rows, columns;
  Dtype dtype;
  int64_t row_stride, column_stride;
  std::vector<std::byte> bytes;
  std::byte* first;
  std::vector<double> values;
};

struct Aligned {
  explicit Aligned(size_t size) : memory(size + 64) {
    auto address = reinterpret_cast<uintptr_t>(memory.data());
    span = {memory.data() + (64 - address % 64) % 64, size};
  }
  std::vector<std::byte> memory;
  std::span<std::byte> span;
};

template <class T>
std::vector<std::byte> product(const Matrix& a, const Matrix& b, Dtype out) {
  std::vector<std::byte> result(static_cast<size_t>(a.rows * b.columns * size_of(out)));
  Gemm<T> gemm{.m = a.rows,
               .n = b.columns,
               .k = a.columns,
               .left = {a.first, a.dtype, a.row_stride, a.column_stride},
               .right = {b.first, b.dtype, b.column_stride, b.row_stride},
               .out = {result.data(), out, b.columns}};
  Aligned workspace(gemm.workspace());
  gemm.run(workspace.span);
  return result;
}

double element(const std::vector<std::byte>& bytes, Dtype dtype, int64_t i) {
  return dispatch_floating(dtype, "test", [&](auto tag) {
    return static_cast<double>(
        reinterpret_cast<const typename decltype(tag)::type*>(bytes.data())[i]);
  });
}

template <class T>
void expect_product(const Matrix& a, const Matrix& b, Dtype out) {
  auto result = product<T>(a, b, out);
  double unit = out == Dtype::F64   ? 1e-15
                : out == Dtype::F32 ? 3e-7
                : out == Dtype::F16 ? 1e-3
                                    : 8e-3;
  for (int64_t i = 0; i < a.rows; ++i)
    for (int64_t j = 0; j < b.columns; ++j) {
      double sum = 0, magnitude = 0;
      for (int64_t k = 0; k < a.columns; ++k) {
        sum += a.at(i, k) * b.at(k, j);
        magnitude += std::fabs(a.at(i, k) * b.at(k, j));
      }
      double wide = out == Dtype::F64 ? 1e-15 : 3e-7;
      ASSERT_NEAR(element(result, out, i * b.columns + j), sum,
                  unit * std::fabs(sum) + wide * magnitude)
          << "element " << i << ", " << j;
    }
}

class GemmTest : public TargetTest {};

TEST_P(GemmTest, SizesAroundTheBlocks) {
  const int64_t sizes[] = {1, 2, 5, 13, 14, 15, 16, 17, 31, 32, 33, 47, 65};
  uint32_t seed = 1;
  for (int64_t m : sizes)
    for (int64_t n : sizes)
      for (int64_t k : {1, 7, 16, 37}) {
        SCOPED_TRACE(std::to_string(m) + " x " + std::to_string(n) + " x " + std::to_string(k));
        Lie left = seed % 2 ? Lie::Rows : Lie::Columns, right = seed % 3 ? Lie::Columns : Lie::Rows;
        expect_product<float>(Matrix(m, k, Dtype::F32, left, seed),
                              Matrix(k, n, Dtype::F32, right, seed + 1), Dtype::F32);
        ++seed;
      }
}

TEST_P(GemmTest, EveryLayoutAndType) {
  const Dtype types[] = {Dtype::F32, Dtype::BF16, Dtype::F16};
  const Lie lies[] = {Lie::Rows, Lie::Columns, Lie::Strided, Lie::RowsReversed};
  uint32_t seed = 7;
  for (int64_t m : {1, 3, 20, 40})
    for (Lie left : lies)
      for (Lie right : lies)
        for (int round = 0; round < 3; ++round) {
          ++seed;
          Dtype a = types[seed % 3], b = types[seed / 3 % 3], out = types[seed / 9 % 3];
          SCOPED_TRACE(std::to_string(m) + " rows, seed " + std::to_string(seed));
          expect_product<float>(Matrix(m, 70, a, left, seed), Matrix(70, 45, b, right, seed + 1),
                                out);
          expect_product<double>(Matrix(m, 70, Dtype::F64, left, seed),
                                 Matrix(70, 45, Dtype::F64, right, seed + 1), Dtype::F64);
        }
}

TEST_P(GemmTest, SeveralBlocksOfDepth) {
  for (int64_t m : {1, 8, 40, 200})
    for (Lie right : {Lie::Rows, Lie::Columns}) {
      expect_product<float>(Matrix(m, 2500, Dtype::BF16, Lie::Rows, 3),
                            Matrix(2500, 50, Dtype::BF16, right, 4), Dtype::BF16);
      expect_product<float>(Matrix(m, 2500, Dtype::F32, Lie::Columns, 3),
                            Matrix(2500, 50, Dtype::F32, right, 4), Dtype::F32);
    }
}

// Where pairs of bfloat16 numbers are added, the last number of an odd sum has no partner, not even
// the one that follows it in memory.
TEST_P(GemmTest, OddSumsOfBfloat16) {
  for (int64_t m : {40, 200})
    for (int64_t k : {1, 3, 255, 2051, 2305})
      for (Lie left : {Lie::Rows, Lie::Columns})
        for (Lie right : {Lie::Rows, Lie::Columns}) {
          Matrix a(m, k + 1, Dtype::BF16, left, 3), b(k + 1, 50, Dtype::BF16, right, 4);
          a.cut(m, k);
          b.cut(k, 50);
          SCOPED_TRACE(std::to_string(m) + " rows of " + std::to_string(k));
          expect_product<float>(a, b, Dtype::BF16);
        }
}

// Small operands are multiplied where they lie, in several blocks of depth; those of which rows are
// 4096 bytes apart, or an odd number of bfloat16 numbers, are not.
TEST_P(GemmTest, OperandsAsTheyLie) {
  for (int64_t m : {33, 50})
    for (int64_t n : {20, 64, 70})
      for (Lie left : {Lie::Rows, Lie::RowsReversed, Lie::Columns})
        expect_product<float>(Matrix(m, 1100, Dtype::F32, left, 1),
                              Matrix(1100, n, Dtype::F32, Lie::Rows, 2), Dtype::F32);
  uint32_t seed = 1;
  for (int64_t stride : {300, 301, 1024, 2048})
    for (Dtype dtype : {Dtype::F32, Dtype::BF16}) {
      Matrix a(40, stride, dtype, Lie::Rows, ++seed);
      std::vector<double> values;
      for (int64_t i = 0; i < a.rows; ++i)
        for (int64_t k = 1; k < 257; ++k) values.push_back(a.at(i, k));
      a.first += size_of(dtype);
      a.columns = 256;
      a.values = values;
      expect_product<float>(a, Matrix(256, 70, dtype, Lie::Rows, seed), Dtype::F32);
    }
}

// Operands that follow are fetched, not read: nothing needs to be where they end.
TEST_P(GemmTest, OperandsThatFollow) {
  for (Dtype dtype : {Dtype::F32, Dtype::BF16})
    for (Lie lie : {Lie::Rows, Lie::Columns, Lie::Strided}) {
      Matrix a(70, 90, dtype, lie, 1), b(90, 66, dtype, lie, 2);
      auto alone = product<float>(a, b, Dtype::F32);
      std::vector<float> out(70 * 66);
      Gemm<float> gemm{.m = 70,
                       .n = 66,
                       .k = 90,
                       .left = {a.first, dtype, a.row_stride, a.column_stride},
                       .right = {b.first, dtype, b.column_stride, b.row_stride},
                       .out = {reinterpret_cast<std::byte*>(out.data()), Dtype::F32, 66},
                       .next_left = reinterpret_cast<const std::byte*>(64),
                       .next_right = b.bytes.data() + b.bytes.size()};
      Aligned workspace(gemm.workspace());
      gemm.run(workspace.span);
      EXPECT_EQ(std::memcmp(out.data(), alone.data(), alone.size()), 0);
    }
}

// Wherever a tile stops fetching, the next one goes on.
TEST(GemmAhead, SkipsPlaces) {
  const std::byte memory[100] = {};
  const GemmAhead start{memory, 10, 3, 5 - 30, 2, 4};  // four tens, then 15, 25 and 35
  const std::vector<int64_t> expected = {0, 10, 20, 30, 15, 25, 35, 45, 45, 45};
  for (size_t first = 0; first < expected.size(); ++first) {
    GemmAhead ahead = start;
    ahead.skip(static_cast<int64_t>(first));
    for (size_t i = first; i < expected.size(); ++i, ahead.skip(1))
      EXPECT_EQ(ahead.at - memory, expected[i]) << first << ", " << i;
  }
}

TEST_P(GemmTest, SeveralBlocksOfRowsAndColumns) {
  expect_product<float>(Matrix(1100, 20, Dtype::F32, Lie::Rows, 5),
                        Matrix(20, 33, Dtype::F32, Lie::Columns, 6), Dtype::F32);
  expect_product<float>(Matrix(20, 9, Dtype::F16, Lie::Columns, 5),
                        Matrix(9, 17000, Dtype::F32, Lie::Rows, 6), Dtype::F16);
  expect_product<float>(Matrix(300, 1100, Dtype::F32, Lie::Rows, 5),
                        Matrix(1100, 90, Dtype::F32, Lie::Rows, 6), Dtype::F16);
}

// Large matrices that are read as they lie are fetched ahead, beyond their end, too.
TEST_P(GemmTest, OneRowOfALargeMatrix) {
  const int64_t k = 2611, n = 4100;
  std::vector<float> a(k), b(k * n), out(n);
  std::vector<double> sums(n);
  for (int64_t i = 0; i < k; ++i) {
    a[i] = static_cast<float>(i % 7) - 3;
    for (int64_t j = 0; j < n; ++j) {
      b[i * n + j] = static_cast<float>((i * 31 + j * 17) % 13) - 6;
      sums[j] += a[i] * b[i * n + j];
    }
  }
  Gemm<float> gemm{.m = 1,
                   .n = n,
                   .k = k,
                   .left = {reinterpret_cast<std::byte*>(a.data()), Dtype::F32, k, 1},
                   .right = {reinterpret_cast<std::byte*>(b.data()), Dtype::F32, 1, n},
                   .out = {reinterpret_cast<std::byte*>(out.data()), Dtype::F32, n}};
  Aligned workspace(gemm.workspace());
  gemm.run(workspace.span);
  for (int64_t j = 0; j < n; ++j) ASSERT_EQ(out[j], sums[j]) << j;
}

TEST_P(GemmTest, FewColumnsOfManyRows) {
  for (int64_t n : {1, 4, 7})
    for (Lie left : {Lie::Rows, Lie::Columns})
      expect_product<float>(Matrix(301, 515, Dtype::BF16, left, 8),
                            Matrix(515, n, Dtype::F32, Lie::Rows, 9), Dtype::F32);
}

TEST_P(GemmTest, TheLargestWorkspaceServesFewerRows) {
  for (Dtype dtype : {Dtype::F32, Dtype::BF16})
    for (bool in_rows : {false, true}) {
      const auto of = [&](int64_t rows) {
        return Gemm<float>{.m = rows,
                           .n = 96,
                           .k = 1536,
                           .left = {.dtype = dtype, .vector_stride = 1536},
                           .right = {.dtype = dtype,
                                     .vector_stride = in_rows ? 1 : 1536,
                                     .inner_stride = in_rows ? 96 : 1},
                           .out = {.dtype = dtype, .row_stride = 96}};
      };
      for (int64_t rows : {20, 40, 1060, 2300})
        for (int64_t some : {1, 16, 17, 32, 33, 600, 1050, 1051, 2200}) {
          const int64_t fewer = std::min(some, rows);
          EXPECT_LE(of(fewer).workspace(), of(rows).largest_workspace()) << fewer << " of " << rows;
        }
    }
}

TEST_P(GemmTest, NothingToDo) {
  expect_product<float>(Matrix(3, 0, Dtype::F32, Lie::Rows, 1),
                        Matrix(0, 4, Dtype::F32, Lie::Rows, 2), Dtype::F32);
  expect_product<float>(Matrix(0, 3, Dtype::F32, Lie::Rows, 1),
                        Matrix(3, 4, Dtype::F32, Lie::Rows, 2), Dtype::F32);
  expect_product<double>(Matrix(2, 3, Dtype::F64, Lie::Rows, 1),
                         Matrix(3, 0, Dtype::F64, Lie::Rows, 2), Dtype::F64);
}

TEST_P(GemmTest, ChosenVectorsAndRows) {
  for (int64_t m : {2, 40}) {
    Matrix a(m + 5, 600, Dtype::F32, Lie::Rows, 1), b(600, 30, Dtype::F32, Lie::Columns, 2);
    std::vector<int64_t> from, to;
    for (int64_t i = 0; i < m; ++i) {
      from.push_back((i * 3) % (m + 5));
      to.push_back(m - 1 - i);
    }
    std::vector<float> out(static_cast<size_t>(m * 30));
    Gemm<float> gemm{.m = m,
                     .n = 30,
                     .k = 600,
                     .left = {a.first, a.dtype, a.row_stride, 1, from.data()},
                     .right = {b.first, b.dtype, b.column_stride, 1},
                     .out = {reinterpret_cast<std::byte*>(out.data()), Dtype::F32, 30, to.data()}};
    Aligned workspace(gemm.workspace());
    gemm.run(workspace.span);
    for (int64_t i = 0; i < m; ++i)
      for (int64_t j = 0; j < 30; ++j) {
        double sum = 0;
        for (int64_t k = 0; k < 600; ++k) sum += a.at(from[static_cast<size_t>(i)], k) * b.at(k, j);
        ASSERT_NEAR(out[static_cast<size_t>(to[static_cast<size_t>(i)] * 30 + j)], sum, 1e-4);
      }
  }
}

TEST_P(GemmTest, SameBitsOnAnyNumberOfThreads) {
  ThreadPool& pool = ThreadPool::shared();
  int before = pool.threads();
  for (int64_t m : {1, 12, 30, 90, 400})
    for (Lie right : {Lie::Rows, Lie::Columns}) {
      Matrix a(m, 1300, Dtype::F32, Lie::Rows, 11), b(1300, 300, Dtype::BF16, right, 12);
      pool.set_threads(1);
      auto one = product<float>(a, b, Dtype::F32);
      for (int threads : {2, 3, 5}) {
        pool.set_threads(threads);
        EXPECT_EQ(product<float>(a, b, Dtype::F32), one) << m << " rows, " << threads << " threads";
      }
    }
  pool.set_threads(before);
}

// What the headers promise: a row does not depend on how many others there are.
TEST_P(GemmTest, SameBitsInAnyBatch) {
  for (auto [from, to] : {std::pair<int64_t, int64_t>{1, 16}, {17, 500}})
    for (Lie right : {Lie::Rows, Lie::Columns}) {
      Matrix b(1300, 96, Dtype::BF16, right, 12);
      Matrix many(to, 1300, Dtype::F32, Lie::Rows, 11);
      auto all = product<float>(many, b, Dtype::F32);
      for (int64_t m : {from, (from + to) / 2}) {
        Matrix few = many;
        few.first = few.bytes.data();
        few.rows = m;
        auto some = product<float>(few, b, Dtype::F32);
        EXPECT_TRUE(std::equal(some.begin(), some.end(), all.begin())) << m << " of " << to;
      }
    }
}

TEST_P(GemmTest, FewRowsOfBfloat16) {
  for (int64_t k : {512, 515, 1300}) {
    Matrix b(k, 39, Dtype::BF16, Lie::Columns, 12), many(16, k, Dtype::BF16, Lie::Rows, 11);
    auto all = product<float>(many, b, Dtype::F32);
    for (int64_t m : {1, 2, 3, 7, 16}) {
      Matrix few = many;
      few.first = few.bytes.data();
      few.rows = m;
      expect_product<float>(few, b, Dtype::F32);
      auto some = product<float>(few, b, Dtype::F32);
      EXPECT_TRUE(std::equal(some.begin(), some.end(), all.begin())) << m << " rows of " << k;
    }
  }
}

// One vector is multiplied with more rows at once than several are.
TEST_P(GemmTest, OneRowOfManyRows) {
  for (Dtype dtype : {Dtype::F32, Dtype::BF16, Dtype::F16})
    for (int64_t n : {1, 7, 8, 9, 16, 43}) {
      Matrix b(300, n, dtype, Lie::Columns, 12), two(2, 300, dtype, Lie::Rows, 11), one = two;
      one.first = one.bytes.data();
      one.rows = 1;
      SCOPED_TRACE(std::to_string(n) + " rows");
      expect_product<float>(one, b, Dtype::F32);
      auto alone = product<float>(one, b, Dtype::F32), both = product<float>(two, b, Dtype::F32);
      EXPECT_TRUE(std::equal(alone.begin(), alone.end(), both.begin()));
    }
}

INSTANTIATE_TEST_SUITE_P(Targets, GemmTest, all_targets(), target_name);

}  // namespace
}  // namespace mica::cpu
