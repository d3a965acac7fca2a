#include "nn/activation.h"

#include <iterator>

#include "ops/elementwise.h"

namespace mica::nn {

Array silu(const Array& x) { return x * sigmoid(x); }
Array gelu(const Array& x) { return x * (erf(x * 0.70710678118654752f) + 1.0f) * 0.5f; }
Array gelu_tanh(const Array& x) {
  Array inner = (x + x * x * x * 0.044715f) * 0.79788456080286536f;  // sqrt(2 / pi)
  return x * (tanh(inner) + 1.0f) * 0.5f;
}
Array relu(const Array& x) { return maximum(x, 0.0f); }

namespace {
Array quick_gelu(const Array& x) { return x * sigmoid(x * 1.702f); }
Array relu_squared(const Array& x) { return square(relu(x)); }
Array sigmoid_of(const Array& x) { return sigmoid(x); }
Array tanh_of(const Array& x) { return tanh(x); }

struct Named {
  const char* name;
  Activation function;
};
constexpr Named kActivations[] = {
    {"silu", silu},          {"swish", silu},          {"gelu", gelu},
    {"gelu_new", gelu_tanh}, {"gelu_fast", gelu_tanh}, {"gelu_pytorch_tanh", gelu_tanh},
    {"relu", relu},          {"relu2", relu_squared},  {"quick_gelu", quick_gelu},
    {"sigmoid", sigmoid_of}, {"tanh", tanh_of},
};
}  // namespace

Activation activation_from_name(const std::string& name) {
  std::string known;
  for (const Named& entry : kActivations) {
    if (name == entry.name) return entry.function;
    known += known.empty() ? entry.name : std::string(", ") + entry.name;
  }
  throw_value("unknown activation '{}'; known: {}", name, known);
}

}  // namespace mica::nn
