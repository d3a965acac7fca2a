#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backends/cpu/reduce_functions.cc"
#include "backends/cpu/highway_targets.h"

#include <hwy/foreach_target.h>

#include <hwy/highway.h>

#include <limits>

#include "backends/cpu/lanes-inl.h"
#include "backends/cpu/reduce_functions.h"
#include "backends/cpu/vector_math-inl.h"
#include "base/error.h"
#include "ops/scalar.h"

#ifndef MICA_CPU_REDUCE_FUNCTIONS_ONCE_
#define MICA_CPU_REDUCE_FUNCTIONS_ONCE_
namespace mica::cpu {

// For sums of sums in double (Neumaier).
struct Compensated {
  double sum = 0, lost = 0;
};

// Results as a dtype: each accumulator has few that it can end in. Compiled once for all targets.
template <class A>
void write_results(const void* accumulators, int64_t count, Dtype dtype, void* out);

}  // namespace mica::cpu
#endif

HWY_BEFORE_NAMESPACE();
namespace mica::cpu::HWY_NAMESPACE {

// A reduction: the type of its chains, their start, and the step. Accumulators are chains, unless
// the reduction has its own.
template <class C>
struct Chained {
  using Chain = C;
  using Accumulator = C;
};

template <class T>
using Wide = std::conditional_t<std::is_floating_point_v<T>, double,
                                std::conditional_t<std::is_signed_v<T>, int64_t, uint64_t>>;

template <class T>
struct Sum : Chained<Wide<T>> {
  using Value = T;
  static constexpr Wide<T> kStart = 0;
  static Wide<T> step(Wide<T> sum, Wide<T> x) { return scalar::plus(sum, x); }
  static void add(Wide<T>& sum, Wide<T> x) { sum = step(sum, x); }
};
// Of values of a half type, stored so or as floats: four at a time are added in float.
struct HalfSum : Sum<float> {};
template <>
struct Sum<double> {
  using Value = double;
  using Chain = double;
  using Accumulator = Compensated;
  static constexpr double kStart = 0;
  static double step(double sum, double x) { return sum + x; }
  static void add(Compensated& total, double x) {
    double sum = total.sum + x;
    double part = sum - total.sum;
    total.lost += (total.sum - (sum - part)) + (x - part);
    total.sum = sum;
  }
  static void add(Compensated& total, const Compensated& other) {
    add(total, other.sum);
    total.lost += other.lost;
  }
};
template <class T>
struct Prod : Chained<Wide<T>> {
  using Value = T;
  static constexpr Wide<T> kStart = 1;
  static Wide<T> step(Wide<T> product, Wide<T> x) { return scalar::times(product, x); }
  static void add(Wide<T>& product, Wide<T> x) { product = step(product, x); }
};
template <class T>
struct Max : Chained<T> {
  using Value = T;
  static constexpr T kStart = std::is_floating_point_v<T> ? -std::numeric_limits<T>::infinity()
                                                          : std::numeric_limits<T>::lowest();
  static T step(T best, T x) { return scalar::maximum(best, x); }
  static void add(T& best, T x) { best = step(best, x); }
};
template <class T>
struct Min : Chained<T> {
  using Value = T;
  static constexpr T kStart = std::is_floating_point_v<T> ? std::numeric_limits<T>::infinity()
                                                          : std::numeric_limits<T>::max();
  static T step(T best, T x) { return scalar::minimum(best, x); }
  static void add(T& best, T x) { best = step(best, x); }
};
// Of bool: all is the smallest, any the largest.

template <class R>
void clear(void* accumulators, int64_t count) {
  using A = typename R::Accumulator;
  auto* to = static_cast<A*>(accumulators);
  A start{};
  if constexpr (std::is_same_v<A, typename R::Chain>) start = R::kStart;
  for (int64_t i = 0; i < count; ++i) to[i] = start;
}

template <class R>
void begin(void* chains) {
  auto* chain = static_cast<typename R::Chain*>(chains);
  for (int64_t l = 0; l < kChains; ++l) chain[l] = R::kStart;
}

// float32 in vector code: chains of doubles for sums, of floats for extremes. S is the type that
// the values are stored in: R's own, or a half type.
template <class S>
inline constexpr bool kLoads =
    std::is_same_v<S, float> || (std::is_same_v<S, bfloat16_t> && MICA_LANES_HALF) ||
    (std::is_same_v<S, float16_t> && MICA_HAVE_F16);
template <class R>
inline constexpr bool kSums = std::is_same_v<R, Sum<float>> || std::is_same_v<R, HalfSum>;
template <class R, class S>
inline constexpr bool kVector =
    kLoads<S> && (kSums<R> || std::is_same_v<R, Max<float>> || std::is_same_v<R, Min<float>>);
template <class R>
using ChainTag = hn::CappedTag<typename R::Chain, kChains>;
template <class R>
using ChainVector = hn::Vec<ChainTag<R>>;

template <class D>
HWY_INLINE hn::Vec<D> load_floats(D d, const float* x) {
  return hn::LoadU(d, x);
}
template <class D>
HWY_INLINE hn::Vec<D> load_floats(D d, const bfloat16_t* x) {
  const hn::Rebind<uint16_t, D> narrow;
  const hn::Rebind<uint32_t, D> wide;
  auto bits = hn::LoadU(narrow, reinterpret_cast<const uint16_t*>(x));
  return hn::BitCast(d, hn::ShiftLeft<16>(hn::PromoteTo(wide, bits)));
}
template <class D>
HWY_INLINE hn::Vec<D> load_floats(D d, const float16_t* x) {
  const hn::Rebind<hwy::float16_t, D> narrow;
  return hn::PromoteTo(d, hn::LoadU(narrow, reinterpret_cast<const hwy::float16_t*>(x)));
}
template <class R, class S>
HWY_INLINE ChainVector<R> load_values(const S* x) {
  const ChainTag<R> d;
  if constexpr (std::is_same_v<typename R::Chain, double>)
    return hn::PromoteTo(d, load_floats(hn::Rebind<float, ChainTag<R>>(), x));
  else
    return load_floats(d, x);
}
template <class R, class S>
HWY_INLINE typename R::Chain value_of(S x) {
  return static_cast<typename R::Chain>(static_cast<typename R::Value>(x));
}
template <class R>
HWY_INLINE ChainVector<R> vector_step(ChainVector<R> chain, ChainVector<R> x) {
  const ChainTag<R> d;
  if constexpr (kSums<R>)
    return hn::Add(chain, x);
  else if constexpr (std::is_same_v<R, Max<float>>)
    return larger(d, chain, x);
  else
    return smaller(d, chain, x);
}

// Of a HalfSum, four rounds at a time; returns how many elements that were.
template <class S>
HWY_INLINE int64_t fold_halves(double* chain, const S* x, int64_t count) {
  int64_t i = 0;
  if constexpr (kLoads<S>) {
    const ChainTag<HalfSum> d;
    const hn::Rebind<float, ChainTag<HalfSum>> d32;
    constexpr int64_t kLanes = hn::MaxLanes(d), kVectors = kChains / kLanes;
    ChainVector<HalfSum> sums[kVectors];
    for (int64_t v = 0; v < kVectors; ++v) sums[v] = hn::LoadU(d, chain + v * kLanes);
    for (; i + 4 * kChains <= count; i += 4 * kChains) {
      for (int64_t v = 0; v < kVectors; ++v) {
        const S* at = x + i + v * kLanes;
        auto first = hn::Add(load_floats(d32, at), load_floats(d32, at + kChains));
        auto last = hn::Add(load_floats(d32, at + 2 * kChains), load_floats(d32, at + 3 * kChains));
        sums[v] = hn::Add(sums[v], hn::PromoteTo(d, hn::Add(first, last)));
      }
    }
    for (int64_t v = 0; v < kVectors; ++v) hn::StoreU(sums[v], d, chain + v * kLanes);
  } else {
    auto value = [&](int64_t at) { return static_cast<float>(x[at]); };
    for (; i + 4 * kChains <= count; i += 4 * kChains)
      for (int64_t at = i; at < i + kChains; ++at)
        chain[at - i] +=
            (value(at) + value(at + kChains)) + (value(at + 2 * kChains) + value(at + 3 * kChains));
  }
  return i;
}

// Whole rounds of all chains; returns how many elements that were.
template <class R, class S>
HWY_INLINE int64_t fold_rounds(typename R::Chain* chain, const S* x, int64_t count) {
  int64_t i = 0;
  if constexpr (std::is_same_v<R, HalfSum>) i = fold_halves(chain, x, count);
  if constexpr (kVector<R, S>) {
    const ChainTag<R> d;
    constexpr int64_t kLanes = hn::MaxLanes(d), kVectors = kChains / kLanes;
    ChainVector<R> sums[kVectors];
    for (int64_t v = 0; v < kVectors; ++v) sums[v] = hn::LoadU(d, chain + v * kLanes);
    for (; i + kChains <= count; i += kChains)
      for (int64_t v = 0; v < kVectors; ++v)
        sums[v] = vector_step<R>(sums[v], load_values<R>(x + i + v * kLanes));
    for (int64_t v = 0; v < kVectors; ++v) hn::StoreU(sums[v], d, chain + v * kLanes);
  } else {
    for (; i + kChains <= count; i += kChains)
#pragma GCC unroll 1
      for (int64_t l = 0; l < kChains; ++l) chain[l] = R::step(chain[l], value_of<R>(x[i + l]));
  }
  return i;
}
template <class R, class S>
HWY_INLINE void fold_into(typename R::Chain* chain, const S* x, int64_t count) {
  int64_t i = fold_rounds<R>(chain, x, count);
  const int64_t rest = (count - i) % kChains;  // is count - i: the compiler sees that it fits
  for (int64_t l = 0; l < rest; ++l) chain[l] = R::step(chain[l], value_of<R>(x[i + l]));
}
template <class R, class S>
void fold(void* chains, const void* values, int64_t count) {
  fold_into<R>(static_cast<typename R::Chain*>(chains), static_cast<const S*>(values), count);
}

template <class R>
HWY_INLINE typename R::Chain join(typename R::Chain* chain) {
  for (int64_t width = kChains / 2; width > 0; width /= 2) {
    for (int64_t l = 0; l < width; ++l) chain[l] = R::step(chain[l], chain[l + width]);
  }
  return chain[0];
}
template <class R>
void end(const void* chains, void* accumulator) {
  typename R::Chain chain[kChains];
  for (int64_t l = 0; l < kChains; ++l) chain[l] = static_cast<const typename R::Chain*>(chains)[l];
  R::add(*static_cast<typename R::Accumulator*>(accumulator), join<R>(chain));
}

template <class R, class S>
void rows(const void* values, int64_t rows, int64_t length, void* accumulators) {
  using C = typename R::Chain;
  auto* x = static_cast<const S*>(values);
  auto* to = static_cast<typename R::Accumulator*>(accumulators);
  for (int64_t r = 0; r < rows; ++r, x += length) {
    if (length < kChains) {
      C sum = R::kStart;
      for (int64_t i = 0; i < length; ++i) sum = R::step(sum, value_of<R>(x[i]));
      R::add(to[r], sum);
      continue;
    }
    C chain[kChains];
    begin<R>(chain);
    fold_into<R>(chain, x, length);
    R::add(to[r], join<R>(chain));
  }
}

// kRows rows at a time: an accumulator is loaded and stored once for all of them. Meanwhile the
// rows behind them are fetched. Returns how many columns that were: whole cache lines of them.
template <class R, int kRows, class S>
HWY_INLINE int64_t add_rows(const S* x, int64_t stride, int64_t count, typename R::Chain* to) {
  const ChainTag<R> d;
  constexpr int64_t kLanes = hn::MaxLanes(d), kLine = 64 / sizeof(S), kVectors = kLine / kLanes;
  int64_t i = 0;
  for (; i + kLine <= count; i += kLine) {
    ChainVector<R> sums[kVectors];
    for (int64_t v = 0; v < kVectors; ++v) sums[v] = hn::LoadU(d, to + i + v * kLanes);
    for (int r = 0; r < kRows; ++r) {
      const S* row = x + r * stride + i;
      if (kRows > 1) prefetch_far(row + kRows * stride);
      for (int64_t v = 0; v < kVectors; ++v)
        sums[v] = vector_step<R>(sums[v], load_values<R>(row + v * kLanes));
    }
    for (int64_t v = 0; v < kVectors; ++v) hn::StoreU(sums[v], d, to + i + v * kLanes);
  }
  return i;
}

template <class R, class S>
void columns(const void* values, int64_t rows, int64_t stride, int64_t count, void* accumulators) {
  constexpr int kAbreast = 8;
  auto* x = static_cast<const S*>(values);
  auto* to = static_cast<typename R::Accumulator*>(accumulators);
  for (int64_t r = 0; r < rows;) {
    int64_t i = 0, taken = 1;
    const S* row = x + r * stride;
    if constexpr (kVector<R, S>) {
      taken = rows - r >= kAbreast ? kAbreast : 1;
      i = taken == kAbreast ? add_rows<R, kAbreast>(row, stride, count, to)
                            : add_rows<R, 1>(row, stride, count, to);
    }
    for (int64_t end = r + taken; r < end; ++r, row += stride) {
#pragma GCC ivdep
      for (int64_t c = i; c < count; ++c) R::add(to[c], value_of<R>(row[c]));
    }
  }
}

template <class R>
void merge(void* accumulators, const void* others, int64_t count) {
  auto* to = static_cast<typename R::Accumulator*>(accumulators);
  auto* from = static_cast<const typename R::Accumulator*>(others);
  for (int64_t i = 0; i < count; ++i) R::add(to[i], from[i]);
}

template <class R, class S>
inline constexpr ReduceFunctions functions = {sizeof(typename R::Accumulator),
                                              &clear<R>,
                                              &begin<R>,
                                              &fold<R, S>,
                                              &end<R>,
                                              &rows<R, S>,
                                              &columns<R, S>,
                                              &merge<R>,
                                              &write_results<typename R::Accumulator>};

template <template <class> class R>
const ReduceFunctions* by_type(Dtype dtype) {
  return dispatch(dtype, [](auto tag) -> const ReduceFunctions* {
    using T = typename decltype(tag)::type;
    if constexpr (std::is_same_v<T, bool>)
      return &functions<R<uint8_t>, uint8_t>;
    else if constexpr (std::is_arithmetic_v<T>)
      return &functions<R<T>, T>;
    else
      return &functions<R<float>, T>;
  });
}

const ReduceFunctions* choose(Reduce reduce, Dtype dtype, bool of_half) {
  if (reduce == Reduce::Sum && of_half) {
    if (dtype == Dtype::F32) return &functions<HalfSum, float>;
    return dtype == Dtype::F16 ? &functions<HalfSum, float16_t> : &functions<HalfSum, bfloat16_t>;
  }
  switch (reduce) {
    case Reduce::Sum: return by_type<Sum>(dtype);
    case Reduce::Prod: return by_type<Prod>(dtype);
    case Reduce::Max:
    case Reduce::Any: return by_type<Max>(dtype);
    default: return by_type<Min>(dtype);
  }
}

}  // namespace mica::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace mica::cpu {

