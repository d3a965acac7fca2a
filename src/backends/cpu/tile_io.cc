#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backends/cpu/tile_io.cc"
#include <algorithm>

#include "backends/cpu/highway_targets.h"

#include <hwy/foreach_target.h>

#include "backends/cpu/lanes-inl.h"
#include "backends/cpu/tile_io.h"

HWY_BEFORE_NAMESPACE();
namespace mica::cpu::HWY_NAMESPACE {

template <class Half>
void widen(const void* halves, float* floats, int64_t n) {
  const F32 d;
  auto* from = static_cast<const Half*>(halves);
  for (int64_t i = 0; i < n; i += static_cast<int64_t>(hn::Lanes(d)))
    store(d, load(d, from + i), floats + i);
}
#if MICA_TABLES
template <>
void widen<bfloat16_t>(const void* halves, float* floats, int64_t n) {
  const F32 d;
  auto* from = static_cast<const bfloat16_t*>(halves);
  int64_t i = 0;
  for (; i + 32 <= n; i += 32) {
    VF32 first, second;
    widened(_mm512_loadu_si512(from + i), first, second);
    store(d, first, floats + i);
    store(d, second, floats + i + 16);
  }
  for (; i < n; i += 16) store(d, load(d, from + i), floats + i);
}
#endif
template <class Half>
void narrow(const float* floats, void* halves, int64_t n) {
  const F32 d;
  auto* to = static_cast<Half*>(halves);
  for (int64_t i = 0; i < n; i += static_cast<int64_t>(hn::Lanes(d)))
    store(d, load(d, floats + i), to + i);
}

WidenFunction choose_widen(Dtype half) {
  return half == Dtype::F16 ? &widen<float16_t> : &widen<bfloat16_t>;
}
NarrowFunction choose_narrow(Dtype half) {
  return half == Dtype::F16 ? &narrow<float16_t> : &narrow<bfloat16_t>;
}

void stream_lines(void* to, const void* from, size_t bytes) {
  const hn::ScalableTag<uint8_t> d;
  const size_t step = hn::Lanes(d);
  auto* out = static_cast<uint8_t*>(to);
  auto* in = static_cast<const uint8_t*>(from);
  for (size_t i = 0; i < bytes; i += step) hn::Stream(hn::LoadU(d, in + i), d, out + i);
}

}  // namespace mica::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace mica::cpu {

HWY_EXPORT(choose_widen);
HWY_EXPORT(choose_narrow);
HWY_EXPORT(stream_lines);

WidenFunction widen_function(Dtype half) { return HWY_DYNAMIC_DISPATCH(choose_widen)(half); }
NarrowFunction narrow_function(Dtype half) { return HWY_DYNAMIC_DISPATCH(choose_narrow)(half); }
void stream_copy(void* to, const void* from, size_t bytes) {
  HWY_DYNAMIC_DISPATCH(stream_lines)(to, from, bytes);
}
void stream_fence() { hwy::FlushStream(); }

void merge_axes(Shape& shape, Strides& strides) {
  size_t kept = 0;
  for (size_t i = 0; i < shape.size(); ++i) {
    if (shape[i] == 1) continue;
    if (kept > 0 && strides[kept - 1] == strides[i] * shape[i]) {
      shape[kept - 1] *= shape[i];
      strides[kept - 1] = strides[i];
    } else {
      shape[kept] = shape[i];
      strides[kept++] = strides[i];
    }
  }
  shape.resize(kept);
  strides.resize(kept);
}

namespace {

template <class T>
void copy_row(const T* from, int64_t stride, int64_t count, T* to) {
  if (stride == 1) {
    std::memcpy(to, from, static_cast<size_t>(count) * sizeof(T));
  } else if (stride == 0) {
    std::fill_n(to, count, *from);
  } else {
    for (int64_t i = 0; i < count; ++i) to[i] = from[i * stride];
  }
}

template <class T>
void gather_as(const T* from, const Shape& shape, const Strides& strides, int64_t start,
               int64_t count, T* to) {
  size_t rank = shape.size();
  if (rank == 0) return copy_row(from, 0, count, to);
  Dims index(rank, 0);
  for (size_t i = rank; i-- > 0 && start > 0; start /= shape[i]) {
    index[i] = start % shape[i];
    from += index[i] * strides[i];
  }
  const int64_t row = shape[rank - 1], step = strides[rank - 1];
  for (;;) {
    int64_t run = std::min(count, row - index[rank - 1]);
    copy_row(from, step, run, to);
    count -= run;
    if (count == 0) return;
    to += run;
    from -= index[rank - 1] * step;
    index[rank - 1] = 0;
    for (size_t i = rank - 1; i-- > 0;) {
      from += strides[i];
      if (++index[i] < shape[i]) break;
      from -= shape[i] * strides[i];
      index[i] = 0;
    }
  }
}

// Calls f with the unsigned type of an element's size: elements move as bits.
template <class F>
void with_bits(size_t element_bytes, F&& f) {
  switch (element_bytes) {
    case 1: return f(uint8_t{});
    case 2: return f(uint16_t{});
    case 4: return f(uint32_t{});
    default: return f(uint64_t{});
  }
}

}  // namespace

void gather(const std::byte* from, size_t element_bytes, const Shape& shape, const Strides& strides,
            int64_t start, int64_t count, void* to) {
  with_bits(element_bytes, [&](auto bits) {
    using T = decltype(bits);
    gather_as(reinterpret_cast<const T*>(from), shape, strides, start, count, static_cast<T*>(to));
  });
}

void splat(const void* element, size_t element_bytes, int64_t count, void* to) {
  with_bits(element_bytes, [&](auto bits) {
    using T = decltype(bits);
    std::fill_n(static_cast<T*>(to), count, *static_cast<const T*>(element));
  });
}

}  // namespace mica::cpu
#endif
