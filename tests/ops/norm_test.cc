#include "ops/norm.h"

#include <cmath>

#include "base/expect_error.h"
#include "base/thread_pool.h"
#include "ops/create.h"
#include "ops/on_devices.h"

namespace mica {
namespace {

Array wave(const Shape& shape, double step, Dtype dtype = Dtype::F32, double shift = 0) {
  std::vector<double> values(static_cast<size_t>(elements(shape)));
  for (size_t i = 0; i < values.size(); ++i)
    values[i] = std::sin(static_cast<double>(i) * step) + shift;
  sweep::OnDevice on_ref(DeviceKind::Ref);  // whose casts are the definition
  return astype(Array::from<double>(values, shape), dtype).eval();
}

double unit_of(Dtype dtype) {
  return dtype == Dtype::F64   ? 1e-13
         : dtype == Dtype::F32 ? 2e-6
         : dtype == Dtype::F16 ? 1e-3
                               : 8e-3;
}

// Against the formula in double; the weight or bias may be missing.
void expect_norm(const Array& x, const Array& weight, const Array& bias, double eps, bool centred) {
  Array y = centred ? layer_norm(x, weight, bias, eps) : rms_norm(x, weight, eps);
  ASSERT_EQ(y.shape(), x.shape());
  std::vector<double> in = x.to_vector<double>(), out = y.to_vector<double>();
  std::vector<double> w, b;
  if (weight.defined()) w = weight.to_vector<double>();
  if (bias.defined()) b = bias.to_vector<double>();
  const auto n = static_cast<size_t>(x.shape(-1));
  for (size_t row = 0; row + n <= in.size(); row += n) {
    double mean = 0, square = 0;
    for (size_t i = 0; centred && i < n; ++i) mean += in[row + i] / static_cast<double>(n);
    for (size_t i = 0; i < n; ++i)
      square += std::pow(in[row + i] - mean, 2) / static_cast<double>(n);
    for (size_t i = 0; i < n; ++i) {
      double expected = (in[row + i] - mean) / std::sqrt(square + eps);
      if (!w.empty()) expected *= w[i];
      if (!b.empty()) expected += b[i];
      ASSERT_NEAR(out[row + i], expected, unit_of(y.dtype()) * (1 + std::abs(expected)))
          << to_string(x.shape()) << " " << dtype_name(y.dtype());
    }
  }
}

TEST(Norm, EveryLengthAndType) {
  on_devices([] {
    for (int64_t n : {1, 7, 16, 33, 128, 1000, 4097, 9000}) {
      for (Dtype dtype : {Dtype::F64, Dtype::F32, Dtype::F16, Dtype::BF16}) {
        Array x = wave({3, n}, 0.37, dtype), w = wave({n}, 0.9, dtype), b = wave({n}, 0.5, dtype);
        expect_norm(x, w, {}, 1e-5, false);
        expect_norm(x, {}, {}, 1e-2, false);
        expect_norm(x, w, b, 1e-5, true);
        expect_norm(x, w, {}, 1e-5, true);
        expect_norm(x, {}, b, 1e-5, true);
        expect_norm(x, {}, {}, 1e-5, true);
      }
    }
  });
}

// Bits depend on the row alone, though rows are worked on side by side and many are written past
// the caches.
TEST(Norm, RowsDoNotDependOnTheirNumber) {
  for (auto [rows, n] :
       {std::pair{50, 5}, {50, 37}, {300, 128}, {9, 1500}, {7, 5001}, {1100, 4096}}) {
    for (Dtype dtype : {Dtype::F32, Dtype::BF16}) {
      Array many = wave({rows, n}, 0.37, dtype, 3), w = wave({n}, 0.9), b = wave({n}, 0.5);
      std::vector<float> values = many.to_vector<float>();
      std::vector<float> last(values.end() - 2 * n, values.end());
      Array few = astype(Array::from<float>(last, {2, n}), dtype);
      for (bool centred : {false, true}) {
        auto normed = [&](const Array& x) {
          return (centred ? layer_norm(x, w, b, 1e-5) : rms_norm(x, w, 1e-5)).to_vector<float>();
        };
        std::vector<float> all = normed(many);
        EXPECT_EQ(std::vector<float>(all.end() - 2 * n, all.end()), normed(few))
            << rows << " rows of " << n;
      }
    }
  }
}

TEST(Norm, MixedTypesPromote) {
  on_devices([] {
    for (Dtype x : {Dtype::F64, Dtype::F32, Dtype::F16, Dtype::BF16}) {
      for (Dtype w : {Dtype::F64, Dtype::F32, Dtype::F16, Dtype::BF16}) {
        expect_norm(wave({2, 40}, 0.3, x), wave({40}, 0.7, w), {}, 1e-5, false);
        expect_norm(wave({2, 40}, 0.3, x), wave({40}, 0.7, w), wave({40}, 1.3), 1e-5, true);
        EXPECT_EQ(rms_norm(wave({2, 4}, 1, x), wave({4}, 1, w), 1e-5).dtype(), promote(x, w));
      }
    }
  });
}

// The variance is that of the deviations, not a difference of large squares.
TEST(Norm, LargeMean) {
  on_devices([] { expect_norm(wave({4, 500}, 0.37, Dtype::F32, 1000), {}, {}, 1e-6, true); });
}

TEST(Norm, ViewsAndEmpty) {
  on_devices([] {
    Array x = wave({6, 5, 32}, 0.21);
    expect_norm(transpose(x, {1, 0, 2}), wave({32}, 0.4), {}, 1e-5, false);
    expect_norm(slice(x, {5, 4, 2}, {-7, 0, 30}, {-2, -2, 1}), {}, {}, 1e-5, true);
    expect_norm(transpose(x), wave({6}, 0.4), {}, 1e-5, false);
    expect_norm(broadcast_to(wave({32}, 1), {3, 32}), {}, {}, 1e-5, false);
    EXPECT_EQ(rms_norm(zeros({0, 4}), {}, 1e-5).to_vector<double>().size(), 0u);
    EXPECT_EQ(layer_norm(zeros({3, 0}), {}, {}, 1e-5).shape(), (Shape{3, 0}));
  });
}

// mlx.core.fast 0.32.4 on x = sin(0.37 i), weight = cos(0.9 i), bias = cos(0.5 i), eps 0.01.
TEST(Norm, ValuesOfMlx) {
  const std::vector<float> rms = {0,           0.300222f, -0.204614f, -1.08154f,    -1.19278f,
                                  -0.2706371f, 1.394188f, 0.5701456f, -0.07181594f, 0.2963659f,
                                  0.8316045f,  0.2954021f};
  const std::vector<float> layer = {-0.7289741f, 0.4024793f,  0.5244459f, -0.5263448f,
                                    -1.248058f,  -0.9772364f, 2.399044f,  1.450743f,
                                    0.4673859f,  0.3627309f,  0.4111271f, -0.5067583f};
  on_devices([&] {
    Array x = wave({2, 6}, 0.37);
    std::vector<float> w, b;
    for (int i = 0; i < 6; ++i) w.push_back(std::cos(0.9f * static_cast<float>(i)));
    for (int i = 0; i < 6; ++i) b.push_back(std::cos(0.5f * static_cast<float>(i)));
    std::vector<float> y = rms_norm(x, Array::from<float>(w), 1e-2).to_vector<float>();
    std::vector<float> z =
        layer_norm(x, Array::from<float>(w), Array::from<float>(b), 1e-2).to_vector<float>();
    for (size_t i = 0; i < 12; ++i) {
      EXPECT_NEAR(y[i], rms[i], 3e-6);
      EXPECT_NEAR(z[i], layer[i], 3e-6);
    }
  });
}

TEST(Norm, Errors) {
  expect_error(ErrorKind::Value,
               "[rms_norm] weight must have shape (4,), the last axis of (2, 4); got (3,)",
               [] { rms_norm(zeros({2, 4}), zeros({3}), 1e-5); });
  expect_error(ErrorKind::Value, "[layer_norm] bias",
               [] { layer_norm(zeros({2, 4}), {}, zeros({4, 1}), 1e-5); });
  expect_error(ErrorKind::Value, "[rms_norm] needs floating inputs, got int32",
               [] { rms_norm(ints({1, 2}), {}, 1e-5); });
  expect_error(ErrorKind::Value, "[rms_norm] x needs", [] { rms_norm(zeros({}), {}, 1e-5); });
}

}  // namespace
}  // namespace mica
