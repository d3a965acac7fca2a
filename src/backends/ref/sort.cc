#include "ops/sort.h"

#include <algorithm>
#include <limits>
#include <numeric>
#include <vector>

#include "backends/ref/ref.h"

namespace mica::ref {

namespace {

// Calls f with a value of the type in which elements of this dtype are exact.
template <class F>
void dispatch_exact(Dtype dtype, F&& f) {
  if (is_floating(dtype))
    f(double{});
  else if (dtype == Dtype::U64)
    f(uint64_t{});
  else
    f(int64_t{});
}

// Calls f(place of the first element in an input, in an output) for every line along an axis.
template <class F>
void for_each_line(const View& a, const View& out, int axis, F&& f) {
  Shape lines = a.shape;
  lines[axis] = 1;
  for_each(lines, [&](const Dims& index) { f(offset(a, index), offset(out, index)); });
}

template <class W>
std::vector<W> load_line(const View& a, int64_t from, int axis) {
  std::vector<W> line(static_cast<size_t>(a.shape[axis]));
  for (size_t i = 0; i < line.size(); ++i)
    line[i] = load<W>(a, from + static_cast<int64_t>(i) * a.strides[axis]);
  return line;
}

template <class W>
bool less_nan_last(W x, W y) {
  return x < y || (x == x && y != y);
}

template <class W>
std::vector<int64_t> order_of(const std::vector<W>& line) {
  std::vector<int64_t> order(line.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](int64_t i, int64_t j) { return less_nan_last(line[i], line[j]); });
  return order;
}

// Sorting is a partition, too.
template <bool values>
void order_lines(const KernelCall& call, int axis) {
  const View &a = call.inputs[0], &out = call.outputs[0];
  dispatch_exact(a.dtype, [&](auto tag) {
    for_each_line(a, out, axis, [&](int64_t from, int64_t to) {
      std::vector<int64_t> order = order_of(load_line<decltype(tag)>(a, from, axis));
      for (size_t i = 0; i < order.size(); ++i) {
        int64_t target = to + static_cast<int64_t>(i) * out.strides[axis];
        if (values)
          copy_element(a, from + order[i] * a.strides[axis], out, target);
        else
          store(out, target, order[i]);
      }
    });
  });
}

void sort(const KernelCall& call) { order_lines<true>(call, call.as<ops::SortParams>().axis); }
void argsort(const KernelCall& call) { order_lines<false>(call, call.as<ops::SortParams>().axis); }
void argpartition(const KernelCall& call) {
  order_lines<false>(call, call.as<ops::PartitionParams>().axis);
}

void arg_reduce(const KernelCall& call) {
  auto [axis, largest] = call.as<ops::ArgReduceParams>();
  const View &a = call.inputs[0], &out = call.outputs[0];
  dispatch_exact(a.dtype, [&, axis = axis, largest = largest](auto tag) {
    for_each_line(a, out, axis, [&](int64_t from, int64_t to) {
      auto line = load_line<decltype(tag)>(a, from, axis);
      size_t best = 0;
      for (size_t i = 1; i < line.size() && line[best] == line[best]; ++i) {
        if (line[i] != line[i] || (largest ? line[i] > line[best] : line[i] < line[best])) best = i;
      }
      store(out, to, static_cast<int64_t>(best));
    });
  });
}

// What an exclusive operation starts with. The smallest value of the dtype stands for "no maximum".
template <class W>
W start_of(ops::Scan scan, Dtype dtype) {
  bool floating = is_floating(dtype);
  double infinity = std::numeric_limits<double>::infinity();
  W low{}, high{};
  dispatch(dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    if constexpr (std::is_integral_v<T>) {
      low = static_cast<W>(std::numeric_limits<T>::lowest());
      high = static_cast<W>(std::numeric_limits<T>::max());
    }
  });
  switch (scan) {
    case ops::Scan::Sum: return W(0);
    case ops::Scan::Prod: return W(1);
    case ops::Scan::Min: return floating ? static_cast<W>(infinity) : high;
    default: return floating ? static_cast<W>(-infinity) : low;
  }
}

template <class W>
W step(ops::Scan scan, W so_far, W x) {
  switch (scan) {
    case ops::Scan::Sum: return so_far + x;
    case ops::Scan::Prod: return so_far * x;
    case ops::Scan::Max: return so_far > x || so_far != so_far ? so_far : x;
    case ops::Scan::Min: return so_far < x || so_far != so_far ? so_far : x;
    default: break;
  }
  if (so_far != so_far || x != x) return so_far + x;  // NaN
  double a = static_cast<double>(so_far), b = static_cast<double>(x), high = std::max(a, b);
  return static_cast<W>(std::isinf(high) ? high
                                         : high + std::log1p(std::exp(std::min(a, b) - high)));
}

void scan(const KernelCall& call) {
  auto [axis, kind, reverse, inclusive] = call.as<ops::ScanParams>();
  const View &a = call.inputs[0], &out = call.outputs[0];
  dispatch_exact(
      a.dtype, [&, axis = axis, kind = kind, reverse = reverse, inclusive = inclusive](auto tag) {
        using W = decltype(tag);
        for_each_line(a, out, axis, [&](int64_t from, int64_t to) {
          auto line = load_line<W>(a, from, axis);
          auto total = start_of<W>(kind, a.dtype);
          for (size_t n = 0; n < line.size(); ++n) {
            size_t i = reverse ? line.size() - 1 - n : n;
            W next = step(kind, total, line[i]);
            store(out, to + static_cast<int64_t>(i) * out.strides[axis], inclusive ? next : total);
            total = next;
          }
        });
      });
}

}  // namespace

void sort_kernels(KernelTable& registry) {
  registry.add(ops::sort_op, {.run = &sort});
  registry.add(ops::argsort_op, {.run = &argsort});
  registry.add(ops::argpartition_op, {.run = &argpartition});
  registry.add(ops::arg_reduce_op, {.run = &arg_reduce});
  registry.add(ops::scan_op, {.run = &scan});
}

}  // namespace mica::ref
