// Shape, derivative and batching rules of elementwise operations, and their samples.
#include "ops/elementwise_rules.h"

#include <algorithm>

#include "base/error.h"
#include "ops/reduce.h"
#include "ops/rules.h"
#include "ops/shape.h"

namespace mica::ops {

namespace {

constexpr bool gives_bool(ElementKind kind) {
  return kind == ElementKind::Test || kind == ElementKind::Comparison ||
         kind == ElementKind::Logical;
}

Shape broadcast_all(std::span<const Array> inputs, const char* name) {
  Shape shape = inputs[0].shape();
  for (size_t i = 1; i < inputs.size(); ++i) {
    if (!(inputs[i].shape() == shape)) shape = broadcast_shapes(shape, inputs[i].shape(), name);
  }
  return shape;
}

// What a row of the table says, as a type: Rule::name, kind, arity, low, high, derivative(i, …),
// call.
template <class Rule>
void table_infer(const Application& app, std::span<OutputSpec> outputs) {
  outputs[0] = {broadcast_all(app.inputs, Rule::name),
                gives_bool(Rule::kind) ? Dtype::Bool : app.inputs[0].dtype()};
}

template <class Rule>
Arrays table_vjp(const Application& app, std::span<const Array> cotangents,
                 const std::vector<bool>& wanted) {
  StreamScope scope(app.stream);
  Arrays result(app.inputs.size());
  for (size_t i = 0; i < result.size(); ++i) {
    if (!wanted[i]) continue;
    Array part =
        Rule::derivative(i, cotangents[0], app.inputs.front(), app.inputs.back(), app.outputs[0]);
    if (part.defined()) result[i] = sum_to_shape(part, app.inputs[i].shape());
  }
  return result;
}

template <class Rule>
Arrays table_jvp(const Application& app, std::span<const Array> tangents) {
  StreamScope scope(app.stream);
  Array total;
  for (size_t i = 0; i < tangents.size(); ++i) {
    if (!tangents[i].defined()) continue;
    Array part =
        Rule::derivative(i, tangents[i], app.inputs.front(), app.inputs.back(), app.outputs[0]);
    if (part.defined()) total = total.defined() ? total + part : part;
  }
  if (total.defined()) total = broadcast_to(total, app.outputs[0].shape());
  return {total};
}

// The inputs with the batch axis where the result then has it: where it is if all inputs agree on
// that, else in front.
int align_batch(const Application& app, std::span<const int> axes, Arrays& inputs) {
  size_t rank = 0;
  int common = -1;
  bool agree = true;
  for (size_t i = 0; i < axes.size(); ++i) {
    rank = std::max(rank, app.inputs[i].rank() - (axes[i] >= 0));
    agree &= axes[i] >= 0 && (common < 0 || axes[i] == common) &&
             app.inputs[i].rank() == app.inputs[0].rank();
    common = axes[i];
  }
  inputs.assign(app.inputs.begin(), app.inputs.end());
  if (agree) return common;
  for (size_t i = 0; i < axes.size(); ++i) {
    if (axes[i] >= 0) inputs[i] = batch_first(inputs[i], axes[i], rank, app.stream);
  }
  return 0;
}

template <const Op& op>
Batched table_vmap(const Application& app, std::span<const int> axes) {
  Arrays inputs;
  int axis = align_batch(app, axes, inputs);
  return {{apply(op, inputs, app.stream)}, {axis}};
}

Sample sample(std::string label, std::vector<Shape> shapes, ElementKind kind, double low,
              double high, Arrays (*apply)(std::span<const Array>)) {
  Sample result;
  result.label = std::move(label);
  for (Shape& shape : shapes) {
    Sample::Input input{.shape = shape, .low = low, .high = high, .values = {}};
    input.differentiable = kind == ElementKind::Number || kind == ElementKind::Floating;
    if (kind == ElementKind::Bits || kind == ElementKind::Shift) input.dtype = Dtype::I32;
    if (kind == ElementKind::Logical) input.dtype = Dtype::Bool;
    input.fixed_dtype = !is_floating(input.dtype);
    result.inputs.push_back(std::move(input));
  }
  result.apply = apply;
  return result;
}

template <class Rule>
std::vector<Sample> table_samples() {
  auto make = [](const char* label, std::vector<Shape> shapes) {
    return sample(label, std::move(shapes), Rule::kind, Rule::low, Rule::high, &Rule::call);
  };
  if constexpr (Rule::arity == 1)
    return {make("matrix", {{3, 5}}), make("scalar", {Shape{}}), make("empty", {{0, 4}}),
            make("tiles", {{2, 17, 19}})};
  else
    return {make("matrix", {{4, 6}, {4, 6}}),         make("row", {{3, 5}, {5}}),
            make("outer", {{2, 1, 4}, {3, 1}}),       make("scalar", {{7}, Shape{}}),
            make("both scalars", {Shape{}, Shape{}}), make("empty", {{0, 3}, {3}}),
            make("tiles", {{5, 301}, {1, 301}})};
}

#define MICA_RULE(name_, kind_, arity_, low_, high_)      \
  static constexpr const char* name = #name_;             \
  static constexpr ElementKind kind = ElementKind::kind_; \
  static constexpr int arity = arity_;                    \
  static constexpr double low = low_, high = high_;

#define MICA_UNARY(name_, kind_, low_, high_, scalar, dx, doc)                     \
  struct name_##_rule {                                                            \
    MICA_RULE(name_, kind_, 1, low_, high_)                                        \
    static Array derivative(size_t, [[maybe_unused]] const Array& g,               \
                            [[maybe_unused]] const Array& x, const Array&,         \
                            [[maybe_unused]] const Array& out) {                   \
      [[maybe_unused]] const Array none;                                           \
      return dx;                                                                   \
    }                                                                              \
    static Arrays call(std::span<const Array> in) { return {mica::name_(in[0])}; } \
  };
#define MICA_BINARY(name_, kind_, low_, high_, scalar, dx, dy, doc)                           \
  struct name_##_rule {                                                                       \
    MICA_RULE(name_, kind_, 2, low_, high_)                                                   \
    static Array derivative([[maybe_unused]] size_t i, [[maybe_unused]] const Array& g,       \
                            [[maybe_unused]] const Array& x, [[maybe_unused]] const Array& y, \
                            [[maybe_unused]] const Array& out) {                              \
      [[maybe_unused]] const Array none;                                                      \
      if (i == 0) return dx;                                                                  \
      return dy;                                                                              \
    }                                                                                         \
    static Arrays call(std::span<const Array> in) { return {mica::name_(in[0], in[1])}; }     \
  };
