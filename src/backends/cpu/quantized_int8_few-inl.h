// Products of a few rows of x with rows of a quantized matrix as they lie, by vectors of 512 bits:
// 16 rows of the matrix are turned block by block, the next one while the processor multiplies this
// one. Included by kernel files once per vector instruction set (Highway's foreach_target).
#if defined(MICA_CPU_QUANTIZED_INT8_FEW_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef MICA_CPU_QUANTIZED_INT8_FEW_INL_H
#undef MICA_CPU_QUANTIZED_INT8_FEW_INL_H
#else
#define MICA_CPU_QUANTIZED_INT8_FEW_INL_H
#endif

#include <algorithm>
#include <cstring>
#include <type_traits>

#include "backends/cpu/int8_lanes-inl.h"
#include "backends/cpu/quantized_int8.h"
#include "backends/cpu/quantized_panels-inl.h"
#include "backends/cpu/quantized_scales-inl.h"

HWY_BEFORE_NAMESPACE();
namespace mica::cpu {
namespace HWY_NAMESPACE {

#if HWY_MAX_BYTES == 64

constexpr int kMostOfFew = 12, kLeastForSteps = 4;

// Blocks of whole vectors and whole groups, which are kGroup times 128 bits.
template <int kGroup>
struct RowBlock {
  static constexpr int kVectors = std::max(1, kGroup / 4);  // of a row
  static constexpr int kGroups = std::max(1, 4 / kGroup);
  static constexpr int64_t kRowBytes = kVectors * kBytes;
  static constexpr int64_t kAllBytes = kInt8Rows * kRowBytes;
};

// Word i of all rows to words + i * kBytes.
template <int kVectors>
HWY_INLINE void turn_block(const uint8_t* const* rows, int64_t at, uint8_t* words) {
  const F32 d;
  const U8 d8;
  for (int part = 0; part < kVectors; ++part) {
    VF32 v[kLanes];
    for (int i = 0; i < kLanes; ++i)
      v[i] = hn::BitCast(d, hn::LoadU(d8, rows[i] + at + part * kBytes));
    transpose(v);
    for (int i = 0; i < kLanes; ++i)
      hn::Store(hn::BitCast(d8, v[i]), d8, words + (part * kLanes + i) * kBytes);
  }
}

// The same in steps of at most eight vectors, between which the processor multiplies: first words
// in blocks of four by four, then the blocks.
template <int kVectors>
struct TurnSteps {
  static constexpr int kCount = 8 * kVectors;
  HWY_INLINE void step(int i) const {
    const int part = i / 8, place = i % 8;
    if (place < 4)
      turn_words(place, at + part * kBytes);
    else
      turn_blocks(place - 4, words + part * kLanes * kBytes);
  }
  // Of rows 4 * i …: half[4 * i + j] becomes word j of each block of 128 bits.
  HWY_INLINE void turn_words(int i, int64_t from) const {
    __m512i v[4];
    for (int j = 0; j < 4; ++j) v[j] = _mm512_loadu_si512(rows[4 * i + j] + from);
    const __m512i low01 = _mm512_unpacklo_epi32(v[0], v[1]),
                  high01 = _mm512_unpackhi_epi32(v[0], v[1]),
                  low23 = _mm512_unpacklo_epi32(v[2], v[3]),
                  high23 = _mm512_unpackhi_epi32(v[2], v[3]);
    __m512i* to = half + 4 * i;
    _mm512_store_si512(to, _mm512_unpacklo_epi64(low01, low23));
    _mm512_store_si512(to + 1, _mm512_unpackhi_epi64(low01, low23));
    _mm512_store_si512(to + 2, _mm512_unpacklo_epi64(high01, high23));
    _mm512_store_si512(to + 3, _mm512_unpackhi_epi64(high01, high23));
  }
  // Words j, 4 + j, 8 + j and 12 + j of all rows.
  HWY_INLINE void turn_blocks(int j, uint8_t* to) const {
    const __m512i v0 = _mm512_load_si512(half + j), v1 = _mm512_load_si512(half + 4 + j),
                  v2 = _mm512_load_si512(half + 8 + j), v3 = _mm512_load_si512(half + 12 + j);
    const __m512i even01 = _mm512_shuffle_i32x4(v0, v1, 0x88),
                  odd01 = _mm512_shuffle_i32x4(v0, v1, 0xdd),
                  even23 = _mm512_shuffle_i32x4(v2, v3, 0x88),
                  odd23 = _mm512_shuffle_i32x4(v2, v3, 0xdd);
    to += j * kBytes;
    _mm512_store_si512(to, _mm512_shuffle_i32x4(even01, even23, 0x88));
    _mm512_store_si512(to + 4 * kBytes, _mm512_shuffle_i32x4(odd01, odd23, 0x88));
    _mm512_store_si512(to + 8 * kBytes, _mm512_shuffle_i32x4(even01, even23, 0xdd));
    _mm512_store_si512(to + 12 * kBytes, _mm512_shuffle_i32x4(odd01, odd23, 0xdd));
  }

