#include "ops/create.h"

#include "backends/ref/ref.h"

namespace mica::ref {

namespace {

void arange(const KernelCall& call) {
  const auto& params = call.as<ops::ArangeParams>();
  for (int64_t i = 0; i < params.shape[0]; ++i) {
    if (is_floating(params.dtype))
      store(call.outputs[0], i, params.start + static_cast<double>(i) * params.step);
    else
      store(call.outputs[0], i,
            static_cast<int64_t>(params.start) + i * static_cast<int64_t>(params.step));
  }
}

}  // namespace

void create_kernels(KernelTable& registry) { registry.add(ops::arange_op, {.run = &arange}); }

}  // namespace mica::ref
