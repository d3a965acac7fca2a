#include "ops/quantized.h"

#include <gtest/gtest.h>

#include <cmath>

#include "base/error.h"
#include "ops/create.h"
#include "ops/elementwise.h"
#include "ops/fixture.h"
#include "ops/matmul.h"
#include "ops/on_devices.h"
#include "ops/reduce.h"
#include "ops/shape.h"
#include "transforms/autograd.h"

namespace mica {
namespace {

template <class F>
std::string error_of(F&& f, ErrorKind kind) {
  try {
    f();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), kind) << error.what();
    return error.what();
  }
  ADD_FAILURE() << "nothing was thrown";
  return "";
}

// Four rows: of both signs, positive, negative, and 0.5 with a half of zeros.
Array recorded_input(int bits, int group, Dtype dtype) {
  constexpr int64_t kColumns = 256;
  auto values = fixture_values(4 * kColumns, static_cast<uint32_t>(bits * 1000 + group));
  for (int64_t i = 0; i < kColumns; ++i) {
    auto at = [&](int64_t row) -> float& {
      return values[static_cast<size_t>(row * kColumns + i)];
    };
    at(1) = std::fabs(at(1));
    at(2) = -std::fabs(at(2)) - 1;
    at(3) = i < kColumns / 2 ? 0.5f : 0;
  }
  return astype(Array::from<float>(values, {4, kColumns}), dtype).eval();
}

TEST(Quantized, GivesTheBitsThatMlxGives) {
  for (auto& line : fixture_lines("mlx/quantize.txt")) {
    int bits, group;
    std::string dtype;
    uint32_t packed, scales, biases, dense;
    line >> bits >> group >> dtype >> std::hex >> packed >> scales >> biases >> dense;
    SCOPED_TRACE(line.str());
    on_devices([&] {
      Array w = recorded_input(bits, group, dtype_from_name(dtype));
      Arrays q = quantize(w, group, bits);
      EXPECT_EQ(checksum(q[0]), packed);
      EXPECT_EQ(checksum(q[1]), scales);
      EXPECT_EQ(checksum(q[2]), biases);
    });
    Arrays q = quantize(recorded_input(bits, group, dtype_from_name(dtype)), group, bits);
    EXPECT_EQ(checksum(dequantize(q[0], q[1], q[2], group, bits)), dense);
  }
}

TEST(Quantized, ElementsFollowEachOtherLowestBitsFirst) {
  for (int bits : {2, 3, 4, 5, 6, 8}) {
    constexpr int64_t kColumns = 32;
    std::vector<uint32_t> words(static_cast<size_t>(bits), 0);
    std::vector<double> expected;
    for (int64_t i = 0; i < kColumns; ++i) {
      int64_t value = (i * 7 + 3) % (1 << bits);
      expected.push_back(static_cast<double>(value));
      for (int bit = 0; bit < bits; ++bit)
        if (value >> bit & 1) {
          int64_t place = i * bits + bit;
          words[static_cast<size_t>(place / 32)] |= 1u << (place % 32);
        }
    }
    Array w = Array::from<uint32_t>(words, {1, bits});
    on_devices([&] {
      expect_array(ops::quantized_integers(w, {16, bits}, Dtype::F32, {}), {1, kColumns}, expected);
    });
  }
}

TEST(Quantized, ProductIsThatOfTheDequantizedMatrix) {
  on_devices([] {
    for (int bits : {2, 3, 4, 5, 6, 8})
      for (int group : {16, 32, 64, 128}) {
        Array w = Array::from<float>(fixture_values(24 * 256, 5), {24, 256});
        Arrays q = quantize(w, group, bits);
        Array dense = dequantize(q[0], q[1], q[2], group, bits);
        Array x = Array::from<float>(fixture_values(3 * 256, 9), {3, 256});
        Array difference =
            quantized_matmul(x, q[0], q[1], q[2], true, group, bits) - matmul(x, transpose(dense));
        EXPECT_LT(max(abs(difference)).item<float>(), 2e-2f) << bits << " bits, group " << group;
        Array y = Array::from<float>(fixture_values(3 * 24, 9), {3, 24});
        difference = quantized_matmul(y, q[0], q[1], q[2], false, group, bits) - matmul(y, dense);
        EXPECT_LT(max(abs(difference)).item<float>(), 2e-3f) << bits << " bits, group " << group;
      }
  });
}

