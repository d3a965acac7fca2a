// A reference to something callable, for parameters that are only called while the callee runs: two
// pointers, no allocation, no ownership.
//
//   int twice(FunctionRef<int(int)> f) { return f(f(1)); }
//   twice([&](int x) { return x + offset; });
//
// Do not store one: a lambda passed directly dies at the end of the full expression.
#pragma once

#include <memory>
#include <type_traits>
#include <utility>

namespace mica {

template <class Signature>
class FunctionRef;

template <class Result, class... Args>
class FunctionRef<Result(Args...)> {
 public:
  template <class F>
    requires(!std::is_same_v<std::remove_cvref_t<F>, FunctionRef> &&
             std::is_invocable_r_v<Result, F&, Args...>)
  FunctionRef(F&& f)
      : object_(const_cast<void*>(static_cast<const void*>(std::addressof(f)))),
        call_([](void* object, Args... args) -> Result {
          return (*static_cast<std::remove_reference_t<F>*>(object))(std::forward<Args>(args)...);
        }) {}

  Result operator()(Args... args) const { return call_(object_, std::forward<Args>(args)...); }

 private:
  void* object_;
  Result (*call_)(void*, Args...);
};

}  // namespace mica
