// What derivative and batching rules share: aligning batch axes, zeros for missing tangents.
#pragma once

#include <span>
#include <vector>

#include "core/op.h"

namespace mica::ops {

using Given = std::span<const Array>;

// `a` with its batch axis first and `rank` further axes, unit axes added after the batch axis: how
// rules align ranks before broadcasting. An unbatched array (axis -1) gets a batch axis of
// extent 1.
Array batch_first(const Array& a, int axis, size_t rank, Stream s);
// `a` with its batch axis first, repeated (as a view) if it had none.
Array batched(const Array& a, int axis, int64_t batch, Stream s);
// The extent of the batch axis that `axes` mark.
int64_t batch_extent(std::span<const Array> inputs, std::span<const int> axes);
// 0 … batch - 1 along the first of `rank` + 1 axes: the index that a gather needs for a batch axis.
Array batch_index(int64_t batch, size_t rank, Stream s);
// Axes once a batch axis stands before them.
std::vector<int> shifted(std::vector<int> axes);

// The tangent, or zeros like the primal where it is empty.
Array tangent_or_zeros(const Array& tangent, const Array& primal, Stream s);

}  // namespace mica::ops
