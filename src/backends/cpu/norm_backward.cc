// Derivatives of RMS and layer normalisation, in parallel over blocks of rows. A row is read twice
// or three times; all but the first find it in the cache. Sums over rows are kept per block, in
// double, and added in the order of the blocks, which depend on the shape only.
//
//   u = (x - mean) * factor      p = g * weight
//   dx = (p - mean(p) - u * mean(p * u)) * factor      (RMS: without the means of x and p)
//   dweight = sum(g * u)         dbias = sum(g)
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backends/cpu/norm_backward.cc"
#include "backends/cpu/highway_targets.h"

#include <hwy/foreach_target.h>

#include "ops/norm.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "backends/cpu/lanes-inl.h"
#include "backends/cpu/rows.h"
#include "backends/cpu/scratch.h"
#include "base/thread_pool.h"
#include "core/backend.h"

#ifndef MICA_CPU_NORM_BACKWARD_ONCE
#define MICA_CPU_NORM_BACKWARD_ONCE
namespace mica::cpu {

struct NormBackwardJob {
  const View *x, *weight, *given, *out;  // weight may be null
  double eps;
  bool centred;
  int64_t n;
};

// What a block of rows adds to the cotangents of weight and bias; null where they are not wanted.
struct NormSums {
  double* scale = nullptr;
  double* shift = nullptr;
};

}  // namespace mica::cpu
#endif

