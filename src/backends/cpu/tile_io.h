// Between memory and tiles: conversions of half types, gathers of strided elements, streaming
// stores.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/view.h"

namespace mica::cpu {

// Half types to floats and back (rounded), n a multiple of kTilePad.
using WidenFunction = void (*)(const void* halves, float* floats, int64_t n);
using NarrowFunction = void (*)(const float* floats, void* halves, int64_t n);
WidenFunction widen_function(Dtype half);
NarrowFunction narrow_function(Dtype half);

// Stores that bypass the caches, for results too large to stay there: whole cache lines at
// addresses aligned to them. A call of stream_fence() orders them before what follows.
inline constexpr size_t kStreamAlign = 64;
void stream_copy(void* to, const void* from, size_t bytes);
void stream_fence();

// Merges axes that can be walked as one; axes of extent 1 disappear.
void merge_axes(Shape& shape, Strides& strides);

// Elements start … start + count - 1, in row-major order, of a strided array; strides in elements.
void gather(const std::byte* from, size_t element_bytes, const Shape& shape, const Strides& strides,
            int64_t start, int64_t count, void* to);
// `count` copies of one element.
void splat(const void* element, size_t element_bytes, int64_t count, void* to);

}  // namespace mica::cpu
