// Automatic differentiation: grad, value_and_grad, vjp, jvp.
//
//   auto loss = [&](const Arrays& p) { return Arrays{mean(square(matmul(x, p[0]) - y))}; };
//   auto [values, grads] = value_and_grad(loss)({w});
//
// The function is called once with fresh arrays in place of those to differentiate by; the graph it
// built is walked with the derivative rules of its operations. Only what depends on those arrays is
// differentiated, nothing is evaluated, and results are arrays like any others: transforms nest in
// any order. The function may evaluate arrays. What it throws passes through.
//
// Derivatives are by floating arrays only: an integer array is a ValueError.
#pragma once

#include <utility>
#include <vector>

#include "transforms/traced_graph.h"

namespace mica {

struct ValueAndGrad {
  Arrays values;  // all outputs of the function
  Arrays grads;   // one per argument number, in the order given
};

// f's first output must be a floating scalar, which is differentiated; the others pass through.
// Negative argument numbers count from the end. ValueError for other outputs, repeated or missing
// arguments.
std::function<ValueAndGrad(const Arrays&)> value_and_grad(ArraysFunction f,
                                                          std::vector<int> argnums = {0});
// The gradients alone.
ArraysFunction grad(ArraysFunction f, std::vector<int> argnums = {0});
// The same for functions of one array.
std::function<Array(const Array&)> grad(std::function<Array(const Array&)> f);

struct Differential {
  Arrays outputs;
  Arrays derivatives;
};

// Vector-Jacobian product: the outputs of f at `primals`, and `cotangents` (one per output, of its
// shape) pulled back to the primals. Zeros where the outputs do not depend on a primal.
Differential vjp(const ArraysFunction& f, const Arrays& primals, const Arrays& cotangents);
// Jacobian-vector product: the outputs of f, and `tangents` (one per primal, of its shape) pushed
// forward.
Differential jvp(const ArraysFunction& f, const Arrays& primals, const Arrays& tangents);

}  // namespace mica
