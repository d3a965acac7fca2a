// Matrix products of any size and layout, blocked for the caches and in parallel.
//
//   Gemm<float> product{m, n, k, left, right, out};
//   product.run(workspace);   // product.workspace() bytes, 64-byte aligned
//
// T is the type that sums are kept in: float for float16, bfloat16 and float32 operands (of
// different types if need be), double for double. Operands are packed into panels from any layout,
// or multiplied as they lie where that is as fast; nothing is widened as a whole.
//
// What is guaranteed: each element is the sum over k of fused products in ascending order, within
// blocks of at most kGemmDepth terms whose sums are then added in order, and is rounded once.
// It depends on the operands' values and K only: not on M, N, the layouts, or the number of
// threads. (Few rows are summed otherwise, dots.h; products of bfloat16 may add pairs of terms,
// gemm_kernels.h.)
#pragma once

#include <cstdint>
#include <span>

#include "backends/cpu/gemm_kernels.h"

namespace mica::cpu {

inline constexpr int64_t kGemmDepth = 1024;
// Rows that are packed at a time, at most.
inline constexpr int64_t kMaxGemmRows = 1050;

// One side of a product: vectors along k (the rows of the left operand, the columns of the right).
struct GemmOperand {
  const std::byte* data = nullptr;
  Dtype dtype = Dtype::F32;
  int64_t vector_stride = 0;        // from vector to vector, in elements
  int64_t inner_stride = 1;         // along k
  const int64_t* chosen = nullptr;  // if given, vector i is the one at chosen[i] * vector_stride

  // If given, called instead: writes elements k0 … k0 + kc of vectors `first` … `first` + count
  // into a panel (T* behind the pointer) of `width` vectors, zeros beyond count. For quantized
  // matrices.
  void (*fill)(const void* context, int64_t first, int count, int width, int64_t k0, int64_t kc,
               void* panel) = nullptr;
  const void* context = nullptr;

  const std::byte* vector(int64_t i) const {
    return data + (chosen ? chosen[i] : i) * vector_stride * size_of(dtype);
  }
};

// Rows of dense elements.
struct GemmOutput {
  std::byte* data = nullptr;
  Dtype dtype = Dtype::F32;
  int64_t row_stride = 0;
  const int64_t* chosen = nullptr;  // if given, row i goes to row chosen[i]

  std::byte* at(int64_t row, int64_t column) const {
    return data + ((chosen ? chosen[row] : row) * row_stride + column) * size_of(dtype);
  }
  // Rounds one sum (a float or double) to its place.
  template <class T>
  void store(int64_t row, int64_t column, T value) const {
    std::byte* to = at(row, column);
    switch (dtype) {
      case Dtype::F16:
        *reinterpret_cast<float16_t*>(to) = float16_t(static_cast<float>(value));
        break;
      case Dtype::BF16:
        *reinterpret_cast<bfloat16_t*>(to) = bfloat16_t(static_cast<float>(value));
        break;
      default: *reinterpret_cast<T*>(to) = value;
    }
  }
};

template <class T>
struct Gemm {
  int64_t m = 0, n = 0, k = 0;
  GemmOperand left, right;
  GemmOutput out;
  // Operands of the product that follows, laid out as those of this one: fetched meanwhile.
  const std::byte *next_left = nullptr, *next_right = nullptr;
  const GemmKernels<T>* kernels = nullptr;  // others than those of T; k is in their terms
  int64_t group = 0;       // if given, so many terms are never cut apart (GemmTile::group)
  bool half_term = false;  // the last of which is a pair with its first half only

  size_t workspace() const;
  // What this or any smaller m needs.
  size_t largest_workspace() const;
  void run(std::span<std::byte> workspace) const;
};

extern template struct Gemm<float>;
extern template struct Gemm<double>;

}  // namespace mica::cpu
