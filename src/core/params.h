// Parameters of operations, described by their fields.
//
//   struct SoftmaxParams {
//     int axis;
//     static constexpr auto fields() { return std::tuple(field("axis", &SoftmaxParams::axis)); }
//   };
//   const Op softmax_op{.name = "softmax", .params = &params_type<SoftmaxParams>, …};
//
// From the fields come equality, hashing, printing and the plan key. `field` belongs to the plan
// key: another value is another plan. `argument` (extents, offsets, scalar values) does not: a plan
// reads it when it runs. Types: bool, integers, floats, enums, Dtype, Dims, std::string, vectors of
// numbers.
#pragma once

#include <cstddef>
#include <cstdint>
#include <new>
#include <string>
#include <tuple>
#include <type_traits>
#include <vector>

#include "core/dtype.h"
#include "core/shape.h"

namespace mica {

template <class P, class T>
struct Field {
  const char* name;
  T P::* member;
  bool in_key;
};
template <class P, class T>
constexpr Field<P, T> field(const char* name, T P::* member) {
  return {name, member, true};
}
template <class P, class T>
constexpr Field<P, T> argument(const char* name, T P::* member) {
  return {name, member, false};
}

using KeyWords = std::vector<uint64_t>;

// What the graph knows of a parameter struct.
struct ParamsType {
  size_t size;
  size_t align;
  void (*destroy)(void*) noexcept;
  void (*copy)(void* to, const void* from);
  bool (*equal)(const void*, const void*);
  void (*append_key)(const void*, bool arguments_too, KeyWords&);  // fields as words, prefix-free
  std::string (*print)(const void*);                               // "axis=1, precise=false"
};

namespace detail {

void append_bytes(const void* bytes, size_t count, KeyWords& words);

template <class T>
void append_value(const T& value, KeyWords& words) {
  if constexpr (std::is_floating_point_v<T>) {
    double wide = value;
    uint64_t bits;
    std::memcpy(&bits, &wide, 8);
    words.push_back(bits);
  } else if constexpr (std::is_arithmetic_v<T> || std::is_enum_v<T>) {
    words.push_back(static_cast<uint64_t>(value));
  } else if constexpr (std::is_same_v<T, std::string>) {
    append_bytes(value.data(), value.size(), words);
  } else {
    words.push_back(value.size());
    for (const auto& element : value) append_value(element, words);
  }
}

template <class T>
std::string print_value(const T& value) {
  if constexpr (std::is_same_v<T, Dtype>)
    return dtype_name(value);
  else if constexpr (std::is_enum_v<T>)
    return std::to_string(static_cast<int>(value));
  else if constexpr (std::is_same_v<T, Dims>)
    return to_string(value);
  else if constexpr (std::is_same_v<T, std::string>)
    return '"' + value + '"';
  else if constexpr (std::is_arithmetic_v<T>)
    return fmt::format("{}", value);
  else
    return fmt::format("[{}]", fmt::join(value, ", "));
}

template <class P>
struct ParamsOf {
  static bool equal(const void* a, const void* b) {
    auto& x = *static_cast<const P*>(a);
    auto& y = *static_cast<const P*>(b);
    return std::apply([&](auto... f) { return ((x.*f.member == y.*f.member) && ...); },
                      P::fields());
  }
  static void append_key(const void* p, bool arguments_too, KeyWords& words) {
    auto& x = *static_cast<const P*>(p);
    std::apply(
        [&](auto... f) {
          ((f.in_key || arguments_too ? append_value(x.*f.member, words) : void()), ...);
        },
        P::fields());
  }
  static std::string print(const void* p) {
    auto& x = *static_cast<const P*>(p);
    std::string out;
    auto one = [&](auto f) {
      if (!out.empty()) out += ", ";
      out += f.name;
      out += '=' + print_value(x.*f.member);
    };
    std::apply([&](auto... f) { (one(f), ...); }, P::fields());
    return out;
  }
};

}  // namespace detail

template <class P>
inline constexpr ParamsType params_type = {
    sizeof(P),
    alignof(P),
    [](void* p) noexcept { static_cast<P*>(p)->~P(); },
    [](void* to, const void* from) { new (to) P(*static_cast<const P*>(from)); },
    &detail::ParamsOf<P>::equal,
    &detail::ParamsOf<P>::append_key,
    &detail::ParamsOf<P>::print,
};

}  // namespace mica
