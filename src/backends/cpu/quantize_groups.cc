#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backends/cpu/quantize_groups.cc"
#include "backends/cpu/highway_targets.h"
//
#include <hwy/foreach_target.h>  // IWYU pragma: keep
//
#include <limits>
#include <type_traits>

#include "backends/cpu/lanes-inl.h"
#include "backends/cpu/quantize_groups.h"

HWY_BEFORE_NAMESPACE();
namespace mica::cpu {
namespace HWY_NAMESPACE {

constexpr int kLargestGroup = 128;

// Eight integers below 2^bits, a byte each, as 8 · bits neighbouring bits.
HWY_INLINE uint64_t joined(uint64_t x, int bits) {
  constexpr uint64_t kPairs = 0x00ff00ff00ff00ff, kQuads = 0x0000ffff0000ffff;
  x = (x & kPairs) | ((x >> 8) & kPairs) << bits;
  x = (x & kQuads) | ((x >> 16) & kQuads) << (2 * bits);
  return (x & 0xffffffff) | (x >> 32) << (4 * bits);
}

#if HWY_TARGET != HWY_SCALAR
// False, having done nothing, where a value is not finite.
template <class T>
bool quantize_group(const T* w, const ops::QuantizationParams& p, uint8_t* packed,
                    ops::GroupScale& scale) {
  const F32 d;
  const auto lanes = static_cast<int>(hn::Lanes(d));
  HWY_ALIGN float values[kLargestGroup];
  VF32 low = load(d, w), high = low;
  auto finite = hn::Le(hn::Abs(low), hn::Set(d, std::numeric_limits<float>::max()));
  for (int i = 0; i < p.group_size; i += lanes) {
    const VF32 v = load(d, w + i);
    hn::Store(v, d, values + i);
    low = hn::Min(low, v);
    high = hn::Max(high, v);
    finite = hn::And(finite, hn::Le(hn::Abs(v), hn::Set(d, std::numeric_limits<float>::max())));
  }
  if (!hn::AllTrue(d, finite)) return false;
  scale = ops::GroupScale(hn::GetLane(hn::MinOfLanes(d, low)), hn::GetLane(hn::MaxOfLanes(d, high)),
                          p.bits);
  const VF32 bias = hn::Set(d, scale.bias), step = hn::Set(d, scale.scale),
             most = hn::Set(d, static_cast<float>((1 << p.bits) - 1));
  HWY_ALIGN uint8_t integers[kLargestGroup];
  const hn::Rebind<int32_t, F32> d32;
  const hn::Rebind<uint8_t, F32> d8;
  for (int i = 0; i < p.group_size; i += lanes) {
    VF32 v = hn::Round(hn::Div(hn::Sub(hn::Load(d, values + i), bias), step));
    v = hn::Min(hn::Max(v, hn::Zero(d)), most);
    hn::StoreU(hn::DemoteTo(d8, hn::ConvertTo(d32, v)), d8, integers + i);
  }
  for (int i = 0; i < p.group_size; i += 8, packed += p.bits) {
    uint64_t word;
    std::memcpy(&word, integers + i, 8);
    word = joined(word, p.bits);
    std::memcpy(packed, &word, static_cast<size_t>(p.bits));
  }
  return true;
}
#endif

template <class T>
void quantize_all(const T* w, int64_t groups, const ops::QuantizationParams& p, uint8_t* packed,
                  T* scales, T* biases) {
  for (int64_t g = 0; g < groups; ++g) {
    ops::GroupScale scale(0, 0, p.bits);
    bool done = false;
#if HWY_TARGET != HWY_SCALAR
    // Vectors longer than the smallest group do not divide it.
    if constexpr (!std::is_same_v<T, double>) {
      if (hn::Lanes(F32()) <= 16) done = quantize_group(w, p, packed, scale);
    }
#endif
    if (!done) {
      float values[kLargestGroup] = {};
      for (int i = 0; i < p.group_size; ++i) values[i] = static_cast<float>(w[i]);
      scale = quantize_values(values, p, packed);
    }
    scales[g] = T(scale.scale);
    biases[g] = T(scale.bias);
    w += p.group_size;
    packed += p.group_size * p.bits / 8;
  }
}

void quantize_any(const std::byte* w, Dtype dtype, int64_t groups, const ops::QuantizationParams& p,
                  std::byte* packed, std::byte* scales, std::byte* biases) {
  auto as = [&](auto tag) {
    using T = typename decltype(tag)::type;
    quantize_all(reinterpret_cast<const T*>(w), groups, p, reinterpret_cast<uint8_t*>(packed),
                 reinterpret_cast<T*>(scales), reinterpret_cast<T*>(biases));
  };
  switch (dtype) {
    case Dtype::F16: return as(TypeTag<float16_t>());
    case Dtype::BF16: return as(TypeTag<bfloat16_t>());
    case Dtype::F32: return as(TypeTag<float>());
    default: return as(TypeTag<double>());
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace mica::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace mica::cpu {

HWY_EXPORT(quantize_any);

void quantize_groups(const std::byte* w, Dtype dtype, int64_t groups,
                     const ops::QuantizationParams& p, std::byte* packed, std::byte* scales,
                     std::byte* biases) {
  HWY_DYNAMIC_DISPATCH(quantize_any)(w, dtype, groups, p, packed, scales, biases);
}

}  // namespace mica::cpu
#endif
