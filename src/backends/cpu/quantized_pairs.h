// Exact products of rows of bfloat16 numbers with a quantized matrix, by instructions that multiply
// two pairs of bfloat16 numbers and add to a float (gemm_kernels.h): the integers of the matrix are
// such numbers, too.
//
//   y = sum over groups g: scale[g] * sum((q - c) * x) + (bias[g] + c * scale[g]) * sum(x)
//
// c is what kernels have taken off or added to the integers for their own sake. Products of q and x
// lose nothing; sums are float32. Where a few rows are multiplied, lanes of a vector hold sums of
// neighbouring elements; of more rows panels are made for the products of gemm.h. So the last bits
// of a result depend on how many rows there are, as with matrices that are not quantized.
#pragma once

#include <vector>

#include "backends/cpu/quantized.h"
#include "backends/cpu/quantized_int8.h"

namespace mica::cpu {

// A row of x that has been made ready: the sums of its groups, then its elements in the order that
// the products need. Zeros up to the next whole block.
struct PairFormat {
  PairFormat(const QuantizedMatrix& matrix, int64_t k);

  float* sums(std::byte* row) const { return reinterpret_cast<float*>(row); }
  const float* sums(const std::byte* row) const { return reinterpret_cast<const float*>(row); }
  const uint16_t* words(const std::byte* row) const {
    return reinterpret_cast<const uint16_t*>(row + padded_groups * sizeof(float));
  }
  uint16_t* words(std::byte* row) const {
    return reinterpret_cast<uint16_t*>(row + padded_groups * sizeof(float));
  }

  int bits, group_size;
  int64_t k, groups, padded_groups;
  int64_t row_bytes;  // a multiple of 64
};

// Rows of x that are multiplied together with the packed rows, which are kInt8Rows (16) then.
inline constexpr int kPairRows = 4;

struct PairKernels {
  // The sums of a row's groups. False if products with it might leave the range of floats, or lose
  // numbers that are too small.
  bool (*sum)(const PairFormat& format, const bfloat16_t* x, float* sums);
  // The elements of a row in the order of lanes, for dots, and in that of pairs, for panels.
  void (*arrange)(const PairFormat& format, const bfloat16_t* x, uint16_t* words);
  void (*pair_up)(const bfloat16_t* x, int64_t k, uint16_t* words);
  // The products of rows first … first + rows (at most kInt8Rows) of the matrix with `count` (at
  // most kPairRows) rows of x: out[i * kInt8Rows + row]. What lies from `next` on is fetched
  // meanwhile.
  void (*dots)(const PairFormat& format, const QuantizedMatrix& matrix, int64_t first, int rows,
               const std::byte* const* x, int count, float* out, const Int8Place& next);
  // Groups g0 … g0 + groups of a panel of rows first … first + count of the matrix: of each group
  // its pairs, then the scales and the biases of all rows.
  void (*unpack)(const PairFormat& format, const QuantizedMatrix& matrix, int64_t first, int count,
                 int64_t g0, int64_t groups, float* panel);
  // Of such panels and panels of x, which have a row of anything and the sums of x in the place of
  // scales and biases.
  GemmKernels<float> gemm;
};
// nullptr where these are no faster.
const PairKernels* pair_kernels();

// Whether the product is served here.
bool has_pair_products(const QuantizedGemm<float>& product);
size_t pairs_workspace(const QuantizedGemm<float>& product);
// Gives the rows of x that are out of range: their results are to be overwritten.
std::vector<int64_t> run_pairs(const QuantizedGemm<float>& product, std::span<std::byte> workspace);

}  // namespace mica::cpu
