#include "ops/quantized.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "backends/ref/quantized.h"

namespace mica::ref {

namespace {

void quantize(const KernelCall& call) {
  const auto& p = call.as<ops::QuantizationParams>();
  const View &w = call.inputs[0], &packed = call.outputs[0];
  std::fill_n(at<uint32_t>(packed), packed.size(), 0u);
  for_each(call.outputs[1].shape, [&](const Dims& group) {
    int64_t first = offset(w, [&] {
      Dims index = group;
      index.back() *= p.group_size;
      return index;
    }());
    auto element = [&](int i) { return static_cast<float>(load(w, first + i * w.strides.back())); };
    float low = element(0), high = low;
    for (int i = 1; i < p.group_size; ++i) {
      low = std::min(low, element(i));
      high = std::max(high, element(i));
    }
    ops::GroupScale scale(low, high, p.bits);
    int64_t place = offset(call.outputs[1], group);
    store(call.outputs[1], place, static_cast<double>(scale.scale));
    store(call.outputs[2], place, static_cast<double>(scale.bias));
    Dims start = group;
    start.back() = 0;
    uint32_t* row = at<uint32_t>(packed) + offset(packed, start);
    for (int i = 0; i < p.group_size; ++i) {
      int64_t bit = (group.back() * p.group_size + i) * p.bits;
      uint64_t q = static_cast<uint64_t>(scale.quantize(element(i), p.bits)) << (bit % 32);
      row[bit / 32] |= static_cast<uint32_t>(q);
      if (q >> 32) row[bit / 32 + 1] |= static_cast<uint32_t>(q >> 32);
    }
  });
}

void dequantize(const KernelCall& call) {
  const auto& p = call.as<ops::QuantizationParams>();
  Quantized w{call.inputs[0], call.inputs[1], call.inputs[2], p.group_size, p.bits};
  const View& out = call.outputs[0];
  for_each(out.shape, [&](const Dims& place) { store(out, offset(out, place), w.value(place)); });
}

// A row of x as the product takes it.
std::vector<double> row_of(const View& x, Dims row, const ops::QuantizedMatmulParams& p) {
  std::vector<double> exact(static_cast<size_t>(x.shape.back()));
  for (size_t k = 0; k < exact.size(); ++k) {
    row.back() = static_cast<int64_t>(k);
    exact[k] = load(x, offset(x, row));
  }
  if (p.activation_bits == 0) return exact;
  std::vector<double> rounded = exact;
  auto group = static_cast<size_t>(p.group_size);
  for (size_t first = 0; first < exact.size(); first += group) {
    float most = 0;
    for (size_t k = first; k < first + group; ++k) {
      if (!std::isfinite(exact[k])) return exact;
      most = std::max(most, std::fabs(static_cast<float>(exact[k])));
    }
    if (most == 0) continue;
    if (most < ops::kSmallestRounded) return exact;
    for (size_t k = first; k < first + group; ++k)
      rounded[k] = static_cast<double>(most / 127) *
                   static_cast<double>(std::nearbyint(static_cast<float>(exact[k]) * (127 / most)));
  }
  return rounded;
}

// One dot product in float64 per element of the result.
void quantized_matmul(const KernelCall& call) {
  const auto& p = call.as<ops::QuantizedMatmulParams>();
  Quantized w{call.inputs[1], call.inputs[2], call.inputs[3], p.group_size, p.bits};
  const View &x = call.inputs[0], &out = call.outputs[0];
  int64_t depth = x.shape.back();
  std::vector<double> row;
  for_each(out.shape, [&](const Dims& place) {
    Dims element = place;
    int64_t column = place.back();
    if (column == 0) row = row_of(x, place, p);
    double sum = 0;
    for (int64_t k = 0; k < depth; ++k) {
      element[place.size() - 2] = p.transpose ? column : k;
      element.back() = p.transpose ? k : column;
      sum += row[static_cast<size_t>(k)] * w.value(element);
    }
    store(out, offset(out, place), sum);
  });
}

}  // namespace

void quantized_kernels(KernelTable& registry) {
  registry.add(ops::quantize_op, {.run = &quantize, .layouts = {Layout::Any}});
  registry.add(ops::dequantize_op, {.run = &dequantize, .layouts = {Layout::Rows}});
  registry.add(ops::quantized_matmul_op,
               {.run = &quantized_matmul, .layouts = {Layout::Any, Layout::Rows}});
}

}  // namespace mica::ref
