#include "ops/softmax.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "backends/ref/ref.h"

namespace mica::ref {

namespace {

// Calls f(row index with 0 in the last place, the row's elements).
template <class F>
void for_each_row(const View& x, F&& f) {
  Shape rows = x.shape;
  rows.back() = 1;
  std::vector<double> row(static_cast<size_t>(x.shape.back()));
  for_each(rows, [&](const Dims& index) {
    int64_t start = offset(x, index);
    for (size_t i = 0; i < row.size(); ++i)
      row[i] = load(x, start + static_cast<int64_t>(i) * x.strides.back());
    f(index, row);
  });
}

double largest_of(const std::vector<double>& row) {
  double largest = -std::numeric_limits<double>::infinity();
  for (double x : row) largest = std::max(largest, x);
  return largest;
}

void softmax(const KernelCall& call) {
  const View& y = call.outputs[0];
  for_each_row(call.inputs[0], [&](const Dims& index, const std::vector<double>& row) {
    double largest = largest_of(row), sum = 0;
    for (double x : row) sum += std::exp(x - largest);
    int64_t start = offset(y, index);
    for (size_t i = 0; i < row.size(); ++i)
      store(y, start + static_cast<int64_t>(i), std::exp(row[i] - largest) / sum);
  });
}

void logsumexp(const KernelCall& call) {
  const View& y = call.outputs[0];
  for_each_row(call.inputs[0], [&](const Dims& index, const std::vector<double>& row) {
    double largest = largest_of(row), sum = 0;
    double base = std::isinf(largest) ? 0 : largest;
    for (double x : row) sum += std::exp(x - base);
    store(y, offset(y, index), base + std::log(sum));
  });
}

}  // namespace

void softmax_kernels(KernelTable& registry) {
  registry.add(ops::softmax_op, {.run = &softmax, .layouts = {Layout::Any}});
  registry.add(ops::logsumexp_op, {.run = &logsumexp, .layouts = {Layout::Any}});
}

}  // namespace mica::ref
