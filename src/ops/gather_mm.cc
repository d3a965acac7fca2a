#include "ops/gather_mm.h"

#include <algorithm>

#include "ops/create.h"
#include "ops/elementwise.h"
#include "ops/index.h"
#include "ops/matmul.h"
#include "ops/registry.h"
#include "ops/rules.h"
#include "ops/shape.h"

namespace mica {

using namespace ops;

namespace {

Shape batch_of(const Shape& shape) {
  Shape batch = shape;
  batch.resize(shape.size() - 2);
  return batch;
}

Array indices_or_all(const char* name, const std::optional<Array>& given, const Array& stack,
                     Stream s) {
  if (!given) {
    Shape batch = batch_of(stack.shape());
    return reshape(arange(elements(batch), Dtype::I32, s), batch, s);
  }
  if (!is_integer(given->dtype()))
    throw_value("[{}] indices must be integers, got {}", name, given->dtype());
  return astype(*given, Dtype::I32, s);
}

}  // namespace

Array gather_mm(const Array& a, const Array& b, const std::optional<Array>& lhs_indices,
                const std::optional<Array>& rhs_indices, bool /*sorted_indices*/, Stream s) {
  const char* name = "gather_mm";
  if (!lhs_indices && !rhs_indices) return matmul(a, b, s);
  if (a.rank() == 0 || b.rank() == 0)
    throw_value("[{}] operands need at least one axis, got shapes {} and {}", name, a.shape(),
                b.shape());
  Dtype dtype = promote(a.dtype(), b.dtype());
  if (!is_floating(dtype))
    throw_value("[{}] only floating types can be multiplied; the operands promote to {}", name,
                dtype);
  Array left = a.rank() == 1 ? expand_dims(a, {0}, s) : a;
  Array right = b.rank() == 1 ? expand_dims(b, {1}, s) : b;
  if (left.shape(-1) != right.shape(-2))
    throw_value("[{}] inner dimensions differ: {} x {}", name, a.shape(), b.shape());
  Arrays indices = broadcast_arrays(
      {indices_or_all(name, lhs_indices, left, s), indices_or_all(name, rhs_indices, right, s)}, s);
  Array product = apply(
      gather_mm_op,
      {product_operand(left, dtype, s), product_operand(right, dtype, s), indices[0], indices[1]},
      GatherMmParams{dtype}, s);
  std::vector<int> vectors;
  if (a.rank() == 1) vectors.push_back(-2);
  if (b.rank() == 1) vectors.push_back(-1);
  return vectors.empty() ? product : squeeze(product, vectors, s);
}

Array gather_qmm(const Array& x, const Array& w, const Array& scales, const Array& biases,
                 const std::optional<Array>& lhs_indices, const std::optional<Array>& rhs_indices,
                 bool transpose, int group_size, int bits, std::string_view mode,
                 bool /*sorted_indices*/, Stream s) {
  const char* name = "gather_qmm";
  if (!lhs_indices && !rhs_indices)
    return quantized_matmul(x, w, scales, biases, transpose, group_size, bits, mode, s);
  QuantizationParams p = check_quantization(name, group_size, bits, mode);
  int64_t columns = check_quantized(name, w, scales, biases, p);
  Dtype dtype = quantized_dtype(name, x, scales, biases);
  if (x.rank() < 2) throw_value("[{}] x needs two axes or more, got shape {}", name, x.shape());
  if (x.shape(-1) != (transpose ? columns : w.shape(-2)))
    throw_value("[{}] inner dimensions differ: x {} and {}matrices of {} rows and {} columns", name,
                x.shape(), transpose ? "transposed " : "", w.shape(-2), columns);
  Arrays indices = broadcast_arrays(
      {indices_or_all(name, lhs_indices, x, s), indices_or_all(name, rhs_indices, w, s)}, s);
  return apply(gather_qmm_op,
               {product_operand(x, dtype, s), w, scales, biases, indices[0], indices[1]},
               QuantizedMatmulParams{group_size, bits, transpose, dtype}, s);
}

namespace ops {

namespace {

Dtype widened_dtype(Dtype dtype) { return is_half(dtype) ? Dtype::F32 : dtype; }
Array transposed(const Array& a) { return swapaxes(a, -1, -2); }

// 0, 1, 2 … in the shape of the indices: each product takes its own matrix.
Array each(const Array& indices) {
  return reshape(arange(indices.size(), Dtype::I32), indices.shape());
}

// Sums matrices h [I…, M, K], one per index, into a stack of a's shape and dtype.
Array summed_into(const Array& h, const Array& indices, const Array& a) {
  Shape flat = {elements(batch_of(a.shape())), a.shape(-2), a.shape(-1)};
  if (flat[0] == 0) return zeros(a.shape(), a.dtype());
  Array updates = reshape(h, {indices.size(), 1, a.shape(-2), a.shape(-1)});
  Array total = scatter(zeros(flat, h.dtype()), {flatten(indices)}, updates, {0}, ScatterMode::Add);
  return astype(reshape(total, a.shape()), a.dtype());
}

// The ops on operands of any floating dtypes, in `dtype` (float64 if an operand is).
Array gathered(const Array& a, const Array& b, const Array& lhs, const Array& rhs, Dtype dtype) {
  Dtype sums = promote(promote(a.dtype(), b.dtype()), dtype);
  return astype(
      apply(gather_mm_op, {product_operand(a, sums, {}), product_operand(b, sums, {}), lhs, rhs},
            GatherMmParams{sums == Dtype::F64 ? sums : dtype}, {}),
      dtype);
}
Array outer(const Array& a, const Array& g, const Array& lhs, const Array& rhs, const Shape& batch,
            Dtype dtype) {
  Dtype sums = promote(promote(a.dtype(), g.dtype()), dtype);
  return astype(
      apply(gather_outer_op, {product_operand(a, sums, {}), product_operand(g, sums, {}), lhs, rhs},
            GatherOuterParams{batch, sums == Dtype::F64 ? sums : dtype}, {}),
      dtype);
}

void add_to(Array& total, const Array& term) { total = total.defined() ? total + term : term; }

void gather_infer(const Application& app, std::span<OutputSpec> outputs) {
  Shape shape = app.inputs[2].shape();
  shape.push_back(app.inputs[0].shape(-2));
  shape.push_back(app.inputs[1].shape(-1));
  outputs[0] = {shape, app.as<GatherMmParams>().dtype};
}

Arrays gather_vjp(const Application& app, Given cotangents, const std::vector<bool>& wanted) {
  const Array &a = app.inputs[0], &b = app.inputs[1], &lhs = app.inputs[2], &rhs = app.inputs[3];
  const Array& g = cotangents[0];
  Arrays result(4);
  if (wanted[0]) {
    Array h = gathered(g, transposed(b), each(rhs), rhs, widened_dtype(a.dtype()));
    result[0] = summed_into(h, lhs, a);
  }
  if (wanted[1]) result[1] = outer(a, g, lhs, rhs, batch_of(b.shape()), b.dtype());
  return result;
}

Arrays gather_jvp(const Application& app, Given tangents) {
  const Array &a = app.inputs[0], &b = app.inputs[1], &lhs = app.inputs[2], &rhs = app.inputs[3];
  Dtype dtype = app.as<GatherMmParams>().dtype;
  Array total;
  if (tangents[0].defined()) add_to(total, gathered(tangents[0], b, lhs, rhs, dtype));
  if (tangents[1].defined()) add_to(total, gathered(a, tangents[1], lhs, rhs, dtype));
  return {total};
}

void outer_infer(const Application& app, std::span<OutputSpec> outputs) {
  const auto& p = app.as<GatherOuterParams>();
  Shape shape = p.batch;
  shape.push_back(app.inputs[0].shape(-1));
  shape.push_back(app.inputs[1].shape(-1));
  outputs[0] = {shape, p.dtype};
}

Arrays outer_vjp(const Application& app, Given cotangents, const std::vector<bool>& wanted) {
  const Array &a = app.inputs[0], &g = app.inputs[1], &lhs = app.inputs[2], &rhs = app.inputs[3];
  const Array& c = cotangents[0];
  Arrays result(4);
  if (wanted[0]) {
    Array h = gathered(g, transposed(c), each(rhs), rhs, widened_dtype(a.dtype()));
    result[0] = summed_into(h, lhs, a);
  }
  if (wanted[1]) result[1] = gathered(a, c, lhs, rhs, g.dtype());
  return result;
}

Arrays outer_jvp(const Application& app, Given tangents) {
  const Array &a = app.inputs[0], &g = app.inputs[1], &lhs = app.inputs[2], &rhs = app.inputs[3];
  const auto& p = app.as<GatherOuterParams>();
  Array total;
  if (tangents[0].defined()) add_to(total, outer(tangents[0], g, lhs, rhs, p.batch, p.dtype));
  if (tangents[1].defined()) add_to(total, outer(a, tangents[1], lhs, rhs, p.batch, p.dtype));
  return {total};
}

// Batching: stacks get longer, and the indices of each example point into its part. `parts`
// matrices belong to one example; an unbatched stack is shared.
Array batched_indices(const Array& indices, int axis, int64_t batch, size_t rank, int64_t parts,
                      bool stack_batched, Stream s) {
  Array all = batched(indices, axis, batch, s);
  if (!stack_batched) return all;
  int count = static_cast<int>(parts);
  all = where(less(all, 0, s), add(all, count, s), all, s);
  return add(all, multiply(batch_index(batch, rank, s), count, s), s);
}
Array stack_first(const Array& a, int axis, Stream s) {
  return axis < 0 ? a : moveaxis(a, axis, 0, s);
}
int64_t matrices(const Array& a, int axis) {
  int64_t count = elements(batch_of(a.shape()));
  if (axis < 0) return count;
  // The batch axis may be one of the last two; what counts is the unbatched shape.
  Shape shape = a.shape();
  shape.erase(static_cast<size_t>(axis));
  return elements(batch_of(shape));
}

struct BatchedIndices {
  BatchedIndices(const Application& app, std::span<const int> axes, size_t first_index,
                 int64_t left_parts, bool left_batched, int64_t right_parts, bool right_batched)
      : batch(batch_extent(app.inputs, axes)) {
    const Array &l = app.inputs[first_index], &r = app.inputs[first_index + 1];
    int la = axes[first_index], ra = axes[first_index + 1];
    size_t rank = l.rank() - (la >= 0);
    lhs = batched_indices(l, la, batch, rank, left_parts, left_batched, app.stream);
    rhs = batched_indices(r, ra, batch, rank, right_parts, right_batched, app.stream);
  }
  int64_t batch;
  Array lhs, rhs;
};

Batched gather_vmap(const Application& app, std::span<const int> axes) {
  const Array &a = app.inputs[0], &b = app.inputs[1];
  BatchedIndices indices(app, axes, 2, matrices(a, axes[0]), axes[0] >= 0, matrices(b, axes[1]),
                         axes[1] >= 0);
  return {{apply(gather_mm_op,
                 {stack_first(a, axes[0], app.stream), stack_first(b, axes[1], app.stream),
                  indices.lhs, indices.rhs},
                 app.as<GatherMmParams>(), app.stream)},
          {0}};
}

Batched outer_vmap(const Application& app, std::span<const int> axes) {
  GatherOuterParams p = app.as<GatherOuterParams>();
  BatchedIndices indices(app, axes, 2, matrices(app.inputs[0], axes[0]), axes[0] >= 0,
                         elements(p.batch), true);
  p.batch.insert(0, indices.batch);
  Array g = batched(app.inputs[1], axes[1], indices.batch, app.stream);
  return {{apply(gather_outer_op,
                 {stack_first(app.inputs[0], axes[0], app.stream), g, indices.lhs, indices.rhs}, p,
                 app.stream)},
          {0}};
}

void quantized_infer(const Application& app, std::span<OutputSpec> outputs) {
  const auto& p = app.as<QuantizedMatmulParams>();
  Shape shape = app.inputs[4].shape();
  shape.push_back(app.inputs[0].shape(-2));
  shape.push_back(p.transpose ? app.inputs[1].shape(-2) : app.inputs[2].shape(-1) * p.group_size);
  outputs[0] = {shape, p.dtype};
}

Array quantized_product(const Application& app, const Array& x, const Array& scales,
                        const Array& biases, const Array& lhs, bool transpose, Dtype dtype) {
  QuantizedMatmulParams p = app.as<QuantizedMatmulParams>();
  p.transpose = transpose;
  p.dtype = x.dtype() == Dtype::F64 ? Dtype::F64 : dtype;
  return astype(apply(gather_qmm_op, {x, app.inputs[1], scales, biases, lhs, app.inputs[5]}, p, {}),
                dtype);
}

Arrays quantized_vjp(const Application& app, Given cotangents, const std::vector<bool>& wanted) {
  const Array &x = app.inputs[0], &w = app.inputs[1], &scales = app.inputs[2],
              &biases = app.inputs[3], &lhs = app.inputs[4], &rhs = app.inputs[5];
  const auto& p = app.as<QuantizedMatmulParams>();
  const Array& g = cotangents[0];
  Arrays result(6);
  if (wanted[0]) {
    Array h = quantized_product(app, g, scales, biases, each(rhs), !p.transpose,
                                widened_dtype(x.dtype()));
    result[0] = summed_into(h, lhs, x);
  }
  if (!wanted[2] && !wanted[3]) return result;
  QuantizationParams format{p.group_size, p.bits};
  Array dense = outer(x, g, lhs, rhs, batch_of(w.shape()), widened_dtype(g.dtype()));
  if (p.transpose) dense = transposed(dense);
  if (wanted[2]) result[2] = scales_cotangent(dense, w, format, scales.dtype());
  if (wanted[3]) result[3] = biases_cotangent(dense, format, biases.dtype());
  return result;
}

Arrays quantized_jvp(const Application& app, Given tangents) {
  const Array &x = app.inputs[0], &scales = app.inputs[2], &biases = app.inputs[3];
  const auto& p = app.as<QuantizedMatmulParams>();
  Array total;
  if (tangents[0].defined())
    add_to(total, quantized_product(app, tangents[0], scales, biases, app.inputs[4], p.transpose,
                                    p.dtype));
  if (tangents[2].defined() || tangents[3].defined())
    add_to(total, quantized_product(app, x, tangent_or_zeros(tangents[2], scales, app.stream),
                                    tangent_or_zeros(tangents[3], biases, app.stream),
                                    app.inputs[4], p.transpose, p.dtype));
  return {total};
}

Batched quantized_vmap(const Application& app, std::span<const int> axes) {
  bool w_batched = axes[1] >= 0 || axes[2] >= 0 || axes[3] >= 0;
  const Array& w = app.inputs[1];
  BatchedIndices indices(app, axes, 4, matrices(app.inputs[0], axes[0]), axes[0] >= 0,
                         matrices(w, axes[1]), w_batched);
  Array in[4] = {stack_first(app.inputs[0], axes[0], app.stream)};
  for (size_t i = 1; i < 4; ++i)
    in[i] = w_batched ? batched(app.inputs[i], axes[i], indices.batch, app.stream) : app.inputs[i];
  return {{apply(gather_qmm_op, {in[0], in[1], in[2], in[3], indices.lhs, indices.rhs},
                 app.as<QuantizedMatmulParams>(), app.stream)},
          {0}};
}

Sample::Input index_input(Shape shape, std::vector<double> values) {
  return {.shape = std::move(shape),
          .differentiable = false,
          .dtype = Dtype::I32,
          .fixed_dtype = true,
          .values = std::move(values)};
}

Sample gather_sample(const char* label, Shape a, Shape b, const Shape& indices,
                     std::vector<double> lhs, std::vector<double> rhs) {
  return {.label = label,
          .inputs = {{.shape = std::move(a)},
                     {.shape = std::move(b)},
                     index_input(indices, std::move(lhs)),
                     index_input(indices, std::move(rhs))},
          .apply = [](Given in) { return Arrays{gather_mm(in[0], in[1], in[2], in[3])}; },
          .tolerance = 4};
}
std::vector<Sample> gather_samples() {
  return {
      gather_sample("rows and experts", {3, 1, 5}, {4, 5, 6}, {3, 2}, {0, 0, 1, 1, 2, 2},
                    {3, 0, 0, 2, 3, 0}),
      gather_sample("several rows", {2, 4, 3}, {3, 3, 2}, {4}, {1, 0, 1, 1}, {2, 2, 0, -1}),
      gather_sample("stacks of two axes", {2, 2, 1, 3}, {2, 1, 3, 4}, {3}, {3, 0, 2}, {1, 0, 1}),
      gather_sample("no products", {2, 1, 3}, {2, 3, 4}, {0}, {}, {})};
}

std::vector<Sample> outer_samples() {
  auto of = [](const char* label, Shape a, Shape g, const Shape& indices, std::vector<double> lhs,
               std::vector<double> rhs, Shape batch) {
    return Sample{.label = label,
                  .inputs = {{.shape = std::move(a)},
                             {.shape = std::move(g)},
                             index_input(indices, std::move(lhs)),
                             index_input(indices, std::move(rhs))},
                  .apply =
                      [batch](Given in) {
                        return Arrays{outer(in[0], in[1], in[2], in[3], batch,
                                            promote(in[0].dtype(), in[1].dtype()))};
                      },
                  .tolerance = 4};
  };
  return {of("rows", {3, 1, 5}, {4, 1, 6}, {4}, {0, 2, 2, 1}, {1, 0, 1, 1}, {3}),
          of("several rows", {2, 3, 4}, {2, 2, 3, 2}, {2, 2}, {0, 1, 1, 0}, {0, 0, 1, 0}, {2, 1}),
          of("no products", {2, 1, 3}, {0, 1, 4}, {0}, {}, {}, {2})};
}

std::vector<Sample> quantized_samples() {
  auto of = [](const char* label, Shape x, int64_t experts, int64_t rows, int64_t columns, int bits,
               bool transpose) {
    Sample::Input packed{.shape = {experts, rows, columns * bits / 32},
                         .low = 0,
                         .high = 4294967295.0,
                         .differentiable = false,
                         .dtype = Dtype::U32,
                         .fixed_dtype = true};
    Shape groups = {experts, rows, columns / 32};
    return Sample{.label = label,
                  .inputs = {{.shape = std::move(x)},
                             packed,
                             {.shape = groups, .low = -0.1, .high = 0.1},
                             {.shape = groups},
                             index_input({2, 2}, {0, 0, 1, 1}),
                             index_input({2, 2}, {2, 0, 0, 2})},
                  .apply =
                      [=](Given in) {
                        return Arrays{gather_qmm(in[0], in[1], in[2], in[3], in[4], in[5],
                                                 transpose, 32, bits)};
                      },
                  .tolerance = 8};
  };
  return {of("4 bits", {2, 1, 64}, 3, 5, 64, 4, true), of("3 bits", {2, 2, 32}, 3, 4, 32, 3, true),
          of("not transposed", {2, 1, 4}, 3, 4, 32, 8, false)};
}

}  // namespace

const Op gather_mm_op{.name = "gather_mm",
                      .params = &params_type<GatherMmParams>,
                      .infer = &gather_infer,
                      .vjp = &gather_vjp,
                      .jvp = &gather_jvp,
                      .vmap = &gather_vmap,
                      .samples = &gather_samples};
const Op gather_outer_op{.name = "gather_outer",
                         .params = &params_type<GatherOuterParams>,
                         .infer = &outer_infer,
                         .vjp = &outer_vjp,
                         .jvp = &outer_jvp,
                         .vmap = &outer_vmap,
                         .samples = &outer_samples};
const Op gather_qmm_op{.name = "gather_qmm",
                       .params = &params_type<QuantizedMatmulParams>,
                       .infer = &quantized_infer,
                       .vjp = &quantized_vjp,
                       .jvp = &quantized_jvp,
                       .vmap = &quantized_vmap,
                       .samples = &quantized_samples};

void gather_mm_ops(Registry& registry) {
  registry.ops.add(gather_mm_op);
  registry.ops.add(gather_outer_op);
  registry.ops.add(gather_qmm_op);
  registry.functions.add(
      "gather_mm",
      "a: array, b: array, /, lhs_indices: array | None = None, rhs_indices: array | None = None, "
      "*, "
      "sorted_indices: bool = False",
      "Products of chosen matrices: a[lhs_indices] @ b[rhs_indices], without copying them.\n\n"
      "Indices are flat along the axes before the last two, broadcast to each other, and default\n"
      "to all matrices in order. a [..., M, K], b [..., K, N]: the result is [I..., M, N] in the\n"
      "promoted dtype. IndexError at evaluation for indices out of range.",
      [](const Array& a, const Array& b, const std::optional<Array>& lhs,
         const std::optional<Array>& rhs, bool sorted,
         Stream s) { return gather_mm(a, b, lhs, rhs, sorted, s); });
  registry.functions.add(
      "gather_qmm",
      "x: array, w: array, /, scales: array, biases: array | None = None, lhs_indices: array | "
      "None "
      "= None, rhs_indices: array | None = None, transpose: bool = True, group_size: int | None = "
      "None, bits: int | None = None, mode: str = 'affine', *, sorted_indices: bool = False",
      "gather_mm with quantized matrices, read as stored (see quantized_matmul).",
      [](const Array& x, const Array& w, const Array& scales, const std::optional<Array>& biases,
         const std::optional<Array>& lhs, const std::optional<Array>& rhs, bool transpose,
         const std::optional<int>& group_size, const std::optional<int>& bits,
         const std::string& mode, bool sorted, Stream s) {
        return gather_qmm(x, w, scales, needed_biases(biases, "gather_qmm", mode), lhs, rhs,
                          transpose, group_size.value_or(64), bits.value_or(4), mode, sorted, s);
      });
}

}  // namespace ops
}  // namespace mica
