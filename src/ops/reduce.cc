#include "ops/reduce.h"

#include <algorithm>
#include <numeric>

#include "base/error.h"
#include "ops/elementwise.h"
#include "ops/registry.h"
#include "ops/shape.h"

namespace mica {

using namespace ops;

namespace {

std::vector<int> resolve_axes(const Array& a, const Axes& axis, const char* name) {
  if (axis) return normalize_axes(*axis, a.rank(), name);
  std::vector<int> all(a.rank());
  std::iota(all.begin(), all.end(), 0);
  return all;
}

int64_t extent_of(const Array& a, const std::vector<int>& axes) {
  int64_t count = 1;
  for (int axis : axes) count *= a.shape(axis);
  return count;
}

Array reduce(const Op& op, const Array& a, const Axes& axis, bool keepdims, Stream s) {
  std::vector<int> axes = resolve_axes(a, axis, op.name);
  if (axes.empty())
    return astype(
        a, op.reduce == Reduce::Sum || op.reduce == Reduce::Prod ? sum_dtype(a.dtype()) : a.dtype(),
        s);
  if ((op.reduce == Reduce::Max || op.reduce == Reduce::Min) && extent_of(a, axes) == 0)
    throw_value("[{}] an array of shape {} has no elements to choose from", op.name, a.shape());
  return apply(op, {a}, ReduceParams{std::move(axes), keepdims}, s);
}

// float16 and bfloat16 go through float32, so that neither sums nor squares lose or overflow.
Array widen(const Array& a, Stream s) {
  return astype(a, is_half(a.dtype()) ? Dtype::F32 : to_floating(a.dtype()), s);
}
Array wide_mean(const Array& wide, const std::vector<int>& axes, int64_t count, bool keepdims,
                Stream s) {
  return divide(reduce(sum_op, wide, axes, keepdims, s), static_cast<double>(count), s);
}
Array wide_var(const Array& a, const Axes& axis, bool keepdims, int ddof, const char* name,
               Stream s) {
  std::vector<int> axes = resolve_axes(a, axis, name);
  int64_t count = extent_of(a, axes);
  Array wide = widen(a, s);
  Array centred = subtract(wide, wide_mean(wide, axes, count, true, s), s);
  return wide_mean(square(centred, s), axes, std::max<int64_t>(count - ddof, 0), keepdims, s);
}

}  // namespace

Array sum(const Array& a, const Axes& axis, bool keepdims, Stream s) {
  return reduce(sum_op, a, axis, keepdims, s);
}
Array prod(const Array& a, const Axes& axis, bool keepdims, Stream s) {
  return reduce(prod_op, a, axis, keepdims, s);
}
Array max(const Array& a, const Axes& axis, bool keepdims, Stream s) {
  return reduce(max_op, a, axis, keepdims, s);
}
Array min(const Array& a, const Axes& axis, bool keepdims, Stream s) {
  return reduce(min_op, a, axis, keepdims, s);
}
Array all(const Array& a, const Axes& axis, bool keepdims, Stream s) {
  return reduce(all_op, astype(a, Dtype::Bool, s), axis, keepdims, s);
}
Array any(const Array& a, const Axes& axis, bool keepdims, Stream s) {
  return reduce(any_op, astype(a, Dtype::Bool, s), axis, keepdims, s);
}

Array mean(const Array& a, const Axes& axis, bool keepdims, Stream s) {
  std::vector<int> axes = resolve_axes(a, axis, "mean");
  return astype(wide_mean(widen(a, s), axes, extent_of(a, axes), keepdims, s),
                to_floating(a.dtype()), s);
}
Array var(const Array& a, const Axes& axis, bool keepdims, int ddof, Stream s) {
  return astype(wide_var(a, axis, keepdims, ddof, "var", s), to_floating(a.dtype()), s);
}
Array std(const Array& a, const Axes& axis, bool keepdims, int ddof, Stream s) {
  return astype(sqrt(wide_var(a, axis, keepdims, ddof, "std", s), s), to_floating(a.dtype()), s);
}

Array array_equal(const Array& a, const Array& b, bool equal_nan, Stream s) {
  if (!(a.shape() == b.shape())) return fill({}, false, Dtype::Bool, s);
  Array same = equal(a, b, s);
  if (equal_nan) same = logical_or(same, logical_and(isnan(a, s), isnan(b, s), s), s);
  return all(same, {}, false, s);
}
Array allclose(const Array& a, const Array& b, double rtol, double atol, bool equal_nan, Stream s) {
  return all(isclose(a, b, rtol, atol, equal_nan, s), {}, false, s);
}

namespace ops {

Array sum_to_shape(const Array& a, const Shape& shape, Stream s) {
  if (a.shape() == shape) return a;
  std::vector<int> axes;
  axes.reserve(a.rank());
  size_t lead = a.rank() - shape.size();
  for (size_t i = 0; i < a.rank(); ++i) {
    if (i < lead || (shape[i - lead] == 1 && a.shape()[i] != 1))
      axes.push_back(static_cast<int>(i));
  }
  MICA_ASSERT(!axes.empty());
  const bool all_lead = axes.size() == lead;
  return reshape(apply(sum_op, {a}, ReduceParams{std::move(axes), !all_lead}, s), shape, s);
}

Dtype sum_dtype(Dtype dtype) {
  if (is_floating(dtype) || size_of(dtype) == 8) return dtype;
  return is_unsigned_integer(dtype) ? Dtype::U32 : Dtype::I32;
}

namespace {

// The shape of an array reduced along axes.
Shape reduced_shape(const Shape& shape, const std::vector<int>& axes, bool keep) {
  Shape reduced = shape;
  for (size_t i = axes.size(); i-- > 0;) {
    auto axis = static_cast<size_t>(axes[i]);
    if (keep)
      reduced[axis] = 1;
    else
      reduced.erase(axis);
  }
  return reduced;
}

void infer_reduced(const Application& app, std::span<OutputSpec> outputs) {
  const auto& params = app.as<ReduceParams>();
  outputs[0] = {reduced_shape(app.inputs[0].shape(), params.axes, params.keep),
                app.inputs[0].dtype()};
}
void infer_sum(const Application& app, std::span<OutputSpec> outputs) {
  infer_reduced(app, outputs);
  outputs[0].dtype = sum_dtype(outputs[0].dtype);
}

// What belongs to the result, with the reduced axes.
Array kept(const Array& a, const Application& app) {
  const auto& params = app.as<ReduceParams>();
  return params.keep ? a : reshape(a, reduced_shape(app.inputs[0].shape(), params.axes, true));
}
Array again(const Op& op, const Array& a, const Application& app) {
  return apply(op, {a}, ReduceParams{app.as<ReduceParams>().axes}, app.stream);
}

// Derivatives of the result by each element, broadcast over the result.
Array ones_factor(const Application&) { return {}; }
// Equal extremes share the derivative, as in MLX.
Array extreme_factor(const Application& app) {
  Array hit = astype(equal(app.inputs[0], kept(app.outputs[0], app)), app.outputs[0].dtype());
  return hit / again(sum_op, hit, app);
}
// The product of all others: with one zero only that zero's derivative is not zero.
Array prod_factor(const Application& app) {
  const Array& x = app.inputs[0];
  Array zero = equal(x, 0);
  Array rest = where(zero, 1, x);
  Array others = again(prod_op, rest, app) / rest;
  Array zeros_elsewhere = again(sum_op, astype(zero, Dtype::I32), app) - astype(zero, Dtype::I32);
  return where(equal(zeros_elsewhere, 0), others, 0);
}

template <Array (*factor)(const Application&)>
Arrays reduce_vjp(const Application& app, std::span<const Array> cotangents,
                  const std::vector<bool>& wanted) {
  if (!wanted[0]) return {Array()};
  StreamScope scope(app.stream);
  Array f = factor(app);
  Array g = kept(cotangents[0], app);
  return {f.defined() ? g * f : broadcast_to(g, app.inputs[0].shape())};
}

template <Array (*factor)(const Application&)>
Arrays reduce_jvp(const Application& app, std::span<const Array> tangents) {
  if (!tangents[0].defined()) return {Array()};
  StreamScope scope(app.stream);
  Array f = factor(app);
  return {apply(sum_op, {f.defined() ? tangents[0] * f : tangents[0]}, app.as<ReduceParams>(),
                app.stream)};
}

template <const Op& op>
Batched reduce_vmap(const Application& app, std::span<const int> axes) {
  ReduceParams params = app.as<ReduceParams>();
  for (int& axis : params.axes) axis += axis >= axes[0];
  int at = axes[0];
  for (int axis : params.axes) at -= !params.keep && axis < axes[0];
  return {{apply(op, {app.inputs[0]}, std::move(params), app.stream)}, {at}};
}

template <Array (*call)(const Array&, const Axes&, bool, Stream), bool logical, bool of_nothing>
std::vector<Sample> reduce_samples() {
  std::vector<Sample> samples;
  auto add = [&](const char* label, Shape shape, Arrays (*apply)(std::span<const Array>)) {
    Sample sample;
    sample.label = label;
    Sample::Input input{
        .shape = shape, .low = logical ? 0.0 : 0.4, .high = logical ? 1.0 : 1.6, .values = {}};
    input.differentiable = !logical;
    if (logical) input.dtype = Dtype::Bool, input.fixed_dtype = true;
    sample.inputs = {input};
    sample.apply = apply;
    samples.push_back(std::move(sample));
  };
  add("last", {3, 5},
      [](std::span<const Array> in) { return Arrays{call(in[0], {{-1}}, false, {})}; });
  add("first", {4, 6},
      [](std::span<const Array> in) { return Arrays{call(in[0], {{0}}, true, {})}; });
  add("middle", {2, 7, 3},
      [](std::span<const Array> in) { return Arrays{call(in[0], {{1}}, false, {})}; });
  add("outer", {3, 4, 5},
      [](std::span<const Array> in) { return Arrays{call(in[0], {{0, 2}}, true, {})}; });
  add("everything", {2, 3, 4},
      [](std::span<const Array> in) { return Arrays{call(in[0], {}, false, {})}; });
  add("one", {1, 1},
      [](std::span<const Array> in) { return Arrays{call(in[0], {{0}}, false, {})}; });
  add("tiles", {3, 523},
      [](std::span<const Array> in) { return Arrays{call(in[0], {{1}}, false, {})}; });
  add("tile columns", {37, 270},
      [](std::span<const Array> in) { return Arrays{call(in[0], {{0}}, false, {})}; });
  add("empty result", {0, 3},
      [](std::span<const Array> in) { return Arrays{call(in[0], {{1}}, false, {})}; });
  if (of_nothing)
    add("of nothing", {0, 3},
        [](std::span<const Array> in) { return Arrays{call(in[0], {{0}}, false, {})}; });
  return samples;
}

}  // namespace

const Op sum_op{.name = "sum",
                .params = &params_type<ReduceParams>,
                .reduce = Reduce::Sum,
                .infer = &infer_sum,
                .vjp = &reduce_vjp<&ones_factor>,
                .jvp = &reduce_jvp<&ones_factor>,
                .vmap = &reduce_vmap<sum_op>,
                .samples = &reduce_samples<&mica::sum, false, true>};
const Op prod_op{.name = "prod",
                 .params = &params_type<ReduceParams>,
                 .reduce = Reduce::Prod,
                 .infer = &infer_sum,
                 .vjp = &reduce_vjp<&prod_factor>,
                 .jvp = &reduce_jvp<&prod_factor>,
                 .vmap = &reduce_vmap<prod_op>,
                 .samples = &reduce_samples<&mica::prod, false, true>};
const Op max_op{.name = "max",
                .params = &params_type<ReduceParams>,
                .reduce = Reduce::Max,
                .infer = &infer_reduced,
                .vjp = &reduce_vjp<&extreme_factor>,
                .jvp = &reduce_jvp<&extreme_factor>,
                .vmap = &reduce_vmap<max_op>,
                .samples = &reduce_samples<&mica::max, false, false>};
const Op min_op{.name = "min",
                .params = &params_type<ReduceParams>,
                .reduce = Reduce::Min,
                .infer = &infer_reduced,
                .vjp = &reduce_vjp<&extreme_factor>,
                .jvp = &reduce_jvp<&extreme_factor>,
                .vmap = &reduce_vmap<min_op>,
                .samples = &reduce_samples<&mica::min, false, false>};
const Op all_op{.name = "all",
                .params = &params_type<ReduceParams>,
                .reduce = Reduce::All,
                .infer = &infer_reduced,
                .vmap = &reduce_vmap<all_op>,
                .samples = &reduce_samples<&mica::all, true, true>};
const Op any_op{.name = "any",
                .params = &params_type<ReduceParams>,
                .reduce = Reduce::Any,
                .infer = &infer_reduced,
                .vmap = &reduce_vmap<any_op>,
                .samples = &reduce_samples<&mica::any, true, true>};

namespace {

#define MICA_AXIS_DOC                                                                              \
  "\n\nWithout `axis` all axes are reduced; `keepdims` leaves them with extent 1. An axis out of " \
  "range is an IndexError, a repeated one a ValueError."

template <Array (*call)(const Array&, const Axes&, bool, Stream)>
void add_reduction(FunctionRegistry& functions, const char* name, const char* doc) {
  functions.add(name,
                "a: array, /, axis: int | Sequence[int] | None = None, keepdims: bool = False", doc,
                [](const Array& a, Axes axis, bool keepdims, Stream s) {
                  return call(a, axis, keepdims, s);
                });
}

template <Array (*call)(const Array&, const Axes&, bool, int, Stream)>
void add_spread(FunctionRegistry& functions, const char* name, const char* doc) {
  functions.add(
      name,
      "a: array, /, axis: int | Sequence[int] | None = None, keepdims: bool = False, ddof: int = 0",
      doc, [](const Array& a, Axes axis, bool keepdims, int ddof, Stream s) {
        return call(a, axis, keepdims, ddof, s);
      });
}

}  // namespace

void reduce_ops(Registry& registry) {
  for (const Op* op : {&sum_op, &prod_op, &max_op, &min_op, &all_op, &any_op})
    registry.ops.add(*op);
  auto& functions = registry.functions;
  add_reduction<&mica::sum>(
      functions, "sum",
      "Sum along axes. bool and integers narrower than 32 bits give int32, or uint32 if "
      "unsigned; half types are added up wide." MICA_AXIS_DOC);
  add_reduction<&mica::prod>(
      functions, "prod",
      "Product along axes. bool and integers narrower than 32 bits give int32, or uint32 if "
      "unsigned; half types are multiplied wide." MICA_AXIS_DOC);
  add_reduction<&mica::max>(functions, "max",
                            "Largest element along axes; NaN if any is. Of no elements it is a "
                            "ValueError." MICA_AXIS_DOC);
  add_reduction<&mica::min>(functions, "min",
                            "Smallest element along axes; NaN if any is. Of no elements it is a "
                            "ValueError." MICA_AXIS_DOC);
  add_reduction<&mica::all>(functions, "all",
                            "Are all elements along axes true (not zero)?" MICA_AXIS_DOC);
  add_reduction<&mica::any>(functions, "any",
                            "Is any element along axes true (not zero)?" MICA_AXIS_DOC);
  add_reduction<&mica::mean>(functions, "mean",
                             "Mean along axes. Integers and bool give float32; half types are "
                             "added up wide." MICA_AXIS_DOC);
  add_spread<&mica::var>(
      functions, "var",
      "Variance along axes: the mean squared distance from the mean, with n - `ddof` as divisor. "
      "Integers and bool give float32." MICA_AXIS_DOC);
  add_spread<&mica::std>(functions, "std",
                         "Standard deviation along axes: the square root of var. Integers and bool "
                         "give float32." MICA_AXIS_DOC);
  functions.add("array_equal", "a: array, b: array, equal_nan: bool = False",
                "One bool: do the arrays have the same shape and equal elements? With `equal_nan` "
                "NaNs are equal.",
                [](const Array& a, const Array& b, bool equal_nan, Stream s) {
                  return array_equal(a, b, equal_nan, s);
                });
  functions.add(
      "allclose",
      "a: array, b: array, /, rtol: float = 1e-05, atol: float = 1e-08, *, equal_nan: bool = False",
      "One bool: is |a - b| <= atol + rtol * |b| everywhere? The arguments broadcast; equal "
      "infinities are close.",
      [](const Array& a, const Array& b, double rtol, double atol, bool equal_nan, Stream s) {
        return allclose(a, b, rtol, atol, equal_nan, s);
      });
}

}  // namespace ops
}  // namespace mica
