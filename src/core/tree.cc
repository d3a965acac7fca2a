#include "core/tree.h"

#include <algorithm>

#include "base/error.h"

namespace mica {

namespace {

using Entries = std::vector<std::pair<std::string_view, Array>>;

// The children by their first path part, in order of appearance.
std::vector<std::pair<std::string, Entries>> grouped(const Entries& entries) {
  std::vector<std::pair<std::string, Entries>> groups;
  for (const auto& [path, array] : entries) {
    size_t dot = path.find('.');
    std::string_view head = path.substr(0, dot);
    auto found =
        std::find_if(groups.begin(), groups.end(), [&](auto& g) { return g.first == head; });
    if (found == groups.end()) found = groups.insert(groups.end(), {std::string(head), {}});
    bool ends = dot == std::string_view::npos;
    // A path that ends here leaves an empty view without data, which no rest of a path is.
    found->second.emplace_back(ends ? std::string_view() : path.substr(dot + 1), array);
  }
  return groups;
}

constexpr int kMaxDepth = 100;  // paths come from files

Tree build(const Entries& entries, int depth) {
  if (depth > kMaxDepth) throw_value("[tree] a path has more than {} parts", kMaxDepth);
  auto groups = grouped(entries);
  Tree::Dict children;
  for (auto& [head, rest] : groups) {
    bool leaf = rest[0].first.data() == nullptr;
    if (rest.size() > 1 &&
        std::any_of(rest.begin(), rest.end(), [](auto& e) { return e.first.data() == nullptr; }))
      throw_value("[tree] \"{}\" is an array and a branch, or given twice", head);
    children.emplace_back(head, leaf ? Tree(rest[0].second) : build(rest, depth + 1));
  }
  Tree::List items(children.size());
  for (auto& [head, child] : children) {
    bool number =
        !head.empty() && head.size() < 10 &&
        std::all_of(head.begin(), head.end(), [](char c) { return c >= '0' && c <= '9'; });
    size_t place = number ? static_cast<size_t>(std::stoul(head)) : items.size();
    if (place >= items.size() || std::to_string(place) != head)
      return Tree::dict(std::move(children));
    items[place] = child;
  }
  return items.empty() ? Tree::dict({}) : Tree::list(std::move(items));
}

}  // namespace

void Tree::visit(std::string& path,
                 const std::function<void(const std::string&, const Array&)>& f) const {
  auto descend = [&](const std::string& part, const Tree& child) {
    size_t length = path.size();
    if (length > 0) path += '.';
    path += part;
    child.visit(path, f);
    path.resize(length);
  };
  if (const Array* array = leaf()) {
    if (array->defined()) f(path, *array);
  } else if (const List* children = as_list()) {
    for (size_t i = 0; i < children->size(); ++i) descend(std::to_string(i), (*children)[i]);
  } else {
    for (const auto& [key, child] : *as_dict()) descend(key, child);
  }
}

Tree::Named Tree::named() const {
  Named result;
  std::string path;
  visit(path, [&](const std::string& at, const Array& array) { result.emplace_back(at, array); });
  return result;
}

Arrays Tree::flatten() const {
  Arrays result;
  std::string path;
  visit(path, [&](const std::string&, const Array& array) { result.push_back(array); });
  return result;
}

Tree Tree::map(const std::function<Array(const Array&)>& f) const {
  if (const Array* array = leaf()) return array->defined() ? Tree(f(*array)) : Tree();
  if (const List* children = as_list()) {
    List mapped;
    for (const Tree& child : *children) mapped.push_back(child.map(f));
    return list(std::move(mapped));
  }
  Dict mapped;
  for (const auto& [key, child] : *as_dict()) mapped.emplace_back(key, child.map(f));
  return dict(std::move(mapped));
}

Tree Tree::unflatten(const Arrays& leaves) const {
  size_t count = flatten().size();
  if (count != leaves.size())
    throw_value("[tree] {} arrays for a tree of {}", leaves.size(), count);
  size_t next = 0;
  return map([&](const Array&) { return leaves[next++]; });
}

Tree Tree::from_named(const Named& leaves) {
  Entries entries;
  for (const auto& [path, array] : leaves) entries.emplace_back(path, array);
  if (entries.size() == 1 && entries[0].first.empty()) return Tree(entries[0].second);
  return build(entries, 1);
}

}  // namespace mica
