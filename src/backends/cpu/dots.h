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

// Up to this many vectors, dots are faster than packing the matrix into panels.
inline constexpr int64_t kMaxDots = 16;

// True if one side of the product has few vectors and the other's are dense along k.
template <class T>
bool is_dots(const Gemm<T>& gemm);
template <class T>
size_t dots_workspace(const Gemm<T>& gemm);
template <class T>
void run_dots(const Gemm<T>& gemm, std::span<std::byte> workspace);

}  // namespace mica::cpu
