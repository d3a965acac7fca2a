// Along one axis: running sums, products and extrema, and the places of extrema. Rows of the last
// axis are walked one by one, other axes in tiles of columns, so that memory is read in order.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "base/thread_pool.h"
#include "core/backend.h"
#include "ops/sort.h"

namespace mica::cpu {

namespace {

using ops::Scan;

constexpr int64_t kColumns = 256;  // of a tile

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

// [before, extent, after] of a row-major array.
struct Extents {
  Extents(const Shape& shape, int axis) : extent(shape[axis]) {
    for (int i = 0; i < axis; ++i) before *= shape[i];
    for (size_t i = axis + 1; i < shape.size(); ++i) after *= shape[i];
  }
  int64_t before = 1, extent, after = 1;
};

// Calls f(offset of the first element, number of neighbouring columns) for tiles that cover all
// lines.
template <class F>
void for_each_tile(const Extents& e, F&& f) {
  int64_t width = std::min(kColumns, e.after),
          tiles = (e.after + width - 1) / std::max<int64_t>(width, 1);
  int64_t grain = std::max<int64_t>(1, 16384 / std::max<int64_t>(e.extent * width, 1));
  ThreadPool::shared().parallel_for(e.before * tiles, grain, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      int64_t column = t % tiles * width;
      f(t / tiles * e.extent * e.after + column, std::min(width, e.after - column));
    }
  });
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

template <Scan kind, class T>
void scan_array(const KernelCall& call) {
  const auto& params = call.as<ops::ScanParams>();
  Extents e(call.inputs[0].shape, params.axis);
  for_each_tile(e, [&](int64_t at, int64_t columns) {
    scan_tile<kind>(call.inputs[0].as<T>() + at, call.outputs[0].as<T>() + at, e, columns,
                    params.reverse, params.inclusive);
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

// --- places of extrema

// True if x takes the place of `best`: it is better, or the first NaN.
template <bool largest, class T>
bool beats(T x, T best) {
  if constexpr (std::is_integral_v<T>)
    return largest ? x > best : x < best;
  else
    return (largest ? x > best : x < best) || (x != x && best == best);
}

template <class T>
using Compared = std::conditional_t<is_half(dtype_of<T>), float, T>;

// The first place of the best element of a dense row. Blocks whose best cannot win are not
// searched.
template <bool largest, class T>
uint32_t best_of_row(const T* row, int64_t count) {
  using C = Compared<T>;
  constexpr int64_t kLanes = 32, kBlock = 16 * kLanes;
  int64_t best = 0, i = 1;
  for (; i + kBlock <= count; i += kBlock) {
    C lanes[kLanes];
    bool nan = false;
    std::fill_n(lanes, kLanes, static_cast<C>(row[i]));
    for (int64_t j = 0; j < kBlock; j += kLanes) {
      for (int64_t k = 0; k < kLanes; ++k) {
        C x = static_cast<C>(row[i + j + k]);
        lanes[k] = (largest ? x > lanes[k] : x < lanes[k]) ? x : lanes[k];
        nan |= x != x;
      }
    }
    bool search = nan;
    for (C lane : lanes) search = search || beats<largest>(lane, static_cast<C>(row[best]));
    for (int64_t j = i; search && j < i + kBlock; ++j) {
      if (beats<largest>(static_cast<C>(row[j]), static_cast<C>(row[best]))) best = j;
    }
  }
  for (; i < count; ++i) {
    if (beats<largest>(static_cast<C>(row[i]), static_cast<C>(row[best]))) best = i;
  }
  return static_cast<uint32_t>(best);
}

template <bool largest, class T>
void best_of_columns(const T* from, uint32_t* to, const Extents& e, int64_t columns) {
  using C = Compared<T>;
  C best[kColumns];
  for (int64_t c = 0; c < columns; ++c) best[c] = static_cast<C>(from[c]);
  std::fill_n(to, columns, 0u);
  for (int64_t i = 1; i < e.extent; ++i) {
    for (int64_t c = 0; c < columns; ++c) {
      C x = static_cast<C>(from[i * e.after + c]);
      bool better = beats<largest>(x, best[c]);
      best[c] = better ? x : best[c];
      to[c] = better ? static_cast<uint32_t>(i) : to[c];
    }
  }
}

template <bool largest, class T>
void arg_reduce_array(const KernelCall& call, int axis) {
  const View& a = call.inputs[0];
  Extents e(a.shape, axis);
  auto* out = call.outputs[0].as<uint32_t>();
  for_each_tile(e, [&](int64_t at, int64_t columns) {
    uint32_t* to = out + at / (e.extent * e.after) * e.after + at % e.after;
    if (e.after == 1)
      *to = best_of_row<largest>(a.as<T>() + at, e.extent);
    else
      best_of_columns<largest>(a.as<T>() + at, to, e, columns);
  });
}

void arg_reduce(const KernelCall& call) {
  auto [axis, largest] = call.as<ops::ArgReduceParams>();
  dispatch(call.inputs[0].dtype, [&, axis = axis, largest = largest](auto tag) {
    using T = typename decltype(tag)::type;
    if (largest)
      arg_reduce_array<true, T>(call, axis);
    else
      arg_reduce_array<false, T>(call, axis);
  });
}

}  // namespace

void sort_scan_kernels(KernelTable& registry) {
  registry.add(ops::scan_op, {.run = &scan, .may_alias = 1});
  registry.add(ops::arg_reduce_op, {.run = &arg_reduce});
}

}  // namespace mica::cpu
