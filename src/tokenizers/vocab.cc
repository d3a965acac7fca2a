#include "tokenizers/vocab.h"

#include <algorithm>
#include <bit>
#include <random>

#include "base/error.h"
#include "base/strings.h"

namespace mica::tokenizers {

uint64_t hash_seed() {
  static const uint64_t seed = [] {
    std::random_device device;
    return uint64_t{device()} << 32 | device();
  }();
  return seed;
}

namespace {

constexpr size_t kHead = 8;

uint64_t head_of(std::string_view token) {
  return token.size() >= kHead ? load<uint64_t>(token.data())
                               : load_tail(token.data(), token.size());
}

uint32_t tag_of(std::string_view token, uint64_t hash) {
  return static_cast<uint32_t>(hash >> 32) << 8 |
         static_cast<uint32_t>(std::min<size_t>(token.size(), 255));
}

}  // namespace

Vocab::Vocab(size_t expected) : seed_(hash_seed()) {
  slots_.resize(std::bit_ceil(expected * 5 / 3 + 16));
  entries_.reserve(expected);
  text_.reserve(8 * expected);
}

size_t Vocab::slot_of(std::string_view token, uint64_t hash) const {
  const uint32_t tag = tag_of(token, hash);
  const uint64_t head = head_of(token);
  const size_t mask = slots_.size() - 1;
  for (size_t i = hash & mask;; i = (i + 1) & mask) {
    const Slot& slot = slots_[i];
    if (slot.id < 0) return i;
    if (slot.tag != tag || slot.head != head) continue;
    if (token.size() <= kHead || text(slot.id) == token) return i;
  }
}

std::optional<std::string_view> Vocab::token(int32_t id) const {
  if (id < 0 || id >= size() || entries_[static_cast<size_t>(id)].length == kNoToken) {
    return std::nullopt;
  }
  return text(id);
}

void Vocab::add(std::string_view token, int64_t id) {
  if (id < 0 || id >= kMaxTokens) {
    throw_value("token \"{}\" has the id {}, which is not from 0 to {}", excerpt(token), id,
                kMaxTokens - 1);
  }
  if (text_.size() + token.size() >= kNoToken) throw_value("the tokens have more than 4 GB");
  if (is_full()) grow();
  const uint64_t hash = this->hash(token);
  Slot& slot = slots_[slot_of(token, hash)];
  if (slot.id >= 0) throw_value("token \"{}\" is there twice", excerpt(token));
  const auto index = static_cast<size_t>(id);
  if (index >= entries_.size()) entries_.resize(index + 1);
  Entry& entry = entries_[index];
  if (entry.length != kNoToken) {
    throw_value("tokens \"{}\" and \"{}\" have the same id {}",
                excerpt(text(static_cast<int32_t>(id))), excerpt(token), id);
  }
  slot = {head_of(token), tag_of(token, hash), static_cast<int32_t>(id)};
  entry = {static_cast<uint32_t>(text_.size()), static_cast<uint32_t>(token.size())};
  text_ += token;
  ++count_;
}

void Vocab::grow() {
  std::vector<Slot> old(2 * slots_.size());
  old.swap(slots_);
  for (const Slot& slot : old) {
    if (slot.id < 0) continue;
    const std::string_view token = text(slot.id);
    slots_[slot_of(token, hash(token))] = slot;
  }
}

}  // namespace mica::tokenizers
