#include "ops/gather_mm.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "ops/create.h"
#include "ops/elementwise.h"
#include "ops/experts.h"
#include "ops/fixture.h"
#include "ops/index.h"
#include "ops/matmul.h"
#include "ops/on_devices.h"
#include "ops/reduce.h"
#include "ops/shape.h"

namespace mica {
namespace {

Array values(const Shape& shape, uint32_t seed, Dtype dtype = Dtype::F32) {
  return astype(
      Array::from<float>(fixture_values(static_cast<size_t>(elements(shape)), seed), shape), dtype);
}

// Experts of `count` tokens with two choices each.
Array choices(int64_t count, int experts) {
  std::vector<int32_t> ids;
  for (int64_t i = 0; i < 2 * count; ++i)
    ids.push_back(static_cast<int32_t>((i * i + i / 3) % experts));
  return Array::from<int32_t>(ids, {count, 2});
}

void expect_close(const Array& a, const Array& b, double tolerance) {
  ASSERT_EQ(a.shape(), b.shape());
  EXPECT_TRUE(allclose(astype(a, Dtype::F32), astype(b, Dtype::F32), tolerance, 1e-5).item<bool>());
}

TEST(GatherMm, IsTakeAndMatmul) {
  on_devices([] {
    for (int64_t tokens : {1, 3, 40}) {
      Array x = values({tokens, 1, 1, 24}, 1), w = values({5, 10, 24}, 2);
      Array ids = choices(tokens, 5), rows = expand_dims(arange(tokens), {1});
      Array weights = swapaxes(w, -1, -2);
      Array wanted = matmul(x, take(weights, ids, 0));
      expect_close(gather_mm(reshape(x, {tokens, 1, 24}), weights, rows, ids), wanted, 1e-5);
      // Contiguous matrices, half types.
      Array half = astype(contiguous(weights), Dtype::BF16);
      expect_close(gather_mm(reshape(x, {tokens, 1, 24}), half, rows, ids),
                   matmul(x, take(astype(half, Dtype::F32), ids, 0)), 1e-5);
    }
  });
}

TEST(GatherMm, MissingIndicesAreAllMatrices) {
  on_devices([] {
    Array a = values({3, 2, 4}, 1), b = values({3, 4, 5}, 2);
    expect_close(gather_mm(a, b, {}, ints({2, 0, 1})), matmul(a, take(b, ints({2, 0, 1}), 0)),
                 1e-5);
    expect_close(gather_mm(a, b, ints({1, -1}), ints({0, 2})),
                 matmul(take(a, ints({1, 2}), 0), take(b, ints({0, 2}), 0)), 1e-5);
    expect_close(gather_mm(a, b), matmul(a, b), 1e-5);
  });
}

TEST(GatherMm, QuantizedIsThatOfTheDequantized) {
  on_devices([] {
    for (int bits : {3, 4, 8})
      for (int64_t tokens : {1, 30}) {
        Arrays q = quantize(values({4, 12, 128}, 3), 64, bits);
        Array x = values({tokens, 1, 128}, 4), ids = choices(tokens, 4);
        Array rows = expand_dims(arange(tokens), {1});
        Array dense = dequantize(q[0], q[1], q[2], 64, bits);
        expect_close(gather_qmm(x, q[0], q[1], q[2], rows, ids, true, 64, bits),
                     gather_mm(x, swapaxes(dense, -1, -2), rows, ids), 1e-4);
        Arrays packed, scales, biases, matrices;
        for (int64_t e = 0; e < 4; ++e) {
          packed.push_back(take(q[0], e, 0));
          scales.push_back(take(q[1], e, 0));
          biases.push_back(take(q[2], e, 0));
          matrices.push_back(take(dense, e, 0));
        }
        Array flat = reshape(x, {tokens, 128});
        expect_close(expert_quantized_matmul(flat, ids, packed, scales, biases, 64, bits),
                     expert_matmul(flat, ids, matrices), 1e-4);
        Array taken = bits == 3 ? flat : ops::rounded_activation(flat, 64, {});
        expect_close(expert_quantized_matmul(flat, ids, packed, scales, biases, 64, bits, {}, 8),
                     expert_matmul(taken, ids, matrices), 1e-4);
      }
  });
}

TEST(GatherMm, ErrorsNameIndexAndShapes) {
  on_devices([] {
    Array a = values({3, 2, 4}, 1), b = values({3, 4, 5}, 2);
    EXPECT_THROW(gather_mm(a, b, ints({3}), ints({0})).eval(), Error);
    EXPECT_THROW(gather_mm(a, b, ints({0}), ints({-4})).eval(), Error);
  });
  Array a = values({3, 2, 4}, 1);
  EXPECT_THROW(gather_mm(a, a, ints({0}), ints({0})), Error);
  EXPECT_THROW(gather_mm(a, swapaxes(a, -1, -2), reals({0}), ints({0})), Error);
}

}  // namespace
}  // namespace mica