Array rounded_product(const Array& x, const Arrays& q, int group, int bits, bool transpose = true) {
  return quantized_matmul(x, q[0], q[1], q[2], transpose, group, bits, "affine", {}, 8);
}

TEST(Quantized, RoundedActivations) {
  on_devices([] {
    for (int bits : {4, 8})
      for (int group : {32, 64, 128})
        for (int64_t rows : {1, 3, 9}) {
          Array w = Array::from<float>(fixture_values(24 * 256, 5), {24, 256});
          Arrays q = quantize(w, group, bits);
          Array x =
              Array::from<float>(fixture_values(static_cast<size_t>(rows) * 256, 9), {rows, 256});
          Array taken = ops::rounded_activation(x, group, {});
          EXPECT_GT(max(abs(taken - x)).item<float>(), 1e-3f);
          EXPECT_LT(max(abs(taken - x)).item<float>(), 4.0f / 250);
          Array expected = quantized_matmul(taken, q[0], q[1], q[2], true, group, bits);
          Array difference = rounded_product(x, q, group, bits) - expected;
          EXPECT_LT(max(abs(difference)).item<float>(), 4e-3f) << bits << " bits, group " << group;
        }
  });
}

TEST(Quantized, ActivationsAreRoundedOnlyWhereThatIsServed) {
  Array x = Array::from<float>(fixture_values(2 * 128, 9), {2, 128});
  Array w = Array::from<float>(fixture_values(128 * 128, 5), {128, 128});
  auto same = [&](int group, int bits, bool transpose, Dtype dtype) {
    Arrays q = quantize(astype(w, dtype), group, bits);
    Array given = astype(x, dtype);
    Array exact = quantized_matmul(given, q[0], q[1], q[2], transpose, group, bits);
    return array_equal(rounded_product(given, q, group, bits, transpose), exact).item<bool>();
  };
  on_devices([&] {
    EXPECT_FALSE(same(64, 4, true, Dtype::F32));
    EXPECT_TRUE(same(64, 4, false, Dtype::F32));
    EXPECT_TRUE(same(16, 4, true, Dtype::F32));
    EXPECT_TRUE(same(64, 3, true, Dtype::F32));
    EXPECT_TRUE(same(64, 4, true, Dtype::F64));
  });
  Arrays q = quantize(w);
  EXPECT_EQ(error_of([&] { quantized_matmul(x, q[0], q[1], q[2], true, 64, 4, "affine", {}, 16); },
                     ErrorKind::Value),
            "[quantized_matmul] activation_bits must be 0 or 8, not 16");
}

TEST(Quantized, DerivativesOfRoundedProductsAreThoseOfExactOnes) {
  Array w = Array::from<float>(fixture_values(24 * 64, 5), {24, 64});
  Arrays q = quantize(w);
  Array x = Array::from<float>(fixture_values(3 * 64, 9), {3, 64});
  on_devices([&] {
    auto gradient = [&](int activation_bits) {
      return vjp(
                 [&](const Arrays& in) {
                   return Arrays{quantized_matmul(in[0], q[0], q[1], q[2], true, 64, 4, "affine",
                                                  {}, activation_bits)};
                 },
                 {x}, {ones({3, 24})})
          .derivatives[0];
    };
    EXPECT_TRUE(array_equal(gradient(0), gradient(8)).item<bool>());
  });
}

