// The ways that the CPU computes attention; attention.cc chooses. All give a row the same result
// whatever else is in the batch, and whatever the number of threads.
#pragma once

#include <span>

#include "backends/cpu/attention_job.h"

namespace mica::cpu {

// Few query rows for each key head: keys and values are streamed once, in parallel over ranges of
// kDecodeSlots slots whose partial results lie in the workspace until they are combined.
inline constexpr int64_t kDecodeRows = 8;
inline constexpr int64_t kDecodeSlots = 512;
size_t attention_decode_workspace(const AttentionJob& job);
void attention_decode(const AttentionJob& job, std::span<std::byte> workspace);

// Whether all inputs are bfloat16 and the processor multiplies pairs of such numbers faster than
// floats: products with weights and with cotangents of scores then take those rounded to bfloat16.
bool multiplies_pairs(const AttentionJob& job);

// Many query rows: blocks of them against blocks of keys.
void attention_prefill(const AttentionJob& job);

// Cotangents of q, k and v for that of the result; parallel over key heads. All outputs are
// row-major.
struct AttentionCotangents {
  View result;   // given
  View q, k, v;  // wanted
};
size_t attention_backward_workspace(const AttentionJob& job);
void attention_backward(const AttentionJob& job, const AttentionCotangents& cotangents,
                        std::span<std::byte> workspace);
// The same by pairs, of bfloat16 inputs and outputs; attention_backward() chooses it.
void attention_backward_pairs(const AttentionJob& job, const AttentionCotangents& cotangents,
                              std::span<std::byte> workspace);

// The same in plain loops on doubles.
void attention_doubles(const AttentionJob& job);
void attention_backward_doubles(const AttentionJob& job, const AttentionCotangents& cotangents);

}  // namespace mica::cpu
