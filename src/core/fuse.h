// Fusion: which nodes of a segment run as one kernel.
//
// A group is one step: a view, a kernel, or a region of elementwise nodes of one shape, perhaps
// ended by a reduction. Regions are convex: no value waits on its own region through a node outside
// it. Constants (elementwise ops without inputs) that only regions use are copied into each of
// them; nothing else is computed twice.
#pragma once

#include <vector>

#include "core/segment.h"

namespace mica {

// A set of group numbers.
class GroupSet {
 public:
  bool has(size_t i) const { return i / 64 < words_.size() && (words_[i / 64] >> (i % 64) & 1); }
  void add(size_t i) {
    if (i / 64 >= words_.size()) words_.resize(i / 64 + 1, 0);
    words_[i / 64] |= uint64_t{1} << (i % 64);
  }
  void merge(const GroupSet& other) {
    if (other.words_.size() > words_.size()) words_.resize(other.words_.size(), 0);
    for (size_t i = 0; i < other.words_.size(); ++i) words_[i] |= other.words_[i];
  }
  bool covers(const GroupSet& other) const {
    for (size_t i = 0; i < other.words_.size(); ++i) {
      if (other.words_[i] & ~(i < words_.size() ? words_[i] : 0)) return false;
    }
    return true;
  }
  template <class F>
  void each(F&& f) const {
    for (size_t w = 0; w < words_.size(); ++w) {
      for (uint64_t bits = words_[w]; bits; bits &= bits - 1)
        f(64 * w + static_cast<size_t>(__builtin_ctzll(bits)));
    }
  }

 private:
  std::vector<uint64_t> words_;
};

struct Group {
  std::vector<int32_t> nodes;  // in segment order; empty if merged into another group
  GroupSet before;             // groups that must run earlier, directly or not
  int32_t shape_class = -1;    // iteration space of a region
  bool region = false;
  int32_t reduction = -1;  // the node that ends the region: nothing more is added
};

struct Grouping {
  std::vector<Group> groups;
  std::vector<int32_t> group_of;  // by node; -1 for constants that are copied into their users
  // Group a must run before group b; false if that would be a cycle.
  bool order(size_t a, size_t b);
};

Grouping form_groups(const Segment& segment);

}  // namespace mica
