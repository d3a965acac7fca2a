#include "array.h"

#include <nanobind/stl/string.h>

#include "base/error.h"
#include "convert.h"
#include "dtypes.h"
#include "ops/elementwise.h"
#include "ops/shape.h"

namespace mica::python {

PyTypeObject* array_type = nullptr;

Array* array_of_subtype(PyObject* object) {
  if (!PyObject_TypeCheck(object, array_type)) return nullptr;
  return nb::inst_ptr<Array>(object);
}

nb::object wrap(Array array) {
  nb::object object = nb::inst_alloc(reinterpret_cast<PyObject*>(array_type));
  new (nb::inst_ptr<Array>(object)) Array(std::move(array));
  nb::inst_mark_ready(object);
  return object;
}

namespace {

nb::object only_integer(const Array& array) {
  if (array.rank() != 0 || is_floating(array.dtype()))
    throw_type("Only 0-dimensional integer arrays can be converted to an index.");
  nb::object number = to_scalar(array);
  return array.dtype() == Dtype::Bool ? nb::steal(PyNumber_Long(number.ptr())) : number;
}

nb::object number_as(nb::handle self, PyObject* (*convert)(PyObject*)) {
  nb::object number = to_scalar(*array_of(self));
  nb::object result = nb::steal(convert(number.ptr()));
  if (!result.is_valid()) throw nb::python_error();
  return result;
}

void add_properties(ArrayClass& type) {
  type.def_prop_ro(
          "shape",
          [](const Array& self) {
            nb::object tuple = nb::steal(PyTuple_New(static_cast<Py_ssize_t>(self.rank())));
            for (size_t i = 0; i < self.rank(); ++i)
              PyTuple_SET_ITEM(tuple.ptr(), i, PyLong_FromLongLong(self.shape()[i]));
            return nb::borrow<nb::tuple>(tuple);
          },
          nb::sig("def shape(self) -> tuple[int, ...]"), "The extents of the axes.")
      .def_prop_ro(
          "dtype", [](const Array& self) { return wrap(self.dtype()); },
          nb::sig("def dtype(self) -> Dtype"), "The type of the elements.")
      .def_prop_ro("size", &Array::size, "The number of elements.")
      .def_prop_ro("ndim", &Array::rank, "The number of axes.")
      .def_prop_ro("nbytes", &Array::nbytes, "Bytes of all elements.")
      .def_prop_ro(
          "itemsize", [](const Array& self) { return size_of(self.dtype()); },
          "Bytes of an element.")
      .def_prop_ro(
          "T", [](const Array& self) { return wrap(transpose(self)); },
          nb::sig("def T(self) -> array"), "The array with its axes reversed.")
      .def_prop_ro(
          "mT",
          [](const Array& self) {
            if (self.rank() < 2)
              throw_value("[mT] at least 2 axes are needed, got shape {}", self.shape());
            return wrap(swapaxes(self, -1, -2));
          },
          nb::sig("def mT(self) -> array"), "The array with its last two axes swapped.");
}

void add_conversions(ArrayClass& type) {
  type.def("item", &to_scalar, nb::sig("def item(self) -> scalar"),
           "The only element as a Python number. Evaluates; ValueError unless there is one.")
      .def("tolist", &to_list, nb::sig("def tolist(self) -> Any"),
           "The elements as nested lists; a number if there are no axes. Evaluates.")
      .def(
          "__int__", [](nb::handle self) { return number_as(self, &PyNumber_Long); },
          nb::sig("def __int__(self) -> int"))
      .def(
          "__float__", [](nb::handle self) { return number_as(self, &PyNumber_Float); },
          nb::sig("def __float__(self) -> float"))
      .def("__index__", &only_integer, nb::sig("def __index__(self) -> int"))
      .def("__repr__", &array_text)
      .def(
          "__format__",
          [](const Array& self, nb::str spec) -> nb::object {
            if (self.rank() == 0)
              return nb::steal(PyObject_Format(to_scalar(self).ptr(), spec.ptr()));
            nb::str text(array_text(self).c_str());
            return nb::steal(PyObject_Format(text.ptr(), spec.ptr()));
          },
          nb::arg("spec"), nb::sig("def __format__(self, spec: str, /) -> str"))
      .def(
          "__array_namespace__",
          [](nb::handle, nb::handle) { return nb::module_::import_("mica.core"); },
          nb::arg("api_version") = nb::none(),
          nb::sig("def __array_namespace__(self, api_version: str | None = None) -> Any"),
          "The module of functions on arrays, for array-API programs.");
}

}  // namespace

void bind_array(nb::module_& m) {
  std::vector<PyType_Slot> slots = operator_slots();
  for (const auto& more : {indexing_slots(), memory_slots()})
    slots.insert(slots.end(), more.begin(), more.end());
  slots.push_back({0, nullptr});
  ArrayClass type(m, "array", nb::type_slots(slots.data()), nb::is_weak_referenceable(),
                  nb::pooled(1024),
                  "An N-dimensional array.\n\nmx.array([[1, 2.5], [3, 4]]) makes one of numbers, "
                  "nested lists, NumPy arrays or anything\nthat shows its memory. Nothing is "
                  "computed until an array is printed, read or given to mx.eval.");
  array_type = reinterpret_cast<PyTypeObject*>(type.ptr());
  type.def(
      "__init__",
      [](Array* self, nb::handle val, nb::handle dtype) {
        new (self) Array(make_array(val, optional_dtype(dtype, "array() argument 'dtype'")));
      },
      nb::arg("val").none(), nb::arg("dtype") = nb::none(),
      nb::sig("def __init__(self, val: Any, dtype: Dtype | None = None) -> None"),
      "From a number, nested lists of numbers or arrays, or memory that another library shows;\n"
      "the types are int32 (int64 where needed), float32, bool, or those of the memory, with\n"
      "float64 as float32, unless `dtype` is given. ValueError for anything else.");
  add_properties(type);
  add_conversions(type);
  add_memory_methods(type);
  add_at(m, type);
}

}  // namespace mica::python
