// Experts' products, side by side or one after the other, are those of each row with its matrix.
#include "ops/experts.h"

#include <gtest/gtest.h>

#include <numeric>

#include "base/thread_pool.h"
#include "core/buffer.h"
#include "ops/create.h"
#include "ops/elementwise.h"
#include "ops/index.h"
#include "ops/join.h"
#include "ops/matmul.h"
#include "ops/quantized.h"
#include "ops/random.h"
#include "ops/shape.h"

namespace mica {
namespace {

constexpr int64_t kExperts = 12, kRows = 96, kColumns = 128;

struct Case {
  Array x, ids;
  Arrays packed, scales, biases;

  explicit Case(int64_t tokens, int64_t choices) {
    x = astype(random::normal({tokens, choices, kColumns}), Dtype::BF16).eval();
    std::vector<int32_t> chosen;
    for (int64_t i = 0; i < tokens * choices; ++i)
      chosen.push_back(static_cast<int32_t>((i * 5 + i / 7) % kExperts));
    ids = Array::from<int32_t>(chosen, {tokens, choices});
    for (int64_t e = 0; e < kExperts; ++e) {
      packed.push_back(random::randint(full({}, 0, Dtype::U32), full({}, 0xfffffffeu, Dtype::U32),
                                       {kRows, kColumns / 8}, Dtype::U32)
                           .eval());
      scales.push_back((random::normal({kRows, kColumns / 64}) * 0.01f).eval());
      biases.push_back((random::normal({kRows, kColumns / 64}) * 0.1f).eval());
    }
  }

  std::vector<float> run(int activation_bits) const {
    return astype(
               expert_quantized_matmul(x, ids, packed, scales, biases, 64, 4, {}, activation_bits),
               Dtype::F32)
        .to_vector<float>();
  }

  // Row by row.
  std::vector<float> expected(int activation_bits) const {
    std::vector<float> all;
    const auto chosen = ids.to_vector<int32_t>();
    const Array rows = reshape(x, {-1, kColumns});
    for (size_t i = 0; i < chosen.size(); ++i) {
      const auto e = static_cast<size_t>(chosen[i]);
      const auto at = static_cast<int64_t>(i);
      const Array y = quantized_matmul(slice_axis(rows, 0, at, at + 1), packed[e], scales[e],
                                       biases[e], true, 64, 4, "affine", {}, activation_bits);
      for (float value : astype(astype(y, x.dtype()), Dtype::F32).to_vector<float>())
        all.push_back(value);
    }
    return all;
  }
};

class ExpertThreads : public ::testing::TestWithParam<int> {
 protected:
  void SetUp() override { ThreadPool::shared().set_threads(GetParam()); }
  void TearDown() override { ThreadPool::shared().set_threads(0); }
};

TEST_P(ExpertThreads, OneRowEachIsTheProductOfThatRow) {
  const Case one(1, 8);
  for (int bits : {0, 8}) EXPECT_EQ(one.run(bits), one.expected(bits));
}

TEST_P(ExpertThreads, SeveralRowsEach) {
  // Few choices run side by side, many do not; the last has fewer experts than some thread counts.
  for (const Case& some : {Case(7, 8), Case(40, 3), Case(1, 2)}) {
    for (int bits : {0, 8}) {
      const auto found = some.run(bits), expected = some.expected(bits);
      ASSERT_EQ(found.size(), expected.size());
      for (size_t i = 0; i < found.size(); ++i)
        ASSERT_NEAR(found[i], expected[i], 0.02 * (1 + std::abs(expected[i])));
    }
  }
}

TEST_P(ExpertThreads, RowsThatCannotBeRoundedAreExact) {
  for (const auto& [tokens, choices] : {std::pair<int64_t, int64_t>(1, 8), {9, 4}}) {
    Case odd(tokens, choices);
    const Array one_of =
        less(arange(0, static_cast<double>(tokens * choices), 1, Dtype::F32), 3.0f);
    odd.x = where(reshape(one_of, {tokens, choices, 1}), odd.x * 1e-36f, odd.x).eval();
    ASSERT_EQ(odd.x.dtype(), Dtype::BF16);
    const auto found = odd.run(8), expected = odd.expected(8);
    for (size_t i = 0; i < found.size(); ++i)
      ASSERT_NEAR(found[i], expected[i], 0.02 * (1e-37 + std::abs(expected[i])));
  }
}

TEST_P(ExpertThreads, AStackIsTheSameAsItsParts) {
  for (const auto& [tokens, choices] : {std::pair<int64_t, int64_t>(1, 8), {7, 3}}) {
    Case parts(tokens, choices), whole = parts;
    whole.packed = {stack(parts.packed, 0).eval()};
    whole.scales = {stack(parts.scales, 0).eval()};
    whole.biases = {stack(parts.biases, 0).eval()};
    for (int bits : {0, 8}) EXPECT_EQ(whole.run(bits), parts.run(bits));
  }
}

TEST(Joined, ArePartsThatLieOneAfterTheOther) {
  const auto buffer = Buffer::create(24 * sizeof(float), {});
  const auto part = [&](int64_t offset) {
    return Array::from_buffer(buffer, {2, 3}, Dtype::F32, offset);
  };
  std::iota(reinterpret_cast<float*>(buffer->read({})),
            reinterpret_cast<float*>(buffer->read({})) + 24, 0.0f);
  const auto all = joined({part(6), part(12), part(18)});
  ASSERT_TRUE(all);
  EXPECT_EQ(all->shape(), Shape({3, 2, 3}));
  std::vector<float> expected(18);
  std::iota(expected.begin(), expected.end(), 6.0f);
  EXPECT_EQ(all->to_vector<float>(), expected);
  EXPECT_FALSE(joined({}));
  EXPECT_FALSE(joined({part(6), part(18)}));
  EXPECT_FALSE(joined({part(6), part(0)}));
  EXPECT_FALSE(joined({part(6), zeros({2, 3}, Dtype::F32).eval()}));
  EXPECT_FALSE(joined({part(6), part(12) + 1.0f}));
  EXPECT_FALSE(joined({part(6), Array::from_buffer(buffer, {3, 2}, Dtype::F32, 12)}));
}

INSTANTIATE_TEST_SUITE_P(Threads, ExpertThreads, ::testing::Values(1, 2, 5));

}  // namespace
}  // namespace mica
