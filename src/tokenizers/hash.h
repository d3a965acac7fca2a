// Hashes for the tables of tokens and merges. Seeded anew in each process, so that a file cannot
// be made to collide.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string_view>

namespace mica::tokenizers {

uint64_t hash_seed();

// Mixes two words by one wide multiplication.
inline uint64_t mix(uint64_t a, uint64_t b) {
  const auto product = static_cast<unsigned __int128>(a) * b;
  return static_cast<uint64_t>(product) ^ static_cast<uint64_t>(product >> 64);
}

template <class Word>
uint64_t load(const char* bytes) {
  Word word;
  std::memcpy(&word, bytes, sizeof word);
  return word;
}

// At most eight bytes, in one or two loads.
inline uint64_t load_tail(const char* bytes, size_t count) {
  if (count == 8) return load<uint64_t>(bytes);
  if (count >= 4) return load<uint32_t>(bytes) << 32 | load<uint32_t>(bytes + count - 4);
  if (count == 0) return 0;
  return load<uint8_t>(bytes) << 16 | load<uint8_t>(bytes + count / 2) << 8 |
         load<uint8_t>(bytes + count - 1);
}

inline uint64_t hash_bytes(std::string_view text, uint64_t seed) {
  constexpr uint64_t kOdd = 0x9E3779B97F4A7C15;
  uint64_t state = seed ^ (text.size() * kOdd);
  const char* bytes = text.data();
  size_t left = text.size();
  for (; left > 8; left -= 8, bytes += 8) state = mix(state ^ load<uint64_t>(bytes), kOdd);
  return mix(state ^ load_tail(bytes, left), kOdd ^ seed);
}

}  // namespace mica::tokenizers
