#include "tokenizers/added_tokens.h"

#include <algorithm>
#include <unordered_set>
#include <utility>

#include "base/error.h"
#include "base/strings.h"
#include "tokenizers/unicode.h"

namespace mica::tokenizers {

namespace {

bool word_before(std::string_view text, size_t end) {
  if (end == 0) return false;
  size_t at = previous_char(text, end);
  return is_word(next_char(text, at));
}

bool word_after(std::string_view text, size_t begin) {
  return begin < text.size() && is_word(next_char(text, begin));
}

// Where the white space that ends at `end` begins.
size_t space_before(std::string_view text, size_t end) {
  while (end > 0) {
    const size_t start = previous_char(text, end);
    size_t at = start;
    if (!is_whitespace(next_char(text, at))) break;
    end = start;
  }
  return end;
}

size_t space_after(std::string_view text, size_t begin) {
  for (size_t at = begin; at < text.size(); begin = at) {
    if (!is_whitespace(next_char(text, at))) break;
  }
  return begin;
}

}  // namespace

AddedTokens::AddedTokens(const std::vector<AddedToken>& tokens, const Vocab& vocab,
                         const Normalizer* normalizer) {
  std::unordered_map<int64_t, const std::string*> ids_in_file;
  auto next = static_cast<int64_t>(vocab.count());
  for (const AddedToken& token : tokens) {
    if (token.content.empty()) continue;
    const auto [other, is_new] = ids_in_file.emplace(token.id, &token.content);
    if (!is_new && *other->second != token.content) {
      throw_value("\"{}\" and \"{}\" have the same id {}", excerpt(*other->second),
                  excerpt(token.content), token.id);
    }
    int32_t id = find(token.content);
    if (id < 0) id = vocab.find(token.content);
    if (id < 0) id = static_cast<int32_t>(next++);
    if (id >= kMaxTokens) throw_value("there are more than {} tokens", kMaxTokens);
    add(token, id, normalizer);
  }

  std::unordered_set<std::string_view> special;
  for (const AddedToken& token : tokens) {
    if (token.special) special.insert(token.content);
  }
  std::vector<std::pair<std::string, int32_t>> raw;
  std::vector<std::pair<std::string, int32_t>> normalized;
  for (int32_t id = 0; id < size(); ++id) {
    const int32_t index = index_[static_cast<size_t>(id)];
    if (index < 0) continue;
    Entry& entry = entries_[static_cast<size_t>(index)];
    entry.special = special.contains(entry.form);
    (entry.token.normalized ? normalized : raw).emplace_back(entry.form, id);
  }
  raw_ = PatternSet(std::move(raw));
  normalized_ = PatternSet(std::move(normalized));
}

void AddedTokens::add(const AddedToken& token, int32_t id, const Normalizer* normalizer) {
  Entry entry{token, token.content};
  if (token.normalized && normalizer) {
    NormalizedText text{token.content, 0, expansion_limit(token.content.size())};
    normalizer->apply(text);
    entry.form = std::move(text.text);
  }
  const auto at = static_cast<size_t>(id);
  if (at >= index_.size()) index_.resize(at + 1, -1);
  ids_[token.content] = id;
  if (index_[at] >= 0) {
    entries_[static_cast<size_t>(index_[at])] = std::move(entry);
  } else {
    index_[at] = static_cast<int32_t>(entries_.size());
    entries_.push_back(std::move(entry));
  }
}

int32_t AddedTokens::find(std::string_view content) const {
  const auto found = ids_.find(std::string(content));
  return found == ids_.end() ? -1 : found->second;
}

const AddedTokens::Entry* AddedTokens::entry(int32_t id) const {
  if (id < 0 || id >= size() || index_[static_cast<size_t>(id)] < 0) return nullptr;
  return &entries_[static_cast<size_t>(index_[static_cast<size_t>(id)])];
}

const std::string* AddedTokens::content(int32_t id) const {
  const Entry* found = entry(id);
  return found ? &found->token.content : nullptr;
}

const std::string* AddedTokens::decoded_form(int32_t id) const {
  const Entry* found = entry(id);
  return found ? &found->form : nullptr;
}

bool AddedTokens::is_special(int32_t id) const {
  const Entry* found = entry(id);
  return found && found->special;
}

void AddedTokens::match(const PatternSet& set, std::string_view text, const Piece& piece,
                        std::vector<Piece>& out) const {
  size_t done = 0;
  const auto push = [&](size_t begin, size_t end, int32_t id) {
    if (begin >= end) return;
    out.push_back(
        {piece.begin + begin, piece.begin + end, head_of_part(piece.head, begin, end), id});
  };
  set.for_each_match(text, [&](size_t begin, size_t end, int32_t id) {
    const AddedToken& token = entry(id)->token;
    if (token.single_word && (word_before(text, begin) || word_after(text, end))) return;
    if (token.lstrip) begin = std::max(space_before(text, begin), done);
    if (token.rstrip) end = space_after(text, end);
    push(done, begin, -1);
    push(begin, end, id);
    done = end;
  });
  push(done, text.size(), -1);
}

void AddedTokens::normalize(SplitText& split, const Normalizer& normalizer) const {
  std::string out;
  std::vector<Piece> pieces;
  for (const Piece& piece : split.pieces) {
    if (piece.token >= 0) {
      pieces.push_back({0, 0, 0, piece.token});
      continue;
    }
    NormalizedText text{std::string(split.of(piece)), piece.head, split.limit};
    normalizer.apply(text);
    check_expansion(out.size() + text.text.size(), split.limit);
    const Piece whole{out.size(), out.size() + text.text.size(), text.head, -1};
    out += text.text;
    match(normalized_, text.text, whole, pieces);
  }
  split.text = std::move(out);
  split.pieces = std::move(pieces);
}

SplitText AddedTokens::split(std::string text, const Normalizer* normalizer) const {
  SplitText split;
  split.limit = expansion_limit(text.size());
  split.text = std::move(text);
  Piece whole{0, split.text.size(), 0, -1};
  if (whole.end > 0) whole.head = char_length(split.text[0]);
  match(raw_, split.text, whole, split.pieces);
  if (normalizer) {
    normalize(split, *normalizer);
  } else if (!normalized_.empty()) {
    std::vector<Piece> pieces;
    for (const Piece& piece : split.pieces) {
      if (piece.token >= 0) {
        pieces.push_back(piece);
      } else {
        match(normalized_, split.of(piece), piece, pieces);
      }
    }
    split.pieces = std::move(pieces);
  }
  return split;
}

}  // namespace mica::tokenizers
