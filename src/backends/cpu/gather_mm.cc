// Products of chosen matrices: those that share a matrix run as one product whose rows are gathered
// and scattered by their numbers.
#include "ops/gather_mm.h"

#include <algorithm>

#include "backends/cpu/grouped.h"
#include "backends/cpu/quantized.h"
#include "core/backend.h"
#include "ops/index.h"

namespace mica::cpu {

namespace {

int64_t rows_of(const View& stack) { return stack.shape[stack.shape.size() - 2]; }
int64_t matrices_of(const View& stack) {
  int64_t count = 1;
  for (size_t i = 0; i + 2 < stack.shape.size(); ++i) count *= stack.shape[i];
  return count;
}
// Elements from a stack's first to its matrix number `index`.
int64_t matrix_offset(const View& stack, int64_t index) {
  int64_t offset = 0;
  for (size_t axis = stack.shape.size() - 2; axis-- > 0;) {
    offset += index % stack.shape[axis] * stack.strides[axis];
    index /= stack.shape[axis];
  }
  return offset;
}

std::vector<int64_t> resolved(const View& indices, int64_t matrices, const char* op) {
  std::vector<int64_t> result(static_cast<size_t>(indices.size()));
  for (size_t i = 0; i < result.size(); ++i)
    result[i] = ops::resolve_index(indices.as<const int32_t>()[i], matrices, 0, op);
  return result;
}

// The rows of all products, each product having `rows` of them, grouped by matrix.
struct Choice {
  Choice(const View& left, const View& lhs, const View& rhs, int64_t matrices, const char* op)
      : rows(rows_of(left)),
        left_of(resolved(lhs, matrices_of(left), op)),
        groups(resolved(rhs, matrices, op), matrices) {}

  // Calls f(matrix, from, to, count): the rows of the left stack and of the output of each group.
  template <class F>
  void for_each(F&& f) {
    for (int64_t matrix = 0; matrix < groups.matrices(); ++matrix) {
      from.clear();
      to.clear();
      for (int64_t place : groups.places(matrix))
        for (int64_t row = 0; row < rows; ++row) {
          from.push_back(left_of[static_cast<size_t>(place)] * rows + row);
          to.push_back(place * rows + row);
        }
      f(matrix, from.data(), to.data(), static_cast<int64_t>(to.size()));
    }
  }

