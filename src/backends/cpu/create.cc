// Kernel of arange.
#include "ops/create.h"

#include "base/thread_pool.h"
#include "core/backend.h"

namespace mica::cpu {

namespace {

void arange(const KernelCall& call) {
  const auto& params = call.as<ops::ArangeParams>();
  dispatch(params.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    using Wide = std::conditional_t<std::is_integral_v<T>, int64_t, double>;
    T* out = call.outputs[0].as<T>();
    auto start = static_cast<Wide>(params.start), step = static_cast<Wide>(params.step);
    ThreadPool::shared().parallel_for(call.outputs[0].size(), 32768,
                                      [&](int64_t begin, int64_t end) {
                                        for (int64_t i = begin; i < end; ++i)
                                          out[i] = T(start + static_cast<Wide>(i) * step);
                                      });
  });
}

}  // namespace

void create_kernels(KernelTable& registry) { registry.add(ops::arange_op, {.run = &arange}); }

}  // namespace mica::cpu
