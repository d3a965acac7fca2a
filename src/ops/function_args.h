// Between Values and C++ parameters: what a Function's callable may take and return.
//
// Takes: Array, bool, int, int64_t, uint64_t, float, double, std::string, Dtype, Shape,
// std::vector<int>, std::vector<int64_t>, std::vector<double>, Arrays, Stream, Value, and
// std::optional of them (None, and an undefined Array, are empty). A lone int stands for a list of
// one; ints become floats, bools ints. Returns: the same, and pairs, tuples of arrays. Anything
// else is a TypeError that names function and parameter. Included by ops/function.h.
#pragma once

#include <tuple>
#include <utility>

#include "ops/function.h"

namespace mica {

// The values of a call in the order of the parameters: positional ones, then keywords, then
// defaults, as Python binds them; TypeError as Python words it.
std::vector<Value> bind_arguments(
    const Function& function, std::span<const Value> positional,
    std::span<const std::pair<std::string_view, Value>> keywords = {});

// "array", "int", "list of ints", …: what a value is, for messages.
const char* value_kind(const Value& value);

// A Python scalar as an array of the type that MLX gives it beside arrays of `beside`: ints take
// any numeric type, floats floating ones; alone they are int32 (int64 where needed), float32 and
// bool. ValueError for an int that the type cannot hold.
Array weak_scalar(const Value& scalar, std::optional<Dtype> beside, Stream s);

namespace detail {

[[noreturn]] void wrong_kind(const Caller& caller, size_t place, const char* wanted);

bool as_bool(const Caller& caller, size_t place);
int64_t as_int(const Caller& caller, size_t place);
double as_double(const Caller& caller, size_t place);
std::vector<int64_t> as_ints(const Caller& caller, size_t place);
std::vector<double> as_doubles(const Caller& caller, size_t place);
Arrays as_arrays(const Caller& caller, size_t place);
// For parameters of 32 bits; what does not fit is a ValueError.
int as_narrow_int(const Caller& caller, size_t place);
std::vector<int> as_narrow_ints(const Caller& caller, size_t place);

template <class T>
const T& as_exactly(const Caller& caller, size_t place, const char* wanted) {
  if (const T* held = std::get_if<T>(&caller.values[place])) return *held;
  wrong_kind(caller, place, wanted);
}

template <>
struct FromValue<Value> {
  static Value get(const Caller& caller, size_t place) { return caller.values[place]; }
};
template <>
struct FromValue<bool> {
  static bool get(const Caller& caller, size_t place) { return as_bool(caller, place); }
};
template <>
struct FromValue<int> {
  static int get(const Caller& caller, size_t place) { return as_narrow_int(caller, place); }
};
template <>
struct FromValue<int64_t> {
  static int64_t get(const Caller& caller, size_t place) { return as_int(caller, place); }
};
template <>
struct FromValue<uint64_t> {
  static uint64_t get(const Caller& caller, size_t place) {
    return static_cast<uint64_t>(as_int(caller, place));
  }
};
template <>
struct FromValue<float> {
  static float get(const Caller& caller, size_t place) {
    return static_cast<float>(as_double(caller, place));
  }
};
template <>
struct FromValue<double> {
  static double get(const Caller& caller, size_t place) { return as_double(caller, place); }
};
template <>
struct FromValue<std::string> {
  static std::string get(const Caller& caller, size_t place) {
    return as_exactly<std::string>(caller, place, "str");
  }
};
template <>
struct FromValue<Dtype> {
  static Dtype get(const Caller& caller, size_t place) {
    return as_exactly<Dtype>(caller, place, "Dtype");
  }
};
template <>
struct FromValue<Array> {
  static Array get(const Caller& caller, size_t place) {
    return as_exactly<Array>(caller, place, "array");
  }
};
template <>
struct FromValue<Stream> {
  static Stream get(const Caller& caller, size_t place) {
    if (std::holds_alternative<std::monostate>(caller.values[place])) return {};
    return as_exactly<Stream>(caller, place, "Stream");
  }
};
template <>
struct FromValue<std::vector<int64_t>> {
  static std::vector<int64_t> get(const Caller& caller, size_t place) {
    return as_ints(caller, place);
  }
};
template <>
struct FromValue<std::vector<int>> {
  static std::vector<int> get(const Caller& caller, size_t place) {
    return as_narrow_ints(caller, place);
  }
};
template <>
struct FromValue<Shape> {
  static Shape get(const Caller& caller, size_t place) { return Shape(as_ints(caller, place)); }
};
template <>
struct FromValue<std::vector<double>> {
  static std::vector<double> get(const Caller& caller, size_t place) {
    return as_doubles(caller, place);
  }
};
template <>
struct FromValue<Arrays> {
  static Arrays get(const Caller& caller, size_t place) { return as_arrays(caller, place); }
};
template <class T>
struct FromValue<std::optional<T>> {
  static std::optional<T> get(const Caller& caller, size_t place) {
    if (std::holds_alternative<std::monostate>(caller.values[place])) return {};
    return FromValue<T>::get(caller, place);
  }
};

template <class T>
T take(const Caller& caller, size_t place) {
  return FromValue<T>::get(caller, place);
}

template <class T>
struct ToValue {
  static Value make(T value) { return Value(std::move(value)); }
};
template <>
struct ToValue<int> {
  static Value make(int value) { return static_cast<int64_t>(value); }
};
template <>
struct ToValue<uint64_t> {
  static Value make(uint64_t value) { return static_cast<int64_t>(value); }
};
template <>
struct ToValue<float> {
  static Value make(float value) { return static_cast<double>(value); }
};
template <>
struct ToValue<Shape> {
  static Value make(const Shape& value) { return std::vector<int64_t>(value.begin(), value.end()); }
};
template <class... T>
struct ToValue<std::tuple<T...>> {
  static Value make(std::tuple<T...> value) {
    return std::apply([](auto&... array) { return Arrays{std::move(array)...}; }, value);
  }
};
template <class A, class B>
struct ToValue<std::pair<A, B>> {
  static Value make(std::pair<A, B> value) {
    return Arrays{std::move(value.first), std::move(value.second)};
  }
};

template <class R>
Value to_value(R&& result) {
  return ToValue<std::decay_t<R>>::make(std::forward<R>(result));
}

}  // namespace detail
}  // namespace mica