  int64_t rows;
  std::vector<int64_t> left_of;
  Groups groups;
  std::vector<int64_t> from, to;
};

template <class T>
Gemm<T> dense_product(const KernelCall& call) {
  const View &a = call.inputs[0], &b = call.inputs[1], &out = call.outputs[0];
  size_t rank = b.shape.size();
  static constexpr int64_t any = 0;
  return {
      .m = rows_of(a) * call.inputs[3].size(),
      .n = out.shape.back(),
      .k = a.shape.back(),
      .left = {.data = a.data, .dtype = a.dtype, .vector_stride = a.shape.back(), .chosen = &any},
      .right = {.data = b.data,
                .dtype = b.dtype,
                .vector_stride = b.strides[rank - 1],
                .inner_stride = b.strides[rank - 2]},
      .out = {
          .data = out.data, .dtype = out.dtype, .row_stride = out.shape.back(), .chosen = &any}};
}

template <class T>
QuantizedGemm<T> quantized_product(const KernelCall& call) {
  const auto& p = call.as<ops::QuantizedMatmulParams>();
  const View &x = call.inputs[0], &out = call.outputs[0];
  static constexpr int64_t any = 0;
  return {
      .m = rows_of(x) * call.inputs[5].size(),
      .n = out.shape.back(),
      .k = x.shape.back(),
      .left = {.data = x.data, .dtype = x.dtype, .vector_stride = x.shape.back(), .chosen = &any},
      .matrix =
          QuantizedMatrix::of(call.inputs[1], call.inputs[2], call.inputs[3], p.group_size, p.bits),
      .transpose = p.transpose,
      .out = {
          .data = out.data, .dtype = out.dtype, .row_stride = out.shape.back(), .chosen = &any}};
}

// Runs `all`, restricted to the rows of each group; `place(product, matrix)` points it at the
// matrix.
template <class Product, class F>
void run_groups(const Product& all, Choice choice, std::span<std::byte> workspace, F&& place) {
  choice.for_each([&](int64_t matrix, const int64_t* from, const int64_t* to, int64_t count) {
    if (count == 0) return;
    Product product = all;
    product.m = count;
    product.left.chosen = from;
    product.out.chosen = to;
    place(product, matrix);
    product.run(workspace);
  });
}

template <class T>
void run_gather(const KernelCall& call) {
  const View &a = call.inputs[0], &b = call.inputs[1];
  Choice choice(a, call.inputs[2], call.inputs[3], matrices_of(b), "gather_mm");
  run_groups(dense_product<T>(call), choice, call.workspace, [&](Gemm<T>& product, int64_t matrix) {
    product.right.data += matrix_offset(b, matrix) * size_of(b.dtype);
  });
}

template <class T>
void run_quantized(const KernelCall& call) {
  const View &x = call.inputs[0], &w = call.inputs[1], &scales = call.inputs[2],
             &biases = call.inputs[3];
  Choice choice(x, call.inputs[4], call.inputs[5], matrices_of(w), "gather_qmm");
  run_groups(quantized_product<T>(call), choice, call.workspace,
             [&](QuantizedGemm<T>& product, int64_t matrix) {
               product.matrix.packed += matrix_offset(w, matrix);
               product.matrix.scales += matrix_offset(scales, matrix) * size_of(scales.dtype);
               product.matrix.biases += matrix_offset(biases, matrix) * size_of(biases.dtype);
             });
}

// Rows that are gathered along k: panels are made row by row.
struct GatheredRows {
  const std::byte* data;
  Dtype dtype;
  int64_t stride;
  const int64_t* chosen;
};
template <class T>
void fill_from_gathered(const void* context, int64_t first, int count, int width, int64_t k0,
                        int64_t kc, void* panel) {
  const auto& rows = *static_cast<const GatheredRows*>(context);
  for (int64_t k = 0; k < kc; ++k) {
    const std::byte* row =
        rows.data + (rows.chosen[k0 + k] * rows.stride + first) * size_of(rows.dtype);
    gemm_kernels<T>().pack({&row, count, rows.dtype, 0, true}, width, 0, 1,
                           static_cast<T*>(panel) + k * width);
  }
}

template <class T>
Gemm<T> outer_product(const KernelCall& call) {
  const View &a = call.inputs[0], &g = call.inputs[1], &out = call.outputs[0];
  return {.m = a.shape.back(),
          .n = g.shape.back(),
          .k = std::min(kGemmDepth, rows_of(a) * call.inputs[3].size()),
          .left = {.fill = &fill_from_gathered<T>},
          .right = {.fill = &fill_from_gathered<T>},
          .out = {.data = out.data, .dtype = out.dtype, .row_stride = out.shape.back()}};
}

template <class T>
void run_outer(const KernelCall& call) {
  const View &a = call.inputs[0], &g = call.inputs[1], &out = call.outputs[0];
  Choice choice(a, call.inputs[2], call.inputs[3], matrices_of(out), "gather_outer");
  choice.for_each([&](int64_t matrix, const int64_t* from, const int64_t* to, int64_t count) {
    GatheredRows left{a.data, a.dtype, a.shape.back(), from};
    GatheredRows right{g.data, g.dtype, g.shape.back(), to};
    Gemm<T> product = outer_product<T>(call);
    product.k = count;
    product.left.context = &left;
    product.right.context = &right;
    product.out.data += matrix * product.m * product.n * size_of(out.dtype);
    product.run(call.workspace);
  });
}

bool in_double(const KernelCall& call) { return call.outputs[0].dtype == Dtype::F64; }

void gather_mm(const KernelCall& call) {
  in_double(call) ? run_gather<double>(call) : run_gather<float>(call);
}
void gather_qmm(const KernelCall& call) {
  in_double(call) ? run_quantized<double>(call) : run_quantized<float>(call);
}
void gather_outer(const KernelCall& call) {
  in_double(call) ? run_outer<double>(call) : run_outer<float>(call);
}

size_t gather_workspace(const KernelCall& call) {
  return in_double(call) ? dense_product<double>(call).largest_workspace()
                         : dense_product<float>(call).largest_workspace();
}
size_t quantized_workspace(const KernelCall& call) {
  return in_double(call) ? quantized_product<double>(call).largest_workspace()
                         : quantized_product<float>(call).largest_workspace();
}
// Depth is what k contributes to it, and no product has a greater one than kGemmDepth.
size_t outer_workspace(const KernelCall& call) {
  return in_double(call) ? outer_product<double>(call).workspace()
                         : outer_product<float>(call).workspace();
}

}  // namespace

void gather_mm_kernels(KernelTable& registry) {
  registry.add(ops::gather_mm_op, {.run = &gather_mm,
                                   .layouts = {Layout::Contiguous, Layout::Any, Layout::Contiguous},
                                   .workspace = &gather_workspace});
  registry.add(ops::gather_qmm_op, {.run = &gather_qmm,
                                    .layouts = {Layout::Contiguous, Layout::Rows, Layout::Rows,
                                                Layout::Rows, Layout::Contiguous},
                                    .workspace = &quantized_workspace});
  registry.add(ops::gather_outer_op, {.run = &gather_outer, .workspace = &outer_workspace});
}

}  // namespace mica::cpu
