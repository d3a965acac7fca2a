// custom_function: a function with derivative or batching rules of its own.
//
//   CustomRules rules;
//   rules.vjp = [](const Arrays& primals, const Arrays& cotangents, const Arrays& outputs) {
//     return Arrays{cotangents[0] * outputs[0]};   // d exp(x) = exp(x)
//   };
//   auto my_exp = custom_function([](const Arrays& a) { return Arrays{exp(a[0])}; }, rules);
//
// A rule that is absent is what the transform makes of the function itself. With a vjp rule,
// gradients reach the arguments only: arrays that the function captures count as constants (MLX's
// semantics).
#pragma once

#include <utility>
#include <vector>

#include "transforms/traced_graph.h"

namespace mica {

struct CustomRules {
  // One cotangent per primal, of its shape and type; an empty Array means zero.
  std::function<Arrays(const Arrays& primals, const Arrays& cotangents, const Arrays& outputs)> vjp;
  // One tangent per output; absent tangents of primals come as zeros.
  std::function<Arrays(const Arrays& primals, const Arrays& tangents)> jvp;
  // The inputs with their batch axes (-1: not batched); the outputs with theirs.
  std::function<std::pair<Arrays, std::vector<int>>(const Arrays& inputs,
                                                    const std::vector<int>& axes)>
      vmap;
};

ArraysFunction custom_function(ArraysFunction f, CustomRules rules);

namespace transforms {

// Ties the rules to outputs that were computed from `arguments`: the arrays to return in their
// place.
Arrays with_rules(std::shared_ptr<const CustomRules> rules, const Arrays& arguments,
                  const Arrays& outputs);

}  // namespace transforms
}  // namespace mica
