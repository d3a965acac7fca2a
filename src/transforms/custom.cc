#include "transforms/custom.h"

#include <algorithm>
#include <atomic>

#include "ops/create.h"
#include "ops/reduce.h"
#include "ops/rules.h"
#include "transforms/derivatives.h"
#include "transforms/vmap.h"

namespace mica {

namespace transforms {
namespace {

// Inputs: the arguments, then the outputs as the function computed them; the outputs are the
// latter. It runs as nothing at all and carries the rules.
struct CustomParams {
  std::shared_ptr<const CustomRules> rules;
  uint64_t serial;  // tells rules apart where graphs are compared; plans do not depend on it
  uint32_t arguments;
  static constexpr auto fields() {
    return std::tuple(argument("serial", &CustomParams::serial),
                      field("arguments", &CustomParams::arguments));
  }
};

std::atomic<uint64_t> next_serial{1};

std::span<const Array> arguments_of(const Application& app) {
  return app.inputs.first(app.as<CustomParams>().arguments);
}
std::span<const Array> results_of(const Application& app) {
  return app.inputs.subspan(app.as<CustomParams>().arguments);
}
Arrays listed(std::span<const Array> arrays) { return {arrays.begin(), arrays.end()}; }

size_t count_custom(const Application& app) { return results_of(app).size(); }

void infer_custom(const Application& app, std::span<OutputSpec> outputs) {
  auto results = results_of(app);
  for (size_t i = 0; i < results.size(); ++i) outputs[i] = {results[i].shape(), results[i].dtype()};
}

Arrays lower_custom(const Application& app) { return listed(results_of(app)); }

void need_results(const char* rule, size_t given, size_t expected, const char* what) {
  if (given != expected)
    throw_value("[custom_function] the {} rule gave {} arrays for {} {}", rule, given, expected,
                what);
}

Arrays vjp_custom(const Application& app, std::span<const Array> cotangents,
                  const std::vector<bool>&) {
  const CustomRules& rules = *app.as<CustomParams>().rules;
  auto arguments = arguments_of(app);
  Arrays found(app.inputs.size());
  if (!rules.vjp) {
    std::copy(cotangents.begin(), cotangents.end(),
              found.begin() + static_cast<int64_t>(arguments.size()));
    return found;
  }
  Arrays pulled = rules.vjp(listed(arguments), listed(cotangents), listed(app.outputs));
  need_results("vjp", pulled.size(), arguments.size(), "arguments");
  std::copy(pulled.begin(), pulled.end(), found.begin());
  return found;
}

Arrays jvp_custom(const Application& app, std::span<const Array> tangents) {
  const CustomRules& rules = *app.as<CustomParams>().rules;
  auto arguments = arguments_of(app);
  if (!rules.jvp) return listed(tangents.subspan(arguments.size()));
  Arrays given = listed(tangents.first(arguments.size()));
  for (size_t i = 0; i < given.size(); ++i) {
    if (!given[i].defined()) given[i] = zeros_like(arguments[i], app.stream);
  }
  Arrays pushed = rules.jvp(listed(arguments), given);
  need_results("jvp", pushed.size(), results_of(app).size(), "outputs");
  return pushed;
}

BatchAxes batch_axes(std::span<const int> axes) {
  BatchAxes result;
  for (int axis : axes) result.push_back(axis < 0 ? std::nullopt : std::optional(axis));
  return result;
}

// The rules of a batch of applications whose arguments are batched along `axes` and outputs along
// axis 0.
std::shared_ptr<const CustomRules> batched_rules(std::shared_ptr<const CustomRules> rules,
                                                 BatchAxes axes, size_t outputs) {
  auto result = std::make_shared<CustomRules>();
  if (rules->vjp) {
    result->vjp = [=](const Arrays& primals, const Arrays& cotangents, const Arrays& results) {
      Arrays inputs = primals;
      inputs.insert(inputs.end(), cotangents.begin(), cotangents.end());
      inputs.insert(inputs.end(), results.begin(), results.end());
      BatchAxes in_axes = axes, out_axes;
      in_axes.resize(inputs.size(), 0);
      for (auto axis : axes) out_axes.push_back(axis.value_or(0));
      auto single = [&](const Arrays& all) {
        auto at = [&](size_t first, size_t count) {
          return listed(std::span(all).subspan(first, count));
        };
        size_t n = primals.size();
        Arrays pulled = rules->vjp(at(0, n), at(n, outputs), at(n + outputs, outputs));
        need_results("vjp", pulled.size(), n, "arguments");
        for (size_t i = 0; i < n; ++i) {
          if (!pulled[i].defined()) pulled[i] = zeros_like(all[i], all[i].node()->stream);
        }
        return pulled;
      };
      Arrays pulled = vmap(single, in_axes, out_axes)(inputs);
      for (size_t i = 0; i < pulled.size(); ++i) {
        if (!axes[i]) pulled[i] = sum(pulled[i], std::vector<int>{0});
      }
      return pulled;
    };
  }
  if (rules->jvp) {
    result->jvp = [=](const Arrays& primals, const Arrays& tangents) {
      Arrays inputs = primals;
      inputs.insert(inputs.end(), tangents.begin(), tangents.end());
      BatchAxes in_axes = axes;
      in_axes.insert(in_axes.end(), axes.begin(), axes.end());
      auto single = [&](const Arrays& all) {
        std::span<const Array> both(all);
        return rules->jvp(listed(both.first(primals.size())), listed(both.subspan(primals.size())));
      };
      return vmap(single, in_axes)(inputs);
    };
  }
  return result;
}

Batched vmap_custom(const Application& app, std::span<const int> axes) {
  const auto& params = app.as<CustomParams>();
  auto argument_axes = axes.first(params.arguments);
  auto result_axes = axes.subspan(params.arguments);
  bool batched_argument = false;
  for (int axis : argument_axes) batched_argument |= axis >= 0;
  if (params.rules->vmap && batched_argument) {
    auto [outputs, output_axes] = params.rules->vmap(
        listed(arguments_of(app)), std::vector<int>(argument_axes.begin(), argument_axes.end()));
    need_results("vmap", outputs.size(), result_axes.size(), "outputs");
    need_results("vmap", output_axes.size(), result_axes.size(), "outputs");
    return {outputs, output_axes};
  }
  Arrays results = listed(results_of(app));
  if (!batched_argument) return {results, {result_axes.begin(), result_axes.end()}};
  int64_t extent = ops::batch_extent(app.inputs, axes);
  for (size_t i = 0; i < results.size(); ++i)
    results[i] = ops::batched(results[i], result_axes[i], extent, app.stream);
  auto rules = batched_rules(params.rules, batch_axes(argument_axes), results.size());
  return {with_rules(std::move(rules), listed(arguments_of(app)), results),
          std::vector<int>(results.size(), 0)};
}

const Op custom_op{.name = "custom_function",
                   .params = &params_type<CustomParams>,
                   .count_outputs = &count_custom,
                   .infer = &infer_custom,
                   .vjp = &vjp_custom,
                   .jvp = &jvp_custom,
                   .vmap = &vmap_custom,
                   .lower = &lower_custom};

}  // namespace

Arrays with_rules(std::shared_ptr<const CustomRules> rules, const Arrays& arguments,
                  const Arrays& outputs) {
  if (outputs.empty()) return outputs;
  Arrays inputs = arguments;
  inputs.insert(inputs.end(), outputs.begin(), outputs.end());
  Stream stream = outputs[0].node()->stream;
  CustomParams params{std::move(rules), next_serial.fetch_add(1, std::memory_order_relaxed),
                      static_cast<uint32_t>(arguments.size())};
  return apply_many(custom_op, inputs, std::move(params), stream);
}

}  // namespace transforms

ArraysFunction custom_function(ArraysFunction f, CustomRules rules) {
  auto shared = std::make_shared<const CustomRules>(std::move(rules));
  return [f = std::move(f), shared](const Arrays& arguments) {
    Arrays outputs = f(arguments);
    if (TraceScope::depth() == 0) return outputs;  // nobody will ask for a rule
    return transforms::with_rules(shared, arguments, outputs);
  };
}

}  // namespace mica
