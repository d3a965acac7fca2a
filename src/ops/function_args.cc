#include "ops/function_args.h"

#include <cmath>
#include <limits>
#include <utility>

#include "base/error.h"
#include "ops/elementwise.h"

namespace mica {

namespace {

std::string full_name(const Function& function) {
  return function.module.empty() ? function.name : function.module + '.' + function.name;
}

[[noreturn]] void wrong_count(const Function& function, size_t given) {
  size_t most = 0;
  for (const Parameter& parameter : function.parameters) most += !parameter.keyword_only;
  throw_type("{}() takes {} positional argument{} but {} {} given", full_name(function), most,
             most == 1 ? "" : "s", given, given == 1 ? "was" : "were");
}

// The positional arguments from `from` on, as the list that a variadic parameter takes.
Value collect(const Function& function, const Parameter& parameter, std::span<const Value> values) {
  if (values.size() == 1 && std::holds_alternative<Arrays>(values[0])) return values[0];
  Arrays arrays;
  for (const Value& value : values) {
    const Array* array = std::get_if<Array>(&value);
    if (!array) {
      throw_type("{}() argument '{}' must be arrays, got {}", full_name(function), parameter.name,
                 value_kind(value));
    }
    arrays.push_back(*array);
  }
  return arrays;
}

// Is the number one of an integer type? Other types take every number.
bool holds(Dtype dtype, int64_t number) {
  return dispatch(dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    if constexpr (std::is_integral_v<T> && !std::is_same_v<T, bool>)
      return std::in_range<T>(number);
    else
      return true;
  });
}

size_t keyword_place(const Function& function, std::string_view name) {
  for (size_t i = 0; i < function.parameters.size(); ++i) {
    const Parameter& parameter = function.parameters[i];
    if (parameter.name != name || parameter.variadic) continue;
    if (!parameter.positional_only) return i;
    throw_type("{}() argument '{}' must be given by position, not by name", full_name(function),
               name);
  }
  throw_type("{}() got an unexpected keyword argument '{}'", full_name(function), name);
}

}  // namespace

const char* value_kind(const Value& value) {
  constexpr const char* names[] = {"None",  "bool",  "int",          "float",          "str",
                                   "Dtype", "array", "list of ints", "list of floats", "arrays",
                                   "Stream"};
  return names[value.index()];
}

std::vector<Value> bind_arguments(const Function& function, std::span<const Value> positional,
                                  std::span<const std::pair<std::string_view, Value>> keywords) {
  size_t count = function.parameters.size();
  std::vector<Value> values(count);
  std::vector<bool> given(count, false);
  size_t used = 0;
  for (size_t i = 0; i < count && !function.parameters[i].keyword_only; ++i) {
    if (function.parameters[i].variadic) {
      values[i] = collect(function, function.parameters[i], positional.subspan(used));
      used = positional.size();
      given[i] = true;
    } else if (used < positional.size()) {
      values[i] = positional[used++];
      given[i] = true;
    }
  }
  if (used < positional.size()) wrong_count(function, positional.size());
  for (const auto& [name, value] : keywords) {
    size_t i = keyword_place(function, name);
    if (given[i])
      throw_type("{}() got multiple values for argument '{}'", full_name(function), name);
    values[i] = value;
    given[i] = true;
  }
  for (size_t i = 0; i < count; ++i) {
    if (given[i]) continue;
    const Parameter& parameter = function.parameters[i];
    if (!parameter.default_value) {
      throw_type("{}() missing required argument '{}'", full_name(function), parameter.name);
    }
    values[i] = *parameter.default_value;
  }
  return values;
}