TEST(Quantized, ResultsHaveThePromotedType) {
  Arrays q = quantize(astype(Array::from<float>(fixture_values(8 * 64, 1), {8, 64}), Dtype::BF16));
  EXPECT_EQ(q[1].dtype(), Dtype::BF16);
  auto product = [&](Dtype dtype) {
    return quantized_matmul(zeros({64}, dtype), q[0], q[1], q[2]).dtype();
  };
  EXPECT_EQ(product(Dtype::BF16), Dtype::BF16);
  EXPECT_EQ(product(Dtype::F16), Dtype::F32);
  EXPECT_EQ(product(Dtype::F32), Dtype::F32);
  EXPECT_EQ(product(Dtype::F64), Dtype::F64);
}

TEST(Quantized, ErrorsNameWhatDoesNotFit) {
  Array w = Array::from<float>(fixture_values(2 * 64, 1), {2, 64});
  Arrays q = quantize(w, 32, 4);
  EXPECT_EQ(error_of([&] { quantize(w, 32, 4, "mxfp4"); }, ErrorKind::Unsupported),
            "[quantize] quantization mode 'mxfp4' is not supported; supported: affine");
  EXPECT_EQ(error_of([&] { quantize(w, 24, 4); }, ErrorKind::Value),
            "[quantize] group size 24 is not supported; supported: 16, 32, 64, 128");
  EXPECT_EQ(error_of([&] { quantize(w, 32, 7); }, ErrorKind::Value),
            "[quantize] 7 bits are not supported; supported: 2, 3, 4, 5, 6, 8");
  EXPECT_EQ(error_of([&] { quantize(w, 128, 4); }, ErrorKind::Value),
            "[quantize] the last dimension of (2, 64) is not a multiple of the group size 128");
  EXPECT_EQ(error_of([&] { dequantize(q[0], q[1], q[2], 64, 4); }, ErrorKind::Value),
            "[dequantize] packed (2, 8) and scales (2, 2) do not fit group size 64 and 4 bits");
  EXPECT_EQ(error_of([&] { quantized_matmul(reals({1, 2}), q[0], q[1], q[2], true, 32, 4); },
                     ErrorKind::Value),
            "[quantized_matmul] inner dimensions differ: x (2,) and a transposed matrix of 2 rows "
            "and 64 columns");
  EXPECT_EQ(error_of([&] { quantized_matmul(w, w, q[1], q[2], true, 32, 4); }, ErrorKind::Value),
            "[quantized_matmul] packed matrices are uint32, got float32");
}

TEST(Quantized, NotANumberStaysOne) {
  Arrays q = quantize(Array::from<float>(fixture_values(8 * 64, 1), {8, 64}), 32, 4);
  for (float bad : {NAN, INFINITY}) {
    std::vector<float> x(64, 1.0f);
    x[40] = bad;
    on_devices([&] {
      Array y = quantized_matmul(reals(x), q[0], q[1], q[2], true, 32, 4);
      for (float value : y.to_vector<float>()) EXPECT_FALSE(std::isfinite(value));
    });
  }
}

// The derivative by a scale is what a small change of it does.
TEST(Quantized, TrainsScalesAndBiases) {
  Arrays q = quantize(Array::from<float>(fixture_values(6 * 64, 1), {6, 64}), 32, 4);
  Array x = Array::from<float>(fixture_values(40 * 64, 2), {2, 20, 64});
  auto loss = [&](const Arrays& p) {
    return Arrays{sum(square(quantized_matmul(x, q[0], p[0], p[1], true, 32, 4)))};
  };
  Arrays gradients = vjp(loss, {q[1], q[2]}, {Array::from<float>({1.0f}, {})}).derivatives;
  auto dense_loss = [&](const Arrays& p) {
    Array dense = dequantize(q[0], p[0], p[1], 32, 4);
    return Arrays{sum(square(matmul(x, transpose(dense))))};
  };
  Arrays expected = vjp(dense_loss, {q[1], q[2]}, {Array::from<float>({1.0f}, {})}).derivatives;
  for (size_t i = 0; i < 2; ++i)
    EXPECT_TRUE(allclose(gradients[i], expected[i], 1e-4, 1e-2).item<bool>());
}

}  // namespace
}  // namespace mica
