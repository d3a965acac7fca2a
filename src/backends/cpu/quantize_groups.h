// Quantizing on the CPU, a row at a time; the format is that of ops/quantized.h.
#pragma once

#include <algorithm>
#include <cstring>

#include "ops/quantized.h"

namespace mica::cpu {

// One group as the definition has it: `values` are its elements, `bytes` where its integers go.
// Returns scale and bias, not yet rounded to their type.
inline ops::GroupScale quantize_values(const float* values, const ops::QuantizationParams& p,
                                       uint8_t* bytes) {
  float low = values[0], high = low;
  for (int i = 0; i < p.group_size; ++i) {
    low = std::min(low, values[i]);
    high = std::max(high, values[i]);
  }
  ops::GroupScale scale(low, high, p.bits);
  // Eight integers fill as many bytes as they have bits.
  for (int i = 0; i < p.group_size; i += 8, bytes += p.bits) {
    uint64_t word = 0;
    for (int j = 0; j < 8; ++j)
      word |= static_cast<uint64_t>(scale.quantize(values[i + j], p.bits)) << (j * p.bits);
    std::memcpy(bytes, &word, static_cast<size_t>(p.bits));
  }
  return scale;
}

// The same for `groups` groups of a floating type that follow each other, to `packed` and to as
// many scales and biases of that type; vectorised, with equal bits.
void quantize_groups(const std::byte* w, Dtype dtype, int64_t groups,
                     const ops::QuantizationParams& p, std::byte* packed, std::byte* scales,
                     std::byte* biases);

}  // namespace mica::cpu
