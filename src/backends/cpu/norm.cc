// RMS and layer normalisation of rows, in parallel over rows. A row is read two or three times; all
// but the first find it in the cache.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backends/cpu/norm.cc"
#include "backends/cpu/highway_targets.h"

#include <hwy/foreach_target.h>

#include "ops/norm.h"

#include <algorithm>
#include <cmath>
#include <type_traits>

#include "backends/cpu/lanes-inl.h"
#include "backends/cpu/rows.h"
#include "base/thread_pool.h"
#include "core/backend.h"

#ifndef MICA_CPU_NORM_ONCE
#define MICA_CPU_NORM_ONCE
namespace mica::cpu {

// One kernel call, as its tasks see it; weight and bias may be null.
struct NormJob {
  const View* x;
  const View* y;
  const View* weight;
  const View* bias;
  double eps;
  bool centred;  // layer norm
};

}  // namespace mica::cpu
#endif

HWY_BEFORE_NAMESPACE();
namespace mica::cpu {
namespace HWY_NAMESPACE {

// What is done with different rows at the same time, so that reading, arithmetic and writing
// overlap: one is added up for its mean, the deviations of one from `shift` are added up with their
// squares, and one becomes
//   y = (x - coarse - fine) * factor * weight + bias
// where the mean comes in two parts, as one float is too coarse if it is large beside the
// deviations. What is null is not done.
template <class T, class W, class O>
struct Pass {
  int64_t n;
  const W* weight;
  const W* bias;
  const T* sum = nullptr;
  const T* square = nullptr;
  const T* scale = nullptr;
  O* y = nullptr;
  float shift = 0, coarse = 0, fine = 0, factor = 0;
  double total = 0, deviations = 0, squares = 0;  // results
};

struct Sums {
  VF32 total[2], deviations[2], squares[2];
};

template <Store kStore, class O>
HWY_INLINE void put(F32 d, VF32 v, O* to) {
  if constexpr (kStore == Store::Past)
    hn::Stream(v, d, to);
  else
    store(d, v, to);
}

// Vector `k` of a block, from element i on.
template <bool kSum, bool kSquare, bool kCentred, Store kStore, class P>
HWY_INLINE void pass_vector(const P& p, Sums& sums, int k, int64_t i) {
  const F32 d;
  if constexpr (kSum) sums.total[k] = hn::Add(sums.total[k], load(d, p.sum + i));
  if constexpr (kSquare) {
    auto v = load(d, p.square + i);
    if constexpr (kCentred) {
      v = hn::Sub(v, hn::Set(d, p.shift));
      sums.deviations[k] = hn::Add(sums.deviations[k], v);
    }
    sums.squares[k] = hn::MulAdd(v, v, sums.squares[k]);
  }
  if constexpr (kStore != Store::None) {
    const auto factor = hn::Set(d, p.factor);
    auto v = load(d, p.scale + i);
    if constexpr (kCentred)
      v = hn::MulAdd(hn::Sub(v, hn::Set(d, p.coarse)), factor, hn::Set(d, -p.fine * p.factor));
    else
      v = hn::Mul(v, factor);
    if (p.weight) v = hn::Mul(v, load(d, p.weight + i));
    if (p.bias) v = hn::Add(v, load(d, p.bias + i));
    put<kStore>(d, v, p.y + i);
  }
}

// The last elements of a row, fewer than two vectors.
template <bool kSum, bool kSquare, bool kCentred, Store kStore, class P>
HWY_NOINLINE void pass_rest(const P& p, Sums& sums, int64_t i) {
  const F32 d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  for (; i < p.n; i += lanes) {
    const auto n = static_cast<size_t>(std::min(lanes, p.n - i));
    if constexpr (kSum) sums.total[0] = hn::Add(sums.total[0], load_part(d, p.sum + i, n));
    if constexpr (kSquare) {
      auto v = hn::Sub(load_part(d, p.square + i, n), hn::Set(d, kCentred ? p.shift : 0));
      v = hn::IfThenElseZero(hn::FirstN(d, n), v);
      sums.deviations[0] = hn::Add(sums.deviations[0], v);
      sums.squares[0] = hn::MulAdd(v, v, sums.squares[0]);
    }
    if constexpr (kStore != Store::None) {
      auto v = hn::MulAdd(hn::Sub(load_part(d, p.scale + i, n), hn::Set(d, p.coarse)),
                          hn::Set(d, p.factor), hn::Set(d, -p.fine * p.factor));
      if (p.weight) v = hn::Mul(v, load_part(d, p.weight + i, n));
      if (p.bias) v = hn::Add(v, load_part(d, p.bias + i, n));
      store_part(d, v, p.y + i, n);
    }
  }
}

// In pieces, so that sums of long rows lose nothing.
template <bool kSum, bool kSquare, bool kCentred, Store kStore, class P>
HWY_INLINE void pass_row(P& p) {
  constexpr int64_t kPiece = 4096;
  const F32 d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  const auto zero = hn::Zero(d);
  for (int64_t start = 0; start < p.n; start += kPiece) {
    const int64_t end = std::min(p.n, start + kPiece);
    Sums sums{{zero, zero}, {zero, zero}, {zero, zero}};
    int64_t i = start;
    for (; i + 2 * lanes <= end; i += 2 * lanes) {
      if constexpr (kSum || kSquare) {
        const auto* front = kSum ? p.sum + i : p.square + i;
        prefetch_far(reinterpret_cast<const std::byte*>(front) + kFetchAhead);
        if (sizeof(*front) == 4)
          prefetch_far(reinterpret_cast<const std::byte*>(front + lanes) + kFetchAhead);
      }
      pass_vector<kSum, kSquare, kCentred, kStore>(p, sums, 0, i);
      pass_vector<kSum, kSquare, kCentred, kStore>(p, sums, 1, i + lanes);
    }
    if (i < end) {
      Sums all = sums;
      pass_rest<kSum, kSquare, kCentred, kStore>(p, all, i);
      sums = all;
    }
    if constexpr (kSum) p.total += sum_lanes(d, hn::Add(sums.total[0], sums.total[1]));
    if constexpr (kSquare) p.squares += sum_lanes(d, hn::Add(sums.squares[0], sums.squares[1]));
    if constexpr (kSquare && kCentred)
      p.deviations += sum_lanes(d, hn::Add(sums.deviations[0], sums.deviations[1]));
  }
}

template <bool kCentred, Store kStore, class P>
HWY_INLINE void take(P& p) {
  if (p.square && p.scale && (p.sum || !kCentred))
    return pass_row<kCentred, true, kCentred, kStore>(p);
  if (p.sum) pass_row<true, false, kCentred, Store::None>(p);
  if (p.square) pass_row<false, true, kCentred, Store::None>(p);
  if (p.scale) pass_row<false, false, kCentred, kStore>(p);
}

template <class T, class W, bool kCentred, Store kStore>
void norm_rows(const NormJob& job, int64_t begin, int64_t end) {
  using O = std::conditional_t<std::is_same_v<T, W>, T, float>;
  struct Row {
    const T* x;
    float coarse = 0, fine = 0, factor = 0;
  };
  constexpr int64_t kRing = 16, kSteps = kCentred ? 2 : 1;
  const int64_t n = row_length(*job.x), lead = n <= 1024 ? 4 : 1;  // short rows would have to wait
  const double share = 1 / static_cast<double>(n);                 // of an element in the mean
  Row rows[kRing];
  RowWalk walk(*job.x, begin);
  for (int64_t t = begin; t < end + kSteps * lead; ++t) {
    Pass<T, W, O> p{n, job.weight ? job.weight->as<W>() : nullptr,
                    job.bias ? job.bias->as<W>() : nullptr};
    const int64_t middle = kCentred ? t - lead : t, last = t - kSteps * lead;
    if (t < end) {
      rows[t % kRing] = {job.x->as<T>() + walk.offset()};
      walk.next();
      if (kCentred) p.sum = rows[t % kRing].x;
    }
    if (middle >= begin && middle < end) {
      p.square = rows[middle % kRing].x;
      p.shift = rows[middle % kRing].coarse;
    }
    if (last >= begin) {
      const Row& row = rows[last % kRing];
      p.scale = row.x;
      p.coarse = row.coarse, p.fine = row.fine, p.factor = row.factor;
      p.y = job.y->as<O>() + last * n;
    }
    take<kCentred, kStore>(p);
    if (p.sum) rows[t % kRing].coarse = static_cast<float>(p.total * share);
    if (!p.square) continue;
    const double fine = p.deviations * share, square = p.squares * share - fine * fine;
    rows[middle % kRing].fine = static_cast<float>(fine);
    rows[middle % kRing].factor = static_cast<float>(1 / std::sqrt(square + job.eps));
  }
  if (kStore == Store::Past) hwy::FlushStream();
}

template <class T, class W>
void norm_types(const NormJob& job, int64_t begin, int64_t end) {
  if constexpr (std::is_same_v<T, float> || !std::is_same_v<T, W>) {
    if (goes_past(*job.y, row_length(*job.x))) {
      if (job.centred) return norm_rows<T, W, true, Store::Past>(job, begin, end);
      return norm_rows<T, W, false, Store::Past>(job, begin, end);
    }
  }
  if (job.centred) return norm_rows<T, W, true, Store::Cached>(job, begin, end);
  norm_rows<T, W, false, Store::Cached>(job, begin, end);
}

void norm_lanes(const NormJob& job, int64_t begin, int64_t end) {
  dispatch_lanes(job.x->dtype, [&](auto x_tag) {
    using T = typename decltype(x_tag)::type;
    const View* affine = job.weight ? job.weight : job.bias;
    if (!affine) return norm_types<T, T>(job, begin, end);
    dispatch_lanes(affine->dtype, [&](auto w_tag) {
      norm_types<T, typename decltype(w_tag)::type>(job, begin, end);
    });
  });
}

}  // namespace HWY_NAMESPACE
}  // namespace mica::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace mica::cpu {
namespace {

HWY_EXPORT(norm_lanes);

constexpr int64_t kTaskElements = 16384, kLargeTaskElements = 131072;

void norm_doubles(const NormJob& job, int64_t begin, int64_t end) {
  const int64_t n = row_length(*job.x);
  const double* weight = job.weight ? job.weight->as<double>() : nullptr;
  const double* bias = job.bias ? job.bias->as<double>() : nullptr;
  RowWalk walk(*job.x, begin);
  for (int64_t row = begin; row < end; ++row, walk.next()) {
    const double* x = job.x->as<double>() + walk.offset();
    double* y = job.y->as<double>() + row * n;
    double mean = 0, square = 0;
    if (job.centred)
      for (int64_t i = 0; i < n; ++i) mean += x[i] / static_cast<double>(n);
    for (int64_t i = 0; i < n; ++i) square += (x[i] - mean) * (x[i] - mean);
    double factor = 1 / std::sqrt(square / static_cast<double>(n) + job.eps);
    for (int64_t i = 0; i < n; ++i)
      y[i] = (x[i] - mean) * factor * (weight ? weight[i] : 1) + (bias ? bias[i] : 0);
  }
}

void norm(const KernelCall& call, bool centred) {
  const auto& params = call.as<ops::NormParams>();
  const View& x = call.inputs[0];
  const View* weight = params.weight ? &call.inputs[1] : nullptr;
  const View* bias = params.bias ? &call.inputs.back() : nullptr;
  NormJob job{&x, &call.outputs[0], weight, bias, params.eps, centred};
  // Larger tasks where there are many: the first and the last rows of one overlap with nothing.
  int64_t task = std::clamp(x.size() / 64, kTaskElements, kLargeTaskElements);
  int64_t grain = std::max<int64_t>(1, task / std::max<int64_t>(1, row_length(x)));
  ThreadPool::shared().parallel_for(row_count(x), grain, [&](int64_t begin, int64_t end) {
    if (x.dtype == Dtype::F64)
      norm_doubles(job, begin, end);
    else
      HWY_DYNAMIC_DISPATCH(norm_lanes)(job, begin, end);
  });
}

void rms_norm(const KernelCall& call) { norm(call, false); }
void layer_norm(const KernelCall& call) { norm(call, true); }

}  // namespace

void norm_kernels(KernelTable& registry) {
  registry.add(ops::rms_norm_op,
               {.run = &rms_norm, .layouts = {Layout::Rows, Layout::Contiguous}, .may_alias = 1});
  registry.add(ops::layer_norm_op,
               {.run = &layer_norm, .layouts = {Layout::Rows, Layout::Contiguous}, .may_alias = 1});
}

}  // namespace mica::cpu
#endif
