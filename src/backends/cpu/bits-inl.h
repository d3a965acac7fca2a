// Integers of 2, 3, 5 or 6 bits from packed rows, in which those of eight columns fill as many
// bytes as an integer has bits. Included by kernel files once per vector instruction set (Highway's
// foreach_target).
#if defined(MICA_CPU_BITS_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef MICA_CPU_BITS_INL_H
#undef MICA_CPU_BITS_INL_H
#else
#define MICA_CPU_BITS_INL_H
#endif

#include <array>
#include <cstring>

#include "backends/cpu/lanes-inl.h"

HWY_BEFORE_NAMESPACE();
namespace mica::cpu {
namespace HWY_NAMESPACE {

#if HWY_ARCH_X86 && HWY_MAX_BYTES == 64

// AVX-512 VBMI, for which Highway's targets have no name before AVX3_DL.
inline bool has_byte_shifts() {
  static const bool has = __builtin_cpu_supports("avx512vbmi");
  return has;
}

// The order of eight columns that follow each other: as they are, or i and i + 4 side by side.
enum class Columns { InOrder, InPairs };

// Of 8 * kBits packed bytes the integers, one in each byte, from bit kAt on; the other bits are
// anything.
template <int kBits, Columns kColumns = Columns::InOrder, int kAt = 0>
HWY_INLINE __m512i unpacked_line(__m512i packed) {
  // Eight bytes from the one on in which those of eight columns begin, then eight bits for each.
  alignas(64) static constexpr auto kBytes = [] {
    std::array<uint8_t, 64> places{};
    for (size_t i = 0; i < 64; ++i) places[i] = static_cast<uint8_t>(i / 8 * kBits + i % 8);
    return places;
  }();
  alignas(64) static constexpr auto kShifts = [] {
    std::array<uint8_t, 64> shifts{};
    for (size_t i = 0; i < 64; ++i) {
      const size_t column = kColumns == Columns::InOrder ? i % 8 : i % 8 / 2 + i % 2 * 4;
      shifts[i] = static_cast<uint8_t>((column * kBits - kAt) % 64);
    }
    return shifts;
  }();
  __m512i bytes, result;
  asm("vpermb %1, %2, %0" : "=v"(bytes) : "v"(packed), "v"(_mm512_load_si512(kBytes.data())));
  asm("vpmultishiftqb %1, %2, %0"
      : "=v"(result)
      : "v"(bytes), "v"(_mm512_load_si512(kShifts.data())));
  return result;
}

#endif

#if HWY_TARGET != HWY_SCALAR

// Of 2 * kBits packed bytes, the first of 16, the integers, each a byte.
template <int kBits>
HWY_INLINE hn::Vec<hn::FixedTag<uint8_t, 16>> unpacked_block(
    hn::Vec<hn::FixedTag<uint8_t, 16>> packed) {
  const hn::FixedTag<uint8_t, 16> d8;
  const hn::FixedTag<uint32_t, 4> d32;
  // Word i gets the bytes in which columns 4 * i … are, from the bit on where they begin.
  alignas(16) static constexpr auto kBytes = [] {
    std::array<uint8_t, 16> places{};
    for (size_t i = 0; i < 16; ++i)
      places[i] = static_cast<uint8_t>(std::min<size_t>(15, i / 4 * kBits / 2 + i % 4));
    return places;
  }();
  const auto words = hn::BitCast(d32, hn::TableLookupBytes(packed, hn::Load(d8, kBytes.data())));
  const auto from_half = hn::Eq(hn::And(hn::Iota(d32, 0), hn::Set(d32, 1)), hn::Set(d32, 1));
  const auto fours =
      kBits % 2 == 0 ? words : hn::IfThenElse(from_half, hn::ShiftRight<4>(words), words);
  constexpr uint32_t kMask = (1u << kBits) - 1;
  auto bytes = hn::And(fours, hn::Set(d32, kMask));
  bytes = hn::Or(bytes, hn::And(hn::ShiftLeft<8 - kBits>(fours), hn::Set(d32, kMask << 8)));
  bytes = hn::Or(bytes, hn::And(hn::ShiftLeft<2 * (8 - kBits)>(fours), hn::Set(d32, kMask << 16)));
  bytes = hn::Or(bytes, hn::And(hn::ShiftLeft<3 * (8 - kBits)>(fours), hn::Set(d32, kMask << 24)));
  return hn::BitCast(d8, bytes);
}

#endif

// The integers of `count` columns, a multiple of 8, one in each byte.
template <int kBits>
void unpack_bits(const uint8_t* from, int64_t count, uint8_t* to) {
  int64_t i = 0;
#if HWY_ARCH_X86 && HWY_MAX_BYTES == 64
  if (has_byte_shifts()) {
    const __m512i mask = _mm512_set1_epi8((1 << kBits) - 1);
    const auto line = [&](int64_t columns) HWY_ATTR {
      const auto present = static_cast<__mmask64>((uint64_t{1} << (columns * kBits / 8)) - 1);
      return _mm512_and_si512(unpacked_line<kBits>(_mm512_maskz_loadu_epi8(present, from)), mask);
    };
    // Stores by a mask are slow to be read again.
    for (; i + 64 <= count; i += 64, from += 8 * kBits) _mm512_storeu_si512(to + i, line(64));
    if (i < count)
      _mm512_mask_storeu_epi8(to + i, ~__mmask64{0} >> (64 - (count - i)), line(count - i));
    return;
  }
#endif
#if HWY_TARGET != HWY_SCALAR
  const hn::FixedTag<uint8_t, 16> d8;
  for (; i + 16 <= count; i += 16, from += 2 * kBits) {
    alignas(16) uint8_t last[16] = {};
    const uint8_t* block = from;
    if ((count - i) * kBits / 8 < 16) {
      std::memcpy(last, from, 2 * kBits);
      block = last;
    }
    hn::StoreU(unpacked_block<kBits>(hn::LoadU(d8, block)), d8, to + i);
  }
#endif
  for (; i < count; i += 8, from += kBits) {
    uint64_t word = 0;
    std::memcpy(&word, from, kBits);
    for (int j = 0; j < 8; ++j)
      to[i + j] = static_cast<uint8_t>((word >> (j * kBits)) & ((1 << kBits) - 1));
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace mica::cpu
HWY_AFTER_NAMESPACE();

#endif
