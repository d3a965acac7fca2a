// Many strings to look for at once.
//
//   PatternSet set({{"<s>", 1}, {"<s", 2}});
//   set.for_each_match("a<s>b", [](size_t begin, size_t end, int32_t value) {});  // 1 to 4, 1
//
// Of matches that overlap the leftmost counts, of those that start together the longest.
// Source: Aho and Corasick 1975; leftmost-longest as in the crate daachorse.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/function_ref.h"

namespace mica::tokenizers {

class PatternSet {
 public:
  // Empty patterns are ignored; of equal ones the last counts.
  explicit PatternSet(std::vector<std::pair<std::string, int32_t>> patterns = {});

  bool empty() const { return nodes_.size() == 1; }
  // Takes time in proportion to the text, and to the longest pattern after each match.
  void for_each_match(std::string_view text,
                      FunctionRef<void(size_t begin, size_t end, int32_t value)> found) const;

 private:
  struct Node {
    uint32_t first_edge = 0;
    uint32_t edge_count = 0;
    uint32_t fallback = 0;  // the longest proper suffix of this node's string that is a node
    uint32_t output = 0;    // the longest such suffix that is a pattern; 0 for none
    uint32_t depth = 0;
    int32_t value = -1;  // of the pattern that ends here
  };
  struct Edge {
    unsigned char byte;
    uint32_t to;
  };
  struct Match {
    size_t begin = 0;
    size_t end = 0;
    int32_t value = -1;
  };

  uint32_t child(uint32_t node, unsigned char byte) const;  // 0 for none
  uint32_t step(uint32_t node, unsigned char byte) const;
  Match find(std::string_view text, size_t from) const;

  std::vector<Node> nodes_;  // the first is the root
  std::vector<Edge> edges_;
  std::array<uint32_t, 256> roots_{};  // the root's edges
};

}  // namespace mica::tokenizers
