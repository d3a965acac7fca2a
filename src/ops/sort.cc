#include "ops/sort.h"

#include <limits>

#include "base/error.h"
#include "ops/create.h"
#include "ops/elementwise.h"
#include "ops/index.h"
#include "ops/join.h"
#include "ops/registry.h"
#include "ops/rules.h"
#include "ops/shape.h"

namespace mica {

using namespace ops;

namespace {

Array arg_reduce(const Array& a, int axis, bool keepdims, bool largest, const char* name,
                 Stream s) {
  int at = normalize_axis(axis, a.rank(), name);
  if (a.shape()[at] == 0) throw_value("[{}] axis {} of {} has no elements", name, axis, a.shape());
  Array kept = apply(arg_reduce_op, {a}, ArgReduceParams{at, largest}, s);
  return keepdims ? kept : squeeze(kept, {at}, s);
}

int64_t normalize_kth(const Array& a, int64_t kth, int axis, const char* name) {
  int64_t extent = a.shape()[axis];
  if (kth < -extent || kth >= extent)
    throw_index("[{}] place {} is out of range for axis {} of {}", name, kth, axis, a.shape());
  return kth < 0 ? kth + extent : kth;
}

Array scan(const Array& a, int axis, Scan kind, bool reverse, bool inclusive, const char* name,
           Stream s) {
  int at = normalize_axis(axis, a.rank(), name);
  Array input = kind == Scan::Sum && a.dtype() == Dtype::Bool ? astype(a, Dtype::I32, s) : a;
  if (kind == Scan::LogSumExp) input = astype(a, to_floating(a.dtype()), s);
  return apply(scan_op, {input}, ScanParams{at, kind, reverse, inclusive}, s);
}

}  // namespace

Array sort(const Array& a, int axis, Stream s) {
  return apply(sort_op, {a}, SortParams{normalize_axis(axis, a.rank(), "sort")}, s);
}

Array argsort(const Array& a, int axis, Stream s) {
  return apply(argsort_op, {a}, SortParams{normalize_axis(axis, a.rank(), "argsort")}, s);
}

Array argpartition(const Array& a, int64_t kth, int axis, Stream s) {
  int at = normalize_axis(axis, a.rank(), "argpartition");
  return apply(argpartition_op, {a}, PartitionParams{at, normalize_kth(a, kth, at, "argpartition")},
               s);
}

Array partition(const Array& a, int64_t kth, int axis, Stream s) {
  return take_along_axis(a, argpartition(a, kth, axis, s), axis, s);
}

Array topk(const Array& a, int64_t k, int axis, Stream s) {
  int at = normalize_axis(axis, a.rank(), "topk");
  int64_t extent = a.shape()[at];
  if (k < 0 || k > extent)
    throw_value("[topk] {} elements asked of axis {} of {}", k, axis, a.shape());
  if (k == extent) return a;
  if (k == 0) return slice_axis(a, at, 0, 0, s);
  Array order = argpartition(a, extent - k, at, s);
  return take_along_axis(a, slice_axis(order, at, extent - k, extent, s), at, s);
}

Array argmax(const Array& a, int axis, bool keepdims, Stream s) {
  return arg_reduce(a, axis, keepdims, true, "argmax", s);
}
Array argmin(const Array& a, int axis, bool keepdims, Stream s) {
  return arg_reduce(a, axis, keepdims, false, "argmin", s);
}
Array argmax(const Array& a, Stream s) { return argmax(flatten(a, 0, -1, s), 0, false, s); }
Array argmin(const Array& a, Stream s) { return argmin(flatten(a, 0, -1, s), 0, false, s); }

Array cumsum(const Array& a, int axis, bool reverse, bool inclusive, Stream s) {
  return scan(a, axis, Scan::Sum, reverse, inclusive, "cumsum", s);
}
Array cumprod(const Array& a, int axis, bool reverse, bool inclusive, Stream s) {
  return scan(a, axis, Scan::Prod, reverse, inclusive, "cumprod", s);
}
Array cummax(const Array& a, int axis, bool reverse, bool inclusive, Stream s) {
  return scan(a, axis, Scan::Max, reverse, inclusive, "cummax", s);
}
Array cummin(const Array& a, int axis, bool reverse, bool inclusive, Stream s) {
  return scan(a, axis, Scan::Min, reverse, inclusive, "cummin", s);
}
Array logcumsumexp(const Array& a, int axis, bool reverse, bool inclusive, Stream s) {
  return scan(a, axis, Scan::LogSumExp, reverse, inclusive, "logcumsumexp", s);
}

namespace ops {

namespace {

// --- sorting

void sort_infer(const Application& app, std::span<OutputSpec> outputs) {
  outputs[0] = {app.inputs[0].shape(), app.inputs[0].dtype()};
}

void order_infer(const Application& app, std::span<OutputSpec> outputs) {
  outputs[0] = {app.inputs[0].shape(), Dtype::U32};
}

void arg_reduce_infer(const Application& app, std::span<OutputSpec> outputs) {
  Shape shape = app.inputs[0].shape();
  shape[app.as<ArgReduceParams>().axis] = 1;
  outputs[0] = {shape, Dtype::U32};
}

Arrays no_derivative(const Application& app, Given, const std::vector<bool>&) {
  return Arrays(app.inputs.size());
}

Arrays sort_vjp(const Application& app, Given cotangents, const std::vector<bool>&) {
  int axis = app.as<SortParams>().axis;
  Array order = argsort(app.inputs[0], axis, app.stream);
  return {put_along_axis(zeros_like(app.inputs[0], app.stream), order, cotangents[0], axis,
                         app.stream)};
}

Arrays sort_jvp(const Application& app, Given tangents) {
  int axis = app.as<SortParams>().axis;
  return {take_along_axis(tangents[0], argsort(app.inputs[0], axis, app.stream), axis, app.stream)};
}

// Operations along one axis: the batch goes first.
template <const Op& op, class P>
Batched along_axis_vmap(const Application& app, std::span<const int> axes) {
  P params = app.as<P>();
  ++params.axis;
  return {{apply(op, {moveaxis(app.inputs[0], axes[0], 0, app.stream)}, params, app.stream)}, {0}};
}

// --- running operations

void scan_infer(const Application& app, std::span<OutputSpec> outputs) {
  outputs[0] = {app.inputs[0].shape(), app.inputs[0].dtype()};
}

// The cotangent of the inclusive operation: that of an exclusive one, moved by a place.
Array inclusive_cotangent(const Array& g, const ScanParams& params, Stream s) {
  int64_t extent = g.shape(params.axis);
  if (params.inclusive || extent == 0) return g;
  Shape edge = g.shape();
  edge[params.axis] = 1;
  Array zero = zeros(edge, g.dtype(), s);
  if (params.reverse)
    return concatenate({zero, slice_axis(g, params.axis, 0, extent - 1, s)}, params.axis, s);
  return concatenate({slice_axis(g, params.axis, 1, extent, s), zero}, params.axis, s);
}

// The place of the running extremum: the last of the places at which it grew.
Array extremum_places(const Array& a, const ScanParams& params, Stream s) {
  auto [axis, kind, reverse, inclusive] = params;
  bool largest = kind == Scan::Max;
  int64_t extent = a.shape(axis);
  Shape along(a.rank(), 1);
  along[axis] = extent;
  Array place = reshape(arange(extent, Dtype::I32, s), along, s);
  Array before = scan(a, axis, kind, reverse, false, "scan", s);
  Array grown = logical_or(largest ? greater(a, before, s) : less(a, before, s),
                           equal(place, reverse ? extent - 1 : 0, s), s);
  Array at = where(grown, place, reverse ? extent - 1 : 0, s);
  return reverse ? cummin(at, axis, true, true, s) : cummax(at, axis, false, true, s);
}

// d x_i = sum over j >= i of g_j exp(x_i - out_j), with the sign of g apart, in logarithms.
Array log_sum_exp_cotangent(const Application& app, const Array& g) {
  auto [axis, kind, reverse, inclusive] = app.as<ScanParams>();
  const Array &x = app.inputs[0], &out = app.outputs[0];
  Stream s = app.stream;
  auto part = [&](const Array& magnitude) {
    Array weight = subtract(log(maximum(magnitude, 0, s), s), out, s);
    weight = where(greater(magnitude, 0, s), weight, -std::numeric_limits<double>::infinity(), s);
    return exp(add(logcumsumexp(weight, axis, !reverse, inclusive, s), x, s), s);
  };
  return subtract(part(g), part(negative(g, s)), s);
}

// d x_i = (sum over j >= i of g_j out_j) / x_i. The first zero takes the products without it; what
// comes after it is multiplied by it, hence 0.
Array product_cotangent(const Application& app, const Array& g) {
  auto [axis, kind, reverse, inclusive] = app.as<ScanParams>();
  const Array& x = app.inputs[0];
  Stream s = app.stream;
  auto back = [&](const Array& products) {
    return cumsum(multiply(g, products, s), axis, !reverse, inclusive, s);
  };
  Array zero = equal(x, 0, s);
  Array before = cumsum(astype(zero, Dtype::I32, s), axis, reverse, false, s);
  Array first = logical_and(zero, equal(before, 0, s), s);
  Array without = cumprod(where(first, 1, x, s), axis, reverse, inclusive, s);
  Array quotient = divide(back(app.outputs[0]), where(zero, 1, x, s), s);
  return where(first, back(without), where(zero, 0, quotient, s), s);
}

Arrays scan_vjp(const Application& app, Given cotangents, const std::vector<bool>&) {
  const auto& params = app.as<ScanParams>();
  const Array &x = app.inputs[0], &g = cotangents[0];
  Stream s = app.stream;
  switch (params.scan) {
    case Scan::Sum: return {cumsum(g, params.axis, !params.reverse, params.inclusive, s)};
    case Scan::Prod: return {product_cotangent(app, g)};
    case Scan::LogSumExp: return {log_sum_exp_cotangent(app, g)};
    default:
      return {scatter_add_axis(zeros_like(x, s), extremum_places(x, params, s),
                               inclusive_cotangent(g, params, s), params.axis, s)};
  }
}

// --- samples

std::vector<Sample> sort_samples_of(Array (*f)(const Array&, int, Stream), bool differentiable) {
  auto of = [&](const char* label, const Shape& shape, int axis) {
    return Sample{label, {{.shape = shape, .differentiable = differentiable}}, [=](Given in) {
                    return Arrays{f(in[0], axis, Stream{})};
                  }};
  };
  return {of("rows", {3, 5}, -1), of("columns", {4, 3}, 0), of("middle", {2, 5, 3}, 1),
          of("one", {3, 1}, 1), of("none", {2, 0}, 1)};
}

std::vector<Sample> sort_samples() { return sort_samples_of(&sort, true); }
std::vector<Sample> argsort_samples() { return sort_samples_of(&argsort, false); }

// Which of the smaller elements stands where is not defined, so the samples have none or one.
std::vector<Sample> argpartition_samples() {
  auto of = [](const char* label, const Shape& shape, int64_t kth, int axis) {
    return Sample{label, {{.shape = shape, .differentiable = false}}, [=](Given in) {
                    Array order = argpartition(in[0], kth, axis);
                    return Arrays{slice_axis(order, axis, kth, kth + 1)};
                  }};
  };
  return {of("rows", {3, 7}, 2, 1), of("columns", {5, 3}, 4, 0), of("first", {2, 4}, 0, 1)};
}

std::vector<Sample> arg_reduce_samples() {
  auto of = [](const char* label, const Shape& shape, int axis, bool largest) {
    return Sample{label, {{.shape = shape, .differentiable = false}}, [=](Given in) {
                    return Arrays{largest ? argmax(in[0], axis, true) : argmin(in[0], axis, true)};
                  }};
  };
  return {of("rows", {3, 40}, -1, true), of("columns", {7, 3}, 0, false),
          of("middle", {2, 5, 3}, 1, true), of("one", {4, 1}, 1, false),
          of("none", {0, 3}, 1, true)};
}

std::vector<Sample> scan_samples() {
  struct Kind {
    const char* name;
    Array (*f)(const Array&, int, bool, bool, Stream);
    double low;
    bool finite;  // what an exclusive one starts with; no sample has infinities
  };
  std::vector<Sample> samples;
  for (Kind kind : {Kind{"sum", &cumsum, -1, true}, Kind{"prod", &cumprod, 0.5, true},
                    Kind{"max", &cummax, -1, false}, Kind{"min", &cummin, -1, false},
                    Kind{"logsumexp", &logcumsumexp, -1, false}}) {
    auto of = [&](const char* label, const Shape& shape, int axis, bool reverse, bool inclusive) {
      auto run = [=](Given in) {
        Array out = kind.f(in[0], axis, reverse, inclusive, Stream{});
        if (inclusive || kind.finite) return Arrays{out};
        return Arrays{slice_axis(out, axis, !reverse, in[0].shape(axis) - reverse)};
      };
      samples.push_back({fmt::format("{} {}", kind.name, label),
                         {{.shape = shape, .low = kind.low, .high = 1.5}},
                         run});
    };
    of("rows", {2, 5}, -1, false, true);
    of("columns", {5, 3}, 0, true, true);
    of("exclusive", {2, 4, 3}, 1, false, false);
    of("backward exclusive", {2, 4}, 1, true, false);
    of("none", {2, 0}, 1, false, true);
  }
  return samples;
}

// --- functions

using Running = Array (*)(const Array&, int, bool, bool, Stream);

Array run_of_values(Running f, const Array& a, const std::optional<int>& axis, bool reverse,
                    bool inclusive, Stream s) {
  return axis ? f(a, *axis, reverse, inclusive, s)
              : f(flatten(a, 0, -1, s), 0, reverse, inclusive, s);
}

void add_running(FunctionRegistry& functions, const char* name, Running f, const char* doc) {
  functions.add(
      name,
      "a: array, /, axis: int | None = None, *, reverse: bool = False, inclusive: bool = True", doc,
      [f](const Array& a, const std::optional<int>& axis, bool reverse, bool inclusive, Stream s) {
        return run_of_values(f, a, axis, reverse, inclusive, s);
      });
}

// Those that add or multiply may be asked for another type, which they then accumulate in.
void add_running_typed(FunctionRegistry& functions, const char* name, Running f, const char* doc) {
  functions.add(name,
                "a: array, /, axis: int | None = None, *, reverse: bool = False, "
                "inclusive: bool = True, dtype: Dtype | None = None",
                doc,
                [f](const Array& a, const std::optional<int>& axis, bool reverse, bool inclusive,
                    const std::optional<Dtype>& dtype, Stream s) {
                  return run_of_values(f, dtype ? astype(a, *dtype, s) : a, axis, reverse,
                                       inclusive, s);
                });
}

void add_sorts(FunctionRegistry& functions) {
  functions.add(
      "sort", "a: array, /, axis: int | None = -1",
      "A sorted copy, ascending along an axis; NaNs come last. Without an axis `a` is flattened.",
      [](const Array& a, const std::optional<int>& axis, Stream s) {
        return axis ? sort(a, *axis, s) : sort(flatten(a, 0, -1, s), 0, s);
      });
  functions.add(
      "argsort", "a: array, /, axis: int | None = -1",
      "The indices (uint32) that sort `a` along an axis; equal elements keep their order.",
      [](const Array& a, const std::optional<int>& axis, Stream s) {
        return axis ? argsort(a, *axis, s) : argsort(flatten(a, 0, -1, s), 0, s);
      });
  functions.add("partition", "a: array, /, kth: int, axis: int | None = -1",
                "A copy in which element `kth` stands where sorting would put it, with smaller or "
                "equal ones\n"
                "before and larger or equal ones after it, in no particular order.",
                [](const Array& a, int64_t kth, const std::optional<int>& axis, Stream s) {
                  return axis ? partition(a, kth, *axis, s)
                              : partition(flatten(a, 0, -1, s), kth, 0, s);
                });
  functions.add("argpartition", "a: array, /, kth: int, axis: int | None = -1",
                "The indices (uint32) that partition `a`.",
                [](const Array& a, int64_t kth, const std::optional<int>& axis, Stream s) {
                  return axis ? argpartition(a, kth, *axis, s)
                              : argpartition(flatten(a, 0, -1, s), kth, 0, s);
                });
  functions.add("topk", "a: array, /, k: int, axis: int | None = -1",
                "The `k` largest elements along an axis, in no particular order.",
                [](const Array& a, int64_t k, const std::optional<int>& axis, Stream s) {
                  return axis ? topk(a, k, *axis, s) : topk(flatten(a, 0, -1, s), k, 0, s);
                });
}

void add_arg_reduction(FunctionRegistry& functions, const char* name, bool largest,
                       const char* doc) {
  functions.add(name, "a: array, /, axis: int | None = None, keepdims: bool = False", doc,
                [=](const Array& a, const std::optional<int>& axis, bool keepdims, Stream s) {
                  Array from = axis ? a : flatten(a, 0, -1, s);
                  Array at = arg_reduce(from, axis.value_or(0), keepdims, largest, name, s);
                  return axis || !keepdims ? at : reshape(at, Shape(a.rank(), 1), s);
                });
}

}  // namespace

const Op sort_op{.name = "sort",
                 .params = &params_type<SortParams>,
                 .infer = &sort_infer,
                 .vjp = &sort_vjp,
                 .jvp = &sort_jvp,
                 .vmap = &along_axis_vmap<sort_op, SortParams>,
                 .samples = &sort_samples};

const Op argsort_op{.name = "argsort",
                    .params = &params_type<SortParams>,
                    .infer = &order_infer,
                    .vjp = &no_derivative,
                    .vmap = &along_axis_vmap<argsort_op, SortParams>,
                    .samples = &argsort_samples};

const Op argpartition_op{.name = "argpartition",
                         .params = &params_type<PartitionParams>,
                         .infer = &order_infer,
                         .vjp = &no_derivative,
                         .vmap = &along_axis_vmap<argpartition_op, PartitionParams>,
                         .samples = &argpartition_samples};

const Op arg_reduce_op{.name = "arg_reduce",
                       .params = &params_type<ArgReduceParams>,
                       .infer = &arg_reduce_infer,
                       .vjp = &no_derivative,
                       .vmap = &along_axis_vmap<arg_reduce_op, ArgReduceParams>,
                       .samples = &arg_reduce_samples};

const Op scan_op{.name = "scan",
                 .params = &params_type<ScanParams>,
                 .infer = &scan_infer,
                 .vjp = &scan_vjp,
                 .vmap = &along_axis_vmap<scan_op, ScanParams>,
                 .samples = &scan_samples};

void sort_ops(Registry& registry) {
  for (const Op* op : {&sort_op, &argsort_op, &argpartition_op, &arg_reduce_op, &scan_op})
    registry.ops.add(*op);
  add_sorts(registry.functions);
  add_arg_reduction(
      registry.functions, "argmax", true,
      "The index (uint32) of the largest element along an axis, of the flattened array without\n"
      "one. The first of equal ones; the first NaN if there is one.");
  add_arg_reduction(
      registry.functions, "argmin", false,
      "The index (uint32) of the smallest element along an axis, of the flattened array without\n"
      "one. The first of equal ones; the first NaN if there is one.");
  add_running_typed(registry.functions, "cumsum|cumulative_sum", &cumsum,
                    "The running sum along an axis, or of the flattened array.");
  add_running_typed(registry.functions, "cumprod|cumulative_prod", &cumprod,
                    "The running product along an axis, or of the flattened array.");
  add_running(registry.functions, "cummax", &cummax,
              "The running maximum along an axis, or of the flattened array.");
  add_running(registry.functions, "cummin", &cummin,
              "The running minimum along an axis, or of the flattened array.");
  add_running(
      registry.functions, "logcumsumexp", &logcumsumexp,
      "The logarithm of the running sum of exponentials along an axis, or of the flattened array.");
}

}  // namespace ops
}  // namespace mica
