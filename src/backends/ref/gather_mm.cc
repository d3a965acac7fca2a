#include "ops/gather_mm.h"

#include <vector>

#include "backends/ref/quantized.h"
#include "ops/index.h"

namespace mica::ref {

namespace {

// The matrix of a stack that an index names, as a multi-index with two further places.
Dims matrix_of(const View& stack, int64_t flat) {
  Dims index(stack.shape.size(), 0);
  for (size_t axis = stack.shape.size() - 2; axis-- > 0;) {
    index[axis] = flat % stack.shape[axis];
    flat /= stack.shape[axis];
  }
  return index;
}
int64_t matrices(const View& stack) {
  int64_t count = 1;
  for (size_t i = 0; i + 2 < stack.shape.size(); ++i) count *= stack.shape[i];
  return count;
}
// The matrix that the index array names at a place.
Dims chosen(const View& indices, const Dims& place, const View& stack, const char* op) {
  int64_t index = load<int64_t>(indices, offset(indices, place));
  return matrix_of(stack, ops::resolve_index(index, matrices(stack), 0, op));
}
Dims leading(const Dims& place) {
  Dims lead = place;
  lead.resize(place.size() - 2);
  return lead;
}
int64_t& row_of(Dims& index) { return index[index.size() - 2]; }

// Each element of the result is a dot product in float64; `right(matrix, k, column)` is an element.
template <class F>
void products(const KernelCall& call, const View& stack, const View& lhs, const View& rhs,
              const char* op, F&& right) {
  const View &a = call.inputs[0], &out = call.outputs[0];
  for_each(out.shape, [&](const Dims& place) {
    Dims left = chosen(lhs, leading(place), a, op), matrix = chosen(rhs, leading(place), stack, op);
    row_of(left) = place[place.size() - 2];
    double sum = 0;
    for (int64_t k = 0; k < a.shape.back(); ++k) {
      left.back() = k;
      sum += load(a, offset(a, left)) * right(matrix, k, place.back());
    }
    store(out, offset(out, place), sum);
  });
}

void gather_mm(const KernelCall& call) {
  const View& b = call.inputs[1];
  products(call, b, call.inputs[2], call.inputs[3], "gather_mm",
           [&](Dims matrix, int64_t k, int64_t column) {
             row_of(matrix) = k;
             matrix.back() = column;
             return load(b, offset(b, matrix));
           });
}

void gather_qmm(const KernelCall& call) {
  const auto& p = call.as<ops::QuantizedMatmulParams>();
  Quantized w{call.inputs[1], call.inputs[2], call.inputs[3], p.group_size, p.bits};
  products(call, call.inputs[1], call.inputs[4], call.inputs[5], "gather_qmm",
           [&](Dims matrix, int64_t k, int64_t column) {
             row_of(matrix) = p.transpose ? column : k;
             matrix.back() = p.transpose ? k : column;
             return w.value(matrix);
           });
}

void gather_outer(const KernelCall& call) {
  const View &a = call.inputs[0], &g = call.inputs[1], &lhs = call.inputs[2], &rhs = call.inputs[3],
             &out = call.outputs[0];
  std::vector<double> sums(static_cast<size_t>(out.size()), 0.0);
  int64_t depth = a.shape.back(), columns = g.shape.back(), rows = a.shape[a.shape.size() - 2];
  for_each(lhs.shape, [&](const Dims& place) {
    Dims left = chosen(lhs, place, a, "gather_outer"), right = place;
    right.push_back(0);
    right.push_back(0);
    int64_t matrix = ops::resolve_index(load<int64_t>(rhs, offset(rhs, place)), matrices(out), 0,
                                        "gather_outer");
    for_each({rows, depth, columns}, [&](const Dims& at) {
      row_of(left) = row_of(right) = at[0];
      left.back() = at[1];
      right.back() = at[2];
      sums[static_cast<size_t>((matrix * depth + at[1]) * columns + at[2])] +=
          load(a, offset(a, left)) * load(g, offset(g, right));
    });
  });
  for (int64_t i = 0; i < out.size(); ++i) store(out, i, sums[static_cast<size_t>(i)]);
}

}  // namespace

void gather_mm_kernels(KernelTable& registry) {
  registry.add(ops::gather_mm_op, {.run = &gather_mm, .layouts = {Layout::Any, Layout::Any}});
  registry.add(ops::gather_outer_op, {.run = &gather_outer, .layouts = {Layout::Any, Layout::Any}});
  registry.add(ops::gather_qmm_op, {.run = &gather_qmm, .layouts = {Layout::Any, Layout::Rows}});
}

}  // namespace mica::ref