  const uint8_t* const* rows;
  int64_t at;
  __m512i* half;   // of 16
  uint8_t* words;  // of all rows, one after the other
};

// Where blocks of 16 rows are read: where they lie, or from copies of pieces of some blocks, which
// are zero beyond the end. Rows at a distance of 4096 bytes share places of the first-level cache,
// and the lines that two neighbouring blocks have in common would be lost in between. The rows of
// the next piece are copied a few at each block.
template <int64_t kBlockBytes>
class BlockReader {
 public:
  BlockReader(const uint8_t* const* packed, int64_t stride, int64_t bytes)
      : packed_(packed), bytes_(bytes), copies_all_(stride % 4096 == 0) {
    for (int piece = 0; piece < 2; ++piece)
      for (int i = 0; i < kInt8Rows; ++i) copies_[piece][i] = copy_[piece][i];
    if (copies_all_) copy_part(0, 0, kInt8Rows);
  }
  // Moves to block `block`, the one after the last.
  HWY_INLINE void move(int64_t block) {
    const int64_t to = block * kBlockBytes;
    if (copies_all_) {
      const int64_t piece = block / kBlocks, part = block % kBlocks;
      copy_part(piece + 1, static_cast<int>(part) * kRowsOfPart, kRowsOfPart);
      rows = copies_[piece % 2];
      at = part * kBlockBytes;
    } else if (HWY_LIKELY(bytes_ - to >= kBlockBytes)) {
      rows = packed_;
      at = to;
    } else {
      copy_end(to, 0, 0, kInt8Rows);
      rows = copies_[0];
      at = 0;
    }
  }

  const uint8_t* const* rows = nullptr;
  int64_t at = 0;

 private:
  static constexpr int64_t kPiece = 4 * kBytes, kBlocks = kPiece / kBlockBytes;
  static constexpr int kRowsOfPart = kInt8Rows / static_cast<int>(kBlocks);

  HWY_INLINE void copy_part(int64_t piece, int first, int rows_of_part) {
    const int64_t from = piece * kPiece;
    const int to = static_cast<int>(piece % 2);
    if (HWY_UNLIKELY(bytes_ - from < kPiece)) return copy_end(from, to, first, rows_of_part);
    const U8 d;
    for (int i = first; i < first + rows_of_part; ++i)
      for (int64_t byte = 0; byte < kPiece; byte += kBytes)
        hn::Store(hn::LoadU(d, packed_[i] + from + byte), d, copy_[to][i] + byte);
  }
  HWY_NOINLINE void copy_end(int64_t from, int to, int first, int rows_of_part) {
    if (from >= bytes_) return;
    for (int i = first; i < first + rows_of_part; ++i) {
      std::memset(copy_[to][i], 0, kPiece);
      std::memcpy(copy_[to][i], packed_[i] + from, static_cast<size_t>(bytes_ - from));
    }
  }

