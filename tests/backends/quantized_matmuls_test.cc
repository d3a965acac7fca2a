// Products of one x with several matrices are, bit for bit, those with each of them.
#include "ops/quantized_matmuls.h"

#include <gtest/gtest.h>

#include <cstring>
#include <limits>

#include "base/thread_pool.h"
#include "core/counters.h"
#include "ops/create.h"
#include "ops/elementwise.h"
#include "ops/random.h"
#include "tests/base/expect_error.h"

namespace mica {
namespace {

struct Matrices {
  Arrays packed, scales, biases;

  void add(int64_t rows, int64_t columns, int group, int bits, Dtype dtype = Dtype::BF16) {
    const auto number = [&](uint32_t value) { return full({}, value, Dtype::U32); };
    packed.push_back(
        random::randint(number(0), number(0xfffffffeu), {rows, columns * bits / 32}, Dtype::U32)
            .eval());
    const Shape groups{rows, columns / group};
    scales.push_back(astype(random::normal(groups) * 0.01f, dtype).eval());
    biases.push_back(astype(random::normal(groups) * 0.1f, dtype).eval());
  }
};

Matrices matrices(std::initializer_list<int64_t> rows, int64_t columns, int group, int bits) {
  Matrices all;
  for (int64_t n : rows) all.add(n, columns, group, bits);
  return all;
}

void expect_same(const Array& x, const Matrices& m, int group, int bits, int activation_bits) {
  const Arrays found =
      quantized_matmuls(x, m.packed, m.scales, m.biases, group, bits, {}, activation_bits);
  ASSERT_EQ(found.size(), m.packed.size());
  for (size_t i = 0; i < found.size(); ++i) {
    const Array expected = quantized_matmul(x, m.packed[i], m.scales[i], m.biases[i], true, group,
                                            bits, "affine", {}, activation_bits);
    ASSERT_EQ(found[i].shape(), expected.shape());
    ASSERT_EQ(found[i].dtype(), expected.dtype());
    EXPECT_EQ(std::memcmp(found[i].host_bytes().get(), expected.host_bytes().get(),
                          static_cast<size_t>(expected.nbytes())),
              0)
        << "matrix " << i << " of x " << fmt::format("{}", x.shape());
  }
}

class Together : public ::testing::TestWithParam<int> {
 protected:
  void SetUp() override { ThreadPool::shared().set_threads(GetParam()); }
  void TearDown() override { ThreadPool::shared().set_threads(0); }
};

TEST_P(Together, GivesTheProductsOfEach) {
  for (const auto& [group, bits] : {std::pair(64, 4), {32, 4}, {64, 8}, {128, 8}}) {
    const Matrices m = matrices({300, 17, 64}, 512, group, bits);
    for (int64_t rows : {1, 2, 3, 13, 40})
      expect_same(astype(random::normal({1, rows, 512}), Dtype::BF16).eval(), m, group, bits, 8);
  }
}

TEST_P(Together, RowsThatCannotBeRoundedAreExact) {
  const Matrices m = matrices({40, 24}, 128, 64, 4);
  for (float odd : {std::numeric_limits<float>::infinity(), 1e-35f}) {
    std::vector<float> values(5 * 128, 0.25f);
    for (size_t i = 128; i < 192; ++i) values[i] = 0;
    values[130] = odd;
    expect_same(Array::from<float>(values, {5, 128}), m, 64, 4, 8);
    const std::vector<float> second(values.begin() + 128, values.begin() + 256);
    expect_same(Array::from<float>(second, {1, 128}), m, 64, 4, 8);
  }
}

INSTANTIATE_TEST_SUITE_P(Threads, Together, ::testing::Values(1, 2, 5));

TEST(QuantizedMatmuls, IsOneKernelWhereXIsRounded) {
  const Matrices m = matrices({32, 16}, 128, 64, 4);
  const Array x = random::normal({2, 128}).eval();
  const auto kernels_of = [&](int activation_bits) {
    const int64_t before = counters().kernels;
    eval(quantized_matmuls(x, m.packed, m.scales, m.biases, 64, 4, {}, activation_bits));
    return counters().kernels - before;
  };
  EXPECT_EQ(kernels_of(8), 1);
  EXPECT_EQ(kernels_of(0), 2);
}

TEST(QuantizedMatmuls, WhatDoesNotFitTogetherRunsApart) {
  const Array x = random::normal({3, 64}).eval();
  expect_same(x, matrices({8, 24}, 64, 64, 4), 64, 4, 0);
  expect_same(x, matrices({8, 24}, 64, 16, 4), 16, 4, 8);
  expect_same(x, matrices({8, 24}, 64, 64, 3), 64, 3, 8);
  expect_same(random::normal({64}).eval(), matrices({8, 24}, 64, 64, 4), 64, 4, 8);
  expect_same(x, matrices({5}, 64, 64, 4), 64, 4, 8);
  Matrices mixed = matrices({8}, 64, 64, 4);
  mixed.add(8, 64, 64, 4, Dtype::F16);
  expect_same(astype(x, Dtype::BF16).eval(), mixed, 64, 4, 8);
}

TEST(QuantizedMatmuls, ErrorsSayWhatDoesNotFit) {
  const Matrices m = matrices({8, 8}, 64, 64, 4);
  const Array x = random::normal({3, 64});
  expect_error(ErrorKind::Value, "2 matrices, 1 scales",
               [&] { quantized_matmuls(x, m.packed, {m.scales[0]}, m.biases); });
  expect_error(ErrorKind::Value, "inner dimensions differ", [&] {
    quantized_matmuls(random::normal({3, 32}), m.packed, m.scales, m.biases, 64, 4, {}, 8);
  });
  expect_error(ErrorKind::Value, "activation_bits",
               [&] { quantized_matmuls(x, m.packed, m.scales, m.biases, 64, 4, {}, 5); });
}

}  // namespace
}  // namespace mica
