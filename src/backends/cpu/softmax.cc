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
#include <iterator>
#include <limits>
#include <type_traits>
#include <vector>

#include "backends/cpu/lanes-inl.h"
#include "backends/cpu/rows.h"
#include "backends/cpu/scratch.h"
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

inline constexpr double kInfinity = std::numeric_limits<double>::infinity();

inline int64_t pieces_of(int64_t length) { return (length + kPiece - 1) / kPiece; }

// How a piece weighs in its row; both largest elements may be infinite.
inline double weight_of(const Partial& piece, const Partial& row) {
  return piece.largest == row.largest ? 1 : std::exp(piece.largest - row.largest);
}
inline Partial total_of(const Partial* pieces, int64_t count) {
  Partial total;
  for (int64_t i = 0; i < count; ++i) total.largest = std::max(total.largest, pieces[i].largest);
  for (int64_t i = 0; i < count; ++i) total.sum += pieces[i].sum * weight_of(pieces[i], total);
  return total;
}
// What the terms of a piece are multiplied with.
inline float factor_of(const Partial& piece, const Partial& row) {
  return static_cast<float>(weight_of(piece, row) / row.sum);
}

// The pieces of all rows, from one of them on.
class PieceWalk {
 public:
  PieceWalk(const View& x, int64_t piece)
      : rows_(x, piece / pieces_of(row_length(x))),
        length_(row_length(x)),
        start_(piece % pieces_of(length_) * kPiece) {}
  int64_t offset() const { return rows_.offset() + start_; }
  int64_t count() const { return std::min(kPiece, length_ - start_); }
  void next() {
    start_ += kPiece;
    if (start_ < length_) return;
    start_ = 0;
    rows_.next();
  }

 private:
  RowWalk rows_;
  int64_t length_, start_;
};

}  // namespace mica::cpu
#endif

