// Trees of Python: nested lists, tuples and dictionaries with arrays at the leaves. Transforms work
// on the flat list of the arrays; everything else at a leaf is kept as it is.
#pragma once

#include <optional>
#include <vector>

#include "common.h"

namespace mica::python {

// The array at a leaf: an array, or the state of the random numbers. nullopt for anything else.
std::optional<Array> leaf_array(nb::handle leaf);
// Gives the leaf another array: the object itself changes, whoever holds it.
void set_leaf(nb::handle leaf, const Array& array);
// mx.random.state: the calling thread's default key.
void bind_random_state(nb::module_& m);

// Appends the arrays, depth first. With `only_arrays` another leaf is a ValueError.
void flatten(nb::handle tree, Arrays& leaves, bool only_arrays = false);
// The leaves with arrays themselves.
void collect(nb::handle tree, std::vector<nb::object>& leaves);

// The same structure with other arrays, taken from `leaves` at `next` on, which moves.
nb::object rebuild(nb::handle tree, std::span<const Array> leaves, size_t& next);
inline nb::object rebuild(nb::handle tree, std::span<const Array> leaves) {
  size_t next = 0;
  return rebuild(tree, leaves, next);
}
// The structure with markers in the places of its arrays, so that keeping it keeps no
// array alive; `rebuild` takes it too.
nb::object skeleton(nb::handle tree);

// The axis of each array of `tree`, from a prefix of it: an int or None stands for all below.
void axes_of(nb::handle tree, nb::handle axes, std::vector<std::optional<int>>& out,
             const char* what);

}  // namespace mica::python
