// Rotary embeddings. A task is a few positions of one sequence: it makes their cosines and sines
// once and turns the rows of all heads with them.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backends/cpu/rope.cc"
#include "backends/cpu/highway_targets.h"

#include <hwy/foreach_target.h>

#include "ops/rope.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

#include "backends/cpu/lanes-inl.h"
#include "backends/cpu/rows.h"
#include "base/thread_pool.h"
#include "core/backend.h"

#ifndef MICA_CPU_ROPE_ONCE
#define MICA_CPU_ROPE_ONCE
namespace mica::cpu {

inline constexpr int64_t kMaxBlock = 16;  // positions of one task

// One kernel call, as its tasks see it. x is [B, heads, L, D] with any strides but the last.
struct RopeJob {
  const View* x;
  const View* y;
  const ops::RopeParams* params;
  const float* frequencies;  // dims/2
  const int32_t* positions;
  int64_t positions_per_batch;  // strides of `positions`: 0 or 1, and 0, 1 or L
  bool explicit_positions;
  int64_t heads, length, width;
  int64_t batch_stride, row_stride;
  const int64_t* head_offsets;

  int32_t position(int64_t b, int64_t l) const {
    return explicit_positions ? positions[b * length + l]
                              : positions[b * positions_per_batch] + static_cast<int32_t>(l);
  }
};

}  // namespace mica::cpu
#endif