  const uint8_t* const* packed_;
  int64_t bytes_;
  bool copies_all_;
  const uint8_t* copies_[2][kInt8Rows];
  HWY_ALIGN uint8_t copy_[2][kInt8Rows][kPiece];
};

// Adds products of two words of 16 rows. Two sums apart where they would wait for one another.
template <class W, int M, int kChains>
HWY_INLINE void add_words(const uint8_t* words, TileReader<M>& x, VI32 (&sum)[kChains][M]) {
  for (int i = 0; i < 2; ++i) {
    const auto bytes = hn::Load(U8(), words + i * kBytes);
    const auto low = W::kBits == 4 ? lower_halves(bytes) : bytes;
    const int32_t* quads = x.words();
    for (int m = 0; m < M; ++m) sum[0][m] = dot4_quad<W>(sum[0][m], low, quads + m);
    if constexpr (W::kBits == 4) {
      const auto high = upper_halves(bytes);
      quads = x.words();
      VI32(&last)[M] = sum[kChains - 1];
      for (int m = 0; m < M; ++m) last[m] = dot4_quad<W>(last[m], high, quads + m);
    }
  }
}

// A group of kPairs pairs of words, from pair kPair on, each after its step of turning. Two lines
// are as many as a pair comes from.
template <class W, int kSteps, int kPairs, int kPair = 0, int M, int kChains, class Steps>
HWY_INLINE void add_pairs(const uint8_t* words, const Steps& turn, int step, TileReader<M>& x,
                          VI32 (&sum)[kChains][M], PackedAhead& ahead) {
  if constexpr (kPair < kPairs) {
    if constexpr (kSteps > 0) turn.step(step + kPair);
    ahead.fetch(2);
    add_words<W, M, kChains>(words + 2 * kPair * kBytes, x, sum);
    add_pairs<W, kSteps, kPairs, kPair + 1>(words, turn, step, x, sum, ahead);
  }
}

template <class W, int M, int kGroup>
void multiply_few_of(const Int8Format& f, const QuantizedMatrix& w, int64_t first, int count,
                     const std::byte* tile, float* out, const Int8Place& next) {
  using Block = RowBlock<kGroup>;
  using Steps = TurnSteps<Block::kVectors>;
  constexpr int kPairs = kGroup * 2, kChains = W::kBits == 4 && M <= 6 ? 2 : 1;
  // Short steps pay where there is much to multiply between them.
  constexpr bool kInSteps = M > kLeastForSteps;
  const F32 d;
  HWY_ALIGN uint8_t words[2][Block::kAllBytes];
  HWY_ALIGN __m512i half_turned[kInt8Rows];
  HWY_ALIGN float scales[kScaleGroups * kInt8Rows], biases[kScaleGroups * kInt8Rows];
  const PackedRows rows(w, first, count);
  PackedAhead ahead{next.packed()};
  ScalesAhead scales_ahead{next.scales()}, biases_ahead{next.biases()};
  TileReader<M> x{reinterpret_cast<const int32_t*>(tile)};
  VF32 total[M][1];
  for (int m = 0; m < M; ++m) total[m][0] = hn::Zero(d);
  const int64_t blocks = (f.groups + Block::kGroups - 1) / Block::kGroups;
  BlockReader<Block::kRowBytes> reader(rows.packed, w.packed_stride * 4,
                                       f.groups * f.group_bytes());
  for (int64_t block = -1, g0 = -Block::kGroups; block < blocks; ++block, g0 += Block::kGroups) {
    const int64_t other = (block + 1) % 2;
    // After the last block its steps are repeated, and used by nobody.
    if (block + 1 < blocks) reader.move(block + 1);
    const Steps turn{reader.rows, reader.at, half_turned, words[other]};
    if (block < 0 || !kInSteps) turn_block<Block::kVectors>(turn.rows, turn.at, turn.words);
    if (block < 0) continue;
    if (g0 % kScaleGroups == 0) {
      const int64_t some = std::min<int64_t>(kScaleGroups, f.groups - g0);
      read_scales(rows.scales, w.scales_dtype, g0, some, scales, kInt8Rows);
      read_scales(rows.biases, w.biases_dtype, g0, some, biases, kInt8Rows);
    }
    const int64_t groups = std::min<int64_t>(Block::kGroups, f.groups - g0);
    const auto add = [&](auto group) HWY_ATTR __attribute__((always_inline)) {
      constexpr int g = decltype(group)::value;
      if (g >= Block::kGroups || g >= groups) return;
      const int64_t place = (g0 + g) % kScaleGroups * kInt8Rows;
      if ((g0 + g) % 2 == 0) {
        scales_ahead.fetch(1);
        biases_ahead.fetch(1);
      }
      VI32 part[kChains][M], sum[M][1];
      for (int c = 0; c < kChains; ++c)
        for (int m = 0; m < M; ++m) part[c][m] = hn::Zero(I32());
      add_pairs<W, kInSteps ? Steps::kCount : 0, kPairs>(words[1 - other] + g * kPairs * 2 * kBytes,
                                                         turn, g * kPairs, x, part, ahead);
      for (int m = 0; m < M; ++m)
        sum[m][0] = kChains == 1 ? part[0][m] : hn::Add(part[0][m], part[kChains - 1][m]);
      add_group<M, 1>(sum, scales + place, biases + place, x, total);
    };
    add(std::integral_constant<int, 0>());
    if constexpr (Block::kGroups > 1) add(std::integral_constant<int, 1>());
    if constexpr (Block::kGroups > 2) add(std::integral_constant<int, 2>());
    if constexpr (Block::kGroups > 3) add(std::integral_constant<int, 3>());
  }
  for (int m = 0; m < M; ++m) hn::StoreU(total[m][0], d, out + m * kInt8Rows);
}

template <int M = kMostOfFew>
void multiply_few(const Int8Format& f, const QuantizedMatrix& w, int64_t first, int rows,
                  const std::byte* tile, int m, float* out, const Int8Place& next) {
  using W4 = Weights<4, true>;
  using W8 = Weights<8, true>;
  if constexpr (M > 1)
    if (m < M) return multiply_few<M - 1>(f, w, first, rows, tile, m, out, next);
  switch (f.group_bytes() / 16 + (f.bits == 8 ? 100 : 0)) {
    case 1: return multiply_few_of<W4, M, 1>(f, w, first, rows, tile, out, next);
    case 2: return multiply_few_of<W4, M, 2>(f, w, first, rows, tile, out, next);
    case 4: return multiply_few_of<W4, M, 4>(f, w, first, rows, tile, out, next);
    case 102: return multiply_few_of<W8, M, 2>(f, w, first, rows, tile, out, next);
    case 104: return multiply_few_of<W8, M, 4>(f, w, first, rows, tile, out, next);
    default: return multiply_few_of<W8, M, 8>(f, w, first, rows, tile, out, next);
  }
}

#endif  // HWY_MAX_BYTES == 64

}  // namespace HWY_NAMESPACE
}  // namespace mica::cpu
HWY_AFTER_NAMESPACE();

#endif