Array weak_scalar(const Value& value, std::optional<Dtype> beside, Stream s) {
  Scalar scalar = std::holds_alternative<bool>(value)      ? Scalar(std::get<bool>(value))
                  : std::holds_alternative<int64_t>(value) ? Scalar(std::get<int64_t>(value))
                                                           : Scalar(std::get<double>(value));
  Dtype alone = Dtype::F32;
  if (scalar.kind == Scalar::Kind::Bool) alone = Dtype::Bool;
  if (scalar.kind == Scalar::Kind::Integer) {
    alone = scalar.integer == static_cast<int32_t>(scalar.integer) ? Dtype::I32 : Dtype::I64;
  }
  Dtype dtype = beside ? scalar.beside(*beside) : alone;
  if (scalar.kind == Scalar::Kind::Integer && !holds(dtype, scalar.integer))
    throw_value("Converting {} to {} would result in overflow.", scalar.integer, dtype);
  return fill({}, scalar, dtype, s);
}

namespace detail {

void wrong_kind(const Caller& caller, size_t place, const char* wanted) {
  const Function& function = *caller.function;
  bool is_stream = place >= function.parameters.size();
  // MLX makes an array of what is given here, and names that as the failure.
  if (!is_stream && function.parameters[place].type == "scalar | array")
    throw_value("[{}] argument '{}': Invalid type {} received in array initialization.",
                full_name(function), function.parameters[place].name,
                value_kind(caller.values[place]));
  throw_type("{}() argument '{}' must be {}, got {}", full_name(function),
             is_stream ? "stream" : function.parameters[place].name, wanted,
             value_kind(caller.values[place]));
}

bool as_bool(const Caller& caller, size_t place) {
  const Value& value = caller.values[place];
  if (const bool* held = std::get_if<bool>(&value)) return *held;
  if (const int64_t* held = std::get_if<int64_t>(&value)) return *held != 0;
  wrong_kind(caller, place, "bool");
}

int64_t as_int(const Caller& caller, size_t place) {
  const Value& value = caller.values[place];
  if (const int64_t* held = std::get_if<int64_t>(&value)) return *held;
  if (const bool* held = std::get_if<bool>(&value)) return *held;
  wrong_kind(caller, place, "int");
}

double as_double(const Caller& caller, size_t place) {
  const Value& value = caller.values[place];
  if (const double* held = std::get_if<double>(&value)) return *held;
  if (const int64_t* held = std::get_if<int64_t>(&value)) return static_cast<double>(*held);
  if (const bool* held = std::get_if<bool>(&value)) return *held;
  wrong_kind(caller, place, "float");
}

std::vector<int64_t> as_ints(const Caller& caller, size_t place) {
  const Value& value = caller.values[place];
  if (const auto* held = std::get_if<std::vector<int64_t>>(&value)) return *held;
  if (const int64_t* held = std::get_if<int64_t>(&value)) return {*held};
  if (const auto* held = std::get_if<Arrays>(&value); held && held->empty()) return {};
  wrong_kind(caller, place, "int or list of ints");
}

std::vector<double> as_doubles(const Caller& caller, size_t place) {
  const Value& value = caller.values[place];
  if (const auto* held = std::get_if<std::vector<double>>(&value)) return *held;
  if (const auto* held = std::get_if<std::vector<int64_t>>(&value))
    return {held->begin(), held->end()};
  return {as_double(caller, place)};
}

Arrays as_arrays(const Caller& caller, size_t place) {
  const Value& value = caller.values[place];
  if (const auto* held = std::get_if<Arrays>(&value)) return *held;
  if (const auto* held = std::get_if<Array>(&value)) return {*held};
  if (const auto* held = std::get_if<std::vector<int64_t>>(&value); held && held->empty())
    return {};
  wrong_kind(caller, place, "list of arrays");
}

namespace {
int narrow(const Caller& caller, size_t place, int64_t value) {
  if (value < std::numeric_limits<int>::min() || value > std::numeric_limits<int>::max()) {
    throw_value("{}() argument '{}' is too large: {}", full_name(*caller.function),
                caller.function->parameters[place].name, value);
  }
  return static_cast<int>(value);
}
}  // namespace

int as_narrow_int(const Caller& caller, size_t place) {
  return narrow(caller, place, as_int(caller, place));
}

std::vector<int> as_narrow_ints(const Caller& caller, size_t place) {
  std::vector<int> result;
  for (int64_t value : as_ints(caller, place)) result.push_back(narrow(caller, place, value));
  return result;
}

}  // namespace detail
}  // namespace mica
