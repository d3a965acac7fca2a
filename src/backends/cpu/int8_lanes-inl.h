// Vectors of bytes and their dot products by fours, for every vector instruction set: one VNNI
// instruction where the processor has it; memory that is fetched for them. Included once per target
// (Highway's foreach_target).
#if defined(MICA_CPU_INT8_LANES_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef MICA_CPU_INT8_LANES_INL_H
#undef MICA_CPU_INT8_LANES_INL_H
#else
#define MICA_CPU_INT8_LANES_INL_H
#endif

#if defined(__x86_64__)
#include <cpuid.h>
#elif defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#endif

#include "backends/cpu/lanes-inl.h"

HWY_BEFORE_NAMESPACE();
namespace mica::cpu {
namespace HWY_NAMESPACE {

#if HWY_TARGET != HWY_SCALAR

using U8 = hn::ScalableTag<uint8_t>;
using I8 = hn::ScalableTag<int8_t>;
using I16 = hn::ScalableTag<int16_t>;
using I32 = hn::ScalableTag<int32_t>;
using VU8 = hn::Vec<U8>;
using VI8 = hn::Vec<I8>;
using VI32 = hn::Vec<I32>;

// How weights are multiplied: bits of an integer, and whether by an instruction for sums of four
// products, for which Highway's targets have no name: has_fast_dots() asks the processor.
template <int kBitsOfOne, bool kWithInstruction>
struct Weights {
  static constexpr int kBits = kBitsOfOne;
  static constexpr bool kFast = kWithInstruction;
};

#if HWY_ARCH_X86 && HWY_MAX_BYTES >= 32
inline bool has_fast_dots() {
#if HWY_MAX_BYTES == 64
  return __builtin_cpu_supports("avx512vnni");
#else
  unsigned a, b, c, d;  // AVX-VNNI, which this compiler's runtime does not know
  return __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a >> 4 & 1);
#endif
}
template <class V>
HWY_INLINE void add_fast_dots(V& acc, VU8 u, VI8 s) {
#if HWY_MAX_BYTES == 64
  asm("vpdpbusd %2, %1, %0" : "+v"(acc.raw) : "v"(u.raw), "vm"(s.raw));
#else
  asm("%{vex%} vpdpbusd %2, %1, %0" : "+x"(acc.raw) : "x"(u.raw), "xm"(s.raw));
#endif
}
#elif HWY_ARCH_ARM_A64 && defined(__linux__)
inline bool has_fast_dots() { return getauxval(AT_HWCAP) & HWCAP_ASIMDDP; }
#else
inline bool has_fast_dots() { return false; }
#endif

#if HWY_ARCH_X86 && HWY_MAX_BYTES == 64
HWY_INLINE __m512i pair_sums(__m512i u, __m512i s) { return _mm512_maddubs_epi16(u, s); }
HWY_INLINE __m512i quad_sums(__m512i pairs, int factor) {
  return _mm512_madd_epi16(pairs, _mm512_set1_epi16(static_cast<short>(factor)));
}
#elif HWY_ARCH_X86 && HWY_MAX_BYTES == 32
HWY_INLINE __m256i pair_sums(__m256i u, __m256i s) { return _mm256_maddubs_epi16(u, s); }
HWY_INLINE __m256i quad_sums(__m256i pairs, int factor) {
  return _mm256_madd_epi16(pairs, _mm256_set1_epi16(static_cast<short>(factor)));
}
#endif

// Keeps the compiler from loading again what it could read from a register.
HWY_INLINE void keep_loaded([[maybe_unused]] VU8& bytes) {
#if HWY_ARCH_X86 && HWY_MAX_BYTES >= 32
  asm("" : "+v"(bytes.raw));
#endif
}

// Products of neighbours apart, each of which fits 16 bits: with what every target has.
HWY_INLINE VI32 dot4_by_halves(VI32 acc, VU8 u, VI8 s) {
  const I16 d16;
  const I32 d32;
  const auto u16 = hn::BitCast(d16, u), s16 = hn::BitCast(d16, s);
  const auto even =
      hn::Mul(hn::And(u16, hn::Set(d16, 255)), hn::ShiftRight<8>(hn::ShiftLeft<8>(s16)));
  const hn::RebindToUnsigned<I16> du16;
  const auto upper = hn::BitCast(d16, hn::ShiftRight<8>(hn::BitCast(du16, u16)));
  const auto odd = hn::Mul(upper, hn::ShiftRight<8>(s16));
  for (const auto& products : {hn::BitCast(d32, even), hn::BitCast(d32, odd)}) {
    acc = hn::Add(acc, hn::ShiftRight<16>(hn::ShiftLeft<16>(products)));
    acc = hn::Add(acc, hn::ShiftRight<16>(products));
  }
  return acc;
}

// Sums of products with four bits fit 16 bits for a while: so many of `short_products`, after which
// widened_sums adds neighbours.
#if HWY_ARCH_X86 && HWY_MAX_BYTES >= 32
using VI16 = hn::Vec<I16>;
constexpr int kShortSums = 8;
static_assert(kShortSums * 2 * 15 * 128 < 32768);
template <class W>
constexpr bool kHasShortSums = W::kBits == 4 && !W::kFast;
HWY_INLINE VI16 short_products(VU8 u, VI8 s) { return VI16{pair_sums(u.raw, s.raw)}; }
// Keeps the order of sums, too: reordered, they do not fit the registers.
HWY_INLINE void add_short_products(VI16& sums, VU8 u, VI8 s) {
  sums = hn::Add(sums, short_products(u, s));
  asm("" : "+v"(sums.raw));
}
HWY_INLINE VI32 widened_sums(VI16 sums) { return VI32{quad_sums(sums.raw, 1)}; }
#else
template <class W>
constexpr bool kHasShortSums = false;
#endif

#if HWY_ARCH_ARM_A64
// Signed bytes by signed bytes; weights of eight bits are taken as u - 128 and 128.
HWY_INLINE void add_signed_dots(int32x4_t& acc, int8x16_t a, int8x16_t b) {
  asm(".arch armv8.2-a+dotprod\n\tsdot %0.4s, %1.16b, %2.16b" : "+w"(acc) : "w"(a), "w"(b));
}
#endif

// acc + the sums of four neighbouring products u * s, exactly.
template <class W>
HWY_INLINE VI32 dot4(VI32 acc, VU8 u, VI8 s) {
#if HWY_ARCH_X86 && HWY_MAX_BYTES >= 32
  if constexpr (W::kFast) {
    add_fast_dots(acc, u, s);
    return acc;
  }
  if constexpr (W::kBits == 4) return hn::Add(acc, VI32{quad_sums(pair_sums(u.raw, s.raw), 1)});
  // Pairs of products with eight bits do not fit 16: the highest bit is taken apart.
  const U8 d;
  const auto low = hn::And(u, hn::Set(d, 127));
  const hn::Repartition<uint16_t, U8> d16;
  const auto high = hn::And(hn::BitCast(d, hn::ShiftRight<7>(hn::BitCast(d16, u))), hn::Set(d, 1));
  acc = hn::Add(acc, VI32{quad_sums(pair_sums(low.raw, s.raw), 1)});
  return hn::Add(acc, VI32{quad_sums(pair_sums(high.raw, s.raw), 128)});
#elif HWY_ARCH_ARM_A64
  if constexpr (W::kFast) {
    if constexpr (W::kBits == 4) {
      add_signed_dots(acc.raw, vreinterpretq_s8_u8(u.raw), s.raw);
    } else {
      const uint8x16_t top = vdupq_n_u8(128);
      add_signed_dots(acc.raw, vreinterpretq_s8_u8(veorq_u8(u.raw, top)), s.raw);
      add_signed_dots(acc.raw, vdupq_n_s8(64), s.raw);
      add_signed_dots(acc.raw, vdupq_n_s8(64), s.raw);
    }
    return acc;
  }
  return dot4_by_halves(acc, u, s);
#else
  return dot4_by_halves(acc, u, s);
#endif
}

// acc + the sums for two vectors each.
template <class W>
HWY_INLINE VI32 dot4_of_two(VI32 acc, VU8 u0, VI8 s0, VU8 u1, VI8 s1) {
#if HWY_ARCH_X86 && HWY_MAX_BYTES >= 32
  if constexpr (kHasShortSums<W>)
    return hn::Add(acc, widened_sums(hn::Add(short_products(u0, s0), short_products(u1, s1))));
#endif
  return dot4<W>(dot4<W>(acc, u0, s0), u1, s1);
}

// dot4 with one quad of bytes for all lanes.
template <class W>
HWY_INLINE VI32 dot4_quad(VI32 acc, VU8 u, const int32_t* quad) {
#if HWY_ARCH_X86 && HWY_MAX_BYTES == 64
  if constexpr (W::kFast) {
    asm("vpdpbusd %2%{1to16%}, %1, %0" : "+v"(acc.raw) : "v"(u.raw), "m"(*quad));
    return acc;
  }
#endif
  return dot4<W>(acc, u, hn::BitCast(I8(), hn::Set(I32(), *quad)));
}

// Of four vectors the sums of each 128-bit block: [0, 1, 2, 3] in every block.
HWY_INLINE VI32 block_sums(VI32 v0, VI32 v1, VI32 v2, VI32 v3) {
  const I32 d;
  const hn::RepartitionToWide<I32> wide;
  const auto t01 =
      hn::BitCast(wide, hn::Add(hn::InterleaveLower(d, v0, v1), hn::InterleaveUpper(d, v0, v1)));
  const auto t23 =
      hn::BitCast(wide, hn::Add(hn::InterleaveLower(d, v2, v3), hn::InterleaveUpper(d, v2, v3)));
  return hn::Add(hn::BitCast(d, hn::InterleaveLower(wide, t01, t23)),
                 hn::BitCast(d, hn::InterleaveUpper(wide, t01, t23)));
}

// The same of sums over eight products in a lane. With four bits two lanes of them fit 16 bits, for
// which there are instructions that add neighbours: two operations in place of three.
template <class W>
HWY_INLINE VI32 block_sums_of(const VI32 (&v)[4]) {
#if HWY_ARCH_X86 && HWY_MAX_BYTES == 64
  if constexpr (W::kBits == 4) {
    static_assert(2 * 8 * 15 * 128 < 32768);
    const auto add = [](__m512i a, __m512i b)
                         HWY_ATTR { return quad_sums(_mm512_packs_epi32(a, b), 1); };
    return VI32{add(add(v[0].raw, v[1].raw), add(v[2].raw, v[3].raw))};
  }
#endif
  return block_sums(v[0], v[1], v[2], v[3]);
}

// Sums of kBlocks neighbouring 128-bit blocks, in the first of them.
template <int kBlocks>
HWY_INLINE VI32 add_blocks(VI32 v) {
  static_assert(kBlocks == 1 || kBlocks == 2 || kBlocks == 4);
#if HWY_MAX_BYTES >= 32
  if constexpr (kBlocks >= 2) v = hn::Add(v, hn::SwapAdjacentBlocks(v));
#endif
#if HWY_MAX_BYTES >= 64
  if constexpr (kBlocks == 4) v = hn::Add(v, hn::ConcatLowerUpper(I32(), v, v));
#endif
  return v;
}

// Stores 128-bit blocks 0, kBlocks, 2 * kBlocks …, `count` of them, `stride` elements apart.
template <int kBlocks>
HWY_INLINE void store_blocks(VI32 v, int64_t count, int32_t* to, int64_t stride) {
#if HWY_MAX_BYTES == 64
  auto* out = reinterpret_cast<__m128i*>(to);
  _mm_storeu_si128(out, _mm512_castsi512_si128(v.raw));
  if (kBlocks == 1 && count > 1)
    _mm_storeu_si128(out + stride / 4, _mm512_extracti32x4_epi32(v.raw, 1));
  if (kBlocks <= 2 && count > 2 / kBlocks)
    _mm_storeu_si128(out + 2 / kBlocks * stride / 4, _mm512_extracti32x4_epi32(v.raw, 2));
  if (kBlocks == 1 && count > 3)
    _mm_storeu_si128(out + 3 * stride / 4, _mm512_extracti32x4_epi32(v.raw, 3));
#elif HWY_MAX_BYTES == 32
  auto* out = reinterpret_cast<__m128i*>(to);
  _mm_storeu_si128(out, _mm256_castsi256_si128(v.raw));
  if (kBlocks == 1 && count > 1)
    _mm_storeu_si128(out + stride / 4, _mm256_extracti128_si256(v.raw, 1));
#else
  (void)count, (void)stride;
  hn::StoreU(v, I32(), to);
#endif
}

#endif

}  // namespace HWY_NAMESPACE
}  // namespace mica::cpu
HWY_AFTER_NAMESPACE();

#endif
