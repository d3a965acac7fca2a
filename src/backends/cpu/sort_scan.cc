// Running sums, products and extrema. Rows of the last axis are walked one by one, other axes in
// tiles of columns, so that memory is read in order.
#include <algorithm>
#include <cmath>
#include <limits>

#include "backends/cpu/lines.h"
#include "ops/sort.h"

namespace mica::cpu {

namespace {

using ops::Scan;

// What a running value is kept in.
template <class T>
struct TotalOf {
  using type = T;
};
template <>
struct TotalOf<float> {
  using type = double;
};
template <>
struct TotalOf<float16_t> {
  using type = float;
};
template <>
struct TotalOf<bfloat16_t> {
  using type = float;
};

template <Scan scan, class W>
W combine(W total, W x) {
  using Arithmetic = std::conditional_t<std::is_integral_v<W>, uint64_t, W>;
  if constexpr (scan == Scan::Sum)
    return static_cast<W>(static_cast<Arithmetic>(total) + static_cast<Arithmetic>(x));
  if constexpr (scan == Scan::Prod)
    return static_cast<W>(static_cast<Arithmetic>(total) * static_cast<Arithmetic>(x));
  if constexpr (scan == Scan::Max) return total > x || total != total ? total : x;
  if constexpr (scan == Scan::Min) return total < x || total != total ? total : x;
  if constexpr (scan == Scan::LogSumExp && std::is_floating_point_v<W>) {
    if (total != total || x != x) return total + x;  // NaN
    W high = std::max(total, x), low = std::min(total, x);
    return std::isinf(high) ? high : high + std::log1p(std::exp(low - high));
  }
  return total;
}

template <Scan scan, class W>
constexpr W start() {
  using Limits = std::numeric_limits<W>;
  if constexpr (scan == Scan::Sum)
    return W(0);
  else if constexpr (scan == Scan::Prod)
    return W(1);
  else if constexpr (scan == Scan::Min)
    return Limits::has_infinity ? Limits::infinity() : Limits::max();
  else
    return Limits::has_infinity ? -Limits::infinity() : Limits::lowest();
}

template <Scan scan, class T>
void scan_tile(const T* from, T* to, const Extents& e, int64_t columns, bool reverse,
               bool inclusive) {
  using W = typename TotalOf<T>::type;
  W totals[kColumns];
  std::fill_n(totals, columns, start<scan, W>());
  for (int64_t n = 0; n < e.extent; ++n) {
    int64_t row = (reverse ? e.extent - 1 - n : n) * e.after;
    for (int64_t c = 0; c < columns; ++c) {
      W next = combine<scan>(totals[c], static_cast<W>(from[row + c]));
      to[row + c] = T(inclusive ? next : totals[c]);
      totals[c] = next;
    }
  }
}

// A row of neighbours: the total stays in a register.
template <Scan scan, class T>
void scan_row(const T* from, T* to, int64_t count, bool reverse, bool inclusive) {
  using W = typename TotalOf<T>::type;
  W total = start<scan, W>();
  int64_t step = reverse ? -1 : 1, first = reverse ? count - 1 : 0;
  for (int64_t n = 0; n < count; ++n) {
    int64_t i = first + n * step;
    W next = combine<scan>(total, static_cast<W>(from[i]));
    to[i] = T(inclusive ? next : total);
    total = next;
  }
}

template <Scan kind, class T>
void scan_array(const KernelCall& call) {
  const auto& params = call.as<ops::ScanParams>();
  Extents e(call.inputs[0].shape, params.axis);
  for_each_tile(e, [&](int64_t at, int64_t columns) {
    const T* from = call.inputs[0].as<T>() + at;
    T* to = call.outputs[0].as<T>() + at;
    if (e.after == 1)
      scan_row<kind>(from, to, e.extent, params.reverse, params.inclusive);
    else
      scan_tile<kind>(from, to, e, columns, params.reverse, params.inclusive);
  });
}

void scan(const KernelCall& call) {
  dispatch(call.inputs[0].dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    switch (call.as<ops::ScanParams>().scan) {
      case Scan::Sum: return scan_array<Scan::Sum, T>(call);
      case Scan::Prod: return scan_array<Scan::Prod, T>(call);
      case Scan::Max: return scan_array<Scan::Max, T>(call);
      case Scan::Min: return scan_array<Scan::Min, T>(call);
      case Scan::LogSumExp:
        if constexpr (is_floating(dtype_of<T>)) scan_array<Scan::LogSumExp, T>(call);
    }
  });
}

}  // namespace

void sort_scan_kernels(KernelTable& registry) {
  registry.add(ops::scan_op, {.run = &scan, .may_alias = 1});
}

}  // namespace mica::cpu
