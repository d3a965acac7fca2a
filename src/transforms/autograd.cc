#include "transforms/autograd.h"

#include <algorithm>

#include "ops/create.h"
#include "ops/elementwise.h"
#include "transforms/derivatives.h"

namespace mica {

namespace {

void need_floating(const Array& a, const char* name) {
  if (is_floating(a.dtype())) return;
  throw_value("[{}] derivatives are by floating arrays, got {} of shape {}", name, a.dtype(),
              a.shape());
}

// Fits a derivative that a user gave to the array it belongs to.
Array fitted(const Array& given, const Array& array, const char* name, const char* what) {
  if (given.shape() != array.shape())
    throw_value("[{}] a {} of shape {} for an array of shape {}", name, what, given.shape(),
                array.shape());
  return given.dtype() == array.dtype() ? given : astype(given, array.dtype());
}

Arrays track_floating(TraceScope& scope, const Arrays& primals, const char* name) {
  for (const Array& primal : primals) need_floating(primal, name);
  return transforms::track_all(scope, primals);
}

// Absent derivatives as zeros of the arrays they belong to.
Arrays filled(Arrays derivatives, const Arrays& arrays) {
  for (size_t i = 0; i < derivatives.size(); ++i) {
    if (!derivatives[i].defined()) derivatives[i] = zeros_like(arrays[i], arrays[i].node()->stream);
  }
  return derivatives;
}

std::vector<size_t> resolve_argnums(const std::vector<int>& argnums, size_t count) {
  if (argnums.empty()) throw_value("[grad] no argument to differentiate by is given");
  std::vector<size_t> places;
  places.reserve(argnums.size());
  for (int argnum : argnums) {
    int64_t place = argnum < 0 ? argnum + static_cast<int64_t>(count) : argnum;
    if (place < 0 || place >= static_cast<int64_t>(count))
      throw_value("[grad] argument number {} of a function called with {} arguments", argnum,
                  count);
    if (std::find(places.begin(), places.end(), static_cast<size_t>(place)) != places.end())
      throw_value("[grad] argument number {} is given twice", argnum);
    places.push_back(static_cast<size_t>(place));
  }
  return places;
}

void need_scalar_loss(const Arrays& outputs) {
  if (outputs.empty()) throw_value("[grad] the function returned no arrays");
  const Array& loss = outputs[0];
  if (loss.rank() != 0 || !is_floating(loss.dtype()))
    throw_value(
        "[grad] the first output of the function must be a floating scalar, got {} of shape {}",
        loss.dtype(), loss.shape());
}

}  // namespace

Differential vjp(const ArraysFunction& f, const Arrays& primals, const Arrays& cotangents) {
  TraceScope scope;
  Arrays sources = track_floating(scope, primals, "vjp");
  Arrays outputs = f(sources);
  if (outputs.size() != cotangents.size())
    throw_value("[vjp] {} cotangents for {} outputs", cotangents.size(), outputs.size());
  Arrays seeds;
  for (size_t i = 0; i < outputs.size(); ++i)
    seeds.push_back(fitted(cotangents[i], outputs[i], "vjp", "cotangent"));
  Arrays found = transforms::pull_back(outputs, seeds, sources);
  return {std::move(outputs), filled(std::move(found), primals)};
}

Differential jvp(const ArraysFunction& f, const Arrays& primals, const Arrays& tangents) {
  if (primals.size() != tangents.size())
    throw_value("[jvp] {} tangents for {} primals", tangents.size(), primals.size());
  TraceScope scope;
  Arrays seeds;
  for (size_t i = 0; i < primals.size(); ++i)
    seeds.push_back(fitted(tangents[i], primals[i], "jvp", "tangent"));
  Arrays sources = track_floating(scope, primals, "jvp");
  Arrays outputs = f(sources);
  Arrays found = transforms::push_forward(outputs, sources, seeds);
  Arrays derivatives = filled(std::move(found), outputs);
  return {std::move(outputs), std::move(derivatives)};
}

std::function<ValueAndGrad(const Arrays&)> value_and_grad(ArraysFunction f,
                                                          std::vector<int> argnums) {
  return [f = std::move(f), argnums = std::move(argnums)](const Arrays& arguments) {
    Arrays primals;
    std::vector<size_t> places = resolve_argnums(argnums, arguments.size());
    primals.reserve(places.size());
    for (size_t place : places) primals.push_back(arguments[place]);

    TraceScope scope;
    Arrays sources = track_floating(scope, primals, "grad");
    Arrays inputs = arguments;
    for (size_t i = 0; i < places.size(); ++i) inputs[places[i]] = sources[i];
    Arrays outputs = f(inputs);
    need_scalar_loss(outputs);
    const Array& loss = outputs[0];
    Array seed = ones({}, loss.dtype(), loss.node()->stream);
    Arrays found = transforms::pull_back({&loss, 1}, {&seed, 1}, sources);
    return ValueAndGrad{std::move(outputs), filled(std::move(found), primals)};
  };
}

ArraysFunction grad(ArraysFunction f, std::vector<int> argnums) {
  return [run = value_and_grad(std::move(f), std::move(argnums))](const Arrays& arguments) {
    return run(arguments).grads;
  };
}

std::function<Array(const Array&)> grad(std::function<Array(const Array&)> f) {
  auto many = grad([f = std::move(f)](const Arrays& inputs) { return Arrays{f(inputs[0])}; });
  return [many](const Array& a) { return many({a})[0]; };
}

}  // namespace mica
