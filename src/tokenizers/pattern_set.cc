#include "tokenizers/pattern_set.h"

#include <algorithm>

namespace mica::tokenizers {

PatternSet::PatternSet(std::vector<std::pair<std::string, int32_t>> patterns) : nodes_(1) {
  std::stable_sort(patterns.begin(), patterns.end(),
                   [](const auto& a, const auto& b) { return a.first < b.first; });
  // Breadth first: each node with the range of patterns that start with its string. Its children
  // are made together, so that its edges lie side by side.
  std::vector<std::pair<size_t, size_t>> ranges{{0, patterns.size()}};
  for (uint32_t node = 0; node < nodes_.size(); ++node) {
    const size_t depth = nodes_[node].depth;
    auto [first, last] = ranges[node];
    while (first < last && patterns[first].first.size() == depth) ++first;
    nodes_[node].first_edge = static_cast<uint32_t>(edges_.size());
    while (first < last) {
      const auto byte = static_cast<unsigned char>(patterns[first].first[depth]);
      const size_t begin = first;
      while (first < last && static_cast<unsigned char>(patterns[first].first[depth]) == byte) {
        ++first;
      }
      const auto made = static_cast<uint32_t>(nodes_.size());
      edges_.push_back({byte, made});
      if (node == 0) roots_[byte] = made;
      Node next;
      next.depth = static_cast<uint32_t>(depth + 1);
      for (size_t i = begin; i < first && patterns[i].first.size() == depth + 1; ++i) {
        next.value = patterns[i].second;
      }
      if (node != 0) {
        next.fallback = step(nodes_[node].fallback, byte);
        const Node& shorter = nodes_[next.fallback];
        next.output = shorter.value >= 0 ? next.fallback : shorter.output;
      }
      nodes_.push_back(next);
      ranges.emplace_back(begin, first);
    }
    nodes_[node].edge_count = static_cast<uint32_t>(edges_.size()) - nodes_[node].first_edge;
  }
}

uint32_t PatternSet::child(uint32_t node, unsigned char byte) const {
  if (node == 0) return roots_[byte];
  const auto first = edges_.begin() + nodes_[node].first_edge;
  const auto last = first + nodes_[node].edge_count;
  const auto edge = std::lower_bound(first, last, byte,
                                     [](const Edge& e, unsigned char b) { return e.byte < b; });
  return edge == last || edge->byte != byte ? 0 : edge->to;
}

uint32_t PatternSet::step(uint32_t node, unsigned char byte) const {
  for (;; node = nodes_[node].fallback) {
    if (const uint32_t next = child(node, byte)) return next;
    if (node == 0) return 0;
  }
}

PatternSet::Match PatternSet::find(std::string_view text, size_t from) const {
  Match best;
  uint32_t state = 0;
  for (size_t at = from; at < text.size();) {
    if (state == 0 && best.value < 0 && roots_[static_cast<unsigned char>(text[at])] == 0) {
      ++at;
      continue;
    }
    state = step(state, static_cast<unsigned char>(text[at++]));
    const Node& node = nodes_[state];
    // What starts later than a match that was found does not matter.
    if (best.value >= 0 && at - node.depth > best.begin) break;
    const Node& pattern = node.value >= 0 ? node : nodes_[node.output];
    if (pattern.value < 0) continue;
    const size_t begin = at - pattern.depth;
    if (best.value < 0 || begin <= best.begin) best = {begin, at, pattern.value};
  }
  return best;
}

void PatternSet::for_each_match(std::string_view text,
                                FunctionRef<void(size_t, size_t, int32_t)> found) const {
  if (empty()) return;
  for (size_t from = 0; from < text.size();) {
    const Match match = find(text, from);
    if (match.value < 0) return;
    found(match.begin, match.end, match.value);
    from = match.end;
  }
}

}  // namespace mica::tokenizers
