// Remembers the ids of words. Bounded: a fixed number of slots, each for one short word; a newer
// word takes the place of an older one.
#pragma once

#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>
#include <vector>

#include "tokenizers/hash.h"

namespace mica::tokenizers {

class WordCache {
 public:
  WordCache() : slots_(kSlots), seed_(hash_seed()) {}

  static bool accepts(std::string_view word) { return word.size() <= sizeof(Slot::word); }
  uint64_t hash(std::string_view word) const { return hash_bytes(word, seed_); }

  // The ids, none if the word is not here. Valid until the next put.
  std::span<const int32_t> find(std::string_view word, uint64_t hash) const {
    const Slot& slot = slots_[hash % kSlots];
    const bool same = slot.tag == tag_of(hash) && slot.length == word.size() && slot.count > 0 &&
                      std::memcmp(slot.word, word.data(), word.size()) == 0;
    return {slot.ids, same ? slot.count : size_t{0}};
  }

  // Words without ids, and those with more than a slot holds, are not kept.
  void put(std::string_view word, uint64_t hash, std::span<const int32_t> ids) {
    if (ids.empty() || ids.size() > std::size(Slot{}.ids)) return;
    Slot& slot = slots_[hash % kSlots];
    slot.tag = tag_of(hash);
    slot.length = static_cast<uint8_t>(word.size());
    slot.count = static_cast<uint8_t>(ids.size());
    std::memcpy(slot.word, word.data(), word.size());
    std::memcpy(slot.ids, ids.data(), ids.size_bytes());
  }

 private:
  static constexpr size_t kSlots = 1 << 14;

  struct alignas(64) Slot {
    uint32_t tag;
    uint8_t length;
    uint8_t count;
    char word[30];
    int32_t ids[7];
  };
  static_assert(sizeof(Slot) == 64);

  static uint32_t tag_of(uint64_t hash) { return static_cast<uint32_t>(hash >> 32); }

  std::vector<Slot> slots_;
  uint64_t seed_;
};

}  // namespace mica::tokenizers
