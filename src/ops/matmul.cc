#include "ops/matmul.h"

#include <algorithm>

#include "core/node.h"
#include "ops/elementwise.h"
#include "ops/reduce.h"
#include "ops/registry.h"
#include "ops/rules.h"
#include "ops/shape.h"

namespace mica {

using namespace ops;

namespace {

// The product in `dtype`, which is floating; vectors become a row and a column.
Array product_of(const Array& a, const Array& b, Dtype dtype, const char* name, Stream s) {
  if (a.rank() == 0 || b.rank() == 0)
    throw_value("[{}] operands need at least one axis, got shapes {} and {}", name, a.shape(),
                b.shape());
  Array left = a.rank() == 1 ? expand_dims(a, {0}, s) : a;
  Array right = b.rank() == 1 ? expand_dims(b, {1}, s) : b;
  if (left.shape(-1) != right.shape(-2))
    throw_value("[{}] inner dimensions differ: {} x {}", name, a.shape(), b.shape());
  Array product = matmul_as(left, right, dtype, s);
  std::vector<int> vectors;
  if (a.rank() == 1) vectors.push_back(-2);
  if (b.rank() == 1) vectors.push_back(-1);
  return vectors.empty() ? product : squeeze(product, vectors, s);
}

void check_floating(Dtype dtype, const char* name) {
  if (!is_floating(dtype))
    throw_value("[{}] only floating types can be multiplied; the operands promote to {}", name,
                dtype);
}

}  // namespace

Array matmul(const Array& a, const Array& b, Stream s) {
  Dtype dtype = promote(a.dtype(), b.dtype());
  check_floating(dtype, "matmul");
  return product_of(a, b, dtype, "matmul", s);
}

Array addmm(const Array& c, const Array& a, const Array& b, double alpha, double beta, Stream s) {
  Dtype dtype = promote(promote(a.dtype(), b.dtype()), c.dtype());
  check_floating(dtype, "addmm");
  Dtype wide = is_half(dtype) ? Dtype::F32 : dtype;
  Array product = product_of(a, b, wide, "addmm", s);
  if (!(broadcast_shapes(c.shape(), product.shape(), "addmm") == product.shape()))
    throw_value("[addmm] c of shape {} does not broadcast to the product's shape {}", c.shape(),
                product.shape());
  Array total = alpha == 1 ? product : multiply(product, alpha, s);
  Array addend = astype(c, wide, s);
  if (beta != 1) addend = multiply(addend, beta, s);
  return astype(add(total, addend, s), dtype, s);
}

namespace {

// The axes of an array: those summed over, and the others.
struct Contraction {
  Contraction(const Array& a, const std::vector<int>& axes) : rank(a.rank()) {
    for (int axis : axes) summed.push_back(normalize_axis(axis, rank, "tensordot"));
    for (int axis = 0; axis < static_cast<int>(rank); ++axis)
      if (std::find(summed.begin(), summed.end(), axis) == summed.end()) kept.push_back(axis);
    if (kept.size() + summed.size() != rank)
      throw_value("[tensordot] an axis of {} is given twice", a.shape());
  }
  // Axes in the order first, then second.
  static std::vector<int> joined(std::vector<int> first, const std::vector<int>& second) {
    first.insert(first.end(), second.begin(), second.end());
    return first;
  }
  static int64_t extent(const Array& a, const std::vector<int>& axes) {
    int64_t product = 1;
    for (int axis : axes) product *= a.shape(axis);
    return product;
  }

