// Scaled dot-product attention as one operation: softmax(scale * q k^T, masked) v.
//
//   Array out_BHLV = attention(q_BHLK, k_BGSK, v_BGSV, {.scale = 1 / std::sqrt(K), .causal =
//   true});
//
// q is [B, H, L, K], k [B, G, S, K], v [B, G, S, V], all floating; H is a multiple of G, and query
// head h reads key head h / (H/G). The result is [B, H, L, V] in the promoted dtype. Scores,
// softmax and sums are float32 (float64 if an input is), whatever the dtypes, but that weights may
// be rounded to bfloat16 where all inputs are: the result then errs by at most 2^-8 times the
// weighted mean of |value - result| more, before it is rounded itself. Nothing of size L x S is
// stored.
//
// Which keys a query sees is said by numbers, not by a mask in memory:
//
//   lengths   integers (B,) or (): positions known so far, the new ones included; default S
//   offsets   integers (B,) or (): position of the first query row; default lengths - L
//   ring      slot s holds the largest position p < length with p % S == s (a sliding cache);
//             otherwise slot s holds position s
//   causal    p <= query position
//   window    query position - p < window: the last `window` keys, the own one included; 0: all
//   mask      bool (true: seen) or floating (added to the scores), broadcastable to [B, H, L, S]
//
// Slots whose position is not below the length, or that no query of a row block sees by these
// rules, are never read: they may hold anything, NaN too, and capacity beyond the length costs
// nothing. A row that sees no key gives zeros. `softcap` c (0: none) replaces a score x by c *
// tanh(x / c) before masking.
//
// A sequence's result does not depend on its neighbours in the batch, on S beyond its length, or on
// the number of threads. Derivatives exist for q, k, v and a floating mask; memory for those of q,
// k and v is linear in L and S, for that of the mask quadratic.
//
// Vaswani et al., "Attention Is All You Need", 2017; Dao et al., "FlashAttention", 2022.
#pragma once

#include "core/op.h"

namespace mica {

struct AttentionOptions {
  double scale = 1;
  bool causal = false;
  int64_t window = 0;
  double softcap = 0;
  bool ring = false;  // needs lengths
  Array offsets = {};
  Array lengths = {};
  Array mask = {};
};

Array attention(const Array& q, const Array& k, const Array& v, const AttentionOptions& options,
                Stream s = {});

namespace ops {

// Inputs of `attention`: q, k, v, then offsets, lengths (int32, (B,)) and mask (four axes, each of
// extent 1 or full) where the flags say so. `attention_vjp` takes the cotangent after v and has
// three outputs: the cotangents of q, k and v. Either q, k, v are all float64 or none is.
struct AttentionParams {
  double scale;
  bool causal;
  int64_t window;
  double softcap;
  bool ring;
  bool offsets, lengths, mask;
  static constexpr auto fields() {
    return std::tuple(
        argument("scale", &AttentionParams::scale), field("causal", &AttentionParams::causal),
        argument("window", &AttentionParams::window),
        argument("softcap", &AttentionParams::softcap), field("ring", &AttentionParams::ring),
        field("offsets", &AttentionParams::offsets), field("lengths", &AttentionParams::lengths),
        field("mask", &AttentionParams::mask));
  }
};
extern const Op attention_op;
extern const Op attention_vjp_op;

}  // namespace ops
}  // namespace mica
