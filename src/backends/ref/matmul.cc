#include "ops/matmul.h"

#include "backends/ref/ref.h"

namespace mica::ref {

namespace {

// One dot product in float64 per element of the result.
void matmul(const KernelCall& call) {
  const View& a = call.inputs[0];
  const View& b = call.inputs[1];
  const View& out = call.outputs[0];
  int64_t depth = a.shape.back();
  for_each(out.shape, [&](const Dims& place) {
    Dims row = place, column = place;
    double sum = 0;
    for (int64_t k = 0; k < depth; ++k) {
      row[place.size() - 1] = k;
      column[place.size() - 2] = k;
      sum += load(a, offset(a, row)) * load(b, offset(b, column));
    }
    store(out, offset(out, place), sum);
  });
}

}  // namespace

void matmul_kernels(KernelTable& registry) {
  registry.add(ops::matmul_op, {.run = &matmul, .layouts = {Layout::Any, Layout::Any}});
}

}  // namespace mica::ref
