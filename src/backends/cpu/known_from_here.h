// For loops that hold their sums in all registers.
//
//   float* to = known_from_here(c);
//   for (int r = 0; r < 14; ++r, to += stride) ...  // stores
//
// Keeps the compiler from computing the addresses of these stores before the loop in front of them,
// which has no registers for them: each would be spilled and loaded again. Nor are such values
// computed or loaded as vectors, behind all the vector operations before.
#pragma once

namespace mica::cpu {

template <class T>
inline __attribute__((always_inline)) T known_from_here(T value) {
  asm volatile("" : "+r"(value));
  return value;
}

}  // namespace mica::cpu
