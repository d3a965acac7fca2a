// Quantizing on every instruction set gives the bits of the definition.
#include "backends/cpu/quantize_groups.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "tests/backends/targets.h"

namespace mica::cpu {
namespace {

class QuantizeGroups : public TargetTest {};

struct Quantized {
  std::vector<std::byte> packed, scales, biases;
  friend bool operator==(const Quantized&, const Quantized&) = default;
};

Quantized sized(Dtype dtype, int64_t groups, const ops::QuantizationParams& p) {
  auto of = [](int64_t bytes) { return std::vector<std::byte>(static_cast<size_t>(bytes)); };
  return {of(groups * p.group_size * p.bits / 8), of(groups * size_of(dtype)),
          of(groups * size_of(dtype))};
}

template <class T>
Quantized expected(const std::vector<T>& w, int64_t groups, const ops::QuantizationParams& p) {
  Quantized q = sized(dtype_of<T>, groups, p);
  std::vector<float> values(static_cast<size_t>(p.group_size));
  for (int64_t g = 0; g < groups; ++g) {
    for (size_t i = 0; i < values.size(); ++i)
      values[i] = static_cast<float>(w[static_cast<size_t>(g) * values.size() + i]);
    ops::GroupScale scale = quantize_values(
        values.data(), p,
        reinterpret_cast<uint8_t*>(q.packed.data()) + g * p.group_size * p.bits / 8);
    reinterpret_cast<T*>(q.scales.data())[g] = T(scale.scale);
    reinterpret_cast<T*>(q.biases.data())[g] = T(scale.bias);
  }
  return q;
}

template <class T>
void expect_equal_bits(const std::vector<T>& w, const ops::QuantizationParams& p) {
  int64_t groups = std::ssize(w) / p.group_size;
  Quantized got = sized(dtype_of<T>, groups, p);
  quantize_groups(reinterpret_cast<const std::byte*>(w.data()), dtype_of<T>, groups, p,
                  got.packed.data(), got.scales.data(), got.biases.data());
  Quantized wanted = expected(w, groups, p);
  SCOPED_TRACE(fmt::format("{}, {} bits, groups of {}", dtype_of<T>, p.bits, p.group_size));
  EXPECT_TRUE(got.packed == wanted.packed);
  EXPECT_TRUE(got.scales == wanted.scales);
  EXPECT_TRUE(got.biases == wanted.biases);
}

template <class T>
std::vector<T> noise(size_t count) {
  std::mt19937 random(7);
  std::normal_distribution<float> normal(0.01f, 0.5f);
  std::vector<T> values;
  for (size_t i = 0; i < count; ++i) values.push_back(T(normal(random)));
  return values;
}

TEST_P(QuantizeGroups, OfEveryFormatAndType) {
  for (int group : {16, 32, 64, 128}) {
    for (int bits : {2, 3, 4, 5, 6, 8}) {
      expect_equal_bits(noise<float>(128 * 9), {group, bits});
      expect_equal_bits(noise<float16_t>(128 * 9), {group, bits});
      expect_equal_bits(noise<bfloat16_t>(128 * 9), {group, bits});
      expect_equal_bits(noise<double>(128 * 2), {group, bits});
    }
  }
}

// A group each: equal values, zeros of both signs, ties, tiny and huge ones, one sign only.
TEST_P(QuantizeGroups, OfOddValues) {
  std::vector<std::vector<float>> groups = {{0.0f},
                                            {-0.0f, 0.0f},
                                            {3.0f},
                                            {-3.0f},
                                            {0, 1, 2, 3, 4, 5, 6, 7.5f},
                                            {1e-9f, -1e-9f},
                                            {1e-40f, 3e-39f},
                                            {3e38f, -3e38f},
                                            {3e38f, 1.0f},
                                            {1, 2, 5},
                                            {-1, -2, -5},
                                            {-8, 7},
                                            {8, -7},
                                            {0.5f, 1.5f, 2.5f, 3.5f, 15.0f, 0.0f}};
  std::vector<float> w;
  for (const auto& group : groups)
    for (size_t i = 0; i < 32; ++i) w.push_back(group[i % group.size()]);
  for (int bits : {2, 3, 4, 5, 6, 8}) expect_equal_bits(w, {32, bits});
}

TEST_P(QuantizeGroups, OfWhatIsNotFinite) {
  constexpr float inf = std::numeric_limits<float>::infinity();
  for (float odd : {inf, -inf, std::nanf("")}) {
    for (size_t place : {0, 5, 31}) {
      std::vector<float> w = noise<float>(96);
      w[32 + place] = odd;
      for (int bits : {2, 4, 8}) {
        ops::QuantizationParams p{32, bits};
        Quantized got = sized(Dtype::F32, 3, p), wanted = expected(w, 3, p);
        quantize_groups(reinterpret_cast<const std::byte*>(w.data()), Dtype::F32, 3, p,
                        got.packed.data(), got.scales.data(), got.biases.data());
        // The group alone is odd; its neighbours are as they would be.
        EXPECT_TRUE(got.packed == wanted.packed);
        for (size_t g : {0, 2})
          EXPECT_EQ(std::memcmp(&got.scales[4 * g], &wanted.scales[4 * g], 4), 0);
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Targets, QuantizeGroups, all_targets(), target_name);

}  // namespace
}  // namespace mica::cpu