#include "ops/elementwise.def"

}  // namespace

#define MICA_TABLE_OP(name_)                               \
  const Op name_##_op{.name = #name_,                      \
                      .elementwise = true,                 \
                      .infer = &table_infer<name_##_rule>, \
                      .vjp = &table_vjp<name_##_rule>,     \
                      .jvp = &table_jvp<name_##_rule>,     \
                      .vmap = &table_vmap<name_##_op>,     \
                      .samples = &table_samples<name_##_rule>};
#define MICA_UNARY(name, kind, low, high, scalar, dx, doc) MICA_TABLE_OP(name)
#define MICA_BINARY(name, kind, low, high, scalar, dx, dy, doc) MICA_TABLE_OP(name)
#include "ops/elementwise.def"

// fill

namespace {

void fill_infer(const Application& app, std::span<OutputSpec> outputs) {
  const auto& params = app.as<FillParams>();
  outputs[0] = {params.shape, params.dtype};
}

Arrays fill_vjp(const Application&, std::span<const Array>, const std::vector<bool>&) { return {}; }

Batched fill_vmap(const Application& app, std::span<const int>) {
  return {{apply(fill_op, std::span<const Array>{}, app.as<FillParams>(), app.stream)}, {-1}};
}

std::vector<Sample> fill_samples() {
  auto make = [](const char* label, Arrays (*apply)(std::span<const Array>)) {
    Sample sample;
    sample.label = label;
    sample.apply = apply;
    return sample;
  };
  return {
      make("matrix", [](std::span<const Array>) { return Arrays{fill({3, 5}, 1.5, Dtype::F32)}; }),
      make("scalar", [](std::span<const Array>) { return Arrays{fill({}, -7, Dtype::I64)}; }),
      make("half", [](std::span<const Array>) { return Arrays{fill({300}, 0.1, Dtype::BF16)}; }),
      make("empty",
           [](std::span<const Array>) { return Arrays{fill({0, 2}, true, Dtype::Bool)}; })};
}

// cast

void cast_infer(const Application& app, std::span<OutputSpec> outputs) {
  outputs[0] = {app.inputs[0].shape(), app.as<CastParams>().dtype};
}

Arrays cast_vjp(const Application& app, std::span<const Array> cotangents,
                const std::vector<bool>& wanted) {
  Dtype from = app.inputs[0].dtype();
  if (!wanted[0] || !is_floating(from) || !is_floating(app.as<CastParams>().dtype))
    return {Array()};
  return {astype(cotangents[0], from, app.stream)};
}

Arrays cast_jvp(const Application& app, std::span<const Array> tangents) {
  Dtype to = app.as<CastParams>().dtype;
  if (!tangents[0].defined() || !is_floating(to)) return {Array()};
  return {astype(tangents[0], to, app.stream)};
}

Batched cast_vmap(const Application& app, std::span<const int> axes) {
  return {{apply(cast_op, app.inputs, app.as<CastParams>(), app.stream)}, {axes[0]}};
}

template <Dtype to>
Arrays cast_call(std::span<const Array> in) {
  return {apply(cast_op, {in[0]}, CastParams{to}, {})};
}

std::vector<Sample> cast_samples() {
  std::vector<Sample> samples{
      sample("to float32", {{3, 5}}, ElementKind::Floating, -3, 3, &cast_call<Dtype::F32>),
      sample("to float64", {{2, 17, 19}}, ElementKind::Floating, -3, 3, &cast_call<Dtype::F64>),
      sample("to int32", {{4, 70}}, ElementKind::Rounding, -300, 300, &cast_call<Dtype::I32>),
      sample("to uint8", {Shape{}}, ElementKind::Rounding, 0, 255, &cast_call<Dtype::U8>),
      sample("to bool", {{9}}, ElementKind::Rounding, -1, 1, &cast_call<Dtype::Bool>),
      sample("empty", {{0, 4}}, ElementKind::Floating, -1, 1, &cast_call<Dtype::F32>)};
  for (auto [label, dtype] :
       {std::pair("int32 to float32", Dtype::I32), std::pair("bool to float32", Dtype::Bool)}) {
    samples.push_back(
        sample(label, {{3, 90}}, ElementKind::Rounding, -50, 50, &cast_call<Dtype::F32>));
    samples.back().inputs[0].dtype = dtype;
    samples.back().inputs[0].fixed_dtype = true;
  }
  return samples;
}

// select

void select_infer(const Application& app, std::span<OutputSpec> outputs) {
  outputs[0] = {broadcast_all(app.inputs, "where"), app.inputs[1].dtype()};
}

Arrays select_vjp(const Application& app, std::span<const Array> cotangents,
                  const std::vector<bool>& wanted) {
  StreamScope scope(app.stream);
  Arrays result(3);
  if (wanted[1])
    result[1] = sum_to_shape(where(app.inputs[0], cotangents[0], 0), app.inputs[1].shape());
  if (wanted[2])
    result[2] = sum_to_shape(where(app.inputs[0], 0, cotangents[0]), app.inputs[2].shape());
  return result;
}

Arrays select_jvp(const Application& app, std::span<const Array> tangents) {
  StreamScope scope(app.stream);
  const Array &x = tangents[1], &y = tangents[2];
  if (!x.defined() && !y.defined()) return {Array()};
  Array mixed = !y.defined()   ? where(app.inputs[0], x, 0)
                : !x.defined() ? where(app.inputs[0], 0, y)
                               : where(app.inputs[0], x, y);
  return {broadcast_to(mixed, app.outputs[0].shape())};
}

std::vector<Sample> select_samples() {
  auto make = [](const char* label, std::vector<Shape> shapes) {
    Sample result =
        sample(label, std::move(shapes), ElementKind::Number, -3, 3,
               [](std::span<const Array> in) { return Arrays{where(in[0], in[1], in[2])}; });
    result.inputs[0] =
        sample("", {result.inputs[0].shape}, ElementKind::Logical, 0, 1, nullptr).inputs[0];
    return result;
  };
  return {make("matrix", {{3, 5}, {3, 5}, {3, 5}}),
          make("mask row", {{5}, {3, 5}, {3, 5}}),
          make("outer", {{3, 1}, {1, 4}, {2, 3, 4}}),
          make("scalars", {{2, 6}, Shape{}, Shape{}}),
          make("empty", {{0}, {0}, {1}}),
          make("tiles", {{5, 301}, {301}, {5, 1}})};
}

}  // namespace

const Op fill_op{.name = "fill",
                 .params = &params_type<FillParams>,
                 .elementwise = true,
                 .infer = &fill_infer,
                 .vjp = &fill_vjp,
                 .vmap = &fill_vmap,
                 .samples = &fill_samples};

const Op cast_op{.name = "cast",
                 .params = &params_type<CastParams>,
                 .elementwise = true,
                 .infer = &cast_infer,
                 .vjp = &cast_vjp,
                 .jvp = &cast_jvp,
                 .vmap = &cast_vmap,
                 .samples = &cast_samples};

const Op select_op{.name = "select",
                   .elementwise = true,
                   .infer = &select_infer,
                   .vjp = &select_vjp,
                   .jvp = &select_jvp,
                   .vmap = &table_vmap<select_op>,
                   .samples = &select_samples};

std::span<const Op* const> elementwise_table() {
#define MICA_UNARY(name, kind, low, high, scalar, dx, doc) &name##_op,
#define MICA_BINARY(name, kind, low, high, scalar, dx, dy, doc) &name##_op,
  static constexpr const Op* table[] = {
#include "ops/elementwise.def"
      &fill_op, &cast_op, &select_op};
  return table;
}

}  // namespace mica::ops
