// Shared by the files of the index family: sample inputs of its operations, and small helpers of
// its batching rules.
#pragma once

#include <vector>

#include "core/op.h"

namespace mica::ops {

std::vector<Sample> take_samples();
std::vector<Sample> take_along_axis_samples();
std::vector<Sample> gather_samples();
std::vector<Sample> scatter_samples();
std::vector<Sample> scatter_axis_samples();
std::vector<Sample> slice_update_samples();
std::vector<Sample> dynamic_slice_samples();
std::vector<Sample> dynamic_slice_update_samples();
std::vector<Sample> ragged_slice_update_samples();

// The columns of batched starts [.., B at `axis`, ..] of `count` numbers each: `count` arrays [B].
Arrays start_columns(const Array& starts, int axis, size_t count, Stream s);

}  // namespace mica::ops
