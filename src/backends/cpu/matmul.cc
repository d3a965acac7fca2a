// matmul: one product, or one per batch. Many small products run in parallel, each on one thread;
// large ones run one after the other, each on all threads.
#include "ops/matmul.h"

#include <algorithm>
#include <atomic>

#include "backends/cpu/gemm.h"
#include "base/thread_pool.h"
#include "core/backend.h"

namespace mica::cpu {

namespace {

// Products from this many multiplications on share the threads among themselves.
constexpr double kLargeProduct = 3e7;

int64_t stride_of(const View& view, const Shape& out, size_t axis) {
  size_t lead = out.size() - view.shape.size();
  if (axis < lead || view.shape[axis - lead] == 1) return 0;
  return view.strides[axis - lead];
}

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
  explicit Products(const KernelCall& call) {
    const View &a = call.inputs[0], &b = call.inputs[1];
    const Shape& out = call.outputs[0].shape;
    size_t rank = out.size();
    first = {.m = out[rank - 2],
             .n = out[rank - 1],
             .k = a.shape.back(),
             .left = operand(a, true),
             .right = operand(b, false),
             .out = {.data = call.outputs[0].data,
                     .dtype = call.outputs[0].dtype,
                     .row_stride = out[rank - 1]}};
    for (size_t axis = rank - 2; axis-- > 0;) {
      int64_t extent = out[axis], left = stride_of(a, out, axis), right = stride_of(b, out, axis);
      if (extent == 1) continue;
      // A batch that shares the right operand and continues the left one's rows is more rows.
      if (first.m == 1 && extents.empty() && right == 0) first.left.vector_stride = left;
      if (extents.empty() && right == 0 && left == first.m * first.left.vector_stride) {
        first.m *= extent;
        continue;
      }
      extents.push_back(extent);
      left_strides.push_back(left);
      right_strides.push_back(right);
      count *= extent;
    }
    if (out[rank - 2] == 0) first.m = 0;
  }

  Gemm<T> at(int64_t index) const {
    Gemm<T> product = first;
    product.out.data += index * first.m * first.n * size_of(first.out.dtype);
    for (size_t i = 0; i < extents.size(); ++i) {
      int64_t place = index % extents[i];
      index /= extents[i];
      product.left.data += place * left_strides[i] * size_of(first.left.dtype);
      product.right.data += place * right_strides[i] * size_of(first.right.dtype);
    }
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

  Gemm<T> first;
  int64_t count = 1;
  Dims extents, left_strides, right_strides;  // of the batch axes, innermost first
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
  int64_t chunk = std::max<int64_t>(1, static_cast<int64_t>(1e5 / (products.work() + 1000)));
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
