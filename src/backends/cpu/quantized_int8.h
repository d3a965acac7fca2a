// Products of rows of x with a quantized matrix in which x, too, is rounded to integers: eight bits
// for each group of the matrix.
//
//   x[i] is taken as step * xi[i],  step = max |x| / 127 of its group,  xi = x * (127 / max |x|)
//                                                                        rounded to even
//   y = sum over groups g: (scale[g] * step[g]) * sum(q * xi) + bias[g] * (step[g] * sum(xi))
//
// The sums of a group are exact integers. Groups are added in float32, in ascending order, the bias
// after the scale, by fused multiply-adds (where the processor has them). So a result depends on
// its row of x and its row of the matrix only: it is the same for one row, in any batch, in a
// prompt, on any number of threads, whatever the instruction set.
//
// Exact products (but those of quantized_pairs.h) are the same with three digits in place of one: x
// is taken as integers of 24 bits, step = max |x| / (127 * 65536), which loses less than sums in
// float32 do; its digits d2 * 65536 + d1 * 256 + d0, signed bytes, are multiplied as rows of their
// own, and the three results are added.
//
// Rows of a matrix of 2, 3, 5 or 6 bits are unpacked into bytes before they are used, a few at a
// time. One or two rows of x are multiplied with the packed rows as they lie. Of more rows, tiles
// are made: of each group first the integers, those of all rows for four packed columns after each
// other (4 bits: for the lower halves of four bytes, then for the upper ones), then the steps of
// all rows, then step * sum(xi) of all. A few rows are multiplied with rows of the matrix that are
// turned on the way, block by block; for many, rows of the matrix are unpacked into panels that
// stay in the caches.
#pragma once

#include <vector>

#include "backends/cpu/quantized.h"

namespace mica::cpu {

// How a row of x is laid out when it has been made ready, or each of its digits, highest first:
// step and (of the first digit, else 0) step * sum(xi) of each group as floats, then the integers.
// 4 bits: blocks of 128, the 64 even elements first, as they lie in packed bytes; 8 bits: in order.
// Zeros up to the next whole block.
struct Int8Format {
  Int8Format() = default;
  Int8Format(const QuantizedMatrix& matrix, int64_t k, int digits = 1);

  float* steps_of(std::byte* row) const { return reinterpret_cast<float*>(row); }
  float* sums_of(std::byte* row) const { return steps_of(row) + padded_groups; }
  int8_t* integers_of(std::byte* row) const {
    return reinterpret_cast<int8_t*>(sums_of(row) + padded_groups);
  }
  const float* steps(const std::byte* row) const { return reinterpret_cast<const float*>(row); }
  const float* sums(const std::byte* row) const { return steps(row) + padded_groups; }
  const int8_t* integers(const std::byte* row) const {
    return reinterpret_cast<const int8_t*>(sums(row) + padded_groups);
  }
  // Packed bytes of a group.
  int64_t group_bytes() const { return group_size * bits / 8; }
  // Bytes of one row and group in a tile, and of one row.
  int64_t tile_group_bytes() const { return group_size + 8; }
  int64_t tile_row_bytes() const { return groups * tile_group_bytes(); }

  int bits = 4, group_size = 64;  // bits: 4, or 8 for all others
  int digits = 1;
  int64_t k = 0, groups = 0;
  int64_t padded_groups = 0;  // so that the integers are aligned
  int64_t row_bytes = 0;      // from digit to digit, row to row, a multiple of 64
};

// Rows of the matrix that are multiplied together as they lie, and the most rows of x then.
inline constexpr int kInt8Rows = 16, kInt8DotRows = 3;

// Rows of x in tiles that are nearly equal and have `most` rows at most.
struct Int8Tiles {
  int64_t count() const { return (rows + most - 1) / most; }
  int64_t begin(int64_t tile) const { return rows * tile / count(); }

  int64_t rows, most;
};

// A row of a matrix, from which on memory is fetched.
struct Int8Place {
  const std::byte* packed() const {
    return reinterpret_cast<const std::byte*>(matrix->packed_row(row));
  }
  const std::byte* scales() const { return matrix->scales_row(row); }
  const std::byte* biases() const { return matrix->biases_row(row); }

