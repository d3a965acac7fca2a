// Normalisation layers. Statistics are float32 whatever the input; results have the input's dtype.
#pragma once

#include "nn/module.h"

namespace mica::nn {

enum class NormKind {
  Rms,         // x / rms(x) · w (Zhang & Sennrich 2019, arXiv:1910.07467)
  RmsPlusOne,  // x / rms(x) · (1 + w), Gemma's
  Layer,       // (x - mean) / std · w + b (Ba et al. 2016, arXiv:1607.06450)
};

class Norm : public Module {
 public:
  Norm(NormKind kind, int64_t dims, float eps) : kind_(kind), dims_(dims), eps_(eps) {}
  void visit(Visitor& visitor) override;
  Array operator()(const Array& x) const;

 private:
  NormKind kind_;
  int64_t dims_;
  float eps_;
  Array weight_, bias_;
};

}  // namespace mica::nn
