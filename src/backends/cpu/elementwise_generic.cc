// The elementwise table on tiles of any type, from its scalar expressions: plain loops that the
// compiler turns into vector code for integers and double. Casts, selection and rounding to half
// types too.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backends/cpu/elementwise_generic.cc"
// Compilers use half of AVX-512 for loops like these: twice the code for nothing.
#define MICA_WITHOUT_AVX512
#include "backends/cpu/highway_targets.h"

#include <hwy/foreach_target.h>

#include <hwy/highway.h>

#include "backends/cpu/lanes-inl.h"
#include "backends/cpu/tile.h"
#include "ops/elementwise.h"
#include "ops/scalar.h"

#ifndef MICA_CPU_ELEMENTWISE_GENERIC_ONCE_
#define MICA_CPU_ELEMENTWISE_GENERIC_ONCE_
namespace mica::cpu {

// Functions of one operation by dtype.
struct GenericRow {
  const Op* op;
  TileFunction by_dtype[kDtypeCount];
};

// bool as it is stored; results are made 0 or 1.
template <class T>
struct StorageOf {
  using type = T;
};
template <>
struct StorageOf<bool> {
  using type = uint8_t;
};
template <class T>
using Storage = typename StorageOf<T>::type;

template <ElementKind kind, class T>
constexpr bool takes() {
  constexpr bool floating = std::is_floating_point_v<T>, boolean = std::is_same_v<T, bool>;
  switch (kind) {
    case ElementKind::Floating:
    case ElementKind::Rounding:
    case ElementKind::Test: return floating;
    case ElementKind::Logical: return boolean;
    case ElementKind::Bits: return !floating;
    case ElementKind::Shift: return !floating && !boolean;
    default: return true;
  }
}
constexpr bool gives_bool(ElementKind kind) {
  return kind == ElementKind::Test || kind == ElementKind::Comparison ||
         kind == ElementKind::Logical;
}

}  // namespace mica::cpu
#endif

// Same places of the same tile may be read and written; nothing else overlaps.
#if defined(__clang__)
#define MICA_INDEPENDENT _Pragma("clang loop vectorize(assume_safety)")
#else
#define MICA_INDEPENDENT _Pragma("GCC ivdep")
#endif

HWY_BEFORE_NAMESPACE();
namespace mica::cpu::HWY_NAMESPACE {

// T: the type of the arguments; F: a function object over one or two values of it. float goes
// through double.
template <class T, int arity, bool to_bool, class F>
void generic(void* out, const void* a, const void* b, const void*, int64_t n) {
  using S = Storage<T>;
  using Arithmetic = std::conditional_t<std::is_same_v<T, float>, double, S>;
  using Result = std::conditional_t<to_bool, uint8_t, S>;
  auto* result = static_cast<Result*>(out);
  auto* x = static_cast<const S*>(a);
  auto* y = static_cast<const S*>(arity == 1 ? a : b);
  MICA_INDEPENDENT
  for (int64_t i = 0; i < n; ++i) {
    auto value = F()(static_cast<Arithmetic>(x[i]), static_cast<Arithmetic>(y[i]));
    if constexpr (std::is_same_v<T, bool>)
      result[i] = value != 0;
    else
      result[i] = static_cast<Result>(value);
  }
}

template <ElementKind kind, class T, int arity, class F>
constexpr TileFunction generic_of() {
  if constexpr (takes<kind, T>())
    return &generic<T, arity, gives_bool(kind), F>;
  else
    return nullptr;
}
template <ElementKind kind, int arity, class F>
constexpr GenericRow generic_row(const Op& op) {
  return {&op,
          {generic_of<kind, bool, arity, F>(), generic_of<kind, uint8_t, arity, F>(),
           generic_of<kind, uint16_t, arity, F>(), generic_of<kind, uint32_t, arity, F>(),
           generic_of<kind, uint64_t, arity, F>(), generic_of<kind, int8_t, arity, F>(),
           generic_of<kind, int16_t, arity, F>(), generic_of<kind, int32_t, arity, F>(),
           generic_of<kind, int64_t, arity, F>(), nullptr, nullptr,
           generic_of<kind, float, arity, F>(), generic_of<kind, double, arity, F>()}};
}

#define MICA_UNARY(name, kind, low, high, expression, dx, doc) \
  struct name##_scalar {                                       \
    template <class A>                                         \
    auto operator()(A x, A) const {                            \
      return expression;                                       \
    }                                                          \
  };
#define MICA_BINARY(name, kind, low, high, expression, dx, dy, doc) \
  struct name##_scalar {                                            \
    template <class A>                                              \
    auto operator()(A x, A y) const {                               \
      return expression;                                            \
    }                                                               \
  };
#include "ops/elementwise.def"

