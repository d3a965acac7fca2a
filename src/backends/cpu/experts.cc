// Products with one matrix per expert: the rows that chose an expert run as one product, gathered
// and scattered by their numbers.
#include "ops/experts.h"

#include <algorithm>
#include <atomic>
#include <span>
#include <vector>

#include "backends/cpu/grouped.h"
#include "backends/cpu/quantized.h"
#include "backends/cpu/quantized_int8.h"
#include "base/thread_pool.h"
#include "core/backend.h"
#include "ops/index.h"

namespace mica::cpu {

namespace {

const int64_t kAnyRow = 0;  // stands for lists of rows where only their presence counts

std::vector<int64_t> expert_of_rows(const KernelCall& call) {
  const View& ids = call.inputs[1];
  std::vector<int64_t> experts(static_cast<size_t>(ids.size()));
  dispatch(ids.dtype, [&](auto tag) {
    auto* values = ids.as<typename decltype(tag)::type>();
    for (size_t i = 0; i < experts.size(); ++i)
      experts[i] = ops::resolve_index(static_cast<int64_t>(values[i]),
                                      call.as<ops::ExpertParams>().experts, 0, "expert_matmul");
  });
  return experts;
}

GemmOperand rows_of(const View& x) {
  return {.data = x.data, .dtype = x.dtype, .vector_stride = x.shape[2], .chosen = &kAnyRow};
}
GemmOutput places_of(const View& out) {
  return {.data = out.data, .dtype = out.dtype, .row_stride = out.shape[2], .chosen = &kAnyRow};
}

// The product of all rows with expert `e`.
template <class T>
Gemm<T> dense_product(const KernelCall& call, int64_t e) {
  const View& x = call.inputs[0];
  const View w = ops::expert_part(call.inputs, call.as<ops::ExpertParams>(), e, 0);
  return {.m = call.inputs[1].size(),
          .n = w.shape[0],
          .k = w.shape[1],
          .left = rows_of(x),
          .right = {.data = w.data, .dtype = w.dtype, .vector_stride = w.shape[1]},
          .out = places_of(call.outputs[0])};
}
template <class T>
QuantizedGemm<T> quantized_product(const KernelCall& call, int64_t e) {
  const auto& p = call.as<ops::ExpertParams>();
  const View& x = call.inputs[0];
  const auto at = [&](size_t part) { return ops::expert_part(call.inputs, p, e, part); };
  return {.m = call.inputs[1].size(),
          .n = at(0).shape[0],
          .k = x.shape[2],
          .left = rows_of(x),
          .matrix = QuantizedMatrix::of(at(0), at(1), at(2), p.group_size, p.bits),
          .int8 = p.activation_bits == 8,
          .out = places_of(call.outputs[0])};
}

// Calls f with a function from an expert's number to its product.
template <class F>
decltype(auto) with_products(const KernelCall& call, F&& f) {
  bool dense = call.as<ops::ExpertParams>().group_size == 0;
  if (call.outputs[0].dtype == Dtype::F64)
    return dense ? f([&](int64_t e) { return dense_product<double>(call, e); })
                 : f([&](int64_t e) { return quantized_product<double>(call, e); });
  return dense ? f([&](int64_t e) { return dense_product<float>(call, e); })
               : f([&](int64_t e) { return quantized_product<float>(call, e); });
}

// Up to so many choices the experts' products are small: they run side by side, a thread each,
// since a loop of its own for each would wait for all threads after every one.
constexpr int64_t kFewChoices = 64;

int64_t slots_of(const KernelCall& call) {
  const bool few = call.inputs[1].size() <= kFewChoices;
  return few ? ThreadPool::shared().threads() : 1;
}

// Workspace of one product at a time.
template <class ProductOf>
size_t room_of(const ProductOf& product_of) {
  return (product_of(0).largest_workspace() + 63) / 64 * 64;
}

// The rows that chose an expert, as one product.
template <class ProductOf>
void run_expert(const KernelCall& call, const ProductOf& product_of, int64_t e,
                std::span<const int64_t> to, std::span<std::byte> workspace) {
  // Rows of x: one per choice, or one per token.
  const int64_t choices = call.inputs[0].shape[1] == 1 ? call.inputs[1].shape[1] : 1;
  std::vector<int64_t> from;
  for (int64_t place : to) from.push_back(place / choices);
  auto product = product_of(e);
  product.m = static_cast<int64_t>(to.size());
  product.left.chosen = from.data();
  product.out.chosen = to.data();
  product.run(workspace);
}

// Experts that somebody chose.
std::vector<int64_t> chosen_experts(const Groups& groups) {
  std::vector<int64_t> chosen;
  for (int64_t e = 0; e < groups.matrices(); ++e) {
    if (!groups.places(e).empty()) chosen.push_back(e);
  }
  return chosen;
}

void run_apart(const KernelCall& call, const Groups& groups, const std::vector<int64_t>& chosen) {
  with_products(call, [&](auto&& product_of) {
    const size_t room = room_of(product_of);
    // The number of threads may have changed since there was asked for room.
    const auto rooms = room > 0 ? call.workspace.size() / room : SIZE_MAX;
    int64_t slots = static_cast<int64_t>(std::min<size_t>(slots_of(call), rooms));
    // Fewer experts than threads: each product is for all threads.
    if (static_cast<int64_t>(chosen.size()) < slots) slots = 1;
    std::atomic<size_t> next{0};
    auto run_some = [&](int64_t slot) {
      const auto workspace = call.workspace.subspan(static_cast<size_t>(slot) * room, room);
      for (size_t i; (i = next.fetch_add(1)) < chosen.size();)
        run_expert(call, product_of, chosen[i], groups.places(chosen[i]), workspace);
    };
    if (slots == 1) return run_some(0);
    ThreadPool::shared().parallel_for(slots, 1, [&](int64_t begin, int64_t end) {
      for (int64_t slot = begin; slot < end; ++slot) run_some(slot);
    });
  });
}

// Products that take rounded activations share what is made of x, and are one loop.
struct Together {
  explicit Together(const KernelCall& call)
      : x(call.inputs[0]),
        format(quantized_product<float>(call, 0).matrix, x.shape[2]),
        rows(x.shape[0] * x.shape[1]),
        prepared(static_cast<size_t>(rows * format.row_bytes)),
        tiles((int8_tile_bytes(format, call.inputs[1].size()) + 63) / 64 * 64) {}

