#include "ops/join.h"

#include "backends/ref/ref.h"

namespace mica::ref {

namespace {

void concatenate(const KernelCall& call) {
  auto axis = static_cast<size_t>(call.as<ops::ConcatenateParams>().axis);
  const View& out = call.outputs[0];
  int64_t before = 0;
  for (const View& input : call.inputs) {
    for_each(input.shape, [&](const Dims& index) {
      Dims to = index;
      to[axis] += before;
      copy_element(input, offset(input, index), out, offset(out, to));
    });
    before += input.shape[axis];
  }
}

}  // namespace

void join_kernels(KernelTable& registry) {
  registry.add(ops::concatenate_op, {.run = &concatenate});
}

}  // namespace mica::ref
