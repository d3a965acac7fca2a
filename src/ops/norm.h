// Normalisation of the last axis, as one kernel each.
//
//   Array h_BLD = rms_norm(x_BLD, weight_D, 1e-5);
//   Array h_BLD = layer_norm(x_BLD, weight_D, bias_D, 1e-5);
//
// x has at least one axis; weight and bias are absent (an undefined Array) or have shape (D,),
// where D is x's last extent. All are floating. The result has x's shape and the promoted dtype of
// the inputs. Everything between is computed in float32 (float64 for float64) and rounded once, at
// the end.
//
// Zhang and Sennrich, "Root Mean Square Layer Normalization", 2019; Ba, Kiros and Hinton, "Layer
// Normalization", 2016.
#pragma once

#include "core/op.h"

namespace mica {

// x / sqrt(mean(x^2) + eps) * weight
Array rms_norm(const Array& x, const Array& weight, double eps, Stream s = {});
// (x - mean(x)) / sqrt(variance(x) + eps) * weight + bias, with the biased variance
Array layer_norm(const Array& x, const Array& weight, const Array& bias, double eps, Stream s = {});

namespace ops {

// Inputs: x, then weight and bias where the flags say so; weight and bias have one dtype, and
// either all inputs are float64 or none is.
struct NormParams {
  double eps;
  bool weight;
  bool bias;  // never for rms_norm
  static constexpr auto fields() {
    return std::tuple(argument("eps", &NormParams::eps), field("weight", &NormParams::weight),
                      field("bias", &NormParams::bias));
  }
};
extern const Op rms_norm_op;
extern const Op layer_norm_op;

// Cotangents of both. Inputs: x, weight if there is one, and the cotangent of the result. Outputs:
// that of x, then those of weight and bias, summed over all rows, where they are wanted.
struct NormVjpParams {
  double eps;
  bool centred;  // layer_norm
  bool weight;
  bool scale, shift;  // cotangents of weight and bias are wanted
  Dtype affine;       // theirs
  static constexpr auto fields() {
    return std::tuple(
        argument("eps", &NormVjpParams::eps), field("centred", &NormVjpParams::centred),
        field("weight", &NormVjpParams::weight), field("scale", &NormVjpParams::scale),
        field("shift", &NormVjpParams::shift), field("affine", &NormVjpParams::affine));
  }
};
extern const Op norm_vjp_op;

}  // namespace ops
}  // namespace mica
