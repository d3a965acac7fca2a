// Copies of many rows of equal length, each contiguous, from places that the processor does not
// guess: rows are fetched some way ahead of their use. What gathers, joins and strided copies run
// on, a thread's share at a time.
//
//   move_rows({a, 4096, out, 512, 2048, 512, true});  // 2048 rows of 512 bytes, 4096 bytes apart
#pragma once

#include <cstddef>
#include <cstdint>

namespace mica::cpu {

// All in bytes.
struct RowMove {
  const std::byte* from;
  int64_t from_step;
  std::byte* to;
  int64_t to_step;
  int64_t count, bytes;
  // The result would not stay in the caches: rows made of whole cache lines, and long ones, are
  // stored past them. A stream_fence() (tile_io.h) orders that before what follows.
  bool stream;
};

void move_rows(const RowMove& move);

// Row i is the one at from + offsets[i] * from_step.
void gather_rows(const RowMove& move, const int64_t* offsets);

}  // namespace mica::cpu
