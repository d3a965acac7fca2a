// Kernel of concatenate: each input is one block of the output.
#include "ops/join.h"

#include "backends/cpu/strided.h"
#include "core/backend.h"

namespace mica::cpu {

namespace {

void concatenate(const KernelCall& call) {
  auto axis = static_cast<size_t>(call.as<ops::ConcatenateParams>().axis);
  int64_t at = 0;
  for (const View& input : call.inputs) {
    copy_block(input, part_of(call.outputs[0], axis, at, input.shape[axis]));
    at += input.shape[axis];
  }
}

}  // namespace

void join_kernels(KernelTable& registry) {
  registry.add(ops::concatenate_op, {.run = &concatenate,
                                     .layouts = {Layout::Any, Layout::Any, Layout::Any, Layout::Any,
                                                 Layout::Any, Layout::Any}});
}

}  // namespace mica::cpu
