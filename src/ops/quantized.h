// Quantized matrices in MLX's affine format, and products that read them as stored.
//
//   Arrays q = quantize(w_NK, 64, 4);                              // packed, scales, biases
//   Array y_MN = quantized_matmul(x_MK, q[0], q[1], q[2]);         // x times the transpose of w
//
// The format: each group of `group_size` neighbours along the last axis shares one scale and one
// bias, and stands for w[i] = scale * q[i] + bias, q[i] an unsigned integer of `bits` bits. The q
// of a row follow each other without gaps, lowest bits first, in little-endian uint32 words, so
// element i begins at bit i * bits of its row. Group sizes are 16, 32, 64 and 128; bits 2, 3, 4, 5,
// 6 and 8; rows must fill whole words. Scales and biases are float16, bfloat16 or float32 (float64
// too).
//
//   w       [..., N, K]          packed  [..., N, K * bits / 32] uint32
//   scales  [..., N, K / group]  biases  as scales
//
// Products are exact: activations are not quantized, sums are float32 (float64 for float64) and
// rounded once. With activation_bits = 8 products with 4-bit and 8-bit matrices, groups of 32 or
// more, transposed, not in float64, take x as integers too, which is faster (other products stay
// exact): in each group of columns x[i] is replaced by step * round(x[i] * (127 / m)), m its
// largest magnitude, step = m / 127, in float32, ties to even. Rows of x with a value that is not
// finite or a group whose m is not zero and below 1e-30 stay as they are. Derivatives are those of
// the exact product.
//
// Unknown modes are Unsupported errors, shapes and sizes that do not fit ValueErrors.
#pragma once

#include <optional>
#include <string_view>

#include "core/op.h"
#include "core/params.h"

namespace mica {

// {packed, scales, biases} of a floating array of two axes or more; scales and biases have its
// dtype. Bit for bit what MLX's CPU device gives. No derivative.
Arrays quantize(const Array& w, int group_size = 64, int bits = 4, std::string_view mode = "affine",
                Stream s = {});
// The array that a packed one stands for, in the dtype of scales and biases: the product is rounded
// to that dtype, then the sum. `dtype` converts the result.
Array dequantize(const Array& w, const Array& scales, const Array& biases, int group_size = 64,
                 int bits = 4, std::string_view mode = "affine", std::optional<Dtype> dtype = {},
                 Stream s = {});
// x times the transpose of w, [..., M, K] x [..., N, K] -> [..., M, N], or with transpose = false x
// times w, [..., M, N] x [..., N, K] -> [..., M, K]. Batches broadcast; x may be a vector. The
// result has the promoted dtype of x, scales and biases. Derivatives: x, scales, biases.
Array quantized_matmul(const Array& x, const Array& w, const Array& scales, const Array& biases,
                       bool transpose = true, int group_size = 64, int bits = 4,
                       std::string_view mode = "affine", Stream s = {}, int activation_bits = 0);

namespace ops {

struct QuantizationParams {
  int group_size;
  int bits;
  static constexpr auto fields() {
    return std::tuple(field("group_size", &QuantizationParams::group_size),
                      field("bits", &QuantizationParams::bits));
  }
};
struct QuantizedMatmulParams {
  int group_size;
  int bits;
  bool transpose;
  Dtype dtype;              // of the result; float64 if and only if x is
  int activation_bits = 0;  // 8: x is rounded; 0: it is not
  static constexpr auto fields() {
    return std::tuple(field("group_size", &QuantizedMatmulParams::group_size),
                      field("bits", &QuantizedMatmulParams::bits),
                      field("transpose", &QuantizedMatmulParams::transpose),
                      field("dtype", &QuantizedMatmulParams::dtype),
                      field("activation_bits", &QuantizedMatmulParams::activation_bits));
  }
};

extern const Op quantize_op;          // w
extern const Op dequantize_op;        // packed, scales, biases (of one dtype)
extern const Op quantized_matmul_op;  // x, packed, scales, biases: two axes or more

// The group size and bits of a call, whose mode and numbers are checked.
QuantizationParams check_quantization(const char* name, int group_size, int bits,
                                      std::string_view mode);
// The bits that products (transposed ones) with a matrix of the format round x to, or 0; `wanted`
// is checked.
int rounded_activations(const char* name, int wanted, QuantizationParams p, Dtype dtype);

// A group whose largest magnitude is smaller, but not zero, is not rounded.
inline constexpr float kSmallestRounded = 1e-30f;
// x with its last axis rounded so; the derivative is that of x itself.
Array rounded_activation(const Array& x, int group_size, Stream s);

// Checks that packed, scales and biases fit each other; gives the number of columns.
int64_t check_quantized(const char* name, const Array& w, const Array& scales, const Array& biases,
                        QuantizationParams p);
// The biases, which are there in affine mode, the only one.
Array needed_biases(const std::optional<Array>& biases, const char* name, std::string_view mode);
// The dtype of a product with x, checked.
Dtype quantized_dtype(const char* name, const Array& x, const Array& scales, const Array& biases);
// The integers q of a packed array, [..., K], as `dtype`.
Array quantized_integers(const Array& w, QuantizationParams p, Dtype dtype, Stream s);
// From the cotangent of the dequantized array those of scales and biases (both of `like`'s dtype).
Array scales_cotangent(const Array& dense, const Array& w, QuantizationParams p, Dtype dtype);
Array biases_cotangent(const Array& dense, QuantizationParams p, Dtype dtype);

// One element of the format: `row` points at the packed words of a row.
inline uint32_t quantized_element(const uint32_t* row, int64_t i, int bits) {
  int64_t bit = i * bits;
  uint64_t word = row[bit / 32];
  if (bit % 32 + bits > 32) word |= static_cast<uint64_t>(row[bit / 32 + 1]) << 32;
  return static_cast<uint32_t>(word >> (bit % 32)) & ((1u << bits) - 1);
}

// Scale and bias of a group, in float32 as MLX computes them.
struct GroupScale {
  float scale, bias;
  // Of a group whose elements lie between low and high.
  GroupScale(float low, float high, int bits);
  // The integer that stands for an element.
  uint32_t quantize(float value, int bits) const;
};

}  // namespace ops
}  // namespace mica
