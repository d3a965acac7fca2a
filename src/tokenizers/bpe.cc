#include "tokenizers/bpe.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <functional>
#include <utility>

#include "base/error.h"
#include "base/strings.h"
#include "tokenizers/unicode.h"
#include "tokenizers/word_cache.h"

namespace mica::tokenizers {

namespace {

// The rank and position of a possible merge in one word, so that the smallest is the next to do.
uint64_t heap_key(uint32_t rank, size_t position) { return uint64_t{rank} << 32 | position; }

constexpr uint32_t kEnd = UINT32_MAX;         // of a list of symbols
constexpr std::string_view kMark = "\u2581";  // stands for a space where there is no pre-tokenizer
constexpr size_t kMaxMerges = 1 << 26;

}  // namespace

// What encoding needs besides the tables.
struct Bpe::Workspace {
  struct Symbol {
    int32_t id;  // -1 once it is merged into the one before
    uint32_t previous;
    uint32_t next;
  };
  WordCache cache;
  std::vector<Symbol> symbols;
  std::vector<uint64_t> heap;
  std::string buffer;

  void add(int32_t id) {
    const auto index = static_cast<uint32_t>(symbols.size());
    symbols.push_back({id, index == 0 ? kEnd : index - 1, index + 1});
  }
};

Bpe::Bpe(Vocab vocab, BpeOptions options, size_t expected_merges)
    : vocab_(std::move(vocab)), options_(std::move(options)), seed_(hash_seed()) {
  merges_.resize(std::bit_ceil(std::min(expected_merges, kMaxMerges) * 5 / 3 + 16));
  char_ids_.assign(0x10000, -1);
  for (int32_t id = 0; id < vocab_.size(); ++id) {
    const auto token = vocab_.token(id);
    if (!token || token->empty() || token->size() != char_length((*token)[0])) continue;
    size_t at = 0;
    const char32_t c = next_char(*token, at);
    if (c < char_ids_.size()) char_ids_[c] = id;
  }
  for (size_t byte = 0; byte < 256; ++byte) {
    byte_ids_[byte] = vocab_.find(fmt::format("<0x{:02X}>", byte));
  }
  // A character that vanished would make neighbours of those around it.
  const bool all_bytes = std::find(byte_ids_.begin(), byte_ids_.end(), -1) == byte_ids_.end();
  const bool has_unknown = options_.unk_token && vocab_.find(*options_.unk_token) >= 0;
  cuts_at_mark_ = vocab_.find(kMark) >= 0 && options_.continuing_subword_prefix.empty() &&
                  options_.end_of_word_suffix.empty() &&
                  (has_unknown || (options_.byte_fallback && all_bytes));
}

Bpe::~Bpe() = default;

// --- Merges --------------------------------------------------------------------------------------

size_t Bpe::first_slot(int32_t left, int32_t right) const {
  const uint64_t key = uint64_t{static_cast<uint32_t>(left)} << 32 | static_cast<uint32_t>(right);
  return mix(key ^ seed_, 0x9E3779B97F4A7C15) & (merges_.size() - 1);
}

size_t Bpe::merge_slot(int32_t left, int32_t right) const {
  for (size_t i = first_slot(left, right);; i = (i + 1) & (merges_.size() - 1)) {
    const Merge& merge = merges_[i];
    if (merge.left < 0 || (merge.left == left && merge.right == right)) return i;
  }
}

const Bpe::Merge* Bpe::find_merge(int32_t left, int32_t right) const {
  const Merge& merge = merges_[merge_slot(left, right)];
  return merge.left < 0 ? nullptr : &merge;
}

// The token that both make, if it is the one of the merge before or the next: files list merges by
// what they make. -1 otherwise.
int32_t Bpe::guess(std::string_view left, std::string_view right) const {
  for (int32_t id = last_result_; id <= last_result_ + 1; ++id) {
    const std::string_view token = vocab_.token(id).value_or("");
    if (token.size() == left.size() + right.size() && token.starts_with(left) &&
        token.ends_with(right)) {
      return id;
    }
  }
  return -1;
}

Bpe::Merge Bpe::resolve(const MergePair& pair) {
  const auto known = [](int32_t id, std::string_view token) {
    if (id < 0) throw_value("token \"{}\" is not in the vocabulary", excerpt(token));
    return id;
  };
  const auto& [left, right] = pair;
  const size_t prefix = options_.continuing_subword_prefix.size();
  if (right.size() < prefix) {
    throw_value("\"{}\" is shorter than the continuing_subword_prefix", excerpt(right));
  }
  Merge merge{known(vocab_.find(left), left), known(vocab_.find(right), right), 0, 0};
  merge.result = guess(left, right.substr(prefix));
  if (merge.result < 0) {
    buffer_.assign(left).append(right, prefix);
    merge.result = known(vocab_.find(buffer_), buffer_);
  }
  last_result_ = merge.result;
  if (cuts_at_mark_) note_joined(left, right);
  return merge;
}

// What a merge means for where a text falls apart.
void Bpe::note_joined(std::string_view left, std::string_view right) {
  constexpr size_t kMaxJoined = 64;
  // The text of these is not the text that they stand for.
  const auto stands_in = [&](std::string_view token) {
    return token.starts_with("<0x") || (options_.unk_token && token == *options_.unk_token);
  };
  if (stands_in(left) || stands_in(right)) cuts_at_mark_ = false;
  if (!right.starts_with(kMark) || left.empty()) return;
  size_t at = previous_char(left, left.size());
  const char32_t c = next_char(left, at);
  if (joins_mark(c)) return;
  joined_to_mark_.push_back(c);
  if (joined_to_mark_.size() > kMaxJoined) cuts_at_mark_ = false;
}

bool Bpe::joins_mark(char32_t c) const {
  return std::find(joined_to_mark_.begin(), joined_to_mark_.end(), c) != joined_to_mark_.end();
}

// The tables are larger than caches, and a merge looks at four places. Taking many merges together,
// step by step, lets the memory serve them side by side.
void Bpe::add_merges(std::span<const MergePair> pairs) {
  constexpr size_t kBlock = 32;
  for (; !pairs.empty(); pairs = pairs.subspan(std::min(kBlock, pairs.size()))) {
    const auto block = pairs.first(std::min(kBlock, pairs.size()));
    for (const auto& [left, right] : block) {
      vocab_.prefetch(left);
      vocab_.prefetch(right);
    }
    std::array<Merge, kBlock> merges;
    for (size_t i = 0; i < block.size(); ++i) {
      try {
        merges[i] = resolve(block[i]);
      } catch (const Error& error) {
        throw Error(error.kind(), fmt::format("merge {}: {}", merge_count_ + i, error.what()));
      }
      __builtin_prefetch(&merges_[first_slot(merges[i].left, merges[i].right)]);
    }
    for (size_t i = 0; i < block.size(); ++i) {
      if (5 * (merge_count_ + 1) > 3 * merges_.size()) throw_value("more merges than expected");
      merges[i].rank = static_cast<uint32_t>(merge_count_++);
      merges_[merge_slot(merges[i].left, merges[i].right)] = merges[i];
    }
  }
}

// --- Words ---------------------------------------------------------------------------------------

int32_t Bpe::find_char(std::string_view character) const {
  if (character.size() < 4) {
    size_t at = 0;
    return char_ids_[next_char(character, at)];
  }
  return vocab_.find(character);
}

int32_t Bpe::unknown() const {
  const int32_t id = vocab_.find(*options_.unk_token);
  if (id < 0) {
    throw_value(
        "[tokenizer] the text has characters that the vocabulary lacks, and unk_token "
        "\"{}\" is not in it either",
        excerpt(*options_.unk_token));
  }
  return id;
}

bool Bpe::append_bytes(std::string_view character, Workspace& workspace) const {
  const auto id_of = [&](char c) { return byte_ids_[static_cast<unsigned char>(c)]; };
  if (std::any_of(character.begin(), character.end(), [&](char c) { return id_of(c) < 0; })) {
    return false;
  }
  for (const char c : character) workspace.add(id_of(c));
  return true;
}

// The symbols that a word starts as.
void Bpe::split_word(std::string_view word, Workspace& workspace) const {
  const std::string& prefix = options_.continuing_subword_prefix;
  const std::string& suffix = options_.end_of_word_suffix;
  workspace.symbols.clear();
  int32_t waiting_unknown = -1;
  for (size_t at = 0; at < word.size();) {
    const size_t length = char_length(word[at]);
    const bool decorated =
        (at > 0 && !prefix.empty()) || (at + length == word.size() && !suffix.empty());
    std::string_view character = word.substr(at, length);
    if (decorated) {
      workspace.buffer.assign(at > 0 ? prefix : "").append(character);
      if (at + length == word.size()) workspace.buffer += suffix;
      character = workspace.buffer;
    }
    at += length;
    const int32_t id = decorated ? vocab_.find(character) : find_char(character);
    if (id >= 0) {
      if (waiting_unknown >= 0) workspace.add(std::exchange(waiting_unknown, -1));
      workspace.add(id);
    } else if (options_.byte_fallback && append_bytes(character, workspace)) {
      // An unknown token that waits comes after these bytes: so does the reference implementation.
    } else if (options_.unk_token) {
      if (waiting_unknown >= 0 && !options_.fuse_unk) workspace.add(waiting_unknown);
      waiting_unknown = unknown();
    }
  }
  if (waiting_unknown >= 0) workspace.add(waiting_unknown);
  if (!workspace.symbols.empty()) workspace.symbols.back().next = kEnd;
}

void Bpe::merge_all(Workspace& workspace) const {
  auto& symbols = workspace.symbols;
  auto& heap = workspace.heap;
  heap.clear();
  const auto consider = [&](size_t left, size_t right) {
    if (const Merge* merge = find_merge(symbols[left].id, symbols[right].id)) {
      heap.push_back(heap_key(merge->rank, left));
      return true;
    }
    return false;
  };
  for (size_t i = 0; i + 1 < symbols.size(); ++i) consider(i, i + 1);
  std::make_heap(heap.begin(), heap.end(), std::greater<>());
  while (!heap.empty()) {
    std::pop_heap(heap.begin(), heap.end(), std::greater<>());
    const uint64_t key = heap.back();
    heap.pop_back();
    const auto position = static_cast<uint32_t>(key);
    auto& symbol = symbols[position];
    if (symbol.id < 0 || symbol.next == kEnd) continue;
    // What stood here when the entry was made may have been merged with others since.
    const Merge* merge = find_merge(symbol.id, symbols[symbol.next].id);
    if (!merge || merge->rank != key >> 32) continue;
    auto& right = symbols[symbol.next];
    symbol.id = merge->result;
    symbol.next = right.next;
    right.id = -1;
    if (symbol.next != kEnd) {
      symbols[symbol.next].previous = position;
      if (consider(position, symbol.next)) {
        std::push_heap(heap.begin(), heap.end(), std::greater<>());
      }
    }
    if (symbol.previous != kEnd && consider(symbol.previous, position)) {
      std::push_heap(heap.begin(), heap.end(), std::greater<>());
    }
  }
}

void Bpe::encode_word(std::string_view word, Workspace& workspace,
                      std::vector<int32_t>& ids) const {
  if (word.size() >= kEnd) throw_value("[tokenizer] a word has more than 4 GB");
  split_word(word, workspace);
  merge_all(workspace);
  for (const auto& symbol : workspace.symbols) {
    if (symbol.id >= 0) ids.push_back(symbol.id);
  }
}

void Bpe::encode_cached(std::string_view word, Workspace& workspace,
                        std::vector<int32_t>& ids) const {
  WordCache& cache = workspace.cache;
  if (!WordCache::accepts(word)) return encode_word(word, workspace, ids);
  const uint64_t hash = cache.hash(word);
  const auto found = cache.find(word, hash);
  if (!found.empty()) {
    ids.insert(ids.end(), found.begin(), found.end());
  } else {
    const size_t before = ids.size();
    encode_word(word, workspace, ids);
    cache.put(word, hash, std::span(ids).subspan(before));
  }
}

// The end of the part of the text from `begin` that no merge joins to what follows.
size_t Bpe::independent_end(std::string_view text, size_t begin) const {
  for (size_t at = begin + 1; (at = text.find(kMark, at)) != std::string_view::npos; ++at) {
    size_t start = previous_char(text, at);
    if (!joins_mark(next_char(text, start))) return at;
  }
  return text.size();
}

void Bpe::encode(const SplitText& split, std::vector<int32_t>& ids) const {
  auto workspace = take_workspace();
  for (const Piece& piece : split.pieces) {
    if (piece.token >= 0) {
      ids.push_back(piece.token);
      continue;
    }
    const std::string_view word = split.of(piece);
    const int32_t whole = options_.ignore_merges ? vocab_.find(word) : -1;
    if (whole >= 0) {
      ids.push_back(whole);
    } else if (!cuts_at_mark_) {
      encode_cached(word, *workspace, ids);
    } else {
      for (size_t begin = 0; begin < word.size();) {
        const size_t end = independent_end(word, begin);
        encode_cached(word.substr(begin, end - begin), *workspace, ids);
        begin = end;
      }
    }
  }
  give_back(std::move(workspace));
}

std::unique_ptr<Bpe::Workspace> Bpe::take_workspace() const {
  const std::lock_guard lock(mutex_);
  if (workspaces_.empty()) return std::make_unique<Workspace>();
  auto workspace = std::move(workspaces_.back());
  workspaces_.pop_back();
  return workspace;
}

void Bpe::give_back(std::unique_ptr<Workspace> workspace) const {
  // A long word leaves long lists; only the cache is worth keeping.
  constexpr size_t kKept = 1 << 12;
  if (workspace->symbols.capacity() > kKept) workspace->symbols = {};
  if (workspace->heap.capacity() > kKept) workspace->heap = {};
  const std::lock_guard lock(mutex_);
  workspaces_.push_back(std::move(workspace));
}

}  // namespace mica::tokenizers
