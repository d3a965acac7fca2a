// x[...], x[...] = value and x.at[...]: Python's index objects become mica::Index.
#include "ops/indexing.h"

#include "array.h"
#include "base/error.h"
#include "convert.h"
#include "ops/elementwise.h"

namespace mica::python {

namespace {

using Indices = std::vector<Index>;

std::optional<int64_t> slice_part(PyObject* part) {
  if (part == Py_None) return {};
  if (!PyIndex_Check(part) || PyFloat_Check(part))
    throw_value("Slice indices must be integers or None.");
  // Clipped to 64 bits, as Python's own slices are.
  Py_ssize_t value = PyNumber_AsSsize_t(part, nullptr);
  if (value == -1 && PyErr_Occurred()) throw nb::python_error();
  return value;
}

Array index_array(PyObject* item) {
  Array array = make_array(item);
  // An empty list is an index array without elements.
  return array.size() == 0 && is_floating(array.dtype()) ? astype(array, Dtype::I32) : array;
}

Index index_of(PyObject* item) {
  if (PyLong_CheckExact(item)) {
    int64_t value = PyLong_AsLongLong(item);
    if (value == -1 && PyErr_Occurred()) throw nb::python_error();
    return value;
  }
  if (item == Py_None) return NewAxis{};
  if (item == Py_Ellipsis) return Ellipsis{};
  if (PySlice_Check(item)) {
    auto* slice = reinterpret_cast<PySliceObject*>(item);
    return Slice{slice_part(slice->start), slice_part(slice->stop), slice_part(slice->step)};
  }
  if (const Array* array = array_of(item)) return *array;
  if (PyList_Check(item)) return index_array(item);
  bool wrong =
      PyBool_Check(item) || PyFloat_Check(item) || PyUnicode_Check(item) || PyBytes_Check(item);
  if (!wrong) {
    std::optional<Value> number = scalar_value(item);
    if (number && std::holds_alternative<int64_t>(*number)) return std::get<int64_t>(*number);
    if (!number && has_memory(item)) return index_array(item);
    if (!number && PyIndex_Check(item))
      return static_cast<int64_t>(nb::cast<int64_t>(nb::handle(item)));
  }
  throw_value("Cannot index mica array using the given type.");
}

// MLX's errors for what is wrong whatever the values are.
void check(const Array& array, const Indices& indices) {
  size_t taken = 0, ellipses = 0;
  for (const Index& index : indices) {
    const Array* places = std::get_if<Array>(&index);
    if (std::holds_alternative<Ellipsis>(index)) {
      ++ellipses;
    } else if (!std::holds_alternative<NewAxis>(index)) {
      taken += places && places->dtype() == Dtype::Bool ? places->rank() : 1;
    }
    if (places && is_floating(places->dtype()))
      throw_value("[gather] Got indices with invalid dtype. Indices must be integral.");
  }
  if (ellipses > 1) throw_value("An index can only have a single ellipsis (...)");
  if (taken > array.rank())
    throw_value("Too many indices for array with {} dimensions.", array.rank());
}

Indices indices_of(const Array& array, PyObject* item) {
  Indices indices;
  if (PyTuple_Check(item)) {
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(item); ++i)
      indices.push_back(index_of(PyTuple_GET_ITEM(item, i)));
  } else {
    indices.push_back(index_of(item));
  }
  check(array, indices);
  return indices;
}

PyObject* get(PyObject* self, PyObject* item) {
  return guarded([&] {
    const Array& array = *array_of(self);
    return wrap(index(array, indices_of(array, item))).release().ptr();
  });
}

Array update_value(PyObject* value, const Array& array) {
  if (PyList_Check(value) || PyTuple_Check(value)) return make_array(value, array.dtype());
  std::optional<Array> converted = operand(value, array);
  if (PyUnicode_Check(value) || PyBytes_Check(value) || PyDict_Check(value))
    throw_value("Invalid type {} received in array initialization.", Py_TYPE(value)->tp_name);
  if (!converted) {
    throw_type("an array cannot be assigned from {}", Py_TYPE(value)->tp_name);
  }
  return *converted;
}

int set(PyObject* self, PyObject* item, PyObject* value) {
  return guarded(
      [&] {
        Array& array = *array_of(self);
        if (!value) throw_type("elements of an array cannot be deleted");
        // x[True] = v sets all elements, x[False] = v none.
        if (item == Py_False) return 0;
        Indices indices = item == Py_True ? Indices{Ellipsis{}} : indices_of(array, item);
        array = index_update(array, indices, update_value(value, array));
        return 0;
      },
      -1);
}

Py_ssize_t length(PyObject* self) {
  return guarded(
      [&]() -> Py_ssize_t {
        const Array& array = *array_of(self);
        if (array.rank() == 0) throw_type("len() 0-dimensional array.");
        return array.shape()[0];
      },
      Py_ssize_t{-1});
}

PyObject* place(PyObject* self, Py_ssize_t at) {
  return guarded([&] {
    const Array& array = *array_of(self);
    // The end of an iteration: IndexError without the cost of a formatted message.
    if (array.rank() > 0 && at >= array.shape()[0]) throw nb::index_error();
    return wrap(index(array, {Index(static_cast<int64_t>(at))})).release().ptr();
  });
}

PyObject* iterate(PyObject* self) {
  if (array_of(self)->rank() == 0) {
    PyErr_SetString(PyExc_TypeError, "iter() 0-dimensional array.");
    return nullptr;
  }
  return PySeqIter_New(self);
}

// x.at, and x.at[indices], whose methods give a new array.
struct At {
  Array array;
  nb::object item;  // invalid: not indexed yet

