// The tokens of a model and their ids, both ways.
//
//   Vocab vocab(1500);
//   vocab.add("the", 7);
//   vocab.find("the");   // 7; -1 if there is none
//   vocab.token(7);      // "the"; nothing for an id without token
//   vocab.size();        // 8: the largest id + 1, since ids may have holes
//   vocab.count();       // 1
//
// Made for files with 10^5 tokens: one block of text, one open-addressed table.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "tokenizers/hash.h"

namespace mica::tokenizers {

// Ids from a file are below this, so that a table over ids stays small: sixteen times the largest
// vocabulary in use.
inline constexpr int64_t kMaxTokens = 1 << 22;

class Vocab {
 public:
  // Makes room for so many tokens.
  explicit Vocab(size_t expected = 0);

  // Throws Value if the id is outside 0 to kMaxTokens, or if token or id are there already.
  void add(std::string_view token, int64_t id);

  int32_t find(std::string_view token) const { return slots_[slot_of(token, hash(token))].id; }
  // Starts to fetch what add or find will need.
  void prefetch(std::string_view token) const {
    __builtin_prefetch(&slots_[hash(token) & (slots_.size() - 1)]);
  }
  std::optional<std::string_view> token(int32_t id) const;
  // The token of an id that has one, or is -1, which gives "".
  std::string_view text(int32_t id) const {
    if (id < 0) return {};
    const Entry& entry = entries_[static_cast<size_t>(id)];
    return std::string_view(text_).substr(entry.offset, entry.length);
  }

  int32_t size() const { return static_cast<int32_t>(entries_.size()); }
  size_t count() const { return count_; }

 private:
  static constexpr uint32_t kNoToken = UINT32_MAX;
  struct Entry {
    uint32_t offset = 0;
    uint32_t length = kNoToken;
  };
  // Beside the id stand the length of the token (up to 255), part of its hash and its first eight
  // bytes: enough to know most tokens without reading their text.
  struct Slot {
    uint64_t head = 0;
    uint32_t tag = 0;
    int32_t id = -1;
  };

  uint64_t hash(std::string_view token) const { return hash_bytes(token, seed_); }
  // Where the token is, or where it would go.
  size_t slot_of(std::string_view token, uint64_t hash) const;
  bool is_full() const { return 5 * (count_ + 1) > 3 * slots_.size(); }
  void grow();

  uint64_t seed_;
  std::string text_;
  std::vector<Entry> entries_;  // by id
  std::vector<Slot> slots_;     // a power of two
  size_t count_ = 0;
};

}  // namespace mica::tokenizers
