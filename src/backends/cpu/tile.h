// Tiles: what region instructions work on, and the table of vector functions that compute them.
//
// A tile holds up to kTile elements in the type that its dtype computes in: float for the half
// types, its own type otherwise (bool is a byte, 0 or 1). Functions compute a multiple of kTilePad
// elements; the last ones may be padding. The result may be the same memory as an argument;
// elements are aligned to their own size only.
#pragma once

#include <cstdint>

#include "core/dtype.h"
#include "core/op.h"

namespace mica::cpu {

inline constexpr int64_t kTile = 256;
inline constexpr int64_t kTilePad = 16;

constexpr int64_t padded(int64_t count) { return (count + kTilePad - 1) / kTilePad * kTilePad; }
constexpr Dtype computed_as(Dtype dtype) { return is_half(dtype) ? Dtype::F32 : dtype; }

using TileFunction = void (*)(void* out, const void* a, const void* b, const void* c, int64_t n);

// The function of a row of ops/elementwise.def for arguments computed as `dtype`; null if the row
// does not take them.
TileFunction table_function(const Op& op, Dtype dtype);
bool is_table_op(const Op& op);
// Condition, x, y of elements of a type.
TileFunction select_function(Dtype dtype);
// Between two types of arithmetic, or to a half type (the result is float, rounded); null if the
// bits are the same.
TileFunction cast_function(Dtype from, Dtype to);
// Rounds floats to a half type.
TileFunction round_function(Dtype half);

// Parts of the table: float32 in vector code (backends/cpu/elementwise.cc; null where it has none),
// and everything from the scalar expressions (backends/cpu/elementwise_generic.cc).
TileFunction vector_function(const Op& op);
TileFunction generic_function(const Op& op, Dtype dtype);

}  // namespace mica::cpu
