// Products of few vectors with the rows of a matrix as it lies in memory: the decode step of a
// model, whose weights are stored as [outputs, inputs]. Every row is read once, at the speed of
// memory, and its elements are widened in registers.
//
// What is guaranteed: a dot product is summed in one accumulator per vector lane, in ascending
// order, and the lanes are added in a fixed order. It depends on the two vectors and their length
// only: not on how many there are, the thread, or the number of threads.
#pragma once

#include "backends/cpu/gemm.h"

namespace mica::cpu {

// Up to this many vectors, dots are faster than packing the matrix into panels; if they are long:
// adding up lanes is dear for short ones. Products of up to 16 rows with kMaxDots * kDotDepth or
// more terms are always dots.
inline constexpr int64_t kMaxDots = 16, kDotDepth = 32;

// Rows taken together share what is loaded of the vectors; so many accumulators fit the registers.
// Of one vector more rows are taken: otherwise sums would wait for one another.
inline constexpr int kDotRows = 4, kDotVectors = 4, kDotRowsOfOne = 8;

// Dot products of `rows` (up to kDotRows, of dtype; of one vector up to kDotRowsOfOne) with
// `vectors` (up to kDotVectors, `stride` apart, zero from k to the next multiple of 32): out[row *
// kDotVectors + vector]. For bfloat16 rows the vectors must have gone through pair_up_vector, or,
// with `pairs`, be bfloat16 numbers themselves, two in the place of a float: pairs are added as in
// gemm_kernels.h, where the processor does that faster.
template <class T>
struct DotBlock {
  const std::byte* const* rows;
  int row_count;
  Dtype dtype;
  const T* vectors;
  int64_t stride;
  int vector_count;
  int64_t k;
  T* out;
  const std::byte* ahead = nullptr;  // where the next rows begin
  bool pairs = false;
};
void dot_block(const DotBlock<float>& block);
void dot_block(const DotBlock<double>& block);
void pair_up_vector(int64_t k, float* vector);

// The operand's first `count` vectors as T, `stride` apart, zero beyond k.
template <class T>
void widen_vectors(const GemmOperand& operand, int64_t count, int64_t k, int64_t stride, T* to);

// True if one side of the product has few vectors and the other's are dense along k.
template <class T>
bool is_dots(const Gemm<T>& gemm);
template <class T>
size_t dots_workspace(const Gemm<T>& gemm);
template <class T>
void run_dots(const Gemm<T>& gemm, std::span<std::byte> workspace);

}  // namespace mica::cpu