HWY_BEFORE_NAMESPACE();
namespace mica::cpu {
namespace HWY_NAMESPACE {

// The three steps of a unit of elements, a row or a piece of one: its largest element is found, its
// terms exp(x - largest) are computed and added up, and the terms become results. They are taken by
// different units at the same time, so that reading, arithmetic and writing overlap. A step whose
// pointer is null is not taken.
template <class T>
struct Steps {
  const T* find = nullptr;
  const T* x = nullptr;
  const float* scale = nullptr;  // terms
  int64_t find_count = 0, count = 0, scale_count = 0;
  float largest = -std::numeric_limits<float>::infinity();  // found
  float base = 0;                                           // of x
  double sum = 0;                                           // of the terms of x
  float* terms = nullptr;  // null: not kept; may be what `scale` reads, of as many elements
  float factor = 0;
  T* y = nullptr;
};

template <class T>
HWY_INLINE void fetch_ahead(const T* x) {
  prefetch_far(reinterpret_cast<const std::byte*>(x) + kFetchAhead);
}

// Two vectors of some steps at a time from element `i` on, as far as `end` allows; returns where it
// stopped.
template <bool kFind, bool kSum, bool kKeep, Store kStore, class T>
HWY_INLINE int64_t step_blocks(const Steps<T>& s, VF32 (&most)[2], VF32 (&sums)[2], int64_t i,
                               int64_t end) {
  const F32 d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  const auto base = hn::Set(d, s.base), factor = hn::Set(d, s.factor);
  VF32 m0 = most[0], m1 = most[1], s0 = sums[0], s1 = sums[1];
  for (; i + 2 * lanes <= end; i += 2 * lanes) {
    if constexpr (kFind) {
      fetch_ahead(s.find + i);
      if (sizeof(T) == 4) fetch_ahead(s.find + i + lanes);
      m0 = hn::Max(load(d, s.find + i), m0);
      m1 = hn::Max(load(d, s.find + i + lanes), m1);
    }
    if constexpr (kStore != Store::None) {
      const auto y0 = hn::Mul(hn::LoadU(d, s.scale + i), factor);
      const auto y1 = hn::Mul(hn::LoadU(d, s.scale + i + lanes), factor);
      if constexpr (kStore == Store::Past) {
        hn::Stream(y0, d, s.y + i);
        hn::Stream(y1, d, s.y + i + lanes);
      } else {
        store(d, y0, s.y + i);
        store(d, y1, s.y + i + lanes);
      }
    }
    if constexpr (kSum) {
      const auto e0 = exp_negative(d, hn::Sub(load(d, s.x + i), base));
      const auto e1 = exp_negative(d, hn::Sub(load(d, s.x + i + lanes), base));
      if constexpr (kKeep) {
        store(d, e0, s.terms + i);
        store(d, e1, s.terms + i + lanes);
      }
      s0 = hn::Add(s0, e0);
      s1 = hn::Add(s1, e1);
    }
  }
  most[0] = m0, most[1] = m1, sums[0] = s0, sums[1] = s1;
  return i;
}

template <class T>
HWY_NOINLINE void finish_find(const Steps<T>& s, VF32 (&most)[2], VF32 (&sums)[2], int64_t i) {
  const F32 d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  constexpr float kLow = -std::numeric_limits<float>::infinity();
  i = step_blocks<true, false, false, Store::None>(s, most, sums, i, s.find_count);
  for (; i < s.find_count; i += lanes)
    most[0] = hn::Max(
        load_part(d, s.find + i, static_cast<size_t>(std::min(lanes, s.find_count - i)), kLow),
        most[0]);
}

// NaNs reach the sum.
template <class T>
HWY_NOINLINE void finish_sum(const Steps<T>& s, VF32 (&most)[2], VF32 (&sums)[2], int64_t i) {
  const F32 d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  i = s.terms ? step_blocks<false, true, true, Store::None>(s, most, sums, i, s.count)
              : step_blocks<false, true, false, Store::None>(s, most, sums, i, s.count);
  for (; i < s.count; i += lanes) {
    auto n = static_cast<size_t>(std::min(lanes, s.count - i));
    auto e = exp_negative(d, hn::Sub(load_part(d, s.x + i, n), hn::Set(d, s.base)));
    e = hn::IfThenElseZero(hn::FirstN(d, n), e);
    if (s.terms) store(d, e, s.terms + i);
    sums[0] = hn::Add(sums[0], e);
  }
}

template <bool kPast, class T>
HWY_NOINLINE void finish_scale(const Steps<T>& s, VF32 (&most)[2], VF32 (&sums)[2], int64_t i) {
  const F32 d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  constexpr Store kStore = kPast ? Store::Past : Store::Cached;
  i = step_blocks<false, false, false, kStore>(s, most, sums, i, s.scale_count);
  for (; i < s.scale_count; i += lanes) {
    const auto y = hn::Mul(hn::LoadU(d, s.scale + i), hn::Set(d, s.factor));
    store_part(d, y, s.y + i, static_cast<size_t>(std::min(lanes, s.scale_count - i)));
  }
}

// Takes the steps: together as far as all of them have elements, then each its rest.
template <bool kPast, class T>
HWY_INLINE void take(Steps<T>& s) {
  const F32 d;
  const auto low = hn::Set(d, -std::numeric_limits<float>::infinity());
  VF32 most[2] = {low, low}, sums[2] = {hn::Zero(d), hn::Zero(d)};
  constexpr Store kStore = kPast ? Store::Past : Store::Cached;
  int64_t i = 0;
  if (s.find && s.x) {
    const int64_t both = std::min(s.find_count, s.count);
    if (s.scale)
      i = step_blocks<true, true, true, kStore>(s, most, sums, 0, std::min(both, s.scale_count));
    else if (!s.terms)
      i = step_blocks<true, true, false, Store::None>(s, most, sums, 0, both);
  }
  if (i < s.find_count || i < s.scale_count || i < s.count) {
    VF32 all_most[2] = {most[0], most[1]}, all_sums[2] = {sums[0], sums[1]};
    if (s.find) finish_find(s, all_most, all_sums, i);
    if (s.scale) finish_scale<kPast>(s, all_most, all_sums, i);
    if (s.x) finish_sum(s, all_most, all_sums, i);
    most[0] = all_most[0], most[1] = all_most[1];
    sums[0] = all_sums[0], sums[1] = all_sums[1];
  }
  if (s.find) s.largest = max_lanes(d, hn::Max(most[0], most[1]));
  if (s.x) s.sum = sum_lanes(d, hn::Add(sums[0], sums[1]));
}

// A unit whose largest element is known, or will be when its turn comes.
template <class T>
struct Found {
  const T* x;
  int64_t count;
  float largest;
};
// How many units ahead largest elements are found: short units would otherwise wait for them.
constexpr int64_t kShort = 1024, kShortLead = 4;
constexpr int64_t lead_of(int64_t length) { return length <= kShort ? kShortLead : 1; }

// What `largest` is subtracted as.
HWY_INLINE float base_of(float largest) {
  return largest == -std::numeric_limits<float>::infinity() ? 0 : largest;
}

template <class T>
void find_partials(const View& x, int64_t begin, int64_t end, Partial* partials) {
  const int64_t length = row_length(x), lead = lead_of(length);
  PieceWalk walk(x, begin);
  Found<T> found[kShortLead];
  for (int64_t t = begin; t < end + lead; ++t) {
    Steps<T> s;
    Found<T>& unit = found[t % lead];
    if (t >= begin + lead) {
      s.x = unit.x;
      s.count = unit.count;
      s.base = base_of(unit.largest);
    }
    const float largest = unit.largest;
    if (t < end) {
      s.find = x.as<T>() + walk.offset();
      s.find_count = walk.count();
      walk.next();
    }
    take<false>(s);
    if (s.x) partials[t - lead - begin] = {largest, s.sum};
    unit = {s.find, s.find_count, s.largest};
  }
}

// Whole rows, of one piece or of several whose terms are kept until the row's sum is known.
template <bool kPast, class T>
void softmax_whole(const View& x, const View& y, int64_t begin, int64_t end) {
  const int64_t length = row_length(x), pieces = pieces_of(length), lead = lead_of(length);
  const int64_t slots = std::max(pieces, lead);
  const int64_t stride = Scratch::padded(std::min(length, kPiece) + 2 * hn::MaxLanes(F32()));
  Scratch scratch(slots * stride + Scratch::padded(slots));
  float* terms = scratch.take(slots * stride);
  float* factors = scratch.take(slots);
  std::vector<Partial> partials(static_cast<size_t>(slots));
  begin *= pieces, end *= pieces;
  PieceWalk walk(x, begin);
  T* out = y.as<T>() + begin / pieces * length;
  Found<T> found[kShortLead];
  // At t, unit t is looked at, t - lead gets its terms, and that of its slot before it is written.
  for (int64_t t = begin; t < end + lead + slots; ++t) {
    Steps<T> s;
    Found<T>& unit = found[t % lead];
    const int64_t now = t - lead, old = now - slots, slot = (now - begin) % slots;
    if (t < end) {
      s.find = x.as<T>() + walk.offset();
      s.find_count = walk.count();
      walk.next();
    }
    if (now >= begin && now < end) {
      s.x = unit.x;
      s.count = unit.count;
      s.base = base_of(unit.largest);
      s.terms = terms + slot * stride;
    }
    if (old >= begin) {
      s.scale = terms + slot * stride;
      s.scale_count = std::min(kPiece, length - old % pieces * kPiece);
      s.factor = factors[slot];
      s.y = out;
      out += s.scale_count;
    }
    const float largest = unit.largest;
    take<kPast>(s);
    if (s.x) {
      partials[static_cast<size_t>(slot)] = {largest, s.sum};
      if (now % pieces == pieces - 1) {
        const Partial* own = partials.data() + slot + 1 - pieces;
        const Partial total = total_of(own, pieces);
        for (int64_t p = 0; p < pieces; ++p)
          factors[slot + 1 - pieces + p] = factor_of(own[p], total);
      }
    }
    unit = {s.find, s.find_count, s.largest};
  }
  if (kPast) hwy::FlushStream();
}

// Pieces of rows whose sums are known: the same terms again, times the same factors.
template <bool kPast, class T>
void softmax_again(const View& x, const View& y, int64_t begin, int64_t end,
                   const Partial* partials, const Partial* totals) {
  HWY_ALIGN float terms[kPiece + hn::MaxLanes(F32())];
  const int64_t length = row_length(x), pieces = pieces_of(length);
  PieceWalk walk(x, begin);
  for (int64_t u = begin; u < end; ++u, walk.next()) {
    Steps<T> s;
    s.x = x.as<T>() + walk.offset();
    s.count = walk.count();
    s.base = base_of(static_cast<float>(partials[u].largest));
    s.terms = terms;
    take<kPast>(s);
    Steps<T> last;
    last.scale = terms;
    last.scale_count = s.count;
    last.factor = factor_of(partials[u], totals[u / pieces]);
    last.y = y.as<T>() + u / pieces * length + u % pieces * kPiece;
    take<kPast>(last);
  }
  if (kPast) hwy::FlushStream();
}

void partial_lanes(const View& x, int64_t begin, int64_t end, Partial* partials) {
  dispatch_lanes(x.dtype, [&](auto tag) {
    find_partials<typename decltype(tag)::type>(x, begin, end, partials);
  });
}

void softmax_lanes(const View& x, const View& y, int64_t begin, int64_t end,
                   const Partial* partials, const Partial* totals) {
  const bool past = goes_past(y, row_length(x));
  dispatch_lanes(x.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    if constexpr (std::is_same_v<T, float>) {
      if (past && partials) return softmax_again<true, T>(x, y, begin, end, partials, totals);
      if (past) return softmax_whole<true, T>(x, y, begin, end);
    }
    if (partials) return softmax_again<false, T>(x, y, begin, end, partials, totals);
    softmax_whole<false, T>(x, y, begin, end);
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

constexpr int64_t kTaskElements = 16384, kLargeTaskElements = 131072;
// Longer rows, and rows that are too few for the threads to share, are read twice.
constexpr int64_t kWholeRow = int64_t{1} << 18, kEnoughRows = 16;

void partials_of(const View& x, int64_t begin, int64_t end, Partial* partials) {
  if (x.dtype != Dtype::F64) return HWY_DYNAMIC_DISPATCH(partial_lanes)(x, begin, end, partials);
  PieceWalk walk(x, begin);
  for (int64_t u = begin; u < end; ++u, walk.next()) {
    const double* piece = x.as<double>() + walk.offset();
    Partial own;
    for (int64_t i = 0; i < walk.count(); ++i) own.largest = std::max(own.largest, piece[i]);
    double base = own.largest == -kInfinity ? 0 : own.largest;
    for (int64_t i = 0; i < walk.count(); ++i) own.sum += std::exp(piece[i] - base);
    partials[u - begin] = own;
  }
}

double logsumexp_of(const Partial& p) {
  if (p.largest == kInfinity) return kInfinity;
  return (p.largest == -kInfinity ? 0 : p.largest) + std::log(p.sum);
}

bool is_whole(const View& x) {
  int64_t length = row_length(x);
  return x.dtype != Dtype::F64 &&
         (length <= kPiece || (length <= kWholeRow && row_count(x) >= kEnoughRows));
}

size_t partials_size(const View& x) {
  return static_cast<size_t>(row_count(x) * (pieces_of(row_length(x)) + 1)) * sizeof(Partial);
}
size_t softmax_workspace(const KernelCall& call) {
  return is_whole(call.inputs[0]) ? 0 : partials_size(call.inputs[0]);
}
size_t logsumexp_workspace(const KernelCall& call) {
  return row_length(call.inputs[0]) <= kPiece ? 0 : partials_size(call.inputs[0]);
}

// Units of `length` elements worth handing to a thread: more of them where there are many, as the
// first and the last of a task overlap with nothing.
int64_t grain_of(const View& x, int64_t length) {
  int64_t task = std::clamp(x.size() / 64, kTaskElements, kLargeTaskElements);
  return std::max<int64_t>(1, task / std::max<int64_t>(1, length));
}

// Largest elements and sums of all pieces, and then, behind them, of all rows.
Partial* row_partials(const KernelCall& call) {
  const View& x = call.inputs[0];
  int64_t length = row_length(x), pieces = pieces_of(length), rows = row_count(x);
  auto* parts = reinterpret_cast<Partial*>(call.workspace.data());
  ThreadPool::shared().parallel_for(
      rows * pieces, grain_of(x, std::min(length, kPiece)),
      [&](int64_t begin, int64_t end) { partials_of(x, begin, end, parts + begin); });
  Partial* totals = parts + rows * pieces;
  for (int64_t row = 0; row < rows; ++row) totals[row] = total_of(parts + row * pieces, pieces);
  return totals;
}

void softmax_doubles(const View& x, const View& y, int64_t begin, int64_t end,
                     const Partial* totals) {
  int64_t length = row_length(x), pieces = pieces_of(length);
  PieceWalk walk(x, begin);
  for (int64_t u = begin; u < end; ++u, walk.next()) {
    const Partial& row = totals[u / pieces];
    const double* in = x.as<double>() + walk.offset();
    double* out = y.as<double>() + u / pieces * length + u % pieces * kPiece;
    for (int64_t i = 0; i < walk.count(); ++i) out[i] = std::exp(in[i] - row.largest) / row.sum;
  }
}

void softmax(const KernelCall& call) {
  const View &x = call.inputs[0], &y = call.outputs[0];
  int64_t length = row_length(x), pieces = pieces_of(length), rows = row_count(x);
  if (rows == 0) return;
  if (is_whole(x)) {
    ThreadPool::shared().parallel_for(rows, grain_of(x, length), [&](int64_t begin, int64_t end) {
      HWY_DYNAMIC_DISPATCH(softmax_lanes)(x, y, begin, end, nullptr, nullptr);
    });
    return;
  }
  const Partial* totals = row_partials(call);
  ThreadPool::shared().parallel_for(
      rows * pieces, grain_of(x, std::min(length, kPiece)), [&](int64_t begin, int64_t end) {
        if (x.dtype == Dtype::F64)
          softmax_doubles(x, y, begin, end, totals);
        else
          HWY_DYNAMIC_DISPATCH(softmax_lanes)(x, y, begin, end, totals - rows * pieces, totals);
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
  if (length > kPiece) {
    const Partial* totals = row_partials(call);
    for (int64_t row = 0; row < row_count(x); ++row) store_float(y, row, logsumexp_of(totals[row]));
    return;
  }
  if (length == 0) {
    for (int64_t row = 0; row < y.size(); ++row) store_float(y, row, logsumexp_of(Partial{}));
    return;
  }
  ThreadPool::shared().parallel_for(
      row_count(x), grain_of(x, length), [&](int64_t begin, int64_t end) {
        Partial some[256];
        for (int64_t row = begin; row < end; row += std::ssize(some)) {
          int64_t count = std::min<int64_t>(std::ssize(some), end - row);
          partials_of(x, row, row + count, some);
          for (int64_t i = 0; i < count; ++i) store_float(y, row + i, logsumexp_of(some[i]));
        }
      });
}

}  // namespace

void softmax_kernels(KernelTable& registry) {
  registry.add(ops::softmax_op, {.run = &softmax,
                                 .layouts = {Layout::Rows},
                                 .workspace = &softmax_workspace,
                                 .may_alias = 1});
  registry.add(ops::logsumexp_op,
               {.run = &logsumexp, .layouts = {Layout::Rows}, .workspace = &logsumexp_workspace});
}

}  // namespace mica::cpu
#endif
