#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backends/cpu/row_moves.cc"
#include "backends/cpu/highway_targets.h"

#include <hwy/foreach_target.h>

#include <algorithm>
#include <cstring>

#include "backends/cpu/lanes-inl.h"
#include "backends/cpu/row_moves.h"
#include "backends/cpu/tile_io.h"

HWY_BEFORE_NAMESPACE();
namespace mica::cpu::HWY_NAMESPACE {

using Bytes = hn::CappedTag<uint8_t, 64>;

HWY_INLINE void copy_lines(std::byte* to, const std::byte* from, int64_t bytes, bool stream) {
  const Bytes d;
  const auto step = static_cast<int64_t>(hn::Lanes(d));
  auto* in = reinterpret_cast<const uint8_t*>(from);
  auto* out = reinterpret_cast<uint8_t*>(to);
  if (stream) {
    for (int64_t i = 0; i < bytes; i += step) hn::Stream(hn::LoadU(d, in + i), d, out + i);
  } else {
    for (int64_t i = 0; i < bytes; i += step) hn::StoreU(hn::LoadU(d, in + i), d, out + i);
  }
}

// The first and the last `size` bytes, which may overlap: 2 * size >= bytes >= size.
template <int64_t size>
HWY_INLINE void copy_ends(std::byte* to, const std::byte* from, int64_t bytes) {
  std::byte first[size], last[size];
  std::memcpy(first, from, size);
  std::memcpy(last, from + bytes - size, size);
  std::memcpy(to, first, size);
  std::memcpy(to + bytes - size, last, size);
}

// Lengths repeat from row to row, so that branches are foreseen and calls would cost more.
HWY_INLINE void copy_row(std::byte* to, const std::byte* from, int64_t bytes) {
  if (bytes > 1024) {
    std::memcpy(to, from, static_cast<size_t>(bytes));
  } else if (bytes >= 64) {
    copy_lines(to, from, bytes & -64, false);
    if (bytes % 64) copy_lines(to + bytes - 64, from + bytes - 64, 64, false);
  } else if (bytes >= 32) {
    copy_ends<32>(to, from, bytes);
  } else if (bytes >= 16) {
    copy_ends<16>(to, from, bytes);
  } else if (bytes >= 8) {
    copy_ends<8>(to, from, bytes);
  } else if (bytes >= 4) {
    copy_ends<4>(to, from, bytes);
  } else if (bytes >= 2) {
    copy_ends<2>(to, from, bytes);
  } else {
    *to = *from;
  }
}

HWY_INLINE void stream_row(std::byte* to, const std::byte* from, int64_t bytes) {
  auto head = static_cast<int64_t>(-reinterpret_cast<uintptr_t>(to) % kStreamAlign);
  int64_t body = (bytes - head) & -64;
  if (head) copy_row(to, from, head);
  copy_lines(to + head, from + head, body, true);
  if (head + body < bytes) copy_row(to + head + body, from + head + body, bytes - head - body);
}

// Inlined always: to GCC, a function that only fetches ahead is one without effect.
HWY_INLINE void fetch_row(const std::byte* from, int64_t bytes) {
  auto row = reinterpret_cast<uintptr_t>(from), end = row + static_cast<uintptr_t>(bytes);
  for (auto line = row & ~uintptr_t{63}; line < end; line += 64)
    prefetch_far(reinterpret_cast<const void*>(line));
}

template <class From>
HWY_INLINE void move_from(const RowMove& move, bool guessed, From&& from) {
  // Of long rows only the start: then the processor sees where it goes.
  constexpr int64_t kAheadBytes = 4096, kRowStart = 1024, kLongRow = 4096;
  int64_t bytes = move.bytes, start = std::min(bytes, kRowStart);
  int64_t ahead = guessed ? move.count : kAheadBytes / std::max<int64_t>(start, 64);
  auto line_aligned = [](int64_t n) { return n % static_cast<int64_t>(kStreamAlign) == 0; };
  bool whole_lines = line_aligned(bytes) && line_aligned(move.to_step) &&
                     reinterpret_cast<uintptr_t>(move.to) % kStreamAlign == 0;
  bool stream = move.stream && (whole_lines || bytes >= kLongRow);
  if (!guessed)
    for (int64_t i = 0; i < std::min(ahead, move.count); ++i) fetch_row(from(i), start);
  std::byte* to = move.to;
  for (int64_t i = 0, count = move.count; i < count; ++i, to += move.to_step) {
    if (i + ahead < count) fetch_row(from(i + ahead), start);
    if (stream)
      stream_row(to, from(i), bytes);
    else
      copy_row(to, from(i), bytes);
  }
}

void move_steps(const RowMove& move) {
  bool guessed = move.from_step <= move.bytes && move.from_step >= 0;
  move_from(move, guessed,
            [from = move.from, step = move.from_step](int64_t i) { return from + i * step; });
}

void move_offsets(const RowMove& move, const int64_t* offsets) {
  move_from(move, false, [from = move.from, step = move.from_step, offsets](int64_t i) {
    return from + offsets[i] * step;
  });
}

}  // namespace mica::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace mica::cpu {

HWY_EXPORT(move_steps);
HWY_EXPORT(move_offsets);

void move_rows(const RowMove& move) { HWY_DYNAMIC_DISPATCH(move_steps)(move); }
void gather_rows(const RowMove& move, const int64_t* offsets) {
  HWY_DYNAMIC_DISPATCH(move_offsets)(move, offsets);
}

}  // namespace mica::cpu
#endif
