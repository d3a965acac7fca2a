#include "ops/function.h"

#include <algorithm>
#include <cctype>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <memory>
#include <string_view>

#include "base/error.h"

namespace mica {

namespace {

std::string_view trim(std::string_view text) {
  while (!text.empty() && std::isspace(static_cast<unsigned char>(text.front())))
    text.remove_prefix(1);
  while (!text.empty() && std::isspace(static_cast<unsigned char>(text.back())))
    text.remove_suffix(1);
  return text;
}

// The place of `mark` outside of brackets and quotes, from `from` on; npos if there is none.
size_t find_outside(std::string_view text, char mark, size_t from) {
  int depth = 0;
  char quote = 0;
  for (size_t i = from; i < text.size(); ++i) {
    char c = text[i];
    if (quote) {
      if (c == quote) quote = 0;
    } else if (c == '\'' || c == '"') {
      quote = c;
    } else if (c == mark && depth == 0) {
      return i;
    } else if (c == '[' || c == '(') {
      ++depth;
    } else if (c == ']' || c == ')') {
      --depth;
    }
  }
  return std::string_view::npos;
}

std::vector<std::string_view> split_outside(std::string_view text, char mark) {
  std::vector<std::string_view> pieces;
  if (trim(text).empty()) return pieces;
  for (size_t from = 0;;) {
    size_t at = find_outside(text, mark, from);
    pieces.push_back(trim(text.substr(from, at - from)));
    if (at == std::string_view::npos) return pieces;
    from = at + 1;
  }
}

std::optional<Value> parse_number(std::string_view text) {
  std::string copy(text);
  char* end = nullptr;
  long long integer = std::strtoll(copy.c_str(), &end, 10);
  if (!copy.empty() && *end == 0) return Value(static_cast<int64_t>(integer));
  double real = std::strtod(copy.c_str(), &end);
  if (!copy.empty() && *end == 0) return Value(real);
  return {};
}

std::optional<Value> parse_list(std::string_view text) {
  std::vector<int64_t> ints;
  std::vector<double> reals;
  bool all_ints = true;
  for (std::string_view piece : split_outside(text.substr(1, text.size() - 2), ',')) {
    if (piece.empty()) continue;
    std::optional<Value> number = parse_number(piece);
    if (!number) return {};
    const int64_t* integer = std::get_if<int64_t>(&*number);
    all_ints = all_ints && integer;
    ints.push_back(integer ? *integer : 0);
    reals.push_back(integer ? static_cast<double>(*integer) : std::get<double>(*number));
  }
  return all_ints ? Value(ints) : Value(reals);
}

// Literals of Python: None, True, False, numbers, strings, lists of numbers, names of dtypes.
Value parse_default(std::string_view text) {
  if (text == "None") return {};
  if (text == "True") return true;
  if (text == "False") return false;
  if (text == "inf" || text == "-inf") {
    double infinity = std::numeric_limits<double>::infinity();
    return text[0] == '-' ? -infinity : infinity;
  }
  char first = text.empty() ? 0 : text.front();
  if ((first == '\'' || first == '"') && text.size() >= 2 && text.back() == first) {
    return std::string(text.substr(1, text.size() - 2));
  }
  std::optional<Value> value;
  if ((first == '[' || first == '(') && text.size() >= 2)
    value = parse_list(text);
  else if (first == '-' || first == '.' || std::isdigit(static_cast<unsigned char>(first)))
    value = parse_number(text);
  else
    return dtype_from_name(text);
  MICA_ASSERT(value);
  return *value;
}

Parameter parse_parameter(std::string_view text) {
  Parameter parameter;
  if (text.starts_with('*')) {
    parameter.variadic = true;
    text.remove_prefix(1);
  }
  size_t equals = find_outside(text, '=', 0);
  if (equals != std::string_view::npos) {
    std::string_view literal = trim(text.substr(equals + 1));
    parameter.default_text = literal;
    parameter.default_value = parse_default(literal);
    text = trim(text.substr(0, equals));
  }
  size_t colon = find_outside(text, ':', 0);
  parameter.name = trim(text.substr(0, colon));
  if (colon != std::string_view::npos) parameter.type = trim(text.substr(colon + 1));
  MICA_ASSERT(!parameter.name.empty());
  return parameter;
}

std::vector<Parameter> parse_signature(std::string_view text) {
  std::vector<Parameter> parameters;
  bool keyword_only = false;
  for (std::string_view piece : split_outside(text, ',')) {
    if (piece == "/") {
      for (Parameter& parameter : parameters) parameter.positional_only = true;
    } else if (piece == "*") {
      keyword_only = true;
    } else {
      parameters.push_back(parse_parameter(piece));
      parameters.back().keyword_only = keyword_only;
      keyword_only = keyword_only || parameters.back().variadic;
    }
  }
  return parameters;
}

bool contains(std::string_view text, std::string_view part) {
  return text.find(part) != std::string_view::npos;
}

bool is_scalar(const Value& value) {
  return std::holds_alternative<bool>(value) || std::holds_alternative<int64_t>(value) ||
         std::holds_alternative<double>(value);
}

std::optional<Dtype> promoted(std::optional<Dtype> so_far, const Value& value) {
  const Array* array = std::get_if<Array>(&value);
  if (!array || !array->defined()) return so_far;
  return so_far ? promote(*so_far, array->dtype()) : array->dtype();
}

// Replaces the Python scalars of `scalar | array` parameters by arrays. They take the type of the
// arrays among those parameters or, where there is none, of the other arrays that every call needs
// (clip's bounds); an optional array, such as the key of random numbers, lends no type.
void convert_scalars(const Function& function, std::span<Value> values) {
  std::optional<Dtype> beside, other;
  bool any = false;
  for (size_t i = 0; i < function.parameters.size(); ++i) {
    bool weak = contains(function.parameters[i].type, "scalar");
    any = any || (weak && is_scalar(values[i]));
    if (weak || function.parameters[i].type == "array")
      (weak ? beside : other) = promoted(weak ? beside : other, values[i]);
  }
  if (!any) return;
  const Stream* stream = std::get_if<Stream>(&values.back());
  for (size_t i = 0; i < function.parameters.size(); ++i) {
    if (!contains(function.parameters[i].type, "scalar") || !is_scalar(values[i])) continue;
    values[i] = weak_scalar(values[i], beside ? beside : other, stream ? *stream : Stream{});
  }
}

}  // namespace

const Function* FunctionRegistry::find(std::string_view name, std::string_view module) const {
  for (const Function& function : functions_) {
    if (function.module != module) continue;
    if (function.name == name) return &function;
    for (const std::string& alias : function.aliases) {
      if (alias == name) return &function;
    }
  }
  return nullptr;
}

void FunctionRegistry::add_parsed(
    const char* name, const char* signature, const char* doc, const char* returns, size_t arity,
    std::function<Value(const Function&, std::span<const Value>)> call) {
  Function function;
  auto names = split_outside(name, '|');
  size_t dot = names[0].rfind('.');
  if (dot != std::string_view::npos) function.module = names[0].substr(0, dot);
  function.name = names[0].substr(dot == std::string_view::npos ? 0 : dot + 1);
  function.aliases.assign(names.begin() + 1, names.end());
  function.signature = signature;
  function.returns = returns;
  function.doc = doc;
  function.parameters = parse_signature(signature);
  MICA_ASSERT(function.parameters.size() + 1 == arity);  // the callable takes the stream last
  MICA_ASSERT(!find(function.name, function.module));
  bool weak = false;
  for (const Parameter& parameter : function.parameters)
    weak = weak || contains(parameter.type, "scalar");
  // The table may move its rows, so the call keeps the record it names in errors.
  auto record = std::make_shared<const Function>(function);
  function.call = [record, weak, call = std::move(call)](std::span<const Value> values) {
    MICA_ASSERT(values.size() == record->parameters.size() + 1);
    bool scalars = weak && std::any_of(values.begin(), values.end() - 1, &is_scalar);
    if (!scalars) return call(*record, values);
    std::vector<Value> converted(values.begin(), values.end());
    convert_scalars(*record, converted);
    return call(*record, converted);
  };
  functions_.push_back(std::move(function));
}

}  // namespace mica
