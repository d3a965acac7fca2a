// Elements of quantized matrices on the reference device.
#pragma once

#include "backends/ref/ref.h"
#include "ops/quantized.h"

namespace mica::ref {

// A quantized matrix, or several: element (…, row, column).
struct Quantized {
  const View &packed, &scales, &biases;
  int group_size, bits;

  int64_t rows() const { return packed.shape[packed.shape.size() - 2]; }
  int64_t columns() const { return scales.shape.back() * group_size; }

  // The index may have more axes; its last one counts elements, not words.
  double integer(Dims index) const {
    int64_t column = index.back();
    index.back() = 0;
    return ops::quantized_element(at<uint32_t>(packed) + offset(packed, index), column, bits);
  }
  double value(Dims index) const {
    double q = integer(index);
    index.back() /= group_size;
    int64_t scale = offset(scales, index), bias = offset(biases, index);
    return load(scales, scale) * q + load(biases, bias);
  }
};

}  // namespace mica::ref
