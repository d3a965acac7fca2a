#include "ops/norm.h"

#include <cmath>

#include "backends/ref/ref.h"

namespace mica::ref {

namespace {

void norm(const KernelCall& call, bool centred) {
  const auto& params = call.as<ops::NormParams>();
  const View &x = call.inputs[0], &y = call.outputs[0];
  const int64_t n = x.shape.back();
  Shape rows = x.shape;
  rows.back() = 1;
  for_each(rows, [&](const Dims& index) {
    const int64_t start = offset(x, index), to = offset(y, index);
    auto element = [&](int64_t i) { return load(x, start + i * x.strides.back()); };
    double mean = 0, square = 0;
    for (int64_t i = 0; centred && i < n; ++i) mean += element(i) / static_cast<double>(n);
    for (int64_t i = 0; i < n; ++i) square += std::pow(element(i) - mean, 2);
    const double deviation = std::sqrt(square / static_cast<double>(n) + params.eps);
    for (int64_t i = 0; i < n; ++i) {
      double value = (element(i) - mean) / deviation;
      if (params.weight) value *= load(call.inputs[1], i * call.inputs[1].strides[0]);
      if (params.bias) value += load(call.inputs.back(), i * call.inputs.back().strides[0]);
      store(y, to + i, value);
    }
  });
}

void rms_norm(const KernelCall& call) { norm(call, false); }
void layer_norm(const KernelCall& call) { norm(call, true); }

}  // namespace

void norm_kernels(KernelTable& registry) {
  registry.add(ops::rms_norm_op, {.run = &rms_norm, .layouts = {Layout::Any, Layout::Any}});
  registry.add(ops::layer_norm_op,
               {.run = &layer_norm, .layouts = {Layout::Any, Layout::Any, Layout::Any}});
}

}  // namespace mica::ref
