// Quantized matrices on the CPU: unpacking, and products that read them as stored.
//
// A few rows (decoding) are dot products with the packed rows, which are read once; more rows
// unpack panels that fit the caches for the matrix product of gemm.h. The format is that of
// ops/quantized.h.
#pragma once

#include "backends/cpu/gemm.h"
#include "core/view.h"

namespace mica::cpu {

struct QuantizedMatrix {
  const uint32_t* packed = nullptr;
  int64_t packed_stride = 0;  // words from row to row
  const std::byte* scales = nullptr;
  const std::byte* biases = nullptr;
  int64_t scales_stride = 0, biases_stride = 0;  // elements from row to row
  Dtype scales_dtype = Dtype::F32, biases_dtype = Dtype::F32;
  int group_size = 64, bits = 4;

  // The (first) matrix of a stack.
  static QuantizedMatrix of(const View& packed, const View& scales, const View& biases,
                            int group_size, int bits);

  const uint32_t* packed_row(int64_t row) const { return packed + row * packed_stride; }
  const std::byte* scales_row(int64_t row) const {
    return scales + row * scales_stride * size_of(scales_dtype);
  }
  const std::byte* biases_row(int64_t row) const {
    return biases + row * biases_stride * size_of(biases_dtype);
  }
};

// Elements first … first + count of a row, scale * q + bias; first and count are multiples of 8. T:
// float or double, the type it is computed in.
template <class T>
void unpack_row(const QuantizedMatrix& matrix, int64_t row, int64_t first, int64_t count, T* to);
// The integers of a whole row of `columns` elements, one in each byte.
void unpack_integers(const QuantizedMatrix& matrix, int64_t row, int64_t columns, uint8_t* to);
// The same of a part of a row, q - 2^(bits - 1); count is a multiple of 16.
void unpack_centred(const QuantizedMatrix& matrix, int64_t row, int64_t first, int64_t count,
                    bfloat16_t* to);
// A whole row of `columns` elements, rounded to scales_dtype (which is biases_dtype) after the
// product and after the sum.
void dequantize_row(const QuantizedMatrix& matrix, int64_t row, int64_t columns, std::byte* to);

// The product of rows with a quantized matrix of n rows and k columns, or (transpose false) of k
// rows and n columns.
template <class T>
struct QuantizedGemm {
  int64_t m = 0, n = 0, k = 0;
  GemmOperand left;
  QuantizedMatrix matrix;
  bool transpose = true;
  bool int8 = false;  // x is rounded to 8 bits, where that is served (quantized_int8.h)
  GemmOutput out;

  size_t workspace() const;
  // What this or any smaller m needs.
  size_t largest_workspace() const;
  void run(std::span<std::byte> workspace) const;
  // The exact products of some rows, one by one: of those that cannot be rounded.
  void run_exactly(std::span<const int64_t> rows, std::span<std::byte> workspace) const;
  size_t exact_row_workspace() const;
};

extern template struct QuantizedGemm<float>;
extern template struct QuantizedGemm<double>;

}  // namespace mica::cpu
