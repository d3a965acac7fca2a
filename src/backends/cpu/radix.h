// Stable radix sort of records by a 64-bit key that a function reads from them.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>

namespace mica::cpu {

// Sorts `records` by key(record), stably; `scratch` holds as many records. Passes over bits that no
// two keys differ in are skipped.
template <class Record, class Key>
void radix_sort(Record* records, Record* scratch, int64_t count, Key&& key) {
  constexpr int kBits = 11;
  constexpr uint64_t kMask = (1u << kBits) - 1;
  uint64_t differing = 0;
  bool sorted = true;
  for (int64_t i = 1; i < count; ++i) {
    differing |= key(records[i]) ^ key(records[0]);
    sorted = sorted && key(records[i - 1]) <= key(records[i]);
  }
  if (sorted) return;
  Record *from = records, *to = scratch;
  for (int shift = std::countr_zero(differing); shift < 64; shift += kBits) {
    if ((differing >> shift & kMask) == 0) continue;
    std::array<int64_t, kMask + 1> place{};
    for (int64_t i = 0; i < count; ++i) ++place[key(from[i]) >> shift & kMask];
    int64_t total = 0;
    for (int64_t& at : place) {
      int64_t here = at;
      at = total;
      total += here;
    }
    for (int64_t i = 0; i < count; ++i) to[place[key(from[i]) >> shift & kMask]++] = from[i];
    std::swap(from, to);
  }
  if (from != records) std::copy_n(from, count, records);
}

}  // namespace mica::cpu
