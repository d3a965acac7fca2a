#include "transforms/checkpoint.h"

#include "ops/shape.h"
#include "transforms/custom.h"
#include "transforms/derivatives.h"
#include "transforms/tape.h"

namespace mica {

namespace {

using transforms::Tape;
using transforms::track_all;

// What the function read: its arguments, then captured arrays that an outer transform may
// differentiate by. Other captured arrays stay in the tape.
struct Recomputation {
  Tape tape;
  size_t arguments;
  Arrays captured;  // constants; empty Arrays where the place is taken by an outer array
  std::vector<size_t> outer;

  Arrays operator()(std::span<const Array> inputs) const {
    Arrays all = captured;
    for (size_t i = 0; i < outer.size(); ++i) all[outer[i]] = inputs[arguments + i];
    return tape.replay(inputs.first(arguments), all);
  }
};

// Arrays of the recomputation wait for the cotangents, without which it has nothing to do.
Arrays delayed(const Arrays& primals, const Arrays& cotangents) {
  Arrays result;
  for (const Array& primal : primals) result.push_back(depends(primal, cotangents));
  return result;
}

}  // namespace

ArraysFunction checkpoint(ArraysFunction f) {
  return [f = std::move(f)](const Arrays& arguments) {
    if (TraceScope::depth() == 0) return f(arguments);
    TraceScope scope;
    Arrays sources = track_all(scope, arguments);
    Arrays outputs = f(sources);
    auto again = std::make_shared<Recomputation>(
        Recomputation{Tape(outputs, sources, false), arguments.size(), {}, {}});
    again->captured = again->tape.take_captured();
    Arrays inputs = arguments;
    for (size_t i = 0; i < again->captured.size(); ++i) {
      if (!again->captured[i].node()->traced) continue;
      inputs.push_back(std::move(again->captured[i]));
      again->captured[i] = Array();
      again->outer.push_back(i);
    }
    auto rules = std::make_shared<CustomRules>();
    rules->vjp = [again](const Arrays& primals, const Arrays& cotangents, const Arrays&) {
      TraceScope inner;
      Arrays fresh = track_all(inner, delayed(primals, cotangents));
      Arrays recomputed = (*again)(fresh);
      return transforms::pull_back(recomputed, cotangents, fresh);
    };
    return transforms::with_rules(std::move(rules), inputs, outputs);
  };
}

}  // namespace mica
