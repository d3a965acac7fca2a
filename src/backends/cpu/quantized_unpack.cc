#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backends/cpu/quantized_unpack.cc"
#include "backends/cpu/highway_targets.h"
//
#include <hwy/foreach_target.h>  // IWYU pragma: keep
//
#include <algorithm>

#include "backends/cpu/bits-inl.h"
#include "backends/cpu/lanes-inl.h"
#include "backends/cpu/quantized.h"

HWY_BEFORE_NAMESPACE();
namespace mica::cpu {
namespace HWY_NAMESPACE {

// Columns that are unpacked at a time.
constexpr int64_t kBlock = 512;

void integers_of_4(const uint8_t* from, int64_t count, uint8_t* to) {
  int64_t i = 0;
#if HWY_TARGET != HWY_SCALAR
  const hn::FixedTag<uint8_t, 16> d;
  const auto mask = hn::Set(d, 15);
  for (; i + 32 <= count; i += 32, from += 16) {
    const auto bytes = hn::LoadU(d, from);
    const auto low = hn::And(bytes, mask);
    const hn::Repartition<uint16_t, decltype(d)> d16;
    const auto high = hn::And(hn::BitCast(d, hn::ShiftRight<4>(hn::BitCast(d16, bytes))), mask);
    hn::StoreU(hn::InterleaveLower(d, low, high), d, to + i);
    hn::StoreU(hn::InterleaveUpper(d, low, high), d, to + i + 16);
  }
#endif
  for (; i < count; i += 2, ++from) {
    to[i] = *from & 15;
    to[i + 1] = *from >> 4;
  }
}

// The integers first … first + count of a packed row: in `buffer`, or where they lie.
HWY_INLINE const uint8_t* integers(const uint32_t* row, int bits, int64_t first, int64_t count,
                                   uint8_t* buffer) {
  const uint8_t* from = reinterpret_cast<const uint8_t*>(row) + first * bits / 8;
  switch (bits) {
    case 2: unpack_bits<2>(from, count, buffer); break;
    case 3: unpack_bits<3>(from, count, buffer); break;
    case 4: integers_of_4(from, count, buffer); break;
    case 5: unpack_bits<5>(from, count, buffer); break;
    case 6: unpack_bits<6>(from, count, buffer); break;
    default: return from;
  }
  return buffer;
}

// Calls f(integers, group, place, count) for the part of each group between first and first +
// count.
template <class F>
HWY_INLINE void for_each_group(const QuantizedMatrix& m, int64_t row, int64_t first, int64_t count,
                               F&& f) {
  uint8_t buffer[kBlock];
  for (int64_t begin = 0; begin < count; begin += kBlock) {
    const int64_t some = std::min(kBlock, count - begin);
    const uint8_t* block = integers(m.packed_row(row), m.bits, first + begin, some, buffer);
    for (int64_t i = 0; i < some;) {
      const int64_t group = (first + begin + i) / m.group_size;
      const int64_t part = std::min(some - i, (group + 1) * m.group_size - (first + begin + i));
      f(block + i, group, begin + i, part);
      i += part;
    }
  }
}

template <class T>
HWY_INLINE T element_of(const std::byte* row, Dtype dtype, int64_t i) {
  switch (dtype) {
    case Dtype::F16: return static_cast<float>(reinterpret_cast<const float16_t*>(row)[i]);
    case Dtype::BF16: return static_cast<float>(reinterpret_cast<const bfloat16_t*>(row)[i]);
    case Dtype::F32: return reinterpret_cast<const float*>(row)[i];
    default: return static_cast<T>(reinterpret_cast<const double*>(row)[i]);
  }
}

HWY_INLINE VF32 widen(F32 d, const uint8_t* q) {
  const hn::Rebind<uint8_t, F32> d8;
  const hn::Rebind<int32_t, F32> d32;
  return hn::ConvertTo(d, hn::PromoteTo(d32, hn::LoadU(d8, q)));
}

void unpack_float(const QuantizedMatrix& m, int64_t row, int64_t first, int64_t count, float* to) {
  const F32 d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  for_each_group(m, row, first, count, [&](const uint8_t* q, int64_t g, int64_t place, int64_t n) {
    float scale = element_of<float>(m.scales_row(row), m.scales_dtype, g);
    float bias = element_of<float>(m.biases_row(row), m.biases_dtype, g);
    float* out = to + place;
    int64_t i = 0;
    for (; i + lanes <= n; i += lanes)
      hn::StoreU(hn::Add(hn::Mul(widen(d, q + i), hn::Set(d, scale)), hn::Set(d, bias)), d,
                 out + i);
    for (; i < n; ++i) out[i] = static_cast<float>(q[i]) * scale + bias;
  });
}

void unpack_double(const QuantizedMatrix& m, int64_t row, int64_t first, int64_t count,
                   double* to) {
  for_each_group(m, row, first, count, [&](const uint8_t* q, int64_t g, int64_t place, int64_t n) {
    double scale = element_of<double>(m.scales_row(row), m.scales_dtype, g);
    double bias = element_of<double>(m.biases_row(row), m.biases_dtype, g);
    for (int64_t i = 0; i < n; ++i) to[place + i] = q[i] * scale + bias;
  });
}

void unpack_integers(const QuantizedMatrix& m, int64_t row, int64_t columns, uint8_t* to) {
  const uint8_t* from = integers(m.packed_row(row), m.bits, 0, columns, to);
  if (from != to) std::copy_n(from, columns, to);
}

// q - 2^(bits - 1), which bfloat16 holds exactly.
void unpack_centred(const QuantizedMatrix& m, int64_t row, int64_t first, int64_t count,
                    bfloat16_t* to) {
  const F32 d;
  const hn::Rebind<uint32_t, F32> d32;
  const hn::Rebind<int32_t, F32> di32;
  const hn::Rebind<uint16_t, F32> d16;
  const auto centre = hn::Set(d, static_cast<float>(1 << (m.bits - 1)));
  for_each_group(m, row, first, count, [&](const uint8_t* q, int64_t, int64_t place, int64_t n) {
    for (int64_t i = 0; i < n; i += static_cast<int64_t>(hn::Lanes(d))) {
      // The lower half of such a float is zero.
      const auto bits = hn::BitCast(d32, hn::Sub(widen(d, q + i), centre));
      hn::StoreU(hn::DemoteTo(d16, hn::BitCast(di32, hn::ShiftRight<16>(bits))), d16,
                 reinterpret_cast<uint16_t*>(to + place + i));
    }
  });
}

template <class S>
void dequantize_half(const QuantizedMatrix& m, int64_t row, int64_t columns, S* to) {
  const F32 d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  for_each_group(m, row, 0, columns, [&](const uint8_t* q, int64_t g, int64_t place, int64_t n) {
    const auto scale = hn::Set(d, element_of<float>(m.scales_row(row), m.scales_dtype, g));
    const auto bias = hn::Set(d, element_of<float>(m.biases_row(row), m.biases_dtype, g));
    for (int64_t i = 0; i < n; i += lanes) {
      const auto product = rounded_to(d, hn::Mul(widen(d, q + i), scale), TypeTag<S>{});
      store(d, hn::Add(product, bias), to + place + i);
    }
  });
}

void dequantize_any(const QuantizedMatrix& m, int64_t row, int64_t columns, std::byte* to) {
  switch (m.scales_dtype) {
    case Dtype::F16: return dequantize_half(m, row, columns, reinterpret_cast<float16_t*>(to));
    case Dtype::BF16: return dequantize_half(m, row, columns, reinterpret_cast<bfloat16_t*>(to));
    case Dtype::F32: return unpack_float(m, row, 0, columns, reinterpret_cast<float*>(to));
    default: return unpack_double(m, row, 0, columns, reinterpret_cast<double*>(to));
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace mica::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace mica::cpu {

HWY_EXPORT(unpack_float);
HWY_EXPORT(unpack_double);
HWY_EXPORT(dequantize_any);
HWY_EXPORT(unpack_centred);
HWY_EXPORT(unpack_integers);

template <>
void unpack_row(const QuantizedMatrix& matrix, int64_t row, int64_t first, int64_t count,
                float* to) {
  HWY_DYNAMIC_DISPATCH(unpack_float)(matrix, row, first, count, to);
}
template <>
void unpack_row(const QuantizedMatrix& matrix, int64_t row, int64_t first, int64_t count,
                double* to) {
  HWY_DYNAMIC_DISPATCH(unpack_double)(matrix, row, first, count, to);
}
void unpack_integers(const QuantizedMatrix& matrix, int64_t row, int64_t columns, uint8_t* to) {
  HWY_DYNAMIC_DISPATCH(unpack_integers)(matrix, row, columns, to);
}
void unpack_centred(const QuantizedMatrix& matrix, int64_t row, int64_t first, int64_t count,
                    bfloat16_t* to) {
  HWY_DYNAMIC_DISPATCH(unpack_centred)(matrix, row, first, count, to);
}
void dequantize_row(const QuantizedMatrix& matrix, int64_t row, int64_t columns, std::byte* to) {
  HWY_DYNAMIC_DISPATCH(dequantize_any)(matrix, row, columns, to);
}

}  // namespace mica::cpu
#endif
