// How reductions accumulate: functions by kind of reduction and type of the values. Sums and
// products of floating values accumulate in double (float64 sums with a compensation), integers in
// 64 bits.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/dtype.h"
#include "core/op.h"

namespace mica::cpu {

// Partial results of one output while its elements pass by: independent chains, so that additions
// overlap. An element's chain depends on its place in the row only.
inline constexpr int64_t kChains = 16;
inline constexpr size_t kMaxAccumulatorBytes = 16;

struct ReduceFunctions {
  size_t accumulator_bytes;
  void (*clear)(void* accumulators, int64_t count);
  // All of a row, or a piece of one, into one accumulator. Pieces are multiples of kTile but for
  // the last: `begin` clears the chains, `fold` takes elements, `end` adds the chains to the
  // accumulator.
  void (*begin)(void* chains);
  void (*fold)(void* chains, const void* values, int64_t count);
  void (*end)(const void* chains, void* accumulator);
  // `rows` short rows that lie one after the other, each into its accumulator.
  void (*rows)(const void* values, int64_t rows, int64_t length, void* accumulators);
  // `rows` rows of elements, `stride` elements apart, into as many accumulators as a row has
  // elements.
  void (*columns)(const void* values, int64_t rows, int64_t stride, int64_t count,
                  void* accumulators);
  // Accumulators of other elements into these.
  void (*merge)(void* accumulators, const void* others, int64_t count);
  // Results as the output's dtype.
  void (*write)(const void* accumulators, int64_t count, Dtype dtype, void* out);
};

// Values as tiles hold them (tile.h), or those of a half type as they are stored. `of_half`: what
// is reduced has a half type, whichever way it is held: sums of such values are added in float four
// at a time, and these sums in double.
const ReduceFunctions& reduce_functions(Reduce reduce, Dtype values, bool of_half);

}  // namespace mica::cpu
