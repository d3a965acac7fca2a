// Softmax and log-sum-exp along rows, in parallel over rows; rows longer than kPiece elements are
// cut into pieces, each with its own largest element and sum, which are then combined in order, so
// that one long row keeps every thread busy and results do not depend on their number.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backends/cpu/softmax.cc"
#include "backends/cpu/highway_targets.h"

#include <hwy/foreach_target.h>

#include "ops/softmax.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <type_traits>

#include "backends/cpu/lanes-inl.h"
#include "backends/cpu/rows.h"
#include "base/thread_pool.h"
#include "core/backend.h"

#ifndef MICA_CPU_SOFTMAX_ONCE
#define MICA_CPU_SOFTMAX_ONCE
namespace mica::cpu {

inline constexpr int64_t kPiece = 8192;  // elements; as float32 they fit the first-level cache

// Of some elements: the largest, and the sum of exp(x - largest). Where the largest is -inf, the
// sum is that of exp(x): 0, or NaN if there is a NaN.
struct Partial {
  double largest = -std::numeric_limits<double>::infinity();
  double sum = 0;
};

}  // namespace mica::cpu
#endif

HWY_BEFORE_NAMESPACE();
namespace mica::cpu {
namespace HWY_NAMESPACE {

template <class T>
float largest_of(const T* x, int64_t n) {
  const F32 d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  const auto low = hn::Set(d, -std::numeric_limits<float>::infinity());
  auto m0 = low, m1 = low, m2 = low, m3 = low;
  int64_t i = 0;
  for (; i + 4 * lanes <= n; i += 4 * lanes) {
    m0 = hn::Max(m0, load(d, x + i));
    m1 = hn::Max(m1, load(d, x + i + lanes));
    m2 = hn::Max(m2, load(d, x + i + 2 * lanes));
    m3 = hn::Max(m3, load(d, x + i + 3 * lanes));
  }
  for (; i + lanes <= n; i += lanes) m0 = hn::Max(m0, load(d, x + i));
  if (i < n)
    m0 = hn::Max(m0, load_part(d, x + i, static_cast<size_t>(n - i),
                               -std::numeric_limits<float>::infinity()));
  return max_lanes(d, hn::Max(hn::Max(m0, m1), hn::Max(m2, m3)));
}

// The sum of exp(x - largest), with the terms themselves in `terms` if kKeep. NaNs reach the sum.
template <bool kKeep, class T>
double sum_of_exp(const T* x, int64_t n, float largest, float* terms) {
  const F32 d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  const auto m = hn::Set(d, largest);
  auto s0 = hn::Zero(d), s1 = hn::Zero(d);
  int64_t i = 0;
  for (; i + 2 * lanes <= n; i += 2 * lanes) {
    auto e0 = exp_negative(d, hn::Sub(load(d, x + i), m));
    auto e1 = exp_negative(d, hn::Sub(load(d, x + i + lanes), m));
    if (kKeep) {
      store(d, e0, terms + i);
      store(d, e1, terms + i + lanes);
    }
    s0 = hn::Add(s0, e0);
    s1 = hn::Add(s1, e1);
  }
  for (; i < n; i += lanes) {
    size_t count = static_cast<size_t>(std::min(lanes, n - i));
    auto e = exp_negative(d, hn::Sub(load_part(d, x + i, count), m));
    e = hn::IfThenElseZero(hn::FirstN(d, count), e);
    if (kKeep) store(d, e, terms + i);
    s0 = hn::Add(s0, e);
  }
  return sum_lanes(d, hn::Add(s0, s1));
}

template <class T>
Partial partial_of(const T* x, int64_t n) {
  float largest = largest_of(x, n);
  float base = largest == -std::numeric_limits<float>::infinity() ? 0 : largest;
  return {largest, sum_of_exp<false>(x, n, base, nullptr)};
}

// Large float32 outputs bypass the caches: nothing of them would be left there anyway.
template <class T>
void scale_row(const float* terms, T* y, int64_t n, float factor, bool stream) {
  const F32 d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  const auto f = hn::Set(d, factor);
  int64_t i = 0;
  if constexpr (std::is_same_v<T, float>) {
    if (stream && reinterpret_cast<uintptr_t>(y) % (hn::Lanes(d) * sizeof(float)) == 0) {
      for (; i + lanes <= n; i += lanes) hn::Stream(hn::Mul(hn::LoadU(d, terms + i), f), d, y + i);
      hwy::FlushStream();
    }
  }
  for (; i + lanes <= n; i += lanes) store(d, hn::Mul(hn::LoadU(d, terms + i), f), y + i);
  if (i < n) store_part(d, hn::Mul(hn::LoadU(d, terms + i), f), y + i, static_cast<size_t>(n - i));
}

// A row of at most kPiece elements.
template <class T>
void softmax_row(const T* x, T* y, int64_t n, bool stream) {
  HWY_ALIGN float terms[kPiece + hn::MaxLanes(F32())];
  float largest = largest_of(x, n);
  double sum = sum_of_exp<true>(x, n, largest, terms);
  scale_row(terms, y, n, static_cast<float>(1 / sum), stream);
}

// A piece of a longer row whose largest element and sum are known.
template <class T>
void softmax_piece(const T* x, T* y, int64_t n, const Partial& row, bool stream) {
  HWY_ALIGN float terms[kPiece + hn::MaxLanes(F32())];
  sum_of_exp<true>(x, n, static_cast<float>(row.largest), terms);
  scale_row(terms, y, n, static_cast<float>(1 / row.sum), stream);
}

Partial partial_lanes(const View& x, int64_t offset, int64_t n) {
  Partial result;
  dispatch_lanes(x.dtype, [&](auto tag) {
    result = partial_of(x.as<typename decltype(tag)::type>() + offset, n);
  });
  return result;
}
// `row` is null where the elements are a whole row.
void softmax_lanes(const View& x, int64_t from, const View& y, int64_t to, int64_t n,
                   const Partial* row, bool stream) {
  dispatch_lanes(x.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    if (row)
      softmax_piece(x.as<T>() + from, y.as<T>() + to, n, *row, stream);
    else
      softmax_row(x.as<T>() + from, y.as<T>() + to, n, stream);
  });
}

}  // namespace HWY_NAMESPACE
}  // namespace mica::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace mica::cpu {
namespace {

HWY_EXPORT(partial_lanes);
HWY_EXPORT(softmax_lanes);

constexpr int64_t kStreamBytes = int64_t{16} << 20;
constexpr int64_t kTaskElements = 16384;

constexpr double kInfinity = std::numeric_limits<double>::infinity();

Partial partial_of(const View& x, int64_t offset, int64_t n) {
  if (x.dtype != Dtype::F64) return HWY_DYNAMIC_DISPATCH(partial_lanes)(x, offset, n);
  const double* row = x.as<double>() + offset;
  Partial result;
  for (int64_t i = 0; i < n; ++i) result.largest = std::max(result.largest, row[i]);
  double base = result.largest == -kInfinity ? 0 : result.largest;
  for (int64_t i = 0; i < n; ++i) result.sum += std::exp(row[i] - base);
  return result;
}

void softmax_piece(const View& x, int64_t from, const View& y, int64_t to, int64_t n,
                   const Partial* row, bool stream) {
  if (x.dtype != Dtype::F64)
    return HWY_DYNAMIC_DISPATCH(softmax_lanes)(x, from, y, to, n, row, stream);
  Partial own = row ? *row : partial_of(x, from, n);
  const double* in = x.as<double>() + from;
  double* out = y.as<double>() + to;
  for (int64_t i = 0; i < n; ++i) out[i] = std::exp(in[i] - own.largest) / own.sum;
}

double logsumexp_of(const Partial& p) {
  if (p.largest == kInfinity) return kInfinity;
  return (p.largest == -kInfinity ? 0 : p.largest) + std::log(p.sum);
}

int64_t pieces_of(int64_t length) { return (length + kPiece - 1) / kPiece; }

size_t workspace(const KernelCall& call) {
  const View& x = call.inputs[0];
  int64_t pieces = pieces_of(row_length(x));
  return pieces <= 1 ? 0 : static_cast<size_t>(row_count(x) * (pieces + 1)) * sizeof(Partial);
}

// Calls f(row, row's offset in x, piece) for every piece of every row, in parallel.
template <class F>
void for_each_piece(const View& x, F&& f) {
  int64_t length = row_length(x), pieces = pieces_of(length);
  int64_t grain = std::max<int64_t>(1, kTaskElements / std::min(length, kPiece));
  ThreadPool::shared().parallel_for(row_count(x) * pieces, grain, [&](int64_t begin, int64_t end) {
    RowWalk walk(x, begin / pieces);
    int64_t row = begin / pieces, piece = begin % pieces;
    for (int64_t i = begin; i < end; ++i) {
      f(row, walk.offset(), piece);
      if (++piece == pieces) {
        piece = 0;
        ++row;
        walk.next();
      }
    }
  });
}

// Largest elements and sums of all rows: of the pieces first, then of the rows, behind the pieces.
Partial* row_partials(const KernelCall& call) {
  const View& x = call.inputs[0];
  int64_t length = row_length(x), pieces = pieces_of(length), rows = row_count(x);
  auto* parts = reinterpret_cast<Partial*>(call.workspace.data());
  for_each_piece(x, [&](int64_t row, int64_t offset, int64_t piece) {
    int64_t start = piece * kPiece;
    parts[row * pieces + piece] = partial_of(x, offset + start, std::min(kPiece, length - start));
  });
  Partial* totals = parts + rows * pieces;
  for (int64_t row = 0; row < rows; ++row) {
    const Partial* own = parts + row * pieces;
    Partial total;
    for (int64_t i = 0; i < pieces; ++i) total.largest = std::max(total.largest, own[i].largest);
    for (int64_t i = 0; i < pieces; ++i) {
      bool same = own[i].largest == total.largest;  // both may be infinite
      total.sum += own[i].sum * (same ? 1 : std::exp(own[i].largest - total.largest));
    }
    totals[row] = total;
  }
  return totals;
}

void softmax(const KernelCall& call) {
  const View &x = call.inputs[0], &y = call.outputs[0];
  int64_t length = row_length(x), pieces = pieces_of(length);
  bool stream = y.size() * size_of(y.dtype) >= kStreamBytes;
  const Partial* totals = pieces > 1 ? row_partials(call) : nullptr;
  for_each_piece(x, [&](int64_t row, int64_t offset, int64_t piece) {
    int64_t start = piece * kPiece;
    softmax_piece(x, offset + start, y, row * length + start, std::min(kPiece, length - start),
                  totals ? totals + row : nullptr, stream);
  });
}

void store_float(const View& view, int64_t i, double value) {
  dispatch_floating(view.dtype, "logsumexp", [&](auto tag) {
    using T = typename decltype(tag)::type;
    if constexpr (std::is_same_v<T, double>)
      view.as<double>()[i] = value;
    else
      view.as<T>()[i] = T(static_cast<float>(value));
  });
}

void logsumexp(const KernelCall& call) {
  const View &x = call.inputs[0], &y = call.outputs[0];
  int64_t length = row_length(x);
  if (pieces_of(length) > 1) {
    const Partial* totals = row_partials(call);
    for (int64_t row = 0; row < row_count(x); ++row) store_float(y, row, logsumexp_of(totals[row]));
    return;
  }
  if (length == 0) {
    for (int64_t row = 0; row < y.size(); ++row) store_float(y, row, logsumexp_of(Partial{}));
    return;
  }
  for_each_piece(x, [&](int64_t row, int64_t offset, int64_t) {
    store_float(y, row, logsumexp_of(partial_of(x, offset, length)));
  });
}

}  // namespace

void softmax_kernels(KernelTable& registry) {
  registry.add(
      ops::softmax_op,
      {.run = &softmax, .layouts = {Layout::Rows}, .workspace = &workspace, .may_alias = 1});
  registry.add(ops::logsumexp_op,
               {.run = &logsumexp, .layouts = {Layout::Rows}, .workspace = &workspace});
}

}  // namespace mica::cpu
#endif