  const QuantizedMatrix* matrix;
  int64_t row;
};

// Unpacked rows of the matrix: of each four elements along k the bytes of all rows, then the scales
// and biases of each group of all rows.
struct Int8Panel {
  uint8_t* quads;
  float *scales, *biases;
};

struct Int8PanelKernels {
  int rows;  // of the matrix in a panel
  int tile;  // the most rows of x in a tile
  // Unpacks groups g0 … g0 + groups of rows first … first + rows (at most `rows`).
  void (*unpack)(const Int8Format& format, const QuantizedMatrix& matrix, int64_t first, int rows,
                 int64_t g0, int64_t groups, const Int8Panel& panel);
  // The products of a panel of `groups` groups with a tile of m rows of x, from its first of these
  // groups on: out[i * rows + row], added to what is there if they continue a sum. What lies from
  // `next` on, if anything, is fetched meanwhile.
  void (*multiply)(const Int8Format& format, const Int8Panel& panel, int64_t groups,
                   const std::byte* tile, int64_t m, float* out, bool continues,
                   const Int8Place* next);
};

struct Int8FewKernels {
  int tile = 1;  // the most rows of x in a tile
  int most = 0;  // rows of x for which this is faster than panels
  // The products of rows first … first + rows (at most kInt8Rows) of the matrix with a tile of m
  // rows of x: out[i * kInt8Rows + row]. What lies from `next` on is fetched meanwhile.
  void (*multiply)(const Int8Format& format, const QuantizedMatrix& matrix, int64_t first, int rows,
                   const std::byte* tile, int m, float* out, const Int8Place& next) = nullptr;
};

struct Int8Kernels {
  // Makes one row (k floats) ready, all its digits; false if it has values that are not finite, or
  // so small that there is no step: it is then unfinished.
  bool (*prepare)(const Int8Format& format, const float* x, std::byte* row);
  // Makes a tile of `count` rows.
  void (*interleave)(const Int8Format& format, const std::byte* const* x, int count,
                     std::byte* tile);
  // Whether three digits are faster than products of floats.
  bool fast;
  // The products of rows first … first + rows (at most kInt8Rows) of the matrix with `count` (at
  // most kInt8DotRows) rows of x: out[i * kInt8Rows + row]. What lies from `next` on is fetched
  // meanwhile.
  void (*dots)(const Int8Format& format, const QuantizedMatrix& matrix, int64_t first, int rows,
               const std::byte* const* x, int count, float* out, const Int8Place& next);
  int dot_rows;  // the most rows of x for which this is the fastest
  Int8FewKernels few;
  Int8PanelKernels panels;
};
// Of the best instruction set of this processor.
const Int8Kernels& int8_kernels();
// For tests: pretends that the processor has no instruction for sums of byte products.
void disable_byte_products(bool disabled);

// Whether products with matrices of such groups are served here.
inline bool has_int8_products(int group_size) { return group_size >= 32; }

// Makes m rows ready, digits * row_bytes apart. Gives those that cannot be rounded: they are zeros
// then, and their results are to be overwritten.
std::vector<int64_t> prepare_int8(const Int8Format& format, const GemmOperand& x, int64_t m,
                                  std::byte* prepared);

// Rows of x, made ready, times a matrix of n rows.
struct Int8Product {
  // The next row, with all its digits.
  void add(const std::byte* row, const Int8Format& format) {
    for (int digit = 0; digit < format.digits; ++digit) x.push_back(row + digit * format.row_bytes);
  }

  std::vector<const std::byte*> x;
  QuantizedMatrix matrix;
  int64_t n = 0;
  GemmOutput out;
};
// Several products with matrices of one format, as one loop over all of their rows. `first` begins
// to fetch what the calling thread will read first, and may be called before x is ready.
void fetch_int8(const Int8Format& format, const Int8Product& first);
// `tiles`: int8_tile_bytes() of all rows of x; products that follow each other and have the same
// rows count once. At a multiple of 4.
void run_int8(const Int8Format& format, std::span<const Int8Product> products,
              std::span<std::byte> tiles);
size_t int8_tile_bytes(const Int8Format& format, int64_t rows);

// The product of all rows of x: what QuantizedGemm asks for. The workspace begins with the rows
// made ready, then there is room for tiles.
size_t int8_workspace(const QuantizedGemm<float>& product, int digits);
std::vector<int64_t> run_int8(const QuantizedGemm<float>& product, int digits,
                              std::span<std::byte> workspace);

}  // namespace mica::cpu
