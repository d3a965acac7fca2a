#include "ops/rope.h"

#include <cmath>

#include "base/expect_error.h"
#include "ops/create.h"
#include "ops/function.h"
#include "ops/function_args.h"
#include "ops/on_devices.h"

namespace mica {
namespace {

Array wave(const Shape& shape, Dtype dtype = Dtype::F32) {
  std::vector<double> values(static_cast<size_t>(elements(shape)));
  for (size_t i = 0; i < values.size(); ++i) values[i] = std::sin(static_cast<double>(i) * 0.37);
  sweep::OnDevice on_ref(DeviceKind::Ref);  // whose casts are the definition
  return astype(Array::from<double>(values, shape), dtype).eval();
}

// What transformers compute for x [B, H, L, D]: float32 frequencies and angles, then exactly.
std::vector<double> expected_rope(const Array& x, const std::vector<int>& positions,
                                  const RopeOptions& o) {
  const int64_t H = x.shape(1), L = x.shape(2), D = x.shape(3), half = o.dims / 2;
  std::vector<double> in = x.to_vector<double>(), out = in;
  for (size_t row = 0; row < in.size() / static_cast<size_t>(D); ++row) {
    const int64_t b = static_cast<int64_t>(row) / (H * L), l = static_cast<int64_t>(row) % L;
    const float position = static_cast<float>(positions[static_cast<size_t>(b * L + l)]);
    for (int64_t i = 0; i < half; ++i) {
      float power = std::pow(static_cast<float>(o.base),
                             static_cast<float>(2 * i) / static_cast<float>(o.dims));
      double angle = position * (1.0f / power * static_cast<float>(o.scale));
      double c = std::cos(angle) * o.magnitude, s = std::sin(angle) * o.magnitude;
      size_t first = row * D + (o.traditional ? 2 * i : i),
             second = first + (o.traditional ? 1 : half);
      out[first] = in[first] * c - in[second] * s;
      out[second] = in[second] * c + in[first] * s;
    }
  }
  return out;
}

void expect_rope(const Array& x, const Array& offsets, const std::vector<int>& positions,
                 const RopeOptions& options) {
  Array y = rope(x, offsets, options);
  ASSERT_EQ(y.shape(), x.shape());
  ASSERT_EQ(y.dtype(), x.dtype());
  std::vector<double> out = y.to_vector<double>(), expected = expected_rope(x, positions, options);
  const double unit = x.dtype() == Dtype::F64   ? 1e-12
                      : x.dtype() == Dtype::F32 ? 5e-7
                      : x.dtype() == Dtype::F16 ? 1e-3
                                                : 8e-3;
  for (size_t i = 0; i < out.size(); ++i) ASSERT_NEAR(out[i], expected[i], unit * 2) << i;
}

TEST(Rope, SizesTypesAndOffsets) {
  on_devices([] {
    for (Dtype dtype : {Dtype::F64, Dtype::F32, Dtype::F16, Dtype::BF16}) {
      for (bool traditional : {false, true}) {
        for (int dims : {2, 6, 16, 40, 128}) {
          Array x = wave({2, 3, 5, dims + 3}, dtype);
          RopeOptions options{.dims = dims,
                              .traditional = traditional,
                              .base = 1000,
                              .scale = 0.5,
                              .magnitude = 1.2};
          std::vector<int> one, each, all;
          for (int b = 0; b < 2; ++b) {
            for (int l = 0; l < 5; ++l) {
              one.push_back(9 + l);
              each.push_back(100 * b + 3 + l);
              all.push_back(17 * b - 4 + l * l);
            }
          }
          expect_rope(x, Array::from<int32_t>({9}, {}), one, options);
          expect_rope(x, Array::from<int64_t>({3, 103}, {2}), each, options);
          expect_rope(x, Array::from<int32_t>(std::vector<int32_t>(all), {2, 5}), all, options);
        }
      }
    }
  });
}

// Angles up to and beyond the range of the vector reduction.
TEST(Rope, FarPositions) {
  on_devices([] {
    for (int start : {30000, 131071, 999990, 5000000, 16000000}) {
      std::vector<int> positions;
      for (int l = 0; l < 20; ++l) positions.push_back(start + l);
      expect_rope(wave({1, 1, 20, 64}), Array::from<int32_t>({start}, {}), positions, {.dims = 64});
    }
  });
}

TEST(Rope, ViewsAndOtherRanks) {
  on_devices([] {
    std::vector<int> positions = {4, 5, 6, 4, 5, 6};
    Array at = Array::from<int32_t>({4}, {});
    Array x = wave({2, 3, 4, 8});  // [B, L, H, D]
    expect_rope(transpose(x, {0, 2, 1, 3}), at, positions, {.dims = 8});
    Array flat = wave({2, 3, 8});
    EXPECT_EQ(rope(flat, at, {.dims = 8}).to_vector<double>(),
              rope(expand_dims(flat, {1}), at, {.dims = 8}).to_vector<double>());
    Array deep = wave({2, 2, 2, 3, 8});
    EXPECT_EQ(rope(deep, at, {.dims = 8}).to_vector<double>(),
              rope(reshape(deep, {2, 4, 3, 8}), at, {.dims = 8}).to_vector<double>());
    EXPECT_EQ(rope(zeros({2, 0, 4}), at, {.dims = 4}).shape(), (Shape{2, 0, 4}));
  });
}

TEST(Rope, GivenFrequencies) {
  on_devices([] {
    Array x = wave({1, 2, 4, 8}), at = Array::from<int32_t>({50}, {});
    std::vector<float> inverse, wavelengths;
    for (int i = 0; i < 4; ++i) {
      inverse.push_back(1.0f / std::pow(10000.0f, static_cast<float>(2 * i) / 8.0f));
      wavelengths.push_back(1.0f / inverse.back());
    }
    RopeOptions given{.dims = 8, .inv_freqs = Array::from<float>(inverse)};
    EXPECT_EQ(rope(x, at, given).to_vector<float>(), rope(x, at, {.dims = 8}).to_vector<float>());
    RopeOptions waves{.dims = 8, .freqs = Array::from<float>(wavelengths)};
    std::vector<float> a = rope(x, at, waves).to_vector<float>(),
                       b = rope(x, at, given).to_vector<float>();
    for (size_t i = 0; i < a.size(); ++i) EXPECT_NEAR(a[i], b[i], 1e-5);
    // Another call with other frequencies does not see those of the last one.
    EXPECT_NE(rope(x, at, {.dims = 8, .base = 10}).to_vector<float>(), b);
  });
}

Array call_rope(const Array& x, int64_t dims, bool traditional, Value base, double scale,
                Value offset, Value freqs) {
  const Function& f = *FunctionRegistry::shared().find("rope", "fast");
  std::vector<std::pair<std::string_view, Value>> named{{"traditional", traditional},
                                                        {"base", base},
                                                        {"scale", scale},
                                                        {"offset", offset},
                                                        {"freqs", freqs}};
  std::vector<Value> values = bind_arguments(f, std::vector<Value>{x, dims}, named);
  values.push_back(Stream{});
  return std::get<Array>(f.call(values));
}

// mlx.core.fast.rope 0.32.4 on sin(0.37 i) of shape (2, 1, 2, 6).
TEST(Rope, ValuesOfMlx) {
  const std::vector<float> halves = {
      -0.8934549f, 0.02663502f, 0.6057807f,  0.06335922f,  1.059167f,   1.005855f,
      -0.1611816f, 0.6974447f,  0.2540393f,  0.802257f,    -0.2625256f, -0.7804784f,
      0.5994343f,  -0.8309035f, -0.8909591f, -1.008058f,   -0.6529217f, -0.05530123f,
      -1.059218f,  0.2165046f,  0.8213816f,  -0.08009461f, 1.155414f,   0.872324f};
  const std::vector<float> pairs = {
      -0.05103117f, -0.3579966f, 0.3794748f,   1.054959f,   0.9958808f,  0.9612752f,
      -0.1240719f,  -0.945381f,  0.2392762f,   -0.1021823f, -0.5298361f, -0.8006668f,
      -0.07224733f, -1.383078f,  -0.2515984f,  -1.086922f,  -0.3552535f, 0.00681464f,
      -0.725614f,   0.2652059f,  -0.08869201f, 1.338945f,   0.9593748f,  0.7924272f};
  const std::vector<float> freqs = {
      -0.2522859f, -0.8257566f, 0.6253127f, -0.5011665f,  0.9958808f,  0.9612752f,
      -0.2945747f, -0.4923689f, 0.7618119f, 0.2593734f,   -0.5298361f, -0.8006668f,
      -0.5591909f, 1.197851f,   -1.188169f, -0.05946612f, -0.3552535f, 0.00681464f,
      -0.9426826f, -0.8131292f, 0.2332827f, -0.89064f,    0.9593748f,  0.7924272f};
  auto expect_near = [](const Array& a, const std::vector<float>& expected) {
    std::vector<float> values = a.to_vector<float>();
    for (size_t i = 0; i < expected.size(); ++i) EXPECT_NEAR(values[i], expected[i], 3e-6) << i;
  };
  on_devices([&] {
    Array x = wave({2, 1, 2, 6});
    Value none;
    expect_near(call_rope(x, 6, false, 100.0, 0.5, int64_t{3}, none), halves);
    expect_near(call_rope(x, 4, true, 100.0, 1, ints({3, 7}), none), pairs);
    expect_near(call_rope(x, 4, false, none, 2, int64_t{5}, reals({1.5, 4})), freqs);
  });
}

TEST(Rope, Errors) {
  Array x = zeros({2, 3, 4, 8}), at = Array::from<int32_t>({0}, {});
  expect_error(ErrorKind::Value, "[rope] x needs at least three axes",
               [&] { rope(zeros({3, 4}), at, {.dims = 4}); });
  expect_error(ErrorKind::Value, "[rope] dims must be even and in 2 ... 8, got 10",
               [&] { rope(x, at, {.dims = 10}); });
  expect_error(ErrorKind::Value, "[rope] dims", [&] { rope(x, at, {.dims = 3}); });
  expect_error(ErrorKind::Value, "[rope] positions must have shape (), (2,) or (2, 4)",
               [&] { rope(x, ints({1, 2, 3}), {.dims = 4}); });
  expect_error(ErrorKind::Value, "[rope] positions must be integers",
               [&] { rope(x, zeros({}), {.dims = 4}); });
  expect_error(ErrorKind::Value, "[rope] x must be floating",
               [&] { rope(zeros({2, 3, 4}, Dtype::I32), at, {.dims = 4}); });
  expect_error(ErrorKind::Value, "[rope] frequencies must have shape (2,)",
               [&] { rope(x, at, {.dims = 4, .freqs = zeros({3})}); });
  expect_error(ErrorKind::Value, "exclude",
               [&] { rope(x, at, {.dims = 4, .freqs = zeros({2}), .inv_freqs = zeros({2})}); });
  expect_error(ErrorKind::Value, "exactly one of base and freqs",
               [&] { call_rope(x, 4, false, 10.0, 1, int64_t{0}, zeros({2})); });
  expect_error(ErrorKind::Type, "'offset' must be int or array",
               [&] { call_rope(x, 4, false, 10.0, 1, 0.5, Value{}); });
}

}  // namespace
}  // namespace mica
