// Reading and writing at places that are data: take, gather, scatter, slice updates.
//
//   Array x_BLD = take(embedding_VD, ids_BL, 0);
//   Array kept = take_along_axis(scores, argsort(scores), -1);
//   keys = ragged_slice_update(keys_BHCK, new_BHLK, starts_B, 2, false);
//
// Indices may have any integer dtype; negative ones count from the end. An index out of range is an
// IndexError at evaluation, with the index and the extent (MLX leaves it undefined). Updates take
// the dtype of the array they go to.
//
// Updates write only what they change, in place where the plan may reuse the target. Sums over
// equal indices are deterministic: added in the order of the updates, half types in float32 and
// rounded once. Where a plain write meets equal indices, the last one stays; derivatives assume
// that there are none.
#pragma once

#include <vector>

#include "core/op.h"
#include "core/params.h"

namespace mica {

// The slices of `a` at `indices` along an axis: the axis is replaced by the axes of `indices`.
// Without an axis `a` is flattened first.
Array take(const Array& a, const Array& indices, int axis, Stream s = {});
Array take(const Array& a, const Array& indices, Stream s = {});
// The slice at one index, without the axis (a view).
Array take(const Array& a, int64_t index, int axis, Stream s = {});

// One element per index: result[…, i, …] = a[…, indices[…, i, …], …]. `indices` has the rank of
// `a`; the other axes broadcast. Without an axis both are flattened.
Array take_along_axis(const Array& a, const Array& indices, int axis, Stream s = {});
Array take_along_axis(const Array& a, const Array& indices, Stream s = {});
// `a` with values at the places that take_along_axis reads; values broadcast to the indices.
Array put_along_axis(const Array& a, const Array& indices, const Array& values, int axis,
                     Stream s = {});
// The same, added to what is there.
Array scatter_add_axis(const Array& a, const Array& indices, const Array& values, int axis,
                       Stream s = {});

// For each place of the (broadcast) index arrays the block of `slice_sizes` whose corner along
// axes[i] is indices[i] and 0 along the others. Result: shape of the indices, then slice_sizes.
Array gather(const Array& a, const Arrays& indices, const std::vector<int>& axes,
             const Shape& slice_sizes, Stream s = {});

enum class ScatterMode : uint8_t { Set, Add, Prod, Max, Min };
// `a` with blocks written (added, …) at places as of gather; updates have the shape of the indices,
// then that of the block. Prod has no derivative.
Array scatter(const Array& a, const Arrays& indices, const Array& updates,
              const std::vector<int>& axes, ScatterMode mode = ScatterMode::Set, Stream s = {});

// `a` with a[start:stop:strides] replaced; the update broadcasts to that slice (see slice in
// ops/shape.h).
Array slice_update(const Array& a, const Array& update, const Shape& start, const Shape& stop,
                   const Shape& strides = {}, Stream s = {});
// The block of `sizes` whose corner along axes[i] is start[i] (one integer array) and 0 elsewhere.
// It must lie inside.
Array slice(const Array& a, const Array& start, const std::vector<int>& axes, const Shape& sizes,
            Stream s = {});
// `a` with such a block replaced by `update`, whose shape is the block's.
Array slice_update(const Array& a, const Array& update, const Array& start,
                   const std::vector<int>& axes, Stream s = {});

// One write per sequence of a batch: target [B, …, C, …], update [B, …, L, …], starts int32 [B].
// Row i of sequence b goes to place starts[b] + i along `axis`; with `ring` modulo C (of more than
// C rows the last C stay), else a place outside of 0 … C-1 is an IndexError. Key-value caches are
// made of this.
Array ragged_slice_update(const Array& target, const Array& update, const Array& starts, int axis,
                          bool ring = false, Stream s = {});

namespace ops {

struct TakeParams {
  int axis;
  static constexpr auto fields() { return std::tuple(field("axis", &TakeParams::axis)); }
};
struct GatherParams {
  std::vector<int> axes;
  Shape sizes;
  static constexpr auto fields() {
    return std::tuple(field("axes", &GatherParams::axes),
                      argument("slice_sizes", &GatherParams::sizes));
  }
};
struct ScatterParams {
  std::vector<int> axes;
  ScatterMode mode;
  static constexpr auto fields() {
    return std::tuple(field("axes", &ScatterParams::axes), field("mode", &ScatterParams::mode));
  }
};
struct ScatterAxisParams {
  int axis;
  ScatterMode mode;  // Set or Add
  static constexpr auto fields() {
    return std::tuple(field("axis", &ScatterAxisParams::axis),
                      field("mode", &ScatterAxisParams::mode));
  }
};
struct SliceUpdateParams {
  Shape start;   // of the first element, non-negative
  Shape stride;  // not zero
  static constexpr auto fields() {
    return std::tuple(argument("start", &SliceUpdateParams::start),
                      field("stride", &SliceUpdateParams::stride));
  }
};
struct DynamicSliceParams {
  std::vector<int> axes;
  Shape sizes;  // empty for updates, whose update says it
  static constexpr auto fields() {
    return std::tuple(field("axes", &DynamicSliceParams::axes),
                      argument("sizes", &DynamicSliceParams::sizes));
  }
};
struct RaggedParams {
  int axis;
  bool ring;
  static constexpr auto fields() {
    return std::tuple(field("axis", &RaggedParams::axis), field("ring", &RaggedParams::ring));
  }
};

extern const Op take_op;                  // a, indices
extern const Op take_along_axis_op;       // a, indices: equal shapes but for the axis
extern const Op gather_op;                // a, index arrays of one shape
extern const Op scatter_op;               // a, index arrays of one shape, updates
extern const Op scatter_axis_op;          // a, indices, updates of the indices' shape
extern const Op slice_update_op;          // a, update
extern const Op dynamic_slice_op;         // a, start
extern const Op dynamic_slice_update_op;  // a, update, start
extern const Op ragged_slice_update_op;   // target, update, starts

// What a kernel says of a bad index; the same words on every device.
[[noreturn]] void index_out_of_range(const char* op, int64_t index, int axis, int64_t extent);
// `index` with negative values counted from the end.
inline int64_t resolve_index(int64_t index, int64_t extent, int axis, const char* op) {
  int64_t resolved = index < 0 ? index + extent : index;
  if (resolved < 0 || resolved >= extent) index_out_of_range(op, index, axis, extent);
  return resolved;
}
// Raises the IndexError of a block of `size` at `start` that leaves an axis.
void check_block(const char* op, int64_t start, int64_t size, int axis, int64_t extent);

}  // namespace ops
}  // namespace mica