  size_t rank;
  std::vector<int> summed, kept;
};

}  // namespace

Array tensordot(const Array& a, const Array& b, const std::vector<int>& axes_a,
                const std::vector<int>& axes_b, Stream s) {
  Contraction left(a, axes_a), right(b, axes_b);
  if (left.summed.size() != right.summed.size())
    throw_value("[tensordot] {} axes of a and {} of b cannot be paired", left.summed.size(),
                right.summed.size());
  for (size_t i = 0; i < left.summed.size(); ++i)
    if (a.shape(left.summed[i]) != b.shape(right.summed[i]))
      throw_value("[tensordot] axis {} of {} and axis {} of {} have different extents", axes_a[i],
                  a.shape(), axes_b[i], b.shape());
  Shape shape;
  for (int axis : left.kept) shape.push_back(a.shape(axis));
  for (int axis : right.kept) shape.push_back(b.shape(axis));
  int64_t summed = Contraction::extent(a, left.summed);
  Array rows = reshape(transpose(a, Contraction::joined(left.kept, left.summed), s),
                       {Contraction::extent(a, left.kept), summed}, s);
  Array columns = reshape(transpose(b, Contraction::joined(right.summed, right.kept), s),
                          {summed, Contraction::extent(b, right.kept)}, s);
  return reshape(matmul(rows, columns, s), shape, s);
}

Array tensordot(const Array& a, const Array& b, int axes, Stream s) {
  if (axes < 0 || static_cast<size_t>(axes) > std::min(a.rank(), b.rank()))
    throw_value("[tensordot] {} axes cannot be paired of shapes {} and {}", axes, a.shape(),
                b.shape());
  std::vector<int> last, first;
  for (int i = 0; i < axes; ++i) {
    last.push_back(i - axes);
    first.push_back(i);
  }
  return tensordot(a, b, last, first, s);
}

Array inner(const Array& a, const Array& b, Stream s) {
  if (a.rank() == 0 || b.rank() == 0) return multiply(a, b, s);
  if (a.shape(-1) != b.shape(-1))
    throw_value("[inner] last dimensions differ: {} and {}", a.shape(), b.shape());
  return tensordot(a, b, {-1}, {-1}, s);
}

Array outer(const Array& a, const Array& b, Stream s) {
  return multiply(reshape(a, {-1, 1}, s), reshape(b, {1, -1}, s), s);
}

namespace ops {

Array product_operand(const Array& a, Dtype result, Stream s) {
  bool readable = is_floating(a.dtype()) && (a.dtype() == Dtype::F64) == (result == Dtype::F64);
  return readable ? a : astype(a, result, s);
}

Array matmul_as(const Array& a, const Array& b, Dtype dtype, Stream s) {
  Dtype sums = promote(promote(a.dtype(), b.dtype()), dtype);
  Array product = apply(matmul_op, {product_operand(a, sums, s), product_operand(b, sums, s)},
                        MatmulParams{sums == Dtype::F64 ? sums : dtype}, s);
  return astype(product, dtype, s);
}

namespace {

Shape batch_of(const Shape& shape) {
  Shape batch = shape;
  batch.resize(shape.size() - 2);
  return batch;
}

void infer(const Application& app, std::span<OutputSpec> outputs) {
  const Shape& a = app.inputs[0].shape();
  const Shape& b = app.inputs[1].shape();
  Shape shape = broadcast_shapes(batch_of(a), batch_of(b), "matmul");
  shape.push_back(a[a.size() - 2]);
  shape.push_back(b[b.size() - 1]);
  outputs[0] = {std::move(shape), app.as<MatmulParams>().dtype};
}

Array transposed(const Array& a) { return swapaxes(a, -1, -2); }

bool is_transposed(const Array& matrix) {
  const Node& node = *matrix.node();
  return node.op == &transpose_op &&
         static_cast<const TransposeParams*>(node.params)->axes == std::vector<int>{1, 0};
}

// a @ b summed over the batch axes along which `like` was broadcast, in its dtype.
Array cotangent(const Array& a, const Array& b, const Array& like) {
  Shape batch = broadcast_shapes(batch_of(a.shape()), batch_of(b.shape()), "matmul");
  if (batch == batch_of(like.shape())) return matmul_as(a, b, like.dtype(), {});
  Dtype wide = is_half(like.dtype()) ? Dtype::F32 : like.dtype();
  return astype(sum_to_shape(matmul_as(a, b, wide, {}), like.shape()), like.dtype());
}

Arrays vjp(const Application& app, Given cotangents, const std::vector<bool>& wanted) {
  const Array& a = app.inputs[0];
  const Array& b = app.inputs[1];
  const Array& g = cotangents[0];
  Arrays result(2);
  if (wanted[0]) result[0] = cotangent(g, transposed(b), a);
  if (!wanted[1]) return result;
  if (b.rank() == 2 && a.rank() >= 2 && a.size() > 0 && g.size() > 0) {
    // One product over all rows instead of one per batch and a sum; for a transposed matrix in the
    // order of the matrix itself, to which it is handed on.
    Array rows = reshape(a, {-1, a.shape(-1)}), rows_g = reshape(g, {-1, g.shape(-1)});
    result[1] = is_transposed(b) ? transposed(matmul_as(transposed(rows_g), rows, b.dtype(), {}))
                                 : matmul_as(transposed(rows), rows_g, b.dtype(), {});
  } else {
    result[1] = cotangent(transposed(a), g, b);
  }
  return result;
}

Arrays jvp(const Application& app, Given tangents) {
  Dtype dtype = app.as<MatmulParams>().dtype;
  Array total;
  if (tangents[0].defined()) total = matmul_as(tangents[0], app.inputs[1], dtype, {});
  if (tangents[1].defined()) {
    Array other = matmul_as(app.inputs[0], tangents[1], dtype, {});
    total = total.defined() ? total + other : other;
  }
  return {total};
}

Batched vmap(const Application& app, std::span<const int> axes) {
  size_t rank = 2;
  for (size_t i = 0; i < 2; ++i) rank = std::max(rank, app.inputs[i].rank() - (axes[i] >= 0));
  Array operands[2];
  for (size_t i = 0; i < 2; ++i)
    operands[i] =
        axes[i] < 0 ? app.inputs[i] : batch_first(app.inputs[i], axes[i], rank, app.stream);
  return {{matmul_as(operands[0], operands[1], app.as<MatmulParams>().dtype, {})}, {0}};
}

Sample sample(const char* label, Shape a, Shape b) {
  return {.label = label,
          .inputs = {{.shape = std::move(a)}, {.shape = std::move(b)}},
          .apply = [](Given in) { return Arrays{matmul(in[0], in[1])}; },
          .tolerance = 4};
}

std::vector<Sample> samples() {
  Sample mixed = sample("bfloat16 weight", {3, 18}, {18, 5});
  mixed.inputs[1].dtype = Dtype::BF16;
  mixed.inputs[1].fixed_dtype = true;
  Sample turned = sample("transposed weight", {3, 18}, {21, 18});
  turned.apply = [](Given in) { return Arrays{matmul(in[0], transpose(in[1]))}; };
  return {sample("square", {4, 4}, {4, 4}),
          sample("odd", {3, 7}, {7, 5}),
          sample("one row", {1, 33}, {33, 9}),
          sample("one column", {19, 33}, {33, 1}),
          sample("more than a panel", {19, 35}, {35, 70}),
          sample("batched", {2, 3, 4}, {2, 4, 5}),
          sample("shared right", {2, 3, 4}, {4, 5}),
          sample("shared left", {3, 4}, {2, 4, 5}),
          sample("broadcast batches", {2, 1, 3, 4}, {5, 4, 2}),
          sample("vectors", {7}, {7}),
          sample("nothing to sum", {3, 0}, {0, 2}),
          sample("no rows", {0, 3}, {3, 2}),
          sample("no batches", {0, 2, 3}, {3, 2}),
          std::move(mixed),
          std::move(turned)};
}

}  // namespace

const Op matmul_op{.name = "matmul",
                   .params = &params_type<MatmulParams>,
                   .infer = &infer,
                   .vjp = &vjp,
                   .jvp = &jvp,
                   .vmap = &vmap,
                   .samples = &samples};

namespace {

// `axes` is a count, or two lists of equal length, one after the other.
Array tensordot_of_values(const Array& a, const Array& b, const Value& axes, Stream s) {
  if (const auto* count = std::get_if<int64_t>(&axes))
    return tensordot(a, b, static_cast<int>(std::clamp<int64_t>(*count, -1, 1 << 20)), s);
  const auto* lists = std::get_if<std::vector<int64_t>>(&axes);
  if (!lists || lists->size() % 2 != 0)
    throw_type("tensordot() argument 'axes' must be an int or two lists of as many ints");
  auto middle = lists->begin() + static_cast<int64_t>(lists->size() / 2);
  return tensordot(a, b, std::vector<int>(lists->begin(), middle),
                   std::vector<int>(middle, lists->end()), s);
}

}  // namespace

void matmul_ops(Registry& registry) {
  registry.ops.add(matmul_op);
  registry.functions.add(
      "matmul", "a: array, b: array, /",
      "Matrix product with NumPy's semantics.\n\n"
      "The last two axes are multiplied, those before them broadcast; a vector is a row on the\n"
      "left and a column on the right. The result has the promoted dtype, which must be floating.\n"
      "Sums are kept in float32 (float64 for float64). ValueError if inner dimensions differ.",
      [](const Array& a, const Array& b, Stream s) { return matmul(a, b, s); });
  registry.functions.add(
      "addmm", "c: array, a: array, b: array, /, alpha: float = 1.0, beta: float = 1.0",
      "alpha * (a @ b) + beta * c.\n\n"
      "c broadcasts to the product. The result has the promoted dtype of all three; half types\n"
      "are rounded once.",
      [](const Array& c, const Array& a, const Array& b, double alpha, double beta, Stream s) {
        return addmm(c, a, b, alpha, beta, s);
      });
  registry.functions.add(
      "tensordot", "a: array, b: array, /, axes: int | list[Sequence[int]] = 2",
      "Sum over pairs of axes: the last `axes` of a with the first of b, or those that two lists\n"
      "pair. The result has the other axes of a, then those of b. ValueError if extents differ.",
      [](const Array& a, const Array& b, const Value& axes, Stream s) {
        return tensordot_of_values(a, b, axes, s);
      });
  registry.functions.add(
      "inner", "a: array, b: array, /",
      "Sum over the last axes of both arrays; of scalars their product.\n\n"
      "The result has the other axes of a, then those of b. ValueError if the last dimensions\n"
      "differ.",
      [](const Array& a, const Array& b, Stream s) { return inner(a, b, s); });
  registry.functions.add("outer", "a: array, b: array, /",
                         "All products of the elements of two arrays, flattened, as a matrix.",
                         [](const Array& a, const Array& b, Stream s) { return outer(a, b, s); });
}

}  // namespace ops
}  // namespace mica