namespace {
// Where sums overflow, what they lost is not a number.
double result_of(const Compensated& total) {
  return std::isfinite(total.sum) ? total.sum + total.lost : total.sum;
}
template <class A>
A result_of(A total) {
  return total;
}

template <class A, class T>
constexpr bool ends_in() {
  constexpr bool half = std::is_same_v<T, float16_t> || std::is_same_v<T, bfloat16_t>;
  if constexpr (std::is_same_v<A, Compensated>)
    return std::is_same_v<T, double>;
  else if constexpr (std::is_floating_point_v<A>)
    return half || std::is_floating_point_v<T>;
  else if constexpr (sizeof(A) == 8)
    return std::is_integral_v<T> && sizeof(T) >= 4;
  else
    return std::is_same_v<T, A> || (std::is_same_v<A, uint8_t> && std::is_same_v<T, bool>);
}
}  // namespace

template <class A>
void write_results(const void* accumulators, int64_t count, Dtype dtype, void* out) {
  auto* from = static_cast<const A*>(accumulators);
  dispatch(dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    if constexpr (ends_in<A, T>()) {
      auto* to = static_cast<T*>(out);
      for (int64_t i = 0; i < count; ++i) {
        auto value = result_of(from[i]);
        if constexpr (std::is_same_v<T, float16_t> || std::is_same_v<T, bfloat16_t>)
          to[i] = T(detail::narrow_to_odd(static_cast<double>(value)));
        else
          to[i] = static_cast<T>(value);
      }
    } else {
      MICA_ASSERT(!"a reduction does not end in this dtype");
    }
  });
}
#define MICA_WRITE(type) template void write_results<type>(const void*, int64_t, Dtype, void*);
MICA_WRITE(Compensated)
MICA_WRITE(float)
MICA_WRITE(double)
MICA_WRITE(uint8_t)
MICA_WRITE(uint16_t)
MICA_WRITE(uint32_t)
MICA_WRITE(uint64_t)
MICA_WRITE(int8_t)
MICA_WRITE(int16_t)
MICA_WRITE(int32_t)
MICA_WRITE(int64_t)

HWY_EXPORT(choose);

const ReduceFunctions& reduce_functions(Reduce reduce, Dtype values, bool of_half) {
  const ReduceFunctions* functions = HWY_DYNAMIC_DISPATCH(choose)(reduce, values, of_half);
  MICA_ASSERT(functions);
  return *functions;
}

}  // namespace mica::cpu
#endif
