// Tiles: what region instructions work on, and the tables of functions that compute them.
//
// A tile holds up to kTile elements in the type that its dtype computes in: float for the half
// types, its own type otherwise (bool is a byte, 0 or 1). There are two ways to compute:
//
// Tile functions compute one operation on whole tiles; they exist for every type.
//
// Chains compute a sequence of float32 operations, each on the result of the one before, which
// stays in vector registers: a block of a few vectors goes through all links before the next block
// starts. A link is a function that works on the block and jumps to the next link.
#pragma once

#include <cstdint>

#include "core/dtype.h"
#include "core/op.h"

namespace mica::cpu {

inline constexpr int64_t kTile = 256;
// Tile functions compute multiples of kTilePad elements, chains of kChainPad; the last ones may be
// padding. Results may be the same memory as arguments of the same element size.
inline constexpr int64_t kTilePad = 16;
inline constexpr int64_t kChainPad = 128;

constexpr int64_t padded(int64_t count) { return (count + kTilePad - 1) / kTilePad * kTilePad; }
constexpr Dtype computed_as(Dtype dtype) { return is_half(dtype) ? Dtype::F32 : dtype; }

using TileFunction = void (*)(void* out, const void* a, const void* b, const void* c, int64_t n);

// The function of a row of ops/elementwise.def for arguments computed as `dtype`, from the row's
// scalar expression; null if the row does not take them.
TileFunction table_function(const Op& op, Dtype dtype);
bool is_table_op(const Op& op);
// Condition, x, y of elements of a type.
TileFunction select_function(Dtype dtype);
// Between two types of arithmetic, or to a half type (the result is float, rounded); null if the
// bits are the same.
TileFunction cast_function(Dtype from, Dtype to);

struct Link;
// A StartFunction, or for all links but the first one that also takes the block.
using LinkFunction = void (*)();
using StartFunction = void (*)(const Link* link, int64_t i, void* out);
struct Link {
  LinkFunction run;
  const void* p;  // operands: tiles
  const void* q;
};

// First: the block is elements of p, stored as float32 or a half type.
LinkFunction chain_start(Dtype stored);
// block = op(block), op(block, p), or with `reversed` op(p, block). The link of an operation whose
// result is bool is the last: it writes bytes. Null if the operation has no vector code.
LinkFunction chain_operation(const Op& op, bool reversed = false);
// The same where all elements of p are the first; null where that gains nothing.
LinkFunction chain_constant(const Op& op, bool reversed);
// block = p ? block : q, or with `reversed` p ? q : block.
LinkFunction chain_select(bool reversed);
// Rounds to a half type; `of_half` where the block is the result of an operation on values of that
// type: a NaN is then one of its NaNs, which saves looking for others.
LinkFunction chain_round(Dtype half, bool of_half);
// Last: writes the block, as float32 or a half type; `stream` past the caches.
LinkFunction chain_end(Dtype stored, bool stream);
// The same in passing, to p; `rounded` if the block's numbers have the precision of the type.
LinkFunction chain_keep(Dtype stored, bool stream, bool rounded);
// Runs a chain over n elements (rounded up to kChainPad).
inline void run_chain(const Link* links, int64_t n, int64_t block, void* out) {
  auto start = reinterpret_cast<StartFunction>(links->run);
  for (int64_t i = 0; i < n; i += block) start(links, i, out);
}
// Elements of a block on this machine; divides kChainPad.
int64_t chain_block();

}  // namespace mica::cpu