HWY_BEFORE_NAMESPACE();
namespace mica::cpu {
namespace HWY_NAMESPACE {
namespace {

constexpr int64_t kLanes = hn::MaxLanes(F32());
constexpr int64_t kPiece = 4096;     // elements that are added up in float
constexpr int64_t kRowsInFloat = 8;  // the same for rows

int64_t padded(int64_t n) { return (n + kLanes - 1) / kLanes * kLanes; }

// n elements as floats, readable to whole vectors, zeros beyond: in place where they are that.
const float* floats(const View& view, int64_t offset, int64_t n, float* buffer) {
  if (view.dtype == Dtype::F32 && n % kLanes == 0) return view.as<float>() + offset;
  dispatch_lanes(view.dtype, [&](auto tag) {
    const F32 d;
    const auto* from = view.as<typename decltype(tag)::type>() + offset;
    int64_t i = 0;
    for (; i + kLanes <= n; i += kLanes) store(d, load(d, from + i), buffer + i);
    if (i < n) store(d, load_part(d, from + i, static_cast<size_t>(n - i)), buffer + i);
  });
  return buffer;
}

// The mean in two parts, as one float is too coarse if it is large beside the deviations.
struct RowState {
  float coarse = 0, fine = 0, factor = 0, mean = 0, along = 0;  // of p and p * u
};

template <class F>
HWY_INLINE void in_pieces(int64_t n, F&& f) {
  for (int64_t start = 0; start < n; start += kPiece) f(start, std::min(n, start + kPiece));
}

double sum_of(const float* x, int64_t n) {
  const F32 d;
  double total = 0;
  in_pieces(n, [&](int64_t begin, int64_t end) HWY_ATTR {
    auto a = hn::Zero(d), b = a;
    int64_t i = begin;
    for (; i + 2 * kLanes <= end; i += 2 * kLanes) {
      a = hn::Add(a, hn::LoadU(d, x + i));
      b = hn::Add(b, hn::LoadU(d, x + i + kLanes));
    }
    if (i < end) a = hn::Add(a, hn::LoadU(d, x + i));
    total += sum_lanes(d, hn::Add(a, b));
  });
  return total;
}

// `x` is padded by `coarse`, `g` by zeros.
template <bool kWeight>
RowState measure(const NormBackwardJob& job, const float* x, const float* g, const float* weight,
                 float coarse) {
  const F32 d;
  const double share = 1 / static_cast<double>(job.n);
  const auto shift = hn::Set(d, coarse);
  double deviations = 0, squares = 0, given = 0, along = 0;
  in_pieces(padded(job.n), [&](int64_t begin, int64_t end) HWY_ATTR {
    auto e = hn::Zero(d), s = e, p = e, a = e;
    for (int64_t i = begin; i < end; i += kLanes) {
      const auto v = hn::Sub(hn::LoadU(d, x + i), shift);
      auto direction = hn::LoadU(d, g + i);
      if (kWeight) direction = hn::Mul(direction, hn::LoadU(d, weight + i));
      e = hn::Add(e, v);
      s = hn::MulAdd(v, v, s);
      p = hn::Add(p, direction);
      a = hn::MulAdd(direction, v, a);
    }
    deviations += sum_lanes(d, e);
    squares += sum_lanes(d, s);
    given += sum_lanes(d, p);
    along += sum_lanes(d, a);
  });
  const double fine = job.centred ? deviations * share : 0;
  const double factor = 1 / std::sqrt(squares * share - fine * fine + job.eps);
  return {coarse, static_cast<float>(fine), static_cast<float>(factor),
          job.centred ? static_cast<float>(given * share) : 0,
          static_cast<float>((along - fine * given) * factor * share)};
}

template <bool kWeight>
void finish_row(const NormBackwardJob& job, const RowState& row, const float* x, const float* g,
                const float* weight, float* out, float* scale, float* shift) {
  const F32 d;
  const auto coarse = hn::Set(d, row.coarse), factor = hn::Set(d, row.factor);
  const auto offset = hn::Set(d, -row.fine * row.factor), mean = hn::Set(d, row.mean);
  const auto along = hn::Set(d, row.along);
  for (int64_t i = 0; i < padded(job.n); i += kLanes) {
    const auto given = hn::LoadU(d, g + i);
    const auto unit = hn::MulAdd(hn::Sub(hn::LoadU(d, x + i), coarse), factor, offset);
    auto rest = kWeight ? hn::Mul(given, hn::LoadU(d, weight + i)) : given;
    rest = hn::NegMulAdd(unit, along, hn::Sub(rest, mean));
    hn::StoreU(hn::Mul(rest, factor), d, out + i);
    if (scale) hn::StoreU(hn::MulAdd(given, unit, hn::LoadU(d, scale + i)), d, scale + i);
    if (shift) hn::StoreU(hn::Add(given, hn::LoadU(d, shift + i)), d, shift + i);
  }
}

void flush(float* part, double* sums, int64_t n) {
  if (!sums) return;
  for (int64_t i = 0; i < n; ++i) sums[i] += static_cast<double>(part[i]);
  std::fill_n(part, padded(n), 0.0f);
}

void norm_backward_rows(const NormBackwardJob& job, int64_t begin, int64_t end,
                        const NormSums& sums) {
  const F32 d;
  const int64_t n = job.n, width = Scratch::padded(padded(n));
  Scratch scratch(6 * width);
  float *x_row = scratch.take(width), *g_row = scratch.take(width), *w_row = scratch.take(width);
  float *out_row = scratch.take(width), *scale = scratch.take(width), *shift = scratch.take(width);
  std::fill_n(scale, 2 * width, 0.0f);
  const float* weight = job.weight ? floats(*job.weight, 0, n, w_row) : nullptr;
  RowWalk walk_x(*job.x, begin), walk_g(*job.given, begin);
  for (int64_t row = begin; row < end; ++row, walk_x.next(), walk_g.next()) {
    const float* x = floats(*job.x, walk_x.offset(), n, x_row);
    const float* g = floats(*job.given, walk_g.offset(), n, g_row);
    const float coarse =
        job.centred ? static_cast<float>(sum_of(x, padded(n)) / static_cast<double>(n)) : 0;
    if (n % kLanes != 0) std::fill(x_row + n, x_row + padded(n), coarse);
    const bool direct = job.out->dtype == Dtype::F32 && n % kLanes == 0;
    float* out = direct ? job.out->as<float>() + row * n : out_row;
    float *scaled = sums.scale ? scale : nullptr, *shifted = sums.shift ? shift : nullptr;
    if (weight) {
      const RowState state = measure<true>(job, x, g, weight, coarse);
      finish_row<true>(job, state, x, g, weight, out, scaled, shifted);
    } else {
      const RowState state = measure<false>(job, x, g, weight, coarse);
      finish_row<false>(job, state, x, g, weight, out, scaled, shifted);
    }
    if (!direct)
      dispatch_lanes(job.out->dtype, [&](auto tag) {
        auto* to = job.out->as<typename decltype(tag)::type>() + row * n;
        int64_t i = 0;
        for (; i + kLanes <= n; i += kLanes) store(d, hn::LoadU(d, out + i), to + i);
        if (i < n) store_part(d, hn::LoadU(d, out + i), to + i, static_cast<size_t>(n - i));
      });
    if ((row - begin) % kRowsInFloat == kRowsInFloat - 1 || row + 1 == end) {
      flush(scale, sums.scale, n);
      flush(shift, sums.shift, n);
    }
  }
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace mica::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace mica::cpu {
namespace {

HWY_EXPORT(norm_backward_rows);

constexpr int64_t kBlockElements = 16384, kMostBlocks = 64;

void norm_backward_doubles(const NormBackwardJob& job, int64_t begin, int64_t end,
                           const NormSums& sums) {
  const int64_t n = job.n;
  const double share = 1 / static_cast<double>(n);
  const double* weight = job.weight ? job.weight->as<double>() : nullptr;
  RowWalk walk_x(*job.x, begin), walk_g(*job.given, begin);
  for (int64_t row = begin; row < end; ++row, walk_x.next(), walk_g.next()) {
    const double* x = job.x->as<double>() + walk_x.offset();
    const double* g = job.given->as<double>() + walk_g.offset();
    double* out = job.out->as<double>() + row * n;
    auto direction = [&](int64_t i) { return weight ? g[i] * weight[i] : g[i]; };
    double mean = 0, square = 0, given = 0, along = 0;
    for (int64_t i = 0; job.centred && i < n; ++i) mean += x[i] * share;
    for (int64_t i = 0; i < n; ++i) square += (x[i] - mean) * (x[i] - mean);
    const double factor = 1 / std::sqrt(square * share + job.eps);
    for (int64_t i = 0; i < n; ++i) {
      if (job.centred) given += direction(i) * share;
      along += direction(i) * (x[i] - mean) * factor * share;
    }
    for (int64_t i = 0; i < n; ++i) {
      const double unit = (x[i] - mean) * factor;
      out[i] = (direction(i) - given - unit * along) * factor;
      if (sums.scale) sums.scale[i] += g[i] * unit;
      if (sums.shift) sums.shift[i] += g[i];
    }
  }
}

int64_t block_rows(const View& x) {
  const int64_t n = std::max<int64_t>(1, row_length(x));
  return std::max<int64_t>(1, std::max(kBlockElements, x.size() / kMostBlocks) / n);
}
int64_t block_count(const View& x) { return (row_count(x) + block_rows(x) - 1) / block_rows(x); }
int64_t sums_of(const ops::NormVjpParams& params) { return params.scale + params.shift; }

size_t workspace(const KernelCall& call) {
  const View& x = call.inputs[0];
  return static_cast<size_t>(block_count(x) * sums_of(call.as<ops::NormVjpParams>()) *
                             row_length(x)) *
         sizeof(double);
}

void write_sums(const double* sums, const View& out) {
  dispatch_floating(out.dtype, "norm_vjp", [&](auto tag) {
    using T = typename decltype(tag)::type;
    for (int64_t i = 0; i < out.size(); ++i) {
      if constexpr (std::is_same_v<T, double>)
        out.as<double>()[i] = sums[i];
      else
        out.as<T>()[i] = T(static_cast<float>(sums[i]));
    }
  });
}

void norm_vjp(const KernelCall& call) {
  const auto& params = call.as<ops::NormVjpParams>();
  const View& x = call.inputs[0];
  const int64_t n = row_length(x), rows = row_count(x), step = block_rows(x);
  NormBackwardJob job{&x,
                      params.weight ? &call.inputs[1] : nullptr,
                      &call.inputs.back(),
                      &call.outputs[0],
                      params.eps,
                      params.centred,
                      n};
  const int64_t blocks = block_count(x), stride = sums_of(params) * n;
  auto* all = reinterpret_cast<double*>(call.workspace.data());
  ThreadPool::shared().parallel_for(blocks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t block = begin; block < end; ++block) {
      double* own = all + block * stride;
      std::fill_n(own, stride, 0.0);
      NormSums sums{params.scale ? own : nullptr, params.shift ? own + params.scale * n : nullptr};
      const int64_t first = block * step, last = std::min(rows, first + step);
      if (x.dtype == Dtype::F64)
        norm_backward_doubles(job, first, last, sums);
      else
        HWY_DYNAMIC_DISPATCH(norm_backward_rows)(job, first, last, sums);
    }
  });
  if (stride == 0) return;
  std::vector<double> total(static_cast<size_t>(stride));
  for (int64_t block = 0; block < blocks; ++block)
    for (int64_t i = 0; i < stride; ++i) total[static_cast<size_t>(i)] += all[block * stride + i];
  for (size_t i = 1; i < call.outputs.size(); ++i)
    write_sums(total.data() + (i - 1) * static_cast<size_t>(n), call.outputs[i]);
}

}  // namespace

void norm_backward_kernels(KernelTable& registry) {
  registry.add(ops::norm_vjp_op, {.run = &norm_vjp,
                                  .layouts = {Layout::Rows, Layout::Rows, Layout::Rows},
                                  .workspace = &workspace});
}

}  // namespace mica::cpu
#endif
