// Rotary position embeddings: pairs of features turned by an angle that grows with the position.
//
//   Array q_BHLK = rope(q_BHLK, offsets_B, {.dims = K, .base = 500000});
//
// x is [B, ..., L, D], at least three axes, floating; the first `dims` features (even, at most D)
// are rotated, the others copied. Feature i is paired with i + dims/2, or (traditional) 2i with 2i
// + 1. Row l of sequence b stands at position positions[b] + l, or at positions[b, l]:
//
//   positions   integers, (): one offset for all; (B,): one for each sequence; (B, L): every
//   position angle       float32(position) * float32(scale * frequency[i]), rounded to float32 as
//   transformers do frequency   base^(-2i/dims) in float32, or 1 / freqs[i] (MLX's `freqs`), or
//   inv_freqs[i] as it is magnitude   factor of cosine and sine (the attention factor of yarn and
//   longrope)
//
// Positions are always an array, so that a decode loop never makes a new plan. The result has x's
// shape and dtype; float16 and bfloat16 are rotated in float32 and rounded once. Derivatives reach
// x only.
//
// Su et al., "RoFormer: Enhanced Transformer with Rotary Position Embedding", 2021.
#pragma once

#include <cmath>

#include "core/op.h"

namespace mica {

struct RopeOptions {
  int dims = 0;
  bool traditional = false;
  double base = 10000;  // not used with freqs or inv_freqs
  double scale = 1;
  double magnitude = 1;
  Array freqs = {};      // float32 (dims/2), or undefined
  Array inv_freqs = {};  // the same; at most one of the two
};

Array rope(const Array& x, const Array& positions, const RopeOptions& options, Stream s = {});

namespace ops {

enum class RopeFrequencies : uint8_t { Base, Wavelengths, Given };

// Inputs: x, positions (int32), and unless `frequencies` is Base a float32 array of dims/2.
struct RopeParams {
  int dims;
  bool traditional;
  bool backward;  // turns by the negative angle: the derivative
  RopeFrequencies frequencies;
  double base;
  double scale;
  double magnitude;
  static constexpr auto fields() {
    return std::tuple(
        field("dims", &RopeParams::dims), field("traditional", &RopeParams::traditional),
        field("backward", &RopeParams::backward), field("frequencies", &RopeParams::frequencies),
        argument("base", &RopeParams::base), argument("scale", &RopeParams::scale),
        argument("magnitude", &RopeParams::magnitude));
  }
};
extern const Op rope_op;

// The float32 factor of the position for pair i; `given` is the array's element, if there is one.
inline float rope_frequency(const RopeParams& p, int i, float given) {
  float frequency = given;
  if (p.frequencies == RopeFrequencies::Wavelengths) frequency = 1.0f / given;
  if (p.frequencies == RopeFrequencies::Base) {
    float exponent = static_cast<float>(2 * i) / static_cast<float>(p.dims);
    frequency = 1.0f / std::pow(static_cast<float>(p.base), exponent);
  }
  return frequency * static_cast<float>(p.scale);
}

}  // namespace ops
}  // namespace mica
