// matmul: one product, or one per batch. Many small products run in parallel, each on one thread;
// large ones run one after the other, each on all threads.
#include "ops/matmul.h"

#include <algorithm>
#include <atomic>

#include "backends/cpu/batches.h"
#include "backends/cpu/gemm.h"
#include "base/thread_pool.h"
#include "core/backend.h"

namespace mica::cpu {

namespace {

// Products from this many multiplications on share the threads among themselves.
constexpr double kLargeProduct = 3e7;

GemmOperand operand(const View& view, bool left) {
  size_t rank = view.shape.size();
  int64_t rows = view.strides[rank - 2], columns = view.strides[rank - 1];
  return {.data = view.data,
          .dtype = view.dtype,
          .vector_stride = left ? rows : columns,
          .inner_stride = left ? columns : rows};
}

// The products of a call: `first`, and how far the others' operands lie from its own.
template <class T>
struct Products {
  explicit Products(const KernelCall& call) : batches(call.inputs, call.outputs[0].shape) {
    const Shape& out = call.outputs[0].shape;
    size_t rank = out.size();
    first = {.m = out[rank - 2],
             .n = out[rank - 1],
             .k = call.inputs[0].shape.back(),
             .left = operand(call.inputs[0], true),
             .right = operand(call.inputs[1], false),
             .out = {.data = call.outputs[0].data,
                     .dtype = call.outputs[0].dtype,
                     .row_stride = out[rank - 1]}};
    batches.join_rows(first.m, first.left.vector_stride);
    count = batches.count();
  }

  const std::byte* left(int64_t index) const {
    return first.left.data + batches.offset(0, index) * size_of(first.left.dtype);
  }
  const std::byte* right(int64_t index) const {
    return first.right.data + batches.offset(1, index) * size_of(first.right.dtype);
  }
  Gemm<T> at(int64_t index) const {
    Gemm<T> product = first;
    product.left.data = left(index);
    product.right.data = right(index);
    if (index + 1 < count) {
      product.next_left = left(index + 1);
      product.next_right = right(index + 1);
    }
    product.out.data += index * first.m * first.n * size_of(first.out.dtype);
    return product;
  }

  double work() const {
    return static_cast<double>(first.m) * static_cast<double>(first.n) *
           static_cast<double>(first.k);
  }
  // Products that may run at the same time, each with a workspace of its own.
  int64_t slots() const {
    if (count <= 1 || work() >= kLargeProduct) return 1;
    return std::min<int64_t>(count, ThreadPool::shared().threads());
  }
  size_t slot_bytes() const { return (first.workspace() + 63) / 64 * 64; }

  Batches batches;
  Gemm<T> first;
  int64_t count;
};

template <class T>
void run_products(const KernelCall& call) {
  Products<T> products(call);
  if (products.count == 0 || products.first.m == 0 || products.first.n == 0) return;
  size_t bytes = products.slot_bytes();
  // The pool may have grown since the workspace was reserved.
  int64_t slots = products.slots();
  if (bytes > 0) slots = std::min(slots, static_cast<int64_t>(call.workspace.size() / bytes));
  if (slots <= 1) {
    for (int64_t i = 0; i < products.count; ++i) products.at(i).run(call.workspace);
    return;
  }
  std::atomic<int64_t> next{0};
  // Products that follow each other fetch each other's operands.
  int64_t chunk = std::clamp(products.count / (8 * slots), int64_t{1},
                             static_cast<int64_t>(1 + 1e8 / (products.work() + 1000)));
  ThreadPool::shared().parallel_for(slots, 1, [&](int64_t begin, int64_t end) {
    for (int64_t slot = begin; slot < end; ++slot)
      for (;;) {
        int64_t i = next.fetch_add(chunk, std::memory_order_relaxed);
        if (i >= products.count) break;
        for (int64_t last = std::min(i + chunk, products.count); i < last; ++i)
          products.at(i).run(call.workspace.subspan(static_cast<size_t>(slot) * bytes, bytes));
      }
  });
}

void matmul(const KernelCall& call) {
  if (call.outputs[0].dtype == Dtype::F64)
    run_products<double>(call);
  else
    run_products<float>(call);
}

template <class T>
size_t workspace_of(const KernelCall& call) {
  Products<T> products(call);
  return products.slot_bytes() * static_cast<size_t>(products.slots());
}
size_t workspace(const KernelCall& call) {
  return call.outputs[0].dtype == Dtype::F64 ? workspace_of<double>(call)
                                             : workspace_of<float>(call);
}

}  // namespace

void matmul_kernels(KernelTable& registry) {
  registry.add(ops::matmul_op,
               {.run = &matmul, .layouts = {Layout::Any, Layout::Any}, .workspace = &workspace});
}

}  // namespace mica::cpu
