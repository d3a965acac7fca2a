// Products with one matrix per expert, each kept where it lies: no stack of all experts is ever
// made.
//
//   Array h_TkF = expert_matmul(x_TD, ids_Tk, up);        // up: E arrays [F, D]
//   Array y_TkD = expert_matmul(h_TkF, ids_Tk, down);
//
// x is [T, I] (every choice of a token sees the same row) or [T, k, I]; ids are integers [T, k],
// each 0 … E-1 (IndexError at evaluation); the matrices are [O, I] as checkpoints store them,
// float32, float16 or bfloat16, or one array [E, O, I] of all. The result is [T, k, O] in x's
// dtype; sums are float32 (float64 for float64). Quantized matrices are read as stored; see
// ops/quantized.h for the format and for activation_bits.
#pragma once

#include <optional>

#include "core/op.h"
#include "core/view.h"

namespace mica {

Array expert_matmul(const Array& x, const Array& ids, const Arrays& matrices, Stream s = {});
Array expert_quantized_matmul(const Array& x, const Array& ids, const Arrays& packed,
                              const Arrays& scales, const Arrays& biases, int group_size, int bits,
                              Stream s = {}, int activation_bits = 0);

// Evaluated arrays of one shape as one, [n, …], if they lie one after the other in memory, as the
// parts of a stored stack do; none otherwise. Nothing is copied.
std::optional<Array> joined(const Arrays& parts);

namespace ops {

// Inputs: x [T, k or 1, I], ids [T, k], then E matrices, or packed, scales and biases of expert 0,
// of 1, …; or one stack of the matrices, or three of packed, scales and biases.
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

// Matrix e (part 0), its scales (1) or biases (2) among the inputs of a call: as it lies.
View expert_part(std::span<const View> inputs, const ExpertParams& p, int64_t e, size_t part);

}  // namespace ops
}  // namespace mica
