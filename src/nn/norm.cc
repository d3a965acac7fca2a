#include "nn/norm.h"

#include "ops/elementwise.h"
#include "ops/norm.h"

namespace mica::nn {

void Norm::visit(Visitor& visitor) {
  visitor.parameter("weight", weight_, {dims_});
  if (kind_ == NormKind::Layer) visitor.parameter("bias", bias_, {dims_});
}

Array Norm::operator()(const Array& x) const {
  switch (kind_) {
    case NormKind::Rms: return rms_norm(x, weight_, eps_);
    // In float32, as 1 + w would lose bits of a half weight.
    case NormKind::RmsPlusOne: return rms_norm(x, astype(weight_, Dtype::F32) + 1.0f, eps_);
    case NormKind::Layer: return layer_norm(x, weight_, bias_, eps_);
  }
  return x;
}

}  // namespace mica::nn
