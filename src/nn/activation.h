// Activation functions by the names that checkpoints use.
#pragma once

#include <string>

#include "core/array.h"

namespace mica::nn {

Array silu(const Array& x);  // x · sigmoid(x)
Array gelu(const Array& x);  // x · Φ(x), with erf
Array gelu_tanh(
    const Array& x);  // the tanh approximation (Hendrycks & Gimpel 2016, arXiv:1606.08415)
Array relu(const Array& x);

using Activation = Array (*)(const Array&);
// "silu", "swish", "gelu", "gelu_new", "gelu_pytorch_tanh", "gelu_fast", "relu", "quick_gelu",
// "relu2", "sigmoid", "tanh"; ValueError naming the known ones otherwise.
Activation activation_from_name(const std::string& name);

}  // namespace mica::nn
