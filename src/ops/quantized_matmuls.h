// Products of one x with several quantized matrices, such as those of queries, keys and values.
#pragma once

#include "ops/quantized.h"

namespace mica {

// What quantized_matmul(x, w, scales, biases, true, …) gives for each of the matrices, in order and
// bit for bit. Where x is rounded (activation_bits, ops/quantized.h) that happens once and all
// matrices are read in one loop. Errors are those of quantized_matmul; ValueError for lists of
// different lengths.
Arrays quantized_matmuls(const Array& x, const Arrays& w, const Arrays& scales,
                         const Arrays& biases, int group_size = 64, int bits = 4, Stream s = {},
                         int activation_bits = 0);

namespace ops {

// Inputs: x [..., M, K], then packed [N, K * bits / 32], scales and biases of each matrix. x is
// rounded to 8 bits; results are [..., M, N] in the params' dtype.
extern const Op quantized_matmuls_op;

}  // namespace ops
}  // namespace mica
