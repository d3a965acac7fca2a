// Joining, cutting and repeating arrays: concatenate, stack, split, pad, repeat, tile, roll, flip.
//
//   Array both = concatenate({keys, new_keys}, 2);
//   Arrays qkv = split(projected, {d, 2 * d}, -1);
//
// Inputs of one call are promoted to their common dtype. Shapes that do not fit are ValueErrors
// that name both shapes; axes out of range are IndexErrors.
#pragma once

#include <string_view>
#include <utility>
#include <vector>

#include "core/op.h"
#include "core/params.h"
#include "ops/elementwise.h"

namespace mica {

// Along an axis that exists; all other extents must be equal.
Array concatenate(const Arrays& arrays, int axis = 0, Stream s = {});
// Along a new axis; all shapes must be equal.
Array stack(const Arrays& arrays, int axis = 0, Stream s = {});
// Into equal parts (views); the extent must be a multiple.
Arrays split(const Array& a, int parts, int axis = 0, Stream s = {});
// Before each of these places, as NumPy: split(a, {2, 5}) gives a[:2], a[2:5], a[5:].
Arrays split(const Array& a, const Shape& places, int axis = 0, Stream s = {});

// widths[i] elements before and after along axis i; one pair stands for all axes. First form:
// `value` (one element). Second: elements of the array, of which it needs one along every axis that
// grows.
Array pad(const Array& a, const std::vector<std::pair<int64_t, int64_t>>& widths,
          const Array& value, Stream s = {});
Array pad(const Array& a, const std::vector<std::pair<int64_t, int64_t>>& widths, Scalar value = 0,
          Stream s = {});
enum class PadMode : uint8_t {
  Edge,       // the outermost element:               a a|a b c|c c
  Reflect,    // mirrored at the outermost element:   c b|a b c|b a
  Symmetric,  // mirrored at the edge:                b a|a b c|c b
};
Array pad(const Array& a, const std::vector<std::pair<int64_t, int64_t>>& widths, PadMode mode,
          Stream s = {});

// Each element `repeats` times along an axis; the second form flattens first.
Array repeat(const Array& a, int repeats, int axis, Stream s = {});
Array repeat(const Array& a, int repeats, Stream s = {});
// The whole array reps[i] times along axis i, as NumPy's tile.
Array tile(const Array& a, const Shape& reps, Stream s = {});
// Elements shifted along axes, those that leave at the end come in at the start; without axes the
// flattened array is shifted.
Array roll(const Array& a, const Shape& shift, const std::vector<int>& axes, Stream s = {});
Array roll(const Array& a, int64_t shift, Stream s = {});

// The elements in reverse order along the axes, as a view; the second form along all.
Array flip(const Array& a, const std::vector<int>& axes, Stream s = {});
Array flip(const Array& a, Stream s = {});

namespace ops {

struct ConcatenateParams {
  int axis;
  static constexpr auto fields() { return std::tuple(field("axis", &ConcatenateParams::axis)); }
};
extern const Op concatenate_op;

}  // namespace ops
}  // namespace mica
