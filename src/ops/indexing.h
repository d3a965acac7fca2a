// Python's indexing: what a[...] and a[...] = value mean, as NumPy and MLX define it.
//
//   Array last = index(x_BLD, {Ellipsis{}, -1, Slice{}});           // x[..., -1, :]
//   Array rows = index(table, {ids});                              // table[ids]
//   Array next = index_update(cache, {Slice{0, 4}}, keys);         // cache[0:4] = keys, as a new
//   array
//
// Indices are read left to right: an integer takes one place of an axis and removes the axis; a
// Slice is start:stop:step, each part optional; NewAxis adds an axis of extent 1; one Ellipsis
// stands for as many full slices as are missing (they are also added at the end). Integer arrays,
// and integers beside them, are broadcast together; their axes stand where the first of them stood,
// or in front if a slice or NewAxis lies between two of them.
//
// A bool array selects where it is true, over as many axes as it has: it is evaluated at once, so
// it raises in vmap and compile. Setting one value by one mask needs no evaluation. Integers
// out of range and masks of another shape are IndexErrors; too many indices, and arrays of floats,
// are ValueErrors.
#pragma once

#include <optional>
#include <span>
#include <variant>

#include "core/array.h"
#include "ops/index.h"

namespace mica {

struct Slice {
  std::optional<int64_t> start, stop, step;
};
struct NewAxis {};
struct Ellipsis {};
using Index = std::variant<int64_t, Slice, NewAxis, Ellipsis, Array>;

Array index(const Array& a, std::span<const Index> indices, Stream s = {});
Array index(const Array& a, std::initializer_list<Index> indices, Stream s = {});

// `a` with index(a, indices) replaced by, or combined with, `value`, which broadcasts and takes the
// dtype of `a`. Of equal places the last write stays; Add, Prod, Max and Min take every one.
Array index_update(const Array& a, std::span<const Index> indices, const Array& value,
                   ScatterMode mode = ScatterMode::Set, Stream s = {});
Array index_update(const Array& a, std::initializer_list<Index> indices, const Array& value,
                   ScatterMode mode = ScatterMode::Set, Stream s = {});

// The places where `a` is not zero: one int64 array per axis. Evaluates `a`.
Arrays nonzero(const Array& a);

}  // namespace mica
