// RMS and layer normalisation of rows, in parallel over rows. A row is read two or four times; all
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

// The sum of x - shift, or of its squares; in pieces, so that long rows lose nothing.
template <bool kSquares, class T>
double sum_of(const T* x, int64_t n, float shift) {
  constexpr int64_t kPiece = 4096;
  const F32 d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  const auto c = hn::Set(d, shift);
  const auto add = [&](VF32 sum, VF32 v) {
    v = hn::Sub(v, c);
    return kSquares ? hn::MulAdd(v, v, sum) : hn::Add(sum, v);
  };
  double total = 0;
  for (int64_t start = 0; start < n; start += kPiece) {
    const T* p = x + start;
    int64_t count = std::min(kPiece, n - start), i = 0;
    auto s0 = hn::Zero(d), s1 = s0, s2 = s0, s3 = s0;
    for (; i + 4 * lanes <= count; i += 4 * lanes) {
      s0 = add(s0, load(d, p + i));
      s1 = add(s1, load(d, p + i + lanes));
      s2 = add(s2, load(d, p + i + 2 * lanes));
      s3 = add(s3, load(d, p + i + 3 * lanes));
    }
    for (; i + lanes <= count; i += lanes) s0 = add(s0, load(d, p + i));
    // The lanes beyond the row are `shift`, so that they add zero.
    if (i < count) {
      size_t rest = static_cast<size_t>(count - i);
      auto v = hn::IfThenElse(hn::FirstN(d, rest), load_part(d, p + i, rest), c);
      s1 = add(s1, v);
    }
    total += sum_lanes(d, hn::Add(hn::Add(s0, s1), hn::Add(s2, s3)));
  }
  return total;
}

// y = (x - mean) * factor * weight + bias. The mean comes in two parts, as one float is too coarse
// where it is large beside the deviations.
template <class T, class W, class O>
void scale_row(const T* x, const W* weight, const W* bias, O* y, int64_t n, float coarse,
               float fine, float factor) {
  const F32 d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  const auto m = hn::Set(d, coarse), f = hn::Set(d, factor), r = hn::Set(d, -fine * factor);
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) {
    auto v = hn::MulAdd(hn::Sub(load(d, x + i), m), f, r);
    if (weight) v = hn::Mul(v, load(d, weight + i));
    if (bias) v = hn::Add(v, load(d, bias + i));
    store(d, v, y + i);
  }
  if (i == n) return;
  size_t rest = static_cast<size_t>(n - i);
  auto v = hn::MulAdd(hn::Sub(load_part(d, x + i, rest), m), f, r);
  if (weight) v = hn::Mul(v, load_part(d, weight + i, rest));
  if (bias) v = hn::Add(v, load_part(d, bias + i, rest));
  store_part(d, v, y + i, rest);
}

template <class T, class W>
void norm_rows(const NormJob& job, int64_t begin, int64_t end) {
  using O = std::conditional_t<std::is_same_v<T, W>, T, float>;
  const int64_t n = row_length(*job.x);
  const T* x = job.x->as<T>();
  const W* weight = job.weight ? job.weight->as<W>() : nullptr;
  const W* bias = job.bias ? job.bias->as<W>() : nullptr;
  RowWalk walk(*job.x, begin);
  for (int64_t row = begin; row < end; ++row, walk.next()) {
    const T* in = x + walk.offset();
    const double count = static_cast<double>(n);
    float coarse = job.centred ? static_cast<float>(sum_of<false>(in, n, 0) / count) : 0;
    double fine = job.centred ? sum_of<false>(in, n, coarse) / count : 0;
    double square = sum_of<true>(in, n, coarse) / count - fine * fine;
    float factor = static_cast<float>(1 / std::sqrt(square + job.eps));
    scale_row(in, weight, bias, job.y->as<O>() + row * n, n, coarse, static_cast<float>(fine),
              factor);
  }
}

void norm_lanes(const NormJob& job, int64_t begin, int64_t end) {
  dispatch_lanes(job.x->dtype, [&](auto x_tag) {
    using T = typename decltype(x_tag)::type;
    const View* affine = job.weight ? job.weight : job.bias;
    if (!affine) return norm_rows<T, T>(job, begin, end);
    dispatch_lanes(affine->dtype, [&](auto w_tag) {
      norm_rows<T, typename decltype(w_tag)::type>(job, begin, end);
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

constexpr int64_t kTaskElements = 16384;

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
  int64_t grain = std::max<int64_t>(1, kTaskElements / std::max<int64_t>(1, row_length(x)));
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
