// Random quantized matrices, with their elements in float64.
#pragma once

#include <cstring>
#include <random>
#include <vector>

#include "backends/cpu/quantized.h"
#include "ops/quantized.h"

namespace mica::cpu {

// A random matrix, its packed words at an address that is a multiple of four only.
struct Quantized {
  Quantized(int64_t rows, int64_t columns, int group_size, int bits, Dtype dtype, uint32_t seed)
      : rows(rows), columns(columns) {
    std::mt19937 random(seed);
    int64_t row_words = columns * bits / 32, groups = columns / group_size;
    words.resize(static_cast<size_t>(rows * row_words + 1));
    for (uint32_t& word : words) word = random();
    std::uniform_real_distribution<float> uniform(0.5f, 1.5f);
    for (auto* bytes : {&scales, &biases}) {
      bytes->resize(static_cast<size_t>(rows * groups * size_of(dtype)));
      for (int64_t i = 0; i < rows * groups; ++i)
        dispatch_floating(dtype, "test", [&](auto tag) {
          using T = typename decltype(tag)::type;
          float value =
              bytes == &scales ? uniform(random) : -uniform(random) * float(1 << (bits - 1));
          reinterpret_cast<T*>(bytes->data())[i] = T(value / float(1 << bits));
        });
    }
    view = {.packed = words.data() + 1,
            .packed_stride = row_words,
            .scales = scales.data(),
            .biases = biases.data(),
            .scales_stride = groups,
            .biases_stride = groups,
            .scales_dtype = dtype,
            .biases_dtype = dtype,
            .group_size = group_size,
            .bits = bits};
  }
  double parameter(const std::vector<std::byte>& bytes, int64_t row, int64_t column) const {
    return dispatch_floating(view.scales_dtype, "test", [&](auto tag) {
      return static_cast<double>(reinterpret_cast<const typename decltype(tag)::type*>(
          bytes.data())[row * view.scales_stride + column / view.group_size]);
    });
  }
  double at(int64_t row, int64_t column) const {
    double q = ops::quantized_element(view.packed_row(row), column, view.bits);
    return parameter(scales, row, column) * q + parameter(biases, row, column);
  }

  int64_t rows, columns;
  std::vector<uint32_t> words;
  std::vector<std::byte> scales, biases;
  QuantizedMatrix view;
};

inline std::vector<float> random_rows(int64_t count, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> values(static_cast<size_t>(count));
  for (float& value : values) value = normal(random);
  return values;
}

}  // namespace mica::cpu
