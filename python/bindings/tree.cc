#include "tree.h"

#include "base/error.h"
#include "ops/random.h"

namespace mica::python {

namespace {

struct RandomState {};

PyTypeObject* random_state_type = nullptr;

// Stands in a skeleton for an array that was taken out.
PyObject* place_marker() {
  static PyObject* marker = PyObject_CallNoArgs(reinterpret_cast<PyObject*>(&PyBaseObject_Type));
  return marker;
}

bool is_list(nb::handle tree) { return PyList_Check(tree.ptr()) || PyTuple_Check(tree.ptr()); }

// Calls f(child) for the children of a list, tuple or dictionary; false if it is a leaf.
template <class F>
bool each_child(nb::handle tree, F&& f) {
  Descent descent;
  if (is_list(tree)) {
    for (Py_ssize_t i = 0; i < PySequence_Fast_GET_SIZE(tree.ptr()); ++i)
      f(nb::handle(PySequence_Fast_GET_ITEM(tree.ptr(), i)));
    return true;
  }
  if (!PyDict_Check(tree.ptr())) return false;
  PyObject *key = nullptr, *child = nullptr;
  Py_ssize_t at = 0;
  while (PyDict_Next(tree.ptr(), &at, &key, &child)) f(nb::handle(child));
  return true;
}

// The structure with f of every leaf.
template <class F>
nb::object mapped(nb::handle tree, F& f) {
  Descent descent;
  if (PyDict_Check(tree.ptr())) {
    nb::object dict = nb::steal(PyDict_New());
    PyObject *key = nullptr, *child = nullptr;
    Py_ssize_t at = 0;
    while (PyDict_Next(tree.ptr(), &at, &key, &child)) {
      nb::object value = mapped(child, f);
      if (PyDict_SetItem(dict.ptr(), key, value.ptr()) != 0) throw nb::python_error();
    }
    return dict;
  }
  if (!is_list(tree)) return f(tree);
  nb::list list;
  for (Py_ssize_t i = 0; i < PySequence_Fast_GET_SIZE(tree.ptr()); ++i)
    list.append(mapped(PySequence_Fast_GET_ITEM(tree.ptr(), i), f));
  if (PyList_Check(tree.ptr())) return list;
  if (PyTuple_CheckExact(tree.ptr())) return nb::tuple(list);
  if (nb::hasattr(tree, "_fields")) return tree.type()(*list);  // a named tuple
  return nb::tuple(list);
}

// The state stands for a list of one array: the key.
void check_place(int64_t index) {
  if (index != 0 && index != -1) throw nb::index_error("the random state is a list of one key");
}

[[noreturn]] void not_a_prefix(const char* what) {
  throw_value("[{}] the axes are no prefix of the tree of arrays", what);
}

}  // namespace

std::optional<Array> leaf_array(nb::handle leaf) {
  if (const Array* array = array_of(leaf)) return *array;
  if (Py_TYPE(leaf.ptr()) == random_state_type) return random::state();
  return {};
}

void set_leaf(nb::handle leaf, const Array& array) {
  if (Array* held = array_of(leaf)) {
    *held = array;
  } else {
    random::set_state(array);
  }
}

void bind_random_state(nb::module_& m) {
  nb::class_<RandomState> type(
      m, "RandomState",
      "The key of this thread's random numbers, for mx.compile's inputs and outputs and mx.eval.");
  type.def("__repr__", [](RandomState) { return "mica.core.random.state"; })
      .def("__len__", [](RandomState) { return 1; })
      .def(
          "__getitem__",
          [](RandomState, int64_t index) {
            check_place(index);
            return wrap(random::state());
          },
          nb::arg("index"), nb::sig("def __getitem__(self, index: int) -> array"))
      .def(
          "__setitem__",
          [](RandomState, int64_t index, nb::handle key) {
            check_place(index);
            const Array* array = array_of(key);
            if (!array) throw_type("a key is an array, got {}", Py_TYPE(key.ptr())->tp_name);
            random::set_state(*array);
          },
          nb::arg("index"), nb::arg("key"),
          nb::sig("def __setitem__(self, index: int, key: array) -> None"));
  random_state_type = reinterpret_cast<PyTypeObject*>(type.ptr());
  m.attr("state") = nb::cast(RandomState{});
}

void flatten(nb::handle tree, Arrays& leaves, bool only_arrays) {
  if (std::optional<Array> array = leaf_array(tree)) {
    leaves.push_back(std::move(*array));
  } else if (!each_child(tree, [&](nb::handle c) { flatten(c, leaves, only_arrays); })) {
    if (only_arrays) throw_value("[tree_flatten] The argument should contain only arrays");
  }
}

void collect(nb::handle tree, std::vector<nb::object>& leaves) {
  if (leaf_array(tree)) {
    leaves.push_back(nb::borrow(tree));
  } else {
    each_child(tree, [&](nb::handle c) { collect(c, leaves); });
  }
}

nb::object rebuild(nb::handle tree, std::span<const Array> leaves, size_t& next) {
  auto leaf = [&](nb::handle object) -> nb::object {
    if (!array_of(object) && object.ptr() != place_marker()) return nb::borrow(object);
    MICA_ASSERT(next < leaves.size());
    return wrap(leaves[next++]);
  };
  return mapped(tree, leaf);
}

nb::object skeleton(nb::handle tree) {
  auto leaf = [](nb::handle object) -> nb::object {
    return nb::borrow(array_of(object) ? nb::handle(place_marker()) : object);
  };
  return mapped(tree, leaf);
}

void axes_of(nb::handle tree, nb::handle axes, std::vector<std::optional<int>>& out,
             const char* what) {
  Descent descent;
  bool single = axes.is_none() || (PyLong_Check(axes.ptr()) && !PyBool_Check(axes.ptr()));
  if (array_of(tree)) {
    if (!single) not_a_prefix(what);
    out.push_back(axes.is_none() ? std::optional<int>() : nb::cast<int>(axes));
  } else if (single) {
    each_child(tree, [&](nb::handle child) { axes_of(child, axes, out, what); });
  } else if (is_list(tree) && is_list(axes)) {
    Py_ssize_t count = PySequence_Fast_GET_SIZE(tree.ptr());
    if (PySequence_Fast_GET_SIZE(axes.ptr()) != count) not_a_prefix(what);
    for (Py_ssize_t i = 0; i < count; ++i)
      axes_of(PySequence_Fast_GET_ITEM(tree.ptr(), i), PySequence_Fast_GET_ITEM(axes.ptr(), i), out,
              what);
  } else if (PyDict_Check(tree.ptr()) && PyDict_Check(axes.ptr())) {
    PyObject *key = nullptr, *child = nullptr;
    Py_ssize_t at = 0;
    while (PyDict_Next(tree.ptr(), &at, &key, &child)) {
      PyObject* below = PyDict_GetItemWithError(axes.ptr(), key);
      if (!below) not_a_prefix(what);
      axes_of(child, below, out, what);
    }
  } else {
    not_a_prefix(what);
  }
}

}  // namespace mica::python