std::span<const GenericRow> generic_rows() {
#define MICA_UNARY(name, kind, low, high, expression, dx, doc) \
  generic_row<ElementKind::kind, 1, name##_scalar>(ops::name##_op),
#define MICA_BINARY(name, kind, low, high, expression, dx, dy, doc) \
  generic_row<ElementKind::kind, 2, name##_scalar>(ops::name##_op),
  static constexpr GenericRow rows[] = {
#include "ops/elementwise.def"
  };
  return rows;
}

template <class S>
void select(void* out, const void* condition, const void* x, const void* y, int64_t n) {
  auto* c = static_cast<const uint8_t*>(condition);
  auto *a = static_cast<const S*>(x), *b = static_cast<const S*>(y);
  auto* result = static_cast<S*>(out);
  MICA_INDEPENDENT
  for (int64_t i = 0; i < n; ++i) result[i] = c[i] ? a[i] : b[i];
}
TileFunction select_of_size(int size) {
  switch (size) {
    case 1: return &select<uint8_t>;
    case 2: return &select<uint16_t>;
    case 4: return &select<uint32_t>;
    default: return &select<uint64_t>;
  }
}

// Casts. Half types arrive and leave as floats.

template <class From, class To>
HWY_INLINE To cast_one(From x) {
  if constexpr (std::is_floating_point_v<From> && std::is_integral_v<To>) {
    constexpr From kLimit =
        static_cast<From>(uint64_t{1} << (std::numeric_limits<To>::digits - 1)) * 2;
    constexpr To kMax = std::numeric_limits<To>::max(), kMin = std::numeric_limits<To>::min();
    if (!(x < kLimit)) return x != x ? To{0} : kMax;
    return x <= static_cast<From>(kMin) ? kMin : static_cast<To>(x);
  } else {
    return static_cast<To>(x);
  }
}
template <class From, class To>
void cast(void* out, const void* a, const void*, const void*, int64_t n) {
  auto* x = static_cast<const Storage<From>*>(a);
  auto* result = static_cast<Storage<To>*>(out);
  MICA_INDEPENDENT
  for (int64_t i = 0; i < n; ++i) {
    if constexpr (std::is_same_v<To, bool>)
      result[i] = x[i] != Storage<From>{0};
    else
      result[i] = cast_one<Storage<From>, To>(x[i]);
  }
}
template <class From, class Half>
void cast_to_half(void* out, const void* a, const void*, const void*, int64_t n) {
  auto* x = static_cast<const Storage<From>*>(a);
  auto* result = static_cast<float*>(out);
  for (int64_t i = 0; i < n; ++i) {
    float narrow = detail::narrow_to_odd(static_cast<double>(x[i]));
    result[i] = static_cast<float>(Half(narrow));
  }
}
template <class Half>
void round_half(void* out, const void* a, const void*, const void*, int64_t n) {
  const F32 d;
  auto* x = static_cast<const float*>(a);
  auto* result = static_cast<float*>(out);
  for (int64_t i = 0; i < n; i += static_cast<int64_t>(hn::Lanes(d)))
    store(d, rounded_to(d, load(d, x + i), TypeTag<Half>()), result + i);
}
TileFunction cast_between(Dtype from, Dtype to) {
  return dispatch(computed_as(from), [&](auto from_tag) {
    using From = typename decltype(from_tag)::type;
    return dispatch(to, [&](auto to_tag) -> TileFunction {
      using To = typename decltype(to_tag)::type;
      if constexpr (std::is_same_v<From, float16_t> || std::is_same_v<From, bfloat16_t>)
        return nullptr;
      else if constexpr (std::is_same_v<To, float16_t> || std::is_same_v<To, bfloat16_t>)
        return std::is_same_v<From, float> ? &round_half<To> : &cast_to_half<From, To>;
      else
        return &cast<From, To>;
    });
  });
}

}  // namespace mica::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace mica::cpu {

HWY_EXPORT(generic_rows);
HWY_EXPORT(select_of_size);
HWY_EXPORT(cast_between);

TileFunction table_function(const Op& op, Dtype dtype) {
  for (const GenericRow& row : HWY_DYNAMIC_DISPATCH(generic_rows)()) {
    if (row.op == &op) return row.by_dtype[static_cast<int>(dtype)];
  }
  return nullptr;
}

bool is_table_op(const Op& op) {
  for (const GenericRow& row : HWY_DYNAMIC_DISPATCH(generic_rows)()) {
    if (row.op == &op) return true;
  }
  return false;
}

TileFunction select_function(Dtype dtype) {
  return HWY_DYNAMIC_DISPATCH(select_of_size)(size_of(computed_as(dtype)));
}

TileFunction cast_function(Dtype from, Dtype to) {
  Dtype source = computed_as(from);
  bool same_bits =
      !is_half(to) && (source == to || (!is_floating(source) && !is_floating(to) &&
                                        to != Dtype::Bool && size_of(source) == size_of(to)));
  return same_bits || from == to ? nullptr : HWY_DYNAMIC_DISPATCH(cast_between)(from, to);
}

}  // namespace mica::cpu
#endif