  Array update(nb::handle value, ScatterMode mode, Array (*prepare)(const Array&)) const {
    if (!item.is_valid()) throw_value("Must give indices to array.at: x.at[indices].add(value)");
    Array given = update_value(value.ptr(), array);
    return index_update(array, indices_of(array, item.ptr()), prepare ? prepare(given) : given,
                        mode);
  }
};

Array opposite(const Array& a) { return negative(a); }
Array inverse(const Array& a) { return reciprocal(a); }

template <ScatterMode mode, Array (*prepare)(const Array&) = nullptr>
void add_update(nb::class_<At>& type, const char* name, const char* signature, const char* doc) {
  type.def(
      name,
      [](const At& self, nb::handle value) { return wrap(self.update(value, mode, prepare)); },
      nb::arg("value"), nb::sig(signature), doc);
}

}  // namespace

std::vector<PyType_Slot> indexing_slots() {
  return {{Py_mp_subscript, reinterpret_cast<void*>(&get)},
          {Py_mp_ass_subscript, reinterpret_cast<void*>(&set)},
          {Py_mp_length, reinterpret_cast<void*>(&length)},
          {Py_sq_length, reinterpret_cast<void*>(&length)},
          {Py_sq_item, reinterpret_cast<void*>(&place)},
          {Py_tp_iter, reinterpret_cast<void*>(&iterate)}};
}

void add_at(nb::module_& m, ArrayClass& type) {
  nb::class_<At> at(m, "ArrayAt",
                    "Updates of an array at x.at[indices]: repeated places count "
                    "each time, unlike in x[indices] += value.");
  at.def(
      "__getitem__",
      [](const At& self, nb::object item) {
        indices_of(self.array, item.ptr());  // what is wrong is said here already
        return At{self.array, std::move(item)};
      },
      nb::arg("indices").none(), nb::sig("def __getitem__(self, indices: Any) -> ArrayAt"));
  add_update<ScatterMode::Add>(at, "add", "def add(self, value: scalar | array) -> array",
                               "The array with `value` added at the places.");
  add_update<ScatterMode::Add, &opposite>(at, "subtract",
                                          "def subtract(self, value: scalar | array) -> array",
                                          "The array with `value` subtracted at the places.");
  add_update<ScatterMode::Prod>(at, "multiply",
                                "def multiply(self, value: scalar | array) -> array",
                                "The array multiplied by `value` at the places.");
  add_update<ScatterMode::Prod, &inverse>(at, "divide",
                                          "def divide(self, value: scalar | array) -> array",
                                          "The array divided by `value` at the places.");
  add_update<ScatterMode::Max>(at, "maximum", "def maximum(self, value: scalar | array) -> array",
                               "The larger of array and `value` at the places.");
  add_update<ScatterMode::Min>(at, "minimum", "def minimum(self, value: scalar | array) -> array",
                               "The smaller of array and `value` at the places.");
  type.def_prop_ro(
      "at", [](const Array& self) { return At{self, {}}; },
      "x.at[indices].add(value) and the like: x with its elements at the indices updated.");
}

}  // namespace mica::python
