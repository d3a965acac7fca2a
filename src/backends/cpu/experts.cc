#include "ops/experts.h"

#include <vector>

#include "backends/cpu/gemm.h"
#include "core/backend.h"
#include "ops/index.h"

namespace mica::cpu {

namespace {

// The rows of x and of the output (numbered over T and k) that go to each expert.
struct Choice {
  std::vector<int64_t> from, to;
};

std::vector<Choice> choices(const KernelCall& call) {
  const View& x = call.inputs[0];
  const View& ids = call.inputs[1];
  std::vector<Choice> by_expert(static_cast<size_t>(call.as<ops::ExpertParams>().experts));
  int64_t per_token = ids.shape[1];
  for (int64_t i = 0; i < ids.size(); ++i) {
    int64_t id = dispatch(ids.dtype, [&](auto tag) {
      return static_cast<int64_t>(ids.as<typename decltype(tag)::type>()[i]);
    });
    id = ops::resolve_index(id, static_cast<int64_t>(by_expert.size()), 0, "expert_matmul");
    Choice& choice = by_expert[static_cast<size_t>(id)];
    choice.from.push_back(x.shape[1] == 1 ? i / per_token : i);
    choice.to.push_back(i);
  }
  return by_expert;
}

template <class T>
Gemm<T> product(const KernelCall& call, int64_t rows) {
  const View& x = call.inputs[0];
  const View& out = call.outputs[0];
  const View& w = call.inputs[2];
  return {rows,
          w.shape[0],
          w.shape[1],
          {.data = x.data, .dtype = x.dtype, .vector_stride = x.shape[2]},
          {.data = w.data, .dtype = w.dtype, .vector_stride = w.shape[1]},
          {.data = out.data, .dtype = out.dtype, .row_stride = w.shape[0]}};
}

template <class T>
void run(const KernelCall& call) {
  auto by_expert = choices(call);
  for (size_t e = 0; e < by_expert.size(); ++e) {
    const Choice& choice = by_expert[e];
    if (choice.to.empty()) continue;
    auto one = product<T>(call, static_cast<int64_t>(choice.to.size()));
    one.left.chosen = choice.from.data();
    one.out.chosen = choice.to.data();
    one.right.data = call.inputs[2 + e].data;
    one.run(call.workspace);
  }
}

void expert_matmul(const KernelCall& call) {
  call.outputs[0].dtype == Dtype::F64 ? run<double>(call) : run<float>(call);
}

// For the case that all rows choose one expert.
size_t workspace(const KernelCall& call) {
  int64_t most = call.inputs[1].size();
  static const int64_t any = 0;
  auto bytes = [&](auto one) {
    one.out.chosen = &any;
    return one.workspace();
  };
  return call.outputs[0].dtype == Dtype::F64 ? bytes(product<double>(call, most))
                                             : bytes(product<float>(call, most));
}

bool dense(const Application& app) { return app.as<ops::ExpertParams>().group_size == 0; }

}  // namespace

void experts_kernels(KernelTable& registry) {
  registry.add(ops::expert_matmul_op,
               {.run = &expert_matmul, .workspace = &workspace, .accepts = &dense});
}

}  // namespace mica::cpu
