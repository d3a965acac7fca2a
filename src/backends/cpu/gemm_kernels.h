// The innermost loops of matrix products, per vector instruction set: packing into panels, and the
// register-blocked product of two panels.
//
// A panel holds up to `width` vectors along the inner axis k, interleaved: element k of vector i is
// panel[k * width + i]; vectors beyond `count` are zero. Panels are float for float16, bfloat16 and
// float32 sources (converted while packing), double for double.
//
// Every element of a product is the sum over k, in ascending order, of fused multiply-adds (on
// x86 from AVX2 on; multiplied and added where there is no such instruction).
#pragma once

#include <cstdint>

#include "core/dtype.h"

namespace mica::cpu {

// Vectors along the inner axis. `dense`: vector i + 1 starts one element after vector i, and only
// the first pointer is read.
struct PanelSource {
  const std::byte* const* vectors;  // to their elements at k = 0
  int count;
  Dtype dtype;
  int64_t stride;  // between neighbours along k, in elements
  bool dense;
};

// Panels may be written to up to this many elements beyond their end.
inline constexpr int64_t kPanelSlack = 16;
// The widest panel of any instruction set.
inline constexpr int kMaxPanelWidth = 64;

// How element k of row r of a left operand is found: at data[k * stride + r], as in a panel, or at
// data[r * stride + k].
enum class Lie { Panel, Rows };

// Memory that will be read soon, and is fetched meanwhile, a place with each term: `runs` runs of
// `length` places `step` bytes apart, each run `jump` bytes behind the end of the one before.
struct GemmAhead {
  const std::byte* at;
  int64_t step = 0, length = int64_t{1} << 40, jump = 0, runs = 1;
  int64_t left = length;  // places of this run

  void next_run() {
    if (--runs <= 0) step = jump = 0, length = int64_t{1} << 40;
    at += jump;
    left = length;
  }
  // As it is after so many places.
  void skip(int64_t places) {
    for (; places >= left; next_run()) {
      places -= left;
      at += left * step;
    }
    at += places * step;
    left -= places;
  }
};

// c[m x n] = a * b, or c += a * b; of several tiles below each other, if `count` says so.
template <class T>
struct GemmTile {
  int m, n;  // at most as many as panels have vectors
  int64_t kc;
  const T* a;
  int64_t a_stride;
  Lie lie;
  const T* b;  // rows of n elements, readable up to the next multiple of a vector
  int64_t ldb;
  T* c;
  int64_t ldc;
  bool accumulate;
  GemmAhead ahead;
  // If given, the sums go here instead, rounded to `dtype`, F16 or BF16: rows so many bytes apart.
  std::byte* rounded = nullptr;
  int64_t rounded_stride = 0;
  Dtype dtype = Dtype::F32;
  int64_t group = 0;  // terms that are never cut apart, if given
  int64_t count = 1;
  int64_t a_step = 0, c_step = 0, rounded_step = 0;  // to the next tile's

  void advance() {
    a += a_step;
    if (c) c += c_step;
    if (rounded) rounded += rounded_step;
  }
};

template <class T>
struct GemmKernels {
  int rows;     // panel width of the left operand
  int columns;  // panel width of the right operand
  // Packs elements k0 … k0 + kc of the source's vectors.
  void (*pack)(const PanelSource& source, int width, int64_t k0, int64_t kc, T* panel);
  void (*multiply)(const GemmTile<T>& tile);
  // The same with exactly `columns` columns, a as a panel, and b's rows of `dtype`. Where it
  // continues, the sums start at c, as if k had not been cut there. Where it fetches, rows that
  // follow b's are asked for meanwhile.
  void (*stream)(int m, int64_t kc, const T* a, const std::byte* b, Dtype dtype, int64_t ldb, T* c,
                 int64_t ldc, bool continues, bool fetches);
  bool several = false;  // `multiply` takes several tiles
};

// Of the best instruction set of this processor. T: float, double.
template <class T>
const GemmKernels<T>& gemm_kernels();

// Kernels whose panels hold pairs of bfloat16 numbers that follow each other along k, in place of
// floats; k, where they count, counts pairs. A product adds both of a pair, the even one last,
// rounding to nearest even; numbers below 2^-126 are zero. Sources are dense along k or `dense`.
// nullptr where they are no faster.
const GemmKernels<float>* bfloat16_pair_kernels();

// Rounds n floats to the floating dtype at `to`.
void store_rounded(const float* from, int64_t n, Dtype dtype, std::byte* to);
// Converts n elements of a floating type to float.
void load_widened(const std::byte* from, Dtype dtype, int64_t n, float* to);

}  // namespace mica::cpu
