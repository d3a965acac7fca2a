#include "core/fuse.h"

#include <algorithm>

namespace mica {

namespace {

constexpr size_t kMaxRegionNodes = 64;
constexpr size_t kMaxRegionInputs = 24;

bool is_free_constant(const Segment& segment, const SegmentNode& node) {
  return node.kind == StepKind::Elementwise && node.input_count == 0 &&
         !segment.values[node.first_value].held;
}

class Former {
 public:
  explicit Former(const Segment& segment) : segment_(segment) {
    grouping_.group_of.assign(segment.nodes.size(), -1);
    find_copied_constants();
  }

  Grouping form() {
    for (size_t i = 0; i < segment_.nodes.size(); ++i) {
      if (!copied_[i]) place(static_cast<int32_t>(i));
    }
    return std::move(grouping_);
  }

 private:
  void find_copied_constants() {
    copied_.assign(segment_.nodes.size(), false);
    for (size_t i = 0; i < segment_.nodes.size(); ++i)
      copied_[i] = is_free_constant(segment_, segment_.nodes[i]);
    for (const SegmentNode& node : segment_.nodes) {
      if (node.kind == StepKind::Elementwise || node.kind == StepKind::Reduction) continue;
      for (int32_t ref : segment_.refs_of(node)) {
        if (ref >= 0)
          copied_[static_cast<size_t>(segment_.values[static_cast<size_t>(ref)].node)] = false;
      }
    }
  }

  // Opens a group for the node, then merges the regions of its inputs into it where that is legal.
  void place(int32_t index) {
    const SegmentNode& node = segment_.nodes[static_cast<size_t>(index)];
    Group group;
    group.nodes.push_back(index);
    group.region = node.kind == StepKind::Elementwise || node.kind == StepKind::Reduction;
    std::vector<int32_t> sources;
    for (int32_t ref : segment_.refs_of(node)) {
      int32_t source = group_of_ref(ref);
      if (source < 0 || std::find(sources.begin(), sources.end(), source) != sources.end())
        continue;
      sources.push_back(source);
      group.before.add(static_cast<size_t>(source));
      group.before.merge(groups()[static_cast<size_t>(source)].before);
    }
    if (node.kind == StepKind::Elementwise) {
      group.shape_class = segment_.values[node.first_value].shape_class;
    } else if (node.kind == StepKind::Reduction) {
      group.shape_class = segment_.shape_class_of(segment_.refs_of(node)[0]);
      group.reduction = index;
    }
    size_t self = groups().size();
    grouping_.group_of[static_cast<size_t>(index)] = static_cast<int32_t>(self);
    groups().push_back(std::move(group));
    if (!groups()[self].region) return;
    for (int32_t source : sources) try_merge(self, static_cast<size_t>(source));
  }

  int32_t group_of_ref(int32_t ref) const {
    if (ref < 0) return -1;
    return grouping_.group_of[static_cast<size_t>(segment_.values[static_cast<size_t>(ref)].node)];
  }

  bool is_copied(int32_t ref) const {
    return ref >= 0 && copied_[static_cast<size_t>(segment_.values[static_cast<size_t>(ref)].node)];
  }

  void try_merge(size_t self, size_t source) {
    Group& into = groups()[self];
    Group& from = groups()[source];
    if (!from.region || from.reduction >= 0 || from.shape_class != into.shape_class) return;
    if (from.nodes.size() + into.nodes.size() > kMaxRegionNodes) return;
    const Stream& a = stream_of(into);
    if (!(a == stream_of(from)) || !convex(self, source) ||
        inputs_of(self, source) > kMaxRegionInputs)
      return;
    absorb(self, source);
  }

  const Stream& stream_of(const Group& group) const {
    return segment_.nodes[static_cast<size_t>(group.nodes[0])].node->stream;
  }

  // No third group lies between the two, in either direction.
  bool convex(size_t a, size_t b) const {
    bool between = false;
    auto look = [&](size_t later, size_t earlier) {
      const auto& all = grouping_.groups;
      all[later].before.each([&](size_t h) {
        between |=
            h != earlier && h != later && !all[h].nodes.empty() && all[h].before.has(earlier);
      });
    };
    look(a, b);
    look(b, a);
    return !between;
  }

  // Of the two as one: what neither computes.
  size_t inputs_of(size_t a, size_t b) const {
    std::vector<int32_t> refs;
    for (size_t group : {a, b}) {
      for (int32_t node : grouping_.groups[group].nodes) {
        for (int32_t ref : segment_.refs_of(segment_.nodes[static_cast<size_t>(node)])) {
          const int32_t source = group_of_ref(ref);
          const bool inside =
              source == static_cast<int32_t>(a) || source == static_cast<int32_t>(b);
          if (!inside && !is_copied(ref)) refs.push_back(ref);
        }
      }
    }
    std::sort(refs.begin(), refs.end());
    return static_cast<size_t>(std::unique(refs.begin(), refs.end()) - refs.begin());
  }

  void absorb(size_t self, size_t source) {
    Group& into = groups()[self];
    Group& from = groups()[source];
    std::vector<int32_t> merged(into.nodes.size() + from.nodes.size());
    std::merge(into.nodes.begin(), into.nodes.end(), from.nodes.begin(), from.nodes.end(),
               merged.begin());
    for (int32_t node : from.nodes)
      grouping_.group_of[static_cast<size_t>(node)] = static_cast<int32_t>(self);
    into.nodes = std::move(merged);
    into.before.merge(from.before);
    from.nodes.clear();
    // Whoever waited for the absorbed group now waits for all that the new one waits for.
    for (Group& group : groups()) {
      if (!group.nodes.empty() && group.before.has(source)) {
        group.before.add(self);
        group.before.merge(into.before);
      }
    }
    clean_self(self);
  }

  // A group does not wait for itself or for what it absorbed.
  void clean_self(size_t self) {
    GroupSet before;
    groups()[self].before.each([&](size_t h) {
      if (h != self && !groups()[h].nodes.empty()) before.add(h);
    });
    groups()[self].before = std::move(before);
  }

  std::vector<Group>& groups() { return grouping_.groups; }

  const Segment& segment_;
  Grouping grouping_;
  std::vector<bool> copied_;
};

}  // namespace

bool Grouping::order(size_t a, size_t b) {
  if (a == b || groups[a].before.has(b)) return false;
  if (groups[b].before.has(a)) return true;
  GroupSet more = groups[a].before;
  more.add(a);
  groups[b].before.merge(more);
  for (Group& group : groups) {
    if (group.before.has(b)) group.before.merge(more);
  }
  return true;
}

Grouping form_groups(const Segment& segment) { return Former(segment).form(); }

}  // namespace mica
