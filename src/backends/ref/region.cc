#include "backends/ref/region.h"

#include <vector>

#include "backends/ref/ref.h"
#include "ops/elementwise.h"
#include "ops/scalar.h"

namespace mica::ref {

namespace {

using ops::CastParams;
using ops::FillParams;

// A value of any type: floating ones in `real`, the others in `integer`, which holds uint64 as it
// is.
struct Wide {
  double real = 0;
  int64_t integer = 0;
};

// Rounds (or cuts) a result to its dtype.
template <class T>
Wide rounded(T value, Dtype dtype) {
  return dispatch(dtype, [&](auto tag) {
    auto stored = convert<typename decltype(tag)::type>(value);
    if (is_floating(dtype)) return Wide{static_cast<double>(stored), 0};
    return Wide{0, static_cast<int64_t>(stored)};
  });
}
Wide read(const View& view, int64_t at) {
  if (is_floating(view.dtype)) return {load<double>(view, at), 0};
  return {0, load<int64_t>(view, at)};
}
void write(const View& view, int64_t at, Wide value) {
  if (is_floating(view.dtype))
    store(view, at, value.real);
  else
    store(view, at, value.integer);
}

// Calls f with the arguments as they are computed with: double, int64_t or uint64_t.
template <class F>
auto with_type(Dtype dtype, const Wide* arguments, F&& f) {
  const Wide &x = arguments[0], &y = arguments[1];
  if (is_floating(dtype)) return f(x.real, y.real);
  if (is_signed_integer(dtype)) return f(x.integer, y.integer);
  return f(static_cast<uint64_t>(x.integer), static_cast<uint64_t>(y.integer));
}

using Scalar = Wide (*)(const RegionInstruction&, const Wide* arguments);

// Expressions for integers or for floating values only are not compiled for the other.
template <ElementKind kind, class T>
constexpr bool admits() {
  constexpr bool floating = std::is_floating_point_v<T>;
  if (kind == ElementKind::Floating || kind == ElementKind::Test || kind == ElementKind::Rounding)
    return floating;
  if (kind == ElementKind::Logical || kind == ElementKind::Bits || kind == ElementKind::Shift)
    return !floating;
  return true;
}

template <ElementKind kind, class F>
Wide evaluate(const RegionInstruction& in, const Wide* arguments, F expression) {
  return with_type(in.argument_dtype, arguments, [&](auto x, auto y) {
    if constexpr (admits<kind, decltype(x)>())
      return rounded(expression(x, y), in.dtype);
    else
      return Wide{};
  });
}

#define MICA_UNARY(name, kind, low, high, expression, dx, doc)                                  \
  Wide name##_scalar(const RegionInstruction& in, const Wide* arguments) {                      \
    return evaluate<ElementKind::kind>(in, arguments, [](auto x, auto) { return expression; }); \
  }
#define MICA_BINARY(name, kind, low, high, expression, dx, dy, doc)                               \
  Wide name##_scalar(const RegionInstruction& in, const Wide* arguments) {                        \
    return evaluate<ElementKind::kind>(in, arguments, [](auto x, auto y) { return expression; }); \
  }
#include "ops/elementwise.def"

Wide cast_scalar(const RegionInstruction& in, const Wide* arguments) {
  return with_type(in.argument_dtype, arguments,
                   [&](auto x, auto) { return rounded(x, in.dtype); });
}
Wide select_scalar(const RegionInstruction&, const Wide* arguments) {
  return arguments[0].integer ? arguments[1] : arguments[2];
}

