// Products with one matrix per expert, each kept where it lies: no stack of all experts is ever
// made.
//
//   Array h_TkF = expert_matmul(x_TD, ids_Tk, up);        // up: E arrays [F, D]
//   Array y_TkD = expert_matmul(h_TkF, ids_Tk, down);
//
// x is [T, I] (every choice of a token sees the same row) or [T, k, I]; ids are integers [T, k],
// each 0 … E-1 (IndexError at evaluation); the matrices are [O, I] as checkpoints store them,
// float32, float16 or bfloat16. The result is [T, k, O] in x's dtype; sums are float32 (float64 for
// float64). Quantized matrices are read as stored; see ops/quantized.h for the format and for
// activation_bits.
#pragma once

#include "core/op.h"

namespace mica {

Array expert_matmul(const Array& x, const Array& ids, const Arrays& matrices, Stream s = {});
Array expert_quantized_matmul(const Array& x, const Array& ids, const Arrays& packed,
                              const Arrays& scales, const Arrays& biases, int group_size, int bits,
                              Stream s = {}, int activation_bits = 0);

namespace ops {

// Inputs: x [T, k or 1, I], ids [T, k], then E matrices, or packed, scales and biases of expert 0,
// of 1, ….
struct ExpertParams {
  int experts;
  int group_size;  // 0: dense
  int bits;
  int activation_bits = 0;
  static constexpr auto fields() {
    return std::tuple(field("experts", &ExpertParams::experts),
                      field("group_size", &ExpertParams::group_size),
                      field("bits", &ExpertParams::bits),
                      field("activation_bits", &ExpertParams::activation_bits));
  }
};
extern const Op expert_matmul_op;

}  // namespace ops
}  // namespace mica