HWY_BEFORE_NAMESPACE();
namespace mica::cpu {
namespace HWY_NAMESPACE {

// Cosine and sine of n angles, to about 1 ulp. The angle is reduced by multiples of pi/2 given to
// three floats: exact with fused multiplication below the limit. The polynomials are Cephes'. All
// three arrays are readable and writable to the next multiple of 16.
void cos_sin(const float* angles, int64_t n, float* cosines, float* sines) {
  const F32 d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  int64_t i = 0;
#if HWY_NATIVE_FMA && HWY_TARGET != HWY_SCALAR
  const auto limit = hn::Set(d, 1e6f);
  const hn::Rebind<int32_t, F32> di;
  const auto shift = hn::Set(d, 12582912.0f);
  for (; i < n; i += lanes) {
    const auto x = hn::LoadU(d, angles + i);
    if (!hn::AllTrue(d, hn::Lt(hn::Abs(x), limit))) break;
    const auto shifted = hn::MulAdd(x, hn::Set(d, 0.636619772f), shift);
    const auto turns = hn::Sub(shifted, shift);
    auto r = hn::NegMulAdd(turns, hn::Set(d, 1.57079637f), x);
    r = hn::NegMulAdd(turns, hn::Set(d, -4.37113883e-8f), r);
    r = hn::NegMulAdd(turns, hn::Set(d, -1.71512489e-15f), r);
    const auto z = hn::Mul(r, r);
    auto s = hn::MulAdd(hn::Set(d, -1.9515295891e-4f), z, hn::Set(d, 8.3321608736e-3f));
    s = hn::MulAdd(s, z, hn::Set(d, -1.6666654611e-1f));
    s = hn::MulAdd(hn::Mul(s, z), r, r);
    auto c = hn::MulAdd(hn::Set(d, 2.443315711809948e-5f), z, hn::Set(d, -1.388731625493765e-3f));
    c = hn::MulAdd(c, z, hn::Set(d, 4.166664568298827e-2f));
    c = hn::MulAdd(hn::Mul(c, z), z, hn::NegMulAdd(z, hn::Set(d, 0.5f), hn::Set(d, 1.0f)));
    const auto quadrant = hn::BitCast(di, shifted);
    const auto odd = hn::RebindMask(d, hn::TestBit(quadrant, hn::Set(di, 1)));
    const auto s_sign = hn::ShiftLeft<30>(hn::And(quadrant, hn::Set(di, 2)));
    const auto c_sign =
        hn::ShiftLeft<30>(hn::And(hn::Add(quadrant, hn::Set(di, 1)), hn::Set(di, 2)));
    hn::StoreU(hn::Xor(hn::IfThenElse(odd, s, c), hn::BitCast(d, c_sign)), d, cosines + i);
    hn::StoreU(hn::Xor(hn::IfThenElse(odd, c, s), hn::BitCast(d, s_sign)), d, sines + i);
  }
#else
  (void)lanes;
#endif
  for (; i < n; ++i) {
    cosines[i] = static_cast<float>(std::cos(static_cast<double>(angles[i])));
    sines[i] = static_cast<float>(std::sin(static_cast<double>(angles[i])));
  }
}

// One position's factors. Half-split: cosines and sines of dims/2 pairs. Traditional: of all dims
// features, with the signs that a feature's partner is added with.
void fill_factors(const RopeJob& job, int32_t position, float* angles, float* cosines,
                  float* sines) {
  const ops::RopeParams& p = *job.params;
  const int64_t half = p.dims / 2;
  for (int64_t i = 0; i < half; ++i) angles[i] = static_cast<float>(position) * job.frequencies[i];
  std::fill(angles + half, angles + (half + 15) / 16 * 16, 0.0f);
  cos_sin(angles, half, cosines, sines);
  const float magnitude = static_cast<float>(p.magnitude), sign = p.backward ? -1.0f : 1.0f;
  for (int64_t i = half; i-- > 0;) {
    float c = cosines[i] * magnitude, s = sines[i] * magnitude * sign;
    if (p.traditional) {
      cosines[2 * i] = cosines[2 * i + 1] = c;
      sines[2 * i] = -s;
      sines[2 * i + 1] = s;
    } else {
      cosines[i] = c;
      sines[i] = s;
    }
  }
}

template <class T>
void turn_halves(const T* x, T* y, int64_t half, const float* cosines, const float* sines) {
  const F32 d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  int64_t i = 0;
  for (; i + lanes <= half; i += lanes) {
    auto a = load(d, x + i), b = load(d, x + half + i);
    auto c = hn::LoadU(d, cosines + i), s = hn::LoadU(d, sines + i);
    store(d, hn::NegMulAdd(b, s, hn::Mul(a, c)), y + i);
    store(d, hn::MulAdd(a, s, hn::Mul(b, c)), y + half + i);
  }
  for (; i < half; ++i) {
    float a = static_cast<float>(x[i]), b = static_cast<float>(x[half + i]);
    y[i] = T(a * cosines[i] - b * sines[i]);
    y[half + i] = T(b * cosines[i] + a * sines[i]);
  }
}

template <class T>
void turn_pairs(const T* x, T* y, int64_t dims, const float* cosines, const float* sines) {
  int64_t i = 0;
#if HWY_TARGET != HWY_SCALAR
  const F32 d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  for (; i + lanes <= dims; i += lanes) {
    auto v = load(d, x + i);
    auto turned = hn::Mul(v, hn::LoadU(d, cosines + i));
    store(d, hn::MulAdd(hn::Shuffle2301(v), hn::LoadU(d, sines + i), turned), y + i);
  }
#endif
  for (; i < dims; i += 2) {
    float a = static_cast<float>(x[i]), b = static_cast<float>(x[i + 1]);
    y[i] = T(a * cosines[i] + b * sines[i]);
    y[i + 1] = T(b * cosines[i + 1] + a * sines[i + 1]);
  }
}

// Positions `first` … `last - 1` of sequence b.
template <class T>
void rope_block(const RopeJob& job, int64_t b, int64_t first, int64_t last) {
  const int64_t dims = job.params->dims, count = last - first;
  const int64_t width = (dims + 15) / 16 * 16;
  thread_local std::vector<float> factors;
  factors.resize(static_cast<size_t>((2 * count + 1) * width));
  float *cosines = factors.data(), *sines = cosines + count * width;
  for (int64_t l = 0; l < count; ++l)
    fill_factors(job, job.position(b, first + l), sines + count * width, cosines + l * width,
                 sines + l * width);
  for (int64_t h = 0; h < job.heads; ++h) {
    const T* x = job.x->as<T>() + b * job.batch_stride + job.head_offsets[h];
    T* y = job.y->as<T>() + (b * job.heads + h) * job.length * job.width;
    for (int64_t l = 0; l < count; ++l) {
      const T* in = x + (first + l) * job.row_stride;
      T* out = y + (first + l) * job.width;
      if (job.params->traditional)
        turn_pairs(in, out, dims, cosines + l * width, sines + l * width);
      else
        turn_halves(in, out, dims / 2, cosines + l * width, sines + l * width);
      if (dims < job.width && in != out) std::copy(in + dims, in + job.width, out + dims);
    }
  }
}

void rope_lanes(const RopeJob& job, int64_t b, int64_t first, int64_t last) {
  dispatch_lanes(job.x->dtype,
                 [&](auto tag) { rope_block<typename decltype(tag)::type>(job, b, first, last); });
}

}  // namespace HWY_NAMESPACE
}  // namespace mica::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace mica::cpu {
namespace {

HWY_EXPORT(rope_lanes);

constexpr int64_t kTaskElements = 16384;

// Powers cost more than the rotation of one row: those of the last call are kept, per thread.
const float* frequencies_of(const ops::RopeParams& p, const float* given) {
  thread_local std::vector<float> kept;
  thread_local std::array<double, 3> key{};
  std::array<double, 3> wanted{static_cast<double>(p.dims), p.base, p.scale};
  bool from_base = p.frequencies == ops::RopeFrequencies::Base;
  if (from_base && wanted == key) return kept.data();
  kept.resize(static_cast<size_t>(p.dims / 2));
  for (int i = 0; i < p.dims / 2; ++i)
    kept[static_cast<size_t>(i)] = ops::rope_frequency(p, i, given ? given[i] : 0);
  key = from_base ? wanted : std::array<double, 3>{};
  return kept.data();
}

void rope_doubles(const RopeJob& job, int64_t b, int64_t first, int64_t last) {
  const ops::RopeParams& p = *job.params;
  const int64_t half = p.dims / 2, near = p.traditional ? 2 : 1, far = p.traditional ? 1 : half;
  for (int64_t h = 0; h < job.heads; ++h) {
    for (int64_t l = first; l < last; ++l) {
      const double* x =
          job.x->as<double>() + b * job.batch_stride + job.head_offsets[h] + l * job.row_stride;
      double* y = job.y->as<double>() + ((b * job.heads + h) * job.length + l) * job.width;
      for (int64_t i = 0; i < half; ++i) {
        float angle = static_cast<float>(job.position(b, l)) * job.frequencies[i];
        double c = std::cos(static_cast<double>(angle)) * p.magnitude;
        double s = std::sin(static_cast<double>(p.backward ? -angle : angle)) * p.magnitude;
        double u = x[near * i], v = x[near * i + far];
        y[near * i] = u * c - v * s;
        y[near * i + far] = v * c + u * s;
      }
      for (int64_t i = p.dims; i < job.width; ++i) y[i] = x[i];
    }
  }
}

void rope(const KernelCall& call) {
  const auto& params = call.as<ops::RopeParams>();
  const View &x = call.inputs[0], &positions = call.inputs[1];
  const size_t rank = x.shape.size();
  const int64_t batch = x.shape[0], length = x.shape[rank - 2], width = x.shape[rank - 1];
  if (x.size() == 0) return;

  View middle = x;  // the axes between sequence and position, as rows of one element
  middle.shape = Shape(std::span<const int64_t>(x.shape.data() + 1, rank - 3));
  middle.strides = Strides(std::span<const int64_t>(x.strides.data() + 1, rank - 3));
  middle.shape.push_back(1);
  middle.strides.push_back(1);
  const int64_t heads = row_count(middle);
  std::vector<int64_t> offsets(static_cast<size_t>(heads));
  RowWalk walk(middle, 0);
  for (int64_t& offset : offsets) {
    offset = walk.offset();
    walk.next();
  }

  const float* given = call.inputs.size() > 2 ? call.inputs[2].as<float>() : nullptr;
  RopeJob job{&x,
              &call.outputs[0],
              &params,
              frequencies_of(params, given),
              positions.as<int32_t>(),
              positions.shape.empty() ? 0 : 1,
              positions.shape.size() == 2,
              heads,
              length,
              width,
              x.strides[0],
              x.strides[rank - 2],
              offsets.data()};
  const int64_t block = std::clamp<int64_t>(kTaskElements / (heads * width), 1, kMaxBlock);
  const int64_t blocks = (length + block - 1) / block;
  // Few elements a block: several blocks a task.
  const int64_t grain = std::max<int64_t>(1, kTaskElements / (heads * width * block));
  ThreadPool::shared().parallel_for(batch * blocks, grain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      int64_t b = i / blocks, first = i % blocks * block;
      int64_t last = std::min(length, first + block);
      if (x.dtype == Dtype::F64)
        rope_doubles(job, b, first, last);
      else
        HWY_DYNAMIC_DISPATCH(rope_lanes)(job, b, first, last);
    }
  });
}

}  // namespace

void rope_kernels(KernelTable& registry) {
  registry.add(ops::rope_op,
               {.run = &rope, .layouts = {Layout::Rows, Layout::Contiguous}, .may_alias = 1});
}

}  // namespace mica::cpu
#endif