const std::vector<Scalar>& scalars() {
  static const std::vector<Scalar> table = [] {
    std::vector<Scalar> by_index(OpRegistry::shared().ops().size());
    auto set = [&](const Op& op, Scalar scalar) {
      by_index[static_cast<size_t>(op.index)] = scalar;
    };
#define MICA_UNARY(name, kind, low, high, expression, dx, doc) set(ops::name##_op, &name##_scalar);
#define MICA_BINARY(name, kind, low, high, expression, dx, dy, doc) \
  set(ops::name##_op, &name##_scalar);
#include "ops/elementwise.def"
    set(ops::cast_op, &cast_scalar);
    set(ops::select_op, &select_scalar);
    return by_index;
  }();
  return table;
}

Wide run_instruction(const RegionCall& call, const RegionInstruction& in,
                     const std::vector<Wide>& values) {
  if (in.op == &ops::fill_op) {
    const auto& fill = *static_cast<const FillParams*>(call.params[static_cast<size_t>(in.node)]);
    return is_floating(in.dtype) ? rounded(fill.real, in.dtype) : rounded(fill.integer, in.dtype);
  }
  Wide arguments[3];
  for (int i = 0; i < in.arity; ++i) arguments[i] = values[static_cast<size_t>(in.arguments[i])];
  return scalars()[static_cast<size_t>(in.op->index)](in, arguments);
}

// Reductions accumulate in long double, or in 64-bit integers that wrap around.
struct Total {
  long double real;
  int64_t integer;
};

Total identity(Reduce reduce) {
  switch (reduce) {
    case Reduce::Prod: return {1, 1};
    case Reduce::All: return {0, 1};
    default: return {0, 0};
  }
}

// The larger (or smaller) value; NaN stays.
template <class T>
T better(T best, T candidate, bool larger) {
  if (best != best || candidate != candidate) return best != best ? best : candidate;
  return (larger ? candidate > best : candidate < best) ? candidate : best;
}

void accumulate(Total& total, Wide value, Reduce reduce, Dtype dtype, bool first) {
  switch (reduce) {
    case Reduce::Sum:
      total = {total.real + value.real, scalar::plus(total.integer, value.integer)};
      return;
    case Reduce::Prod:
      total = {total.real * value.real, scalar::times(total.integer, value.integer)};
      return;
    case Reduce::All: total.integer &= value.integer; return;
    case Reduce::Any: total.integer |= value.integer; return;
    default: break;
  }
  bool larger = reduce == Reduce::Max;
  if (first)
    total = {value.real, value.integer};
  else if (is_floating(dtype))
    total.real = better(total.real, static_cast<long double>(value.real), larger);
  else if (is_unsigned_integer(dtype))
    total.integer = static_cast<int64_t>(
        better(static_cast<uint64_t>(total.integer), static_cast<uint64_t>(value.integer), larger));
  else
    total.integer = better(total.integer, value.integer, larger);
}

class Reducer {
 public:
  Reducer(const RegionCall& call)
      : region_(*call.region),
        out_(call.outputs.back()),
        kept_(call.space),
        reduce_(region_.reduction->reduce) {
    for (int axis : region_.axes) kept_[static_cast<size_t>(axis)] = 1;
    totals_.assign(static_cast<size_t>(elements(kept_)), identity(reduce_));
    seen_.assign(totals_.size(), false);
    strides_ = row_major(kept_);
  }
  void add(const Dims& index, Wide value) {
    size_t at = 0;
    for (size_t i = 0; i < kept_.size(); ++i)
      if (kept_[i] != 1) at += static_cast<size_t>(index[i] * strides_[i]);
    accumulate(totals_[at], value, reduce_, region_.reduction_dtype, !seen_[at]);
    seen_[at] = true;
  }
  void finish() {
    for (size_t i = 0; i < totals_.size(); ++i) {
      auto at = static_cast<int64_t>(i);
      if (is_floating(out_.dtype))
        store(out_, at, static_cast<double>(totals_[i].real));
      else
        store(out_, at, totals_[i].integer);
    }
  }

 private:
  const Region& region_;
  const View& out_;
  Shape kept_;  // the space with reduced axes of extent 1
  Reduce reduce_;
  std::vector<Total> totals_;
  std::vector<bool> seen_;
  Strides strides_;
};

}  // namespace

bool has_elementwise(const Op& op) {
  if (&op == &ops::fill_op) return true;
  auto i = static_cast<size_t>(op.index);
  return i < scalars().size() && scalars()[i];
}

void run_region(const RegionCall& call) {
  const Region& region = *call.region;
  std::vector<Wide> values(region.inputs.size() + region.instructions.size());
  auto reducer = region.reduction ? std::make_unique<Reducer>(call) : nullptr;
  int64_t linear = 0;
  for_each(call.space, [&](const Dims& index) {
    size_t next = 0;
    for (const View& view : call.inputs) values[next++] = read(view, offset(view, index));
    for (const RegionInstruction& in : region.instructions)
      values[next++] = run_instruction(call, in, values);
    for (size_t o = 0; o < region.outputs.size(); ++o)
      write(call.outputs[o], linear, values[static_cast<size_t>(region.outputs[o].value)]);
    if (reducer) reducer->add(index, values[static_cast<size_t>(region.reduced_value)]);
    ++linear;
  });
  if (reducer) reducer->finish();
}

}  // namespace mica::ref
