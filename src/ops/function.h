// Function: what people call. One record per public function, registered beside its C++
// declaration; the Python bindings, their stubs, the C interface and the reference pages are
// generated from it.
//
//   registry.add("softmax", "a: array, /, axis: int | Sequence[int] | None = None, *, precise: bool
//   = False",
//                "Softmax along `axis` …",
//                [](const Array& a, std::optional<std::vector<int>> axis, bool precise, Stream s) {
//                  return softmax(a, axis, precise, s);
//                });
//
// The signature is Python's, with MLX's names; each parameter binds to the callable's parameter of
// the same place. Every function takes a keyword-only `stream` last, which the signature leaves out
// and the callable takes as its last parameter. A parameter of type `scalar | array` accepts a
// Python scalar, which becomes an array of the type that MLX gives it beside the other arguments
// (weak typing).
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "core/array.h"

namespace mica {

// std::monostate is None. Ints of any list type are int64.
using Value = std::variant<std::monostate, bool, int64_t, double, std::string, Dtype, Array,
                           std::vector<int64_t>, std::vector<double>, Arrays, Stream>;

struct Parameter {
  std::string name;
  std::string type;  // as written in the signature
  bool positional_only = false;
  bool keyword_only = false;
  bool variadic = false;  // *arrays: collects the remaining positional arguments
  std::optional<Value> default_value;
  std::string default_text;
};

struct Function {
  std::string name;
  std::vector<std::string> aliases;
  std::string module;     // "" for mica.core, "fast", "random", "linalg"
  std::string signature;  // without the stream
  std::string returns;    // "array", "tuple[array, array]", …
  std::string doc;
  std::vector<Parameter> parameters;  // without the stream
  // One value per parameter, then the stream. Throws TypeError naming the parameter on a wrong
  // kind.
  std::function<Value(std::span<const Value>)> call;
};

namespace detail {

// Conversion of a Value to a C++ parameter; throws TypeError naming function and parameter.
template <class T>
struct FromValue;
template <class R>
Value to_value(R&& result);

struct Caller {
  const Function* function;
  std::span<const Value> values;
};

template <class T>
T take(const Caller& caller, size_t place);

template <class F, class R, class... Args, size_t... I>
Value call_with(const F& f, R (*)(Args...), const Caller& caller, std::index_sequence<I...>) {
  if constexpr (std::is_void_v<R>) {
    f(take<std::decay_t<Args>>(caller, I)...);
    return {};
  } else {
    return to_value(f(take<std::decay_t<Args>>(caller, I)...));
  }
}

template <class F>
struct SignatureOf;
template <class C, class R, class... Args>
struct SignatureOf<R (C::*)(Args...) const> {
  using pointer = R (*)(Args...);
  static constexpr size_t count = sizeof...(Args);
};

}  // namespace detail

// The public functions, built once on first use from the files of src/ops/ and src/transforms/.
class FunctionRegistry {
 public:
  static const FunctionRegistry& shared();
  std::span<const Function> functions() const { return functions_; }
  const Function* find(std::string_view name, std::string_view module = "") const;

  // `name` may carry a module ("fast.rope") and aliases after bars ("abs|absolute").
  template <class F>
  void add(const char* name, const char* signature, const char* doc, F callable,
           const char* returns = "array");

 private:
  void add_parsed(const char* name, const char* signature, const char* doc, const char* returns,
                  size_t arity, std::function<Value(const Function&, std::span<const Value>)> call);
  std::vector<Function> functions_;
};

template <class F>
void FunctionRegistry::add(const char* name, const char* signature, const char* doc, F callable,
                           const char* returns) {
  using Sig = detail::SignatureOf<decltype(&F::operator())>;
  auto call = [callable](const Function& function, std::span<const Value> values) {
    return detail::call_with(callable, typename Sig::pointer{}, detail::Caller{&function, values},
                             std::make_index_sequence<Sig::count>());
  };
  add_parsed(name, signature, doc, returns, Sig::count, std::move(call));
}

}  // namespace mica

#include "ops/function_args.h"  // the conversions that `add` instantiates
