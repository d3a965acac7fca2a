#include "ops/softmax.h"

#include <algorithm>

#include "ops/elementwise.h"
#include "ops/precision.h"
#include "ops/reduce.h"
#include "ops/registry.h"
#include "ops/rules.h"
#include "ops/shape.h"

namespace mica {

using namespace ops;

namespace {

// Some axes of an array as its last one, and the way back.
struct LastAxis {
  LastAxis(const Array& a, const Axes& wanted, const char* name, Stream s) : shape(a.shape()) {
    std::vector<int> axes;
    for (int i = 0; i < static_cast<int>(a.rank()); ++i) axes.push_back(i);
    if (wanted) axes = normalize_axes(*wanted, a.rank(), name);
    for (int i = 0; i < static_cast<int>(a.rank()); ++i)
      if (std::find(axes.begin(), axes.end(), i) == axes.end()) order.push_back(i);
    Shape flat;
    for (int axis : order) flat.push_back(shape[axis]);
    flat.push_back(1);
    for (int axis : axes) flat.back() *= shape[axis];
    order.insert(order.end(), axes.begin(), axes.end());
    kept = shape;
    for (int axis : axes) kept[axis] = 1;
    Array floating = astype(a, to_floating(a.dtype()), s);
    moved = in_order() ? floating : transpose(floating, order, s);
    for (int axis : order) moved_shape.push_back(shape[axis]);
    moved = reshape(moved, flat, s);
  }

  // A result of moved's shape, laid out as the array was.
  Array back(const Array& result, Stream s) const {
    Array wide = reshape(result, moved_shape, s);
    if (in_order()) return wide;
    std::vector<int> inverse(order.size());
    for (size_t i = 0; i < order.size(); ++i) inverse[order[i]] = static_cast<int>(i);
    return transpose(wide, inverse, s);
  }

  bool in_order() const { return std::is_sorted(order.begin(), order.end()); }

