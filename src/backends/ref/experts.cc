#include "ops/experts.h"

#include "backends/ref/ref.h"
#include "ops/index.h"

namespace mica::ref {

namespace {

// One dot product per output element.
void expert_matmul(const KernelCall& call) {
  const View& x = call.inputs[0];
  const View& ids = call.inputs[1];
  const View& out = call.outputs[0];
  const auto& p = call.as<ops::ExpertParams>();
  for_each(out.shape, [&](const Dims& at) {
    int64_t expert = ops::resolve_index(load<int64_t>(ids, offset(ids, {at[0], at[1]})), p.experts,
                                        0, "expert_matmul");
    const View w = ops::expert_part(call.inputs, p, expert, 0);
    double sum = 0;
    for (int64_t i = 0; i < x.shape[2]; ++i)
      sum += load(x, offset(x, {at[0], at[1], i})) * load(w, offset(w, {at[2], i}));
    store(out, offset(out, at), sum);
  });
}

bool dense(const Application& app) { return app.as<ops::ExpertParams>().group_size == 0; }

}  // namespace

void experts_kernels(KernelTable& registry) {
  registry.add(ops::expert_matmul_op,
               {.run = &expert_matmul, .layouts = {Layout::Any}, .accepts = &dense});
}

}  // namespace mica::ref
