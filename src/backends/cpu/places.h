// Index arrays as offsets into memory, checked.
#pragma once

#include <cstdint>

#include "core/backend.h"

namespace mica::cpu {

// Adds index * stride to offsets[i] for each of the indices (contiguous), negative ones counted
// from the end of `extent`. Blocks of `block` elements that leave the axis, and indices outside of
// it, are IndexErrors that name `op` and `axis`.
struct IndexedAxis {
  const char* op;
  int axis;
  int64_t extent, block, stride;
};
void add_offsets(const View& indices, const IndexedAxis& along, int64_t* offsets);

// The corners of the blocks of a gather or scatter into `a`: `offsets` gets one per place.
void block_offsets(std::span<const View> indices, std::span<const int> axes, const View& a,
                   std::span<const int64_t> block, const char* op, std::span<int64_t> offsets);

// Element `i` of a contiguous array of integers.
int64_t index_value(const View& indices, int64_t i);
// The block of a view whose corner along axes[i] is starts[i]; IndexError if it leaves the view.
View block_at(const View& a, const View& starts, std::span<const int> axes, const Shape& block,
              const char* op);

}  // namespace mica::cpu
