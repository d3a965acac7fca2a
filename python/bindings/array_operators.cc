// Arithmetic, comparisons and truth of arrays, as type slots.
#include "array.h"
#include "base/error.h"
#include "convert.h"
#include "ops/elementwise.h"
#include "ops/matmul.h"

namespace mica::python {

namespace {

using Binary = Array (*)(const Array&, const Array&, Stream);

// Objects that MLX refuses with a ValueError; for others the other operand's class may know better.
bool is_plain(PyObject* object) {
  return PyUnicode_Check(object) || PyList_Check(object) || PyTuple_Check(object) ||
         PyDict_Check(object) || PyBytes_Check(object);
}

// The result, or an undefined array where Python is to ask the other operand.
Array combined(PyObject* left, PyObject* right, Binary function, const char* what) {
  const Array* a = array_of(left);
  const Array* b = array_of(right);
  if (a && b) return function(*a, *b, {});
  PyObject* stranger = a ? right : left;
  const Array& known = a ? *a : *b;
  std::optional<Array> other = operand(stranger, known);
  if (!other) {
    if (!is_plain(stranger)) return {};
    throw_value("Cannot perform {} on an mica.core.array and {}", what, Py_TYPE(stranger)->tp_name);
  }
  return a ? function(known, *other, {}) : function(*other, known, {});
}

PyObject* result_or_not_implemented(Array result) {
  if (!result.defined()) Py_RETURN_NOTIMPLEMENTED;
  return wrap(std::move(result)).release().ptr();
}

struct Name {
  char text[32] = {};
  constexpr Name(const char* from) {
    for (int i = 0; from[i]; ++i) text[i] = from[i];
  }
};

template <Binary function, Name name>
PyObject* binary(PyObject* left, PyObject* right) {
  return guarded(
      [&] { return result_or_not_implemented(combined(left, right, function, name.text)); });
}

// The handle takes the result, and so do other names for it, as in MLX.
template <Binary function, Name name>
PyObject* in_place(PyObject* self, PyObject* right) {
  return guarded([&]() -> PyObject* {
    Array result = combined(self, right, function, name.text);
    if (!result.defined()) Py_RETURN_NOTIMPLEMENTED;
    *array_of(self) = std::move(result);
    Py_INCREF(self);
    return self;
  });
}

Array matrix_product(const Array& a, const Array& b, Stream s) { return matmul(a, b, s); }

PyObject* power_slot(PyObject* left, PyObject* right, PyObject* modulus) {
  return guarded([&]() -> PyObject* {
    if (modulus != Py_None) throw_value("pow() of arrays takes no modulus");
    return result_or_not_implemented(combined(left, right, &power, "power"));
  });
}

PyObject* in_place_power(PyObject* self, PyObject* right, PyObject*) {
  return in_place<&power, "power">(self, right);
}

// Integers cannot hold a quotient, and the handle keeps its type.
PyObject* in_place_divide(PyObject* self, PyObject* right) {
  return guarded([&] {
    if (!is_floating(array_of(self)->dtype()))
      throw_value("In place division cannot cast to non-floating point type.");
    return in_place<&divide, "division">(self, right);
  });
}

// Only arrays, as in MLX: a scalar or a list is no matrix.
template <bool kInPlace>
PyObject* product_slot(PyObject* left, PyObject* right) {
  if (!array_of(left) || !array_of(right)) {
    PyObject* stranger = array_of(left) ? right : left;
    if (PyFloat_Check(stranger) || PyLong_Check(stranger) || is_plain(stranger))
      Py_RETURN_NOTIMPLEMENTED;
  }
  if (kInPlace) return in_place<&matrix_product, "matrix multiplication">(left, right);
  return binary<&matrix_product, "matrix multiplication">(left, right);
}

Array inverted(const Array& a, Stream s) {
  if (a.dtype() == Dtype::Bool) return logical_not(a, s);
  if (is_floating(a.dtype()))
    throw_value("Floating point types not allowed with bitwise inversion.");
  return bitwise_invert(a, s);
}

Array negated(const Array& a, Stream s) {
  if (a.dtype() == Dtype::Bool)
    throw_value("[negative] Not supported for bool, use logical_not instead.");
  return negative(a, s);
}

Array itself(const Array& a, Stream) { return a; }

template <Array (*function)(const Array&, Stream)>
PyObject* unary(PyObject* self) {
  return guarded([&] { return wrap(function(*array_of(self), {})).release().ptr(); });
}

template <Binary function, Name name>
Array bits(const Array& a, const Array& b, Stream s) {
  if (is_floating(a.dtype()) || is_floating(b.dtype()))
    throw_value("Floating point types not allowed with {}.", name.text);
  return function(a, b, s);
}

PyObject* compare(PyObject* left, PyObject* right, int how) {
  static constexpr Binary functions[] = {&less,      &less_equal, &equal,
                                         &not_equal, &greater,    &greater_equal};
  static constexpr const char* names[] = {"less than",    "less than or equal",
                                          "equality",     "inequality",
                                          "greater than", "greater than or equal"};
  return guarded([&]() -> PyObject* {
    bool equality = how == Py_EQ || how == Py_NE;
    if (equality && is_plain(right)) return Py_NewRef(how == Py_EQ ? Py_False : Py_True);
    return result_or_not_implemented(combined(left, right, functions[how], names[how]));
  });
}

int truth(PyObject* self) {
  return guarded([&] { return PyObject_IsTrue(to_scalar(*array_of(self)).ptr()); }, -1);
}

Py_hash_t hash(PyObject* self) { return _Py_HashPointer(self); }

template <class F>
PyType_Slot slot(int id, F* function) {
  return {id, reinterpret_cast<void*>(function)};
}

}  // namespace

std::vector<PyType_Slot> operator_slots() {
  return {
      slot(Py_nb_add, binary<&add, "addition">),
      slot(Py_nb_subtract, binary<&subtract, "subtraction">),
      slot(Py_nb_multiply, binary<&multiply, "multiplication">),
      slot(Py_nb_true_divide, binary<&divide, "division">),
      slot(Py_nb_floor_divide, binary<&floor_divide, "floor division">),
      slot(Py_nb_remainder, binary<&remainder, "modulus">),
      slot(Py_nb_power, power_slot),
      slot(Py_nb_matrix_multiply, product_slot<false>),
      slot(Py_nb_and, binary<&bits<&bitwise_and, "bitwise and">, "bitwise and">),
      slot(Py_nb_or, binary<&bits<&bitwise_or, "or">, "bitwise or">),
      slot(Py_nb_xor, binary<&bits<&bitwise_xor, "xor">, "bitwise xor">),
      slot(Py_nb_lshift, binary<&bits<&left_shift, "left shift">, "left shift">),
      slot(Py_nb_rshift, binary<&bits<&right_shift, "right shift">, "right shift">),
      slot(Py_nb_inplace_add, in_place<&add, "addition">),
      slot(Py_nb_inplace_subtract, in_place<&subtract, "subtraction">),
      slot(Py_nb_inplace_multiply, in_place<&multiply, "multiplication">),
      slot(Py_nb_inplace_true_divide, in_place_divide),
      slot(Py_nb_inplace_floor_divide, in_place<&floor_divide, "floor division">),
      slot(Py_nb_inplace_remainder, in_place<&remainder, "modulus">),
      slot(Py_nb_inplace_power, in_place_power),
      slot(Py_nb_inplace_matrix_multiply, product_slot<true>),
      slot(Py_nb_inplace_and, in_place<&bits<&bitwise_and, "bitwise and">, "bitwise and">),
      slot(Py_nb_inplace_or, in_place<&bits<&bitwise_or, "or">, "bitwise or">),
      slot(Py_nb_inplace_xor, in_place<&bits<&bitwise_xor, "xor">, "bitwise xor">),
      slot(Py_nb_inplace_lshift, in_place<&bits<&left_shift, "left shift">, "left shift">),
      slot(Py_nb_inplace_rshift, in_place<&bits<&right_shift, "right shift">, "right shift">),
      slot(Py_nb_negative, unary<&negated>),
      slot(Py_nb_positive, unary<&itself>),
      slot(Py_nb_absolute, unary<&abs>),
      slot(Py_nb_invert, unary<&inverted>),
      slot(Py_nb_bool, truth),
      slot(Py_tp_richcompare, compare),
      slot(Py_tp_hash, hash),
  };
}

}  // namespace mica::python