  GemmOperand left() const {
    return {.data = x.data, .dtype = x.dtype, .vector_stride = x.shape[2]};
  }

  const View& x;
  Int8Format format;
  int64_t rows;
  size_t prepared, tiles;  // bytes
};

bool runs_together(const KernelCall& call) {
  const auto& p = call.as<ops::ExpertParams>();
  return p.activation_bits == 8 && call.inputs[0].shape[2] > 0 &&
         call.outputs[0].dtype != Dtype::F64;
}

void run_together(const KernelCall& call, const Groups& groups,
                  const std::vector<int64_t>& chosen) {
  const Together shared(call);
  const int64_t choices = shared.x.shape[1] == 1 ? call.inputs[1].shape[1] : 1;
  std::vector<Int8Product> products;
  for (int64_t e : chosen) {
    const auto one = quantized_product<float>(call, e);
    Int8Product& product = products.emplace_back(Int8Product{{}, one.matrix, one.n, one.out});
    product.out.chosen = groups.places(e).data();
    for (int64_t place : groups.places(e))
      product.x.push_back(call.workspace.data() + place / choices * shared.format.row_bytes);
  }
  if (products.empty()) return;
  fetch_int8(shared.format, products[0]);
  const std::vector<int64_t> odd =
      prepare_int8(shared.format, shared.left(), shared.rows, call.workspace.data());
  run_int8(shared.format, products, call.workspace.subspan(shared.prepared, shared.tiles));
  if (odd.empty()) return;
  for (int64_t e : chosen) {
    std::vector<int64_t> from, rows;
    for (int64_t place : groups.places(e)) {
      from.push_back(place / choices);
      if (std::find(odd.begin(), odd.end(), from.back()) != odd.end())
        rows.push_back(static_cast<int64_t>(from.size()) - 1);
    }
    auto product = quantized_product<float>(call, e);
    product.left.chosen = from.data();
    product.out.chosen = groups.places(e).data();
    product.run_exactly(rows, call.workspace.subspan(shared.prepared + shared.tiles));
  }
}

void expert_matmul(const KernelCall& call) {
  const Groups groups(expert_of_rows(call), call.as<ops::ExpertParams>().experts);
  const std::vector<int64_t> chosen = chosen_experts(groups);
  if (runs_together(call))
    run_together(call, groups, chosen);
  else
    run_apart(call, groups, chosen);
}

size_t workspace(const KernelCall& call) {
  if (runs_together(call)) {
    const Together shared(call);
    return shared.prepared + shared.tiles + quantized_product<float>(call, 0).exact_row_workspace();
  }
  const size_t one = with_products(call, [](auto&& product_of) { return room_of(product_of); });
  return one * static_cast<size_t>(slots_of(call));
}

}  // namespace

void experts_kernels(KernelTable& registry) {
  registry.add(ops::expert_matmul_op, {.run = &expert_matmul, .workspace = &workspace});
}

}  // namespace mica::cpu