  Shape shape, kept, moved_shape;  // kept: the axes with extent 1
  std::vector<int> order;
  Array moved;
};

}  // namespace

Array softmax(const Array& a, const Axes& axis, bool /*precise*/, Stream s) {
  LastAxis last(a, axis, "softmax", s);
  return last.back(apply(softmax_op, {last.moved}, s), s);
}

Array logsumexp(const Array& a, const Axes& axis, bool keepdims, Stream s) {
  LastAxis last(a, axis, "logsumexp", s);
  Shape shape = last.kept;
  if (!keepdims) {
    shape = last.moved.shape();
    shape.resize(shape.size() - 1);
  }
  return reshape(apply(logsumexp_op, {last.moved}, s), shape, s);
}

Array log_softmax(const Array& a, int axis, Stream s) {
  Array floating = astype(a, to_floating(a.dtype()), s);
  Array wide = is_half(a.dtype()) ? astype(a, Dtype::F32, s) : floating;
  Array total = logsumexp(wide, std::vector<int>{axis}, true, s);
  return astype(subtract(wide, total, s), floating.dtype(), s);
}

namespace ops {

namespace {

const std::vector<int> kLast = {-1};

void softmax_infer(const Application& app, std::span<OutputSpec> outputs) {
  outputs[0] = {app.inputs[0].shape(), app.inputs[0].dtype()};
}

void logsumexp_infer(const Application& app, std::span<OutputSpec> outputs) {
  outputs[0] = {app.inputs[0].shape(), app.inputs[0].dtype()};
  outputs[0].shape.back() = 1;
}

// The Jacobian is symmetric: both derivatives are y * (t - sum(y * t)).
Array softmax_derivative(const Array& output, const Array& direction) {
  Array y = widened(output), t = widened(direction);
  return astype(y * (t - sum(y * t, kLast, true)), output.dtype());
}

Arrays softmax_vjp(const Application& app, Given cotangents, const std::vector<bool>&) {
  return {softmax_derivative(app.outputs[0], cotangents[0])};
}
Arrays softmax_jvp(const Application& app, Given tangents) {
  return {softmax_derivative(app.outputs[0], tangents[0])};
}

Arrays logsumexp_vjp(const Application& app, Given cotangents, const std::vector<bool>&) {
  const Array& x = app.inputs[0];
  // Of half types the result is too coarse to subtract.
  if (!is_half(x.dtype())) return {exp(x - app.outputs[0]) * cotangents[0]};
  Array p = apply(softmax_op, {widened(x)}, app.stream);
  return {astype(p * widened(cotangents[0]), x.dtype())};
}
Arrays logsumexp_jvp(const Application& app, Given tangents) {
  const Array& x = app.inputs[0];
  Array p = apply(softmax_op, {widened(x)}, app.stream);
  return {astype(sum(p * widened(tangents[0]), kLast, true), x.dtype())};
}

// Rows are independent: only a batch axis in the last place has to move.
Batched along_rows(const Op& op, const Application& app, int axis) {
  const Array& x = app.inputs[0];
  bool last = axis == static_cast<int>(x.rank()) - 1;
  Array rows = last ? moveaxis(x, axis, 0) : x;
  return {{apply(op, {rows}, app.stream)}, {last ? 0 : axis}};
}
Batched softmax_vmap(const Application& app, std::span<const int> axes) {
  return along_rows(softmax_op, app, axes[0]);
}
Batched logsumexp_vmap(const Application& app, std::span<const int> axes) {
  return along_rows(logsumexp_op, app, axes[0]);
}

Arrays softmax_lower(const Application& app) {
  StreamScope scope(app.stream);
  const Array& x = app.inputs[0];
  Array wide = widened(x);
  Array terms = exp(wide - max(wide, kLast, true));
  return {astype(terms / sum(terms, kLast, true), x.dtype())};
}

std::vector<Sample> row_samples(Array (*f)(const Array&, const Axes&)) {
  auto of = [f](const char* label, Shape shape, Axes axis, double range = 4) {
    return Sample{
        label, {{shape, -range, range}}, [=](Given in) { return Arrays{f(in[0], axis)}; }};
  };
  return {of("rows", {3, 5}, {{-1}}),          of("vector", {7}, {{0}}),
          of("odd length", {2, 37}, {{1}}),    of("columns", {4, 3}, {{0}}),
          of("two axes", {2, 3, 4}, {{0, 2}}), of("all axes", {3, 2}, {}),
          of("large", {2, 6}, {{-1}}, 60),     of("no rows", {0, 3}, {{-1}})};
}
std::vector<Sample> softmax_samples() {
  return row_samples([](const Array& a, const Axes& axis) { return softmax(a, axis); });
}
std::vector<Sample> logsumexp_samples() {
  return row_samples([](const Array& a, const Axes& axis) { return logsumexp(a, axis); });
}

}  // namespace

const Op softmax_op{.name = "softmax",
                    .infer = &softmax_infer,
                    .vjp = &softmax_vjp,
                    .jvp = &softmax_jvp,
                    .vmap = &softmax_vmap,
                    .lower = &softmax_lower,
                    .samples = &softmax_samples};
const Op logsumexp_op{.name = "logsumexp",
                      .infer = &logsumexp_infer,
                      .vjp = &logsumexp_vjp,
                      .jvp = &logsumexp_jvp,
                      .vmap = &logsumexp_vmap,
                      .samples = &logsumexp_samples};

void softmax_ops(Registry& registry) {
  registry.ops.add(softmax_op);
  registry.ops.add(logsumexp_op);
  registry.functions.add(
      "softmax", "a: array, /, axis: None | int | Sequence[int] = None, *, precise: bool = False",
      "exp(a) / sum(exp(a)) along one axis, several, or all of them.\n\n"
      "The result has a's shape and dtype (float32 for integers and bool). Sums are kept in\n"
      "float32 or wider whatever `precise` says. IndexError for axes out of range.",
      [](const Array& a, const Axes& axis, bool precise, Stream s) {
        return softmax(a, axis, precise, s);
      });
  registry.functions.add(
      "logsumexp", "a: array, /, axis: None | int | Sequence[int] = None, keepdims: bool = False",
      "log(sum(exp(a))) along one axis, several, or all of them, without overflow.\n\n"
      "The result has a's dtype (float32 for integers and bool); -inf where there is nothing\n"
      "to sum. IndexError for axes out of range.",
      [](const Array& a, const Axes& axis, bool keepdims, Stream s) {
        return logsumexp(a, axis, keepdims, s);
      });
}

}  // namespace ops
}  // namespace mica
