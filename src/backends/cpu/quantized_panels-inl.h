// Products of tiles of x with rows of a quantized matrix that are turned so that a vector holds the
// same four columns of several rows: sums need no adding across lanes, and scales apply lane by
// lane. Included by kernel files once per vector instruction set (Highway's foreach_target).
#if defined(MICA_CPU_QUANTIZED_PANELS_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef MICA_CPU_QUANTIZED_PANELS_INL_H
#undef MICA_CPU_QUANTIZED_PANELS_INL_H
#else
#define MICA_CPU_QUANTIZED_PANELS_INL_H
#endif

#include <algorithm>
#include <cstring>
#include <type_traits>

#include "backends/cpu/int8_lanes-inl.h"
#include "backends/cpu/quantized_int8.h"
#include "backends/cpu/quantized_scales-inl.h"

HWY_BEFORE_NAMESPACE();
namespace mica::cpu {
namespace HWY_NAMESPACE {

// Rows of scales that are read together.
constexpr int kScaleGroups = 16;

// Where the integers of x lie that a packed byte is multiplied with (4 bits: its lower half).
template <int kBits>
HWY_INLINE int64_t opposite(int64_t byte) {
  return kBits == 8 ? byte : byte / 64 * 128 + byte % 64;
}

struct PackedRows {
  PackedRows(const QuantizedMatrix& matrix, int64_t first, int rows) {
    for (int i = 0; i < kInt8Rows; ++i) {
      int64_t row = first + std::min(i, rows - 1);
      packed[i] = reinterpret_cast<const uint8_t*>(matrix.packed_row(row));
      scales[i] = matrix.scales_row(row);
      biases[i] = matrix.biases_row(row);
    }
  }
  const uint8_t* packed[kInt8Rows];
  const std::byte *scales[kInt8Rows], *biases[kInt8Rows];
};

#if HWY_TARGET != HWY_SCALAR

constexpr int kLanes = static_cast<int>(hn::MaxLanes(I32()));
constexpr int kBytes = 4 * kLanes;

HWY_INLINE VU8 lower_halves(VU8 bytes) { return hn::And(bytes, hn::Set(U8(), 15)); }
HWY_INLINE VU8 upper_halves(VU8 bytes) {
  const hn::Repartition<uint16_t, U8> d16;
  return lower_halves(hn::BitCast(U8(), hn::ShiftRight<4>(hn::BitCast(d16, bytes))));
}

#endif  // HWY_TARGET != HWY_SCALAR

// The place in a tile of `count` rows of the words that `at` packed bytes of a row and one half of
// them (8 bits: all) are multiplied with.
HWY_INLINE int64_t place_of_words(const Int8Format& f, int64_t at, int half, int count) {
  const int64_t group = at / f.group_bytes(), words = at % f.group_bytes() / 4 * (8 / f.bits);
  return count * (group * f.tile_group_bytes() + (words + half) * 4);
}

#if HWY_MAX_BYTES == 64
// Sixteen words of all rows at a time; there are at most 16 rows.
inline void interleave_integers(const Int8Format& f, const std::byte* const* x, int count,
                                std::byte* to) {
  const F32 d;
  const auto rows = hn::FirstN(d, static_cast<size_t>(count));
  const int halves = 8 / f.bits;
  const int64_t bytes = f.groups * f.group_bytes();
  for (int64_t begin = 0; begin < bytes; begin += 64)
    for (int half = 0; half < halves; ++half) {
      VF32 v[16];
      for (int m = 0; m < 16; ++m) {
        const int8_t* row = f.integers(x[std::min(m, count - 1)]) + begin * halves + half * 64;
        v[m] = hn::LoadU(d, reinterpret_cast<const float*>(row));
      }
      transpose(v);
      for (int64_t i = 0, at = begin; i < 16 && at < bytes; ++i, at += 4) {
        std::byte* place = to + place_of_words(f, at, half, count);
        hn::BlendedStore(v[i], rows, d, reinterpret_cast<float*>(place));
      }
    }
}
#else
inline void interleave_integers(const Int8Format& f, const std::byte* const* x, int count,
                                std::byte* to) {
  const int halves = 8 / f.bits;
  for (int64_t at = 0; at < f.groups * f.group_bytes(); at += 4)
    for (int half = 0; half < halves; ++half) {
      std::byte* place = to + place_of_words(f, at, half, count);
      const int64_t from = f.bits == 8 ? opposite<8>(at) : opposite<4>(at) + half * 64;
      for (int m = 0; m < count; ++m, place += 4) std::memcpy(place, f.integers(x[m]) + from, 4);
    }
}
#endif

inline void interleave(const Int8Format& f, const std::byte* const* x, int count, std::byte* to) {
  interleave_integers(f, x, count, to);
  for (int64_t g = 0; g < f.groups; ++g) {
    std::byte* group = to + count * (g * f.tile_group_bytes() + f.group_size);
    float* steps = reinterpret_cast<float*>(group);
    for (int m = 0; m < count; ++m) {
      steps[m] = f.steps(x[m])[g];
      steps[count + m] = f.sums(x[m])[g];
    }
  }
}

#if HWY_TARGET != HWY_SCALAR

// A tile of x as it is read, group by group.
template <int M>
struct TileReader {
  // The words of all rows at one place.
  HWY_INLINE const int32_t* words() {
    const int32_t* at = next;
    next += M;
    return at;
  }
  HWY_INLINE const float* floats() { return reinterpret_cast<const float*>(words()); }
  const int32_t* next;
};

// Adds what a group's sums of integers mean: kVectors vectors of rows of the matrix. The steps and
// sums of x are next in the tile.
template <int M, int kVectors>
HWY_INLINE void add_group(const VI32 (&sum)[M][kVectors], const float* scales, const float* biases,
                          TileReader<M>& x, VF32 (&total)[M][kVectors]) {
  const F32 d;
  const float *steps = x.floats(), *x_sums = x.floats();
  for (int v = 0; v < kVectors; ++v) {
    const auto scale = hn::Load(d, scales + v * kLanes), bias = hn::Load(d, biases + v * kLanes);
    for (int m = 0; m < M; ++m) {
      const auto factor = hn::Mul(scale, hn::Set(d, steps[m]));
      total[m][v] = hn::MulAdd(hn::ConvertTo(d, sum[m][v]), factor, total[m][v]);
      total[m][v] = hn::MulAdd(bias, hn::Set(d, x_sums[m]), total[m][v]);
    }
  }
}

#if HWY_MAX_BYTES == 64

// Few rows of x: 16 rows of the matrix are turned block by block, the next one while the processor
// multiplies this one.
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

// A group of kPairs pairs of words, from pair kPair on, each after its step of turning.
template <class W, int kSteps, int kPairs, int kPair = 0, int M, int kChains, class Steps>
HWY_INLINE void add_pairs(const uint8_t* words, const Steps& turn, int step, TileReader<M>& x,
                          VI32 (&sum)[kChains][M]) {
  if constexpr (kPair < kPairs) {
    if constexpr (kSteps > 0) turn.step(step + kPair);
    add_words<W, M, kChains>(words + 2 * kPair * kBytes, x, sum);
    add_pairs<W, kSteps, kPairs, kPair + 1>(words, turn, step, x, sum);
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
  Ahead ahead{next.packed()}, scales_ahead{next.scales()}, biases_ahead{next.biases()};
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
    ahead.fetch(Block::kAllBytes / 64);
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
                                                         turn, g * kPairs, x, part);
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

// Rows of a panel, and rows of x that are multiplied with it at once, so that the sums fill the
// registers.
#if HWY_MAX_BYTES == 64
constexpr int kPanelRows = 32, kTile = 6;
#else
constexpr int kPanelRows = 16, kTile = 3;
#endif
constexpr int kPanelVectors = kPanelRows / kLanes;
// Bytes of a panel for four columns.
constexpr int64_t kQuads = 4 * kPanelRows;

// One vector of each of kLanes rows, transposed: words of all rows to quads + i * kQuads.
template <int kBits>
HWY_INLINE void unpack_words(const uint8_t* const* from, int64_t at, int64_t words,
                             uint8_t* quads) {
  const F32 d;
  const U8 d8;
  VF32 v[kLanes];
  for (int i = 0; i < kLanes; ++i) v[i] = hn::BitCast(d, hn::LoadU(d8, from[i] + at));
  transpose(v);
  for (int64_t i = 0; i < words; ++i) {
    const auto bytes = hn::BitCast(d8, v[i]);
    if constexpr (kBits == 8) {
      hn::StoreU(bytes, d8, quads + i * kQuads);
    } else {
      hn::StoreU(lower_halves(bytes), d8, quads + 2 * i * kQuads);
      hn::StoreU(upper_halves(bytes), d8, quads + (2 * i + 1) * kQuads);
    }
  }
}

template <int kBits>
void unpack_rows(const uint8_t* const* rows, int64_t begin, int64_t bytes, uint8_t* quads) {
  const int64_t whole = bytes / kBytes * kBytes;
  constexpr int64_t kGrowth = kPanelRows * 8 / kBits;
  for (int64_t at = 0; at < whole; at += kBytes)
    unpack_words<kBits>(rows, begin + at, kLanes, quads + at * kGrowth);
  if (whole == bytes) return;
  HWY_ALIGN uint8_t last[kLanes][kBytes] = {};
  const uint8_t* copies[kLanes];
  for (int i = 0; i < kLanes; ++i) {
    std::memcpy(last[i], rows[i] + begin + whole, static_cast<size_t>(bytes - whole));
    copies[i] = last[i];
  }
  unpack_words<kBits>(copies, 0, (bytes - whole) / 4, quads + whole * kGrowth);
}

void unpack(const Int8Format& f, const QuantizedMatrix& w, int64_t first, int rows, int64_t g0,
            int64_t groups, const Int8Panel& panel) {
  for (int r = 0; r < kPanelRows; r += kInt8Rows) {
    int some = std::clamp(rows - r, 1, kInt8Rows);
    const PackedRows from(w, first + std::min(r, rows - 1), some);
    read_scales(from.scales, w.scales_dtype, g0, groups, panel.scales + r, kPanelRows);
    read_scales(from.biases, w.biases_dtype, g0, groups, panel.biases + r, kPanelRows);
    for (int v = 0; v < kInt8Rows; v += kLanes) {
      int64_t begin = g0 * f.group_bytes(), bytes = groups * f.group_bytes();
      uint8_t* quads = panel.quads + (r + v) * 4;
      if (f.bits == 4)
        unpack_rows<4>(from.packed + v, begin, bytes, quads);
      else
        unpack_rows<8>(from.packed + v, begin, bytes, quads);
    }
  }
}

HWY_INLINE VI8 broadcast(const int32_t* quad) { return hn::BitCast(I8(), hn::Set(I32(), *quad)); }

// What a panel is made from, fetched group by group.
struct RowsAhead {
  RowsAhead(const Int8Format& f, const Int8Place& place, int rows)
      : packed{place.packed()},
        scales{place.scales()},
        biases{place.biases()},
        lines(rows * f.group_bytes() / 64),
        groups_per_line(64 / (rows * size_of(place.matrix->scales_dtype))) {}
  HWY_INLINE void fetch(int64_t group) {
    packed.fetch(lines);
    if (groups_per_line > 1 && group % groups_per_line != 0) return;
    scales.fetch(1);
    biases.fetch(1);
  }
  Ahead packed, scales, biases;
  int64_t lines, groups_per_line;
};

// Calls f(m, v, row, quad) for the next `count` quads of a panel and of M rows of x.
template <int M, class F>
HWY_INLINE void for_each_quad(const uint8_t* quads, int64_t count, TileReader<M>& x, F&& f) {
  const U8 d;
  for (int64_t q = 0; q < count; ++q, quads += kQuads) {
    VU8 rows[kPanelVectors];
    for (int v = 0; v < kPanelVectors; ++v) rows[v] = hn::Load(d, quads + v * kBytes);
    const int32_t* words = x.words();
    for (int m = 0; m < M; ++m) {
      const auto quad = broadcast(words + m);
      for (int v = 0; v < kPanelVectors; ++v) f(m, v, rows[v], quad);
    }
  }
}

// The integer sums of a group.
template <class W, int M>
HWY_INLINE void sum_quads(const uint8_t* quads, int64_t count, TileReader<M>& x,
                          VI32 (&sum)[M][kPanelVectors]) {
  for (int m = 0; m < M; ++m)
    for (int v = 0; v < kPanelVectors; ++v) sum[m][v] = hn::Zero(I32());
#if HWY_ARCH_X86 && HWY_MAX_BYTES >= 32
  if constexpr (kHasShortSums<W>) {
    for (int64_t q = 0; q < count; q += kShortSums) {
      VI16 part[M][kPanelVectors];
      for (int m = 0; m < M; ++m)
        for (int v = 0; v < kPanelVectors; ++v) part[m][v] = hn::Zero(I16());
      for_each_quad<M>(
          quads + q * kQuads, kShortSums, x,
          [&](int m, int v, VU8 row, VI8 quad) HWY_ATTR
          __attribute__((always_inline)) { add_short_products(part[m][v], row, quad); });
      for (int m = 0; m < M; ++m)
        for (int v = 0; v < kPanelVectors; ++v)
          sum[m][v] = hn::Add(sum[m][v], widened_sums(part[m][v]));
    }
    return;
  }
#endif
  for_each_quad<M>(quads, count, x,
                   [&](int m, int v, VU8 row, VI8 quad) HWY_ATTR
                   __attribute__((always_inline)) { sum[m][v] = dot4<W>(sum[m][v], row, quad); });
}

template <class W, int M>
void multiply_tile(const Int8Format& f, const Int8Panel& panel, int64_t groups,
                   const std::byte* tile, float* out, bool continues, RowsAhead* ahead) {
  const F32 d;
  const int64_t quads_of_group = f.group_size / 4;
  TileReader<M> x{reinterpret_cast<const int32_t*>(tile)};
  VF32 total[M][kPanelVectors];
  for (int m = 0; m < M; ++m)
    for (int v = 0; v < kPanelVectors; ++v)
      total[m][v] = continues ? hn::Load(d, out + m * kPanelRows + v * kLanes) : hn::Zero(d);
  const uint8_t* quads = panel.quads;
  for (int64_t g = 0; g < groups; ++g) {
    VI32 sum[M][kPanelVectors];
    sum_quads<W, M>(quads, quads_of_group, x, sum);
    quads += quads_of_group * kQuads;
    if (ahead) ahead->fetch(g);
    add_group<M, kPanelVectors>(sum, panel.scales + g * kPanelRows, panel.biases + g * kPanelRows,
                                x, total);
  }
  for (int m = 0; m < M; ++m)
    for (int v = 0; v < kPanelVectors; ++v)
      hn::Store(total[m][v], d, out + m * kPanelRows + v * kLanes);
}

template <class W, int M = kTile>
void multiply_rest(const Int8Format& f, const Int8Panel& panel, int64_t groups,
                   const std::byte* tile, int64_t m, float* out, bool continues, RowsAhead* ahead) {
  if (m == M) return multiply_tile<W, M>(f, panel, groups, tile, out, continues, ahead);
  if constexpr (M > 1) multiply_rest<W, M - 1>(f, panel, groups, tile, m, out, continues, ahead);
}

template <bool kFast>
void multiply(const Int8Format& f, const Int8Panel& panel, int64_t groups, const std::byte* tile,
              int64_t m, float* out, bool continues, const Int8Place* next) {
  const auto run =
      f.bits == 4 ? &multiply_rest<Weights<4, kFast>> : &multiply_rest<Weights<8, kFast>>;
  if (!next) return run(f, panel, groups, tile, m, out, continues, nullptr);
  RowsAhead ahead(f, *next, kPanelRows);
  run(f, panel, groups, tile, m, out, continues, &ahead);
}

#endif

}  // namespace HWY_NAMESPACE
}  // namespace mica::cpu
HWY_AFTER_NAMESPACE();

#endif
