// Tree: nested lists and dictionaries with arrays at the leaves, the shape of parameters, gradients
// and optimizer states. Transforms work on the flat list of its arrays.
//
//   Tree parameters = Tree::dict({{"layers", Tree::list({Tree(w0), Tree(w1)})}, {"bias",
//   Tree(b)}}); Arrays flat = parameters.flatten();                    // w0, w1, b Tree halved =
//   parameters.map([](const Array& a) { return a * 0.5f; }); parameters.named(); // {"layers.0",
//   w0}, {"layers.1", w1}, {"bias", b}
//
// Dictionaries keep the order in which keys were given. A leaf without an array (None) takes no
// part.
#pragma once

#include <functional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "core/array.h"

namespace mica {

class Tree {
 public:
  using List = std::vector<Tree>;
  using Dict = std::vector<std::pair<std::string, Tree>>;
  using Named = std::vector<std::pair<std::string, Array>>;

  Tree() = default;  // a leaf without an array
  Tree(Array leaf) : node_(std::move(leaf)) {}
  static Tree list(List children) { return Tree(Node(std::move(children))); }
  static Tree dict(Dict children) { return Tree(Node(std::move(children))); }

  // nullptr if it is something else.
  const Array* leaf() const { return std::get_if<Array>(&node_); }
  const List* as_list() const { return std::get_if<List>(&node_); }
  const Dict* as_dict() const { return std::get_if<Dict>(&node_); }

  // The arrays, depth first.
  Arrays flatten() const;
  // The same structure with other arrays in flatten's order; ValueError if their number differs.
  Tree unflatten(const Arrays& leaves) const;
  // The arrays with their paths, parts joined by dots, list places as numbers.
  Named named() const;
  // The inverse: parts that count from 0 upwards become lists. ValueError for paths that contradict
  // each other ("a" and "a.b").
  static Tree from_named(const Named& leaves);
  // f of every array, in the same structure.
  Tree map(const std::function<Array(const Array&)>& f) const;

 private:
  using Node = std::variant<Array, List, Dict>;
  explicit Tree(Node node) : node_(std::move(node)) {}
  void visit(std::string& path,
             const std::function<void(const std::string&, const Array&)>& f) const;

  Node node_;
};

}  // namespace mica
