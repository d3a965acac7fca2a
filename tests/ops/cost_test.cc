// The cost rules of operations (src/ops/cost.cc), through recordings.
#include <gtest/gtest.h>

#include "ops/attention.h"
#include "ops/create.h"
#include "ops/elementwise.h"
#include "ops/experts.h"
#include "ops/gather_mm.h"
#include "ops/index.h"
#include "ops/matmul.h"
#include "ops/quantized.h"
#include "ops/shape.h"
#include "tests/core/profiling.h"

namespace mica {
namespace {

using testing::call_of;
using testing::counting;

void expect_cost(const Array& array, double bytes, double flops) {
  ProfileEvent event = call_of(array);
  EXPECT_EQ(event.bytes, bytes);
  EXPECT_EQ(event.flops, flops);
}

TEST(CostTest, CountsWhatIsRead) {
  Array table = counting({1000, 8});
  Array ids = Array::from<int32_t>({5, 900, 5}, {3});
  expect_cost(take(table, ids, 0), 2 * 3 * 8 * 4 + 3 * 4, 0);
  // A broadcast axis is one element.
  Array row = counting({1, 8});
  expect_cost(table + row, (1000 * 8 + 8 + 1000 * 8) * 4, 0);
  Array target = counting({1000, 8}) + 1.0f;
  target.eval();
  Array updated = slice_update(target, counting({2, 8}), {4, 0}, {6, 8});
  target = {};
  expect_cost(updated, 2 * 2 * 8 * 4, 0);
}

TEST(CostTest, ProductsThatChoose) {
  Array x = counting({3, 1, 16}), stack = counting({10, 16, 4});
  Array rows = Array::from<int32_t>({0, 1, 2, 2}, {4});
  Array which = Array::from<int32_t>({7, 7, 7, 3}, {4});
  // Three rows, two matrices, four products.
  expect_cost(gather_mm(x, stack, rows, which), 4 * (3 * 16 + 2 * 64 + 4 * 4 + 4 + 4),
              2 * 4 * 16 * 4);
  Arrays experts;
  for (int e = 0; e < 5; ++e) experts.push_back(counting({6, 16}));
  Array ids = Array::from<int32_t>({1, 4, 4, 1, 1, 4}, {3, 2});
  expect_cost(expert_matmul(reshape(x, {3, 16}), ids, experts),
              4 * (3 * 16 + 6 + 2 * 6 * 16 + 3 * 2 * 6), 2 * 36 * 16);
}

TEST(CostTest, QuantizedProductsSayTheirArithmetic) {
  Arrays q = quantize(counting({32, 64}), 64, 4);
  Array x = counting({2, 64});
  for (const Array& part : q) part.eval();
  double bytes = 4 * 2 * 64 + 32 * (32 + 8) + 4 * 2 * 32;
  for (int activation_bits : {0, 8}) {
    ProfileEvent event =
        call_of(quantized_matmul(x, q[0], q[1], q[2], true, 64, 4, "affine", {}, activation_bits));
    EXPECT_EQ(event.bytes, bytes);
    EXPECT_EQ(event.flops, 2 * 2 * 64 * 32);
    EXPECT_EQ(event.arithmetic, activation_bits == 8 ? Arithmetic::Int8 : Arithmetic::Float32);
  }
}

TEST(CostTest, ProductsOfBfloat16SayTheirArithmetic) {
  auto half = [](const Array& array) { return astype(array, Dtype::BF16); };
  auto arithmetic = [](const Array& array) { return call_of(array).arithmetic; };
  const Array x = half(counting({2, 64})), y = half(counting({64, 8})), wide = counting({64, 8});
  Arrays q = quantize(half(counting({32, 64})), 64, 4);
  const Array heads = half(counting({1, 2, 3, 4}));
  for (const Array& array : {x, y, wide, q[0], q[1], q[2], heads}) Array(array).eval();
  EXPECT_EQ(arithmetic(matmul(x, y)), Arithmetic::Bfloat16);
  EXPECT_EQ(arithmetic(matmul(half(x), transpose(half(x)))), Arithmetic::Bfloat16);
  EXPECT_EQ(arithmetic(quantized_matmul(x, q[0], q[1], q[2])), Arithmetic::Bfloat16);
  EXPECT_EQ(arithmetic(attention(heads, heads, heads, {})), Arithmetic::Bfloat16);
  const Array single = astype(x, Dtype::F32);
  single.eval();
  EXPECT_EQ(arithmetic(matmul(single, wide)), Arithmetic::Float32);
}

// Two query heads share a key head; 4 numbers a key and 4 a value.
TEST(CostTest, AttentionUpToItsLengths) {
  Array q = counting({1, 2, 3, 4}), k = counting({1, 1, 100, 4}), v = counting({1, 1, 100, 4});
  double ends = 4 * 2 * 24, numbers = 4;
  auto of = [&](const AttentionOptions& options) { return attention(q, k, v, options); };
  expect_cost(of({}), ends + 100 * 32, 2 * 2 * 3 * 100 * 8);
  Array length = Array::from<int32_t>({10}, {1});
  expect_cost(of({.lengths = length}), ends + numbers + 10 * 32, 2 * 2 * 3 * 10 * 8);
  // Rows at positions 7, 8 and 9.
  expect_cost(of({.causal = true, .lengths = length}), ends + numbers + 10 * 32,
              2 * 2 * (8 + 9 + 10) * 8);
  expect_cost(of({.causal = true, .window = 2, .lengths = length}), ends + numbers + 4 * 32,
              2 * 2 * (2 + 2 + 2) * 8);
}

}  // namespace
}  // namespace mica
