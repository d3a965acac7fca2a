#include "core/order.h"

#include <algorithm>
#include <queue>
#include <unordered_map>

namespace mica {

namespace {

// Groups in an order that respects `before`, the smallest key first among those that may run.
std::vector<int32_t> by_key(const Grouping& grouping, const std::vector<uint64_t>& keys,
                            const std::vector<std::vector<int32_t>>& users) {
  std::vector<int32_t> waiting(grouping.groups.size(), 0);
  for (const auto& list : users) {
    for (int32_t user : list) ++waiting[static_cast<size_t>(user)];
  }
  using Entry = std::pair<uint64_t, int32_t>;
  std::priority_queue<Entry, std::vector<Entry>, std::greater<>> ready;
  for (size_t g = 0; g < grouping.groups.size(); ++g) {
    if (!grouping.groups[g].nodes.empty() && waiting[g] == 0)
      ready.emplace(keys[g], static_cast<int32_t>(g));
  }
  std::vector<int32_t> order;
  while (!ready.empty()) {
    int32_t g = ready.top().second;
    ready.pop();
    order.push_back(g);
    for (int32_t user : users[static_cast<size_t>(g)]) {
      if (--waiting[static_cast<size_t>(user)] == 0)
        ready.emplace(keys[static_cast<size_t>(user)], user);
    }
  }
  return order;
}

int64_t bytes_of(const Segment& segment, int32_t value) {
  const Slot& slot = *segment.values[static_cast<size_t>(value)].slot;
  return elements(slot.shape) * size_of(slot.dtype);
}

// Highest sum of live bytes when groups run in this order; only what the segment computes counts.
int64_t peak_of(const Segment& segment, const StorageRoots& roots, const Grouping& grouping,
                const std::vector<int32_t>& order) {
  std::vector<int32_t> uses(segment.values.size(), 0);
  for (const SegmentNode& node : segment.nodes) {
    for (int32_t ref : segment.refs_of(node)) {
      if (int32_t root = roots.root(ref); root >= 0) ++uses[static_cast<size_t>(root)];
    }
  }
  for (size_t v = 0; v < segment.values.size(); ++v) {
    int32_t root = roots.root(static_cast<int32_t>(v));
    if (segment.values[v].held && root >= 0) ++uses[static_cast<size_t>(root)];
  }
  int64_t live = 0, peak = 0;
  for (int32_t g : order) {
    const auto& nodes = grouping.groups[static_cast<size_t>(g)].nodes;
    for (int32_t n : nodes) {
      const SegmentNode& node = segment.nodes[static_cast<size_t>(n)];
      for (uint32_t o = 0; o < node.node->output_count; ++o) {
        auto value = static_cast<int32_t>(node.first_value + o);
        if (roots.root(value) == value) live += bytes_of(segment, value);
      }
    }
    peak = std::max(peak, live);
    for (int32_t n : nodes) {
      for (int32_t ref : segment.refs_of(segment.nodes[static_cast<size_t>(n)])) {
        int32_t root = roots.root(ref);
        if (root >= 0 && --uses[static_cast<size_t>(root)] == 0) live -= bytes_of(segment, root);
      }
    }
  }
  return peak;
}

std::vector<std::vector<int32_t>> users_of(const Grouping& grouping) {
  std::vector<std::vector<int32_t>> users(grouping.groups.size());
  for (size_t g = 0; g < grouping.groups.size(); ++g) {
    if (grouping.groups[g].nodes.empty()) continue;
    grouping.groups[g].before.each([&](size_t h) {
      if (!grouping.groups[h].nodes.empty()) users[h].push_back(static_cast<int32_t>(g));
    });
  }
  return users;
}

}  // namespace

StorageRoots::StorageRoots(const Segment& segment) : roots_(segment.values.size()) {
  for (const SegmentNode& node : segment.nodes) {
    for (uint32_t o = 0; o < node.node->output_count; ++o) {
      size_t value = node.first_value + o;
      roots_[value] = static_cast<int32_t>(value);
      if (node.kind == StepKind::View) roots_[value] = root(segment.refs_of(node)[0]);
      if (node.kind == StepKind::Alias) roots_[value] = root(segment.refs_of(node)[o]);
    }
  }
}

void order_updates(const Segment& segment, const StorageRoots& roots, Grouping& grouping) {
  std::unordered_map<int32_t, std::vector<size_t>> readers;  // of what an update overwrites
  for (const SegmentNode& node : segment.nodes) {
    if (node.kind == StepKind::Kernel && node.node->op->updates_first_input)
      readers.try_emplace(roots.root(segment.refs_of(node)[0]));
  }
  if (readers.empty()) return;
  for (size_t i = 0; i < segment.nodes.size(); ++i) {
    if (segment.nodes[i].kind == StepKind::View || segment.nodes[i].kind == StepKind::Alias)
      continue;
    for (int32_t ref : segment.refs_of(segment.nodes[i])) {
      auto found = readers.find(roots.root(ref));
      if (found != readers.end()) found->second.push_back(i);
    }
  }
  for (size_t i = 0; i < segment.nodes.size(); ++i) {
    const SegmentNode& node = segment.nodes[i];
    if (node.kind != StepKind::Kernel || !node.node->op->updates_first_input) continue;
    for (size_t reader : readers[roots.root(segment.refs_of(node)[0])]) {
      if (reader != i)
        grouping.order(static_cast<size_t>(grouping.group_of[reader]),
                       static_cast<size_t>(grouping.group_of[i]));
    }
  }
}

std::vector<int32_t> order_groups(const Segment& segment, const StorageRoots& roots,
                                  const Grouping& grouping) {
  auto users = users_of(grouping);
  std::vector<uint64_t> created(grouping.groups.size(), 0), depth_first(grouping.groups.size(), 0);
  for (size_t g = 0; g < grouping.groups.size(); ++g) {
    for (int32_t n : grouping.groups[g].nodes) {
      created[g] = std::max(created[g], segment.nodes[static_cast<size_t>(n)].node->id);
      depth_first[g] = static_cast<uint64_t>(n);
    }
  }
  auto by_depth = by_key(grouping, depth_first, users);
  auto by_creation = by_key(grouping, created, users);
  if (by_depth == by_creation) return by_depth;
  return peak_of(segment, roots, grouping, by_creation) <
                 peak_of(segment, roots, grouping, by_depth)
             ? by_creation
             : by_depth;
}

}  // namespace mica
