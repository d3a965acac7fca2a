// Dot products of a few rows with the packed rows of a 4-bit or 8-bit matrix, in integers, with
// AVX-512 VNNI: the decode step of a quantized model.
//
// Each group of a row of x is written as 24-bit integers times one step, its largest magnitude over
// 127 * 2^16: what is lost is less than float32 sums lose anyway. The integers are held as three
// signed bytes, so that vpdpbusd multiplies them with the packed bytes exactly:
//
//   dot(x, w) = sum over groups g: scale[g] * step[g] * sum(q * x_int) + bias[g] * sum(x)
//
// A group's integer sum is exact; groups are added in float32, in one accumulator per lane, in
// ascending order. The result depends on the two rows only.
#pragma once

#include <memory>

#include "backends/cpu/quantized.h"

namespace mica::cpu {

// True if this processor and format are served: 4 or 8 bits, groups of 32 or more.
bool has_quantized_dots(const QuantizedMatrix& matrix);
// For tests: pretends that the processor does not.
void disable_quantized_dots(bool disabled);

// Rows of x made ready, `stride` bytes apart in memory of the caller's.
struct QuantizedDots {
  QuantizedDots(const QuantizedMatrix& matrix, int64_t k);
  size_t bytes_per_row() const { return static_cast<size_t>(row_bytes); }
  // Writes one row (k floats); false if it has values that are not finite, or too small to have a
  // step.
  bool prepare(const float* x, std::byte* row) const;
  // Dot products of matrix rows first … first + rows (at most 4) with `count` (at most 4) prepared
  // rows, one after the other: out[row * 4 + i].
  void multiply(int64_t first, int rows, const std::byte* prepared, int count, float* out) const;

  QuantizedMatrix matrix;
  int64_t k;
  int64_t groups, padded_groups;  // padded to whole vectors of 16
  int64_t blocks;                 // of 64 packed bytes
  int64_t row_bytes;
};

}  // namespace mica::cpu
