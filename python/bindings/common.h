// What the binding's files share: errors, the array class, and ownership of Python objects by C++.
//
// The layer is thin: functions come from the Function table (functions.h), semantics from the
// library. Whatever may evaluate releases the GIL before anything that takes longer than that;
// nothing in the library calls Python while it is released.
#pragma once

#include <cxxabi.h>
#include <nanobind/nanobind.h>
#include <unistd.h>

#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "core/array.h"

namespace mica::python {

namespace nb = nanobind;

// Makes the C++ exception in flight the current Python error: kinds of mica::Error become
// ValueError, TypeError, IndexError, OSError, MemoryError and NotImplementedError.
void set_error() noexcept;

// For slots of C types: f(), with exceptions as Python errors and `failed` as the result.
template <class F, class R = std::invoke_result_t<F>>
R guarded(F&& f, R failed = {}) noexcept {
  try {
    return f();
  } catch (...) {
    set_error();
    return failed;
  }
}

// The array class. A handle may be given another array (x += 1, x[0] = 1), as in MLX.
extern PyTypeObject* array_type;
Array* array_of_subtype(PyObject* object);
inline Array* array_of(PyObject* object) {
  if (Py_TYPE(object) == array_type) return nb::inst_ptr<Array>(object);
  return array_of_subtype(object);
}
inline Array* array_of(nb::handle object) { return array_of(object.ptr()); }
nb::object wrap(Array array);

// Calls f, which may take the GIL. When the interpreter ends, Python unwinds daemon threads at that
// point (until 3.14), through frames of C++ that cannot be unwound: such a thread stops here
// instead.
template <class F>
auto stopping_at_exit(F&& f) {
  try {
    return f();
  } catch (abi::__forced_unwind&) {
    for (;;) pause();
  }
}

// Without the GIL while it lives.
class ReleasedGil {
 public:
  ReleasedGil() : state_(PyEval_SaveThread()) {}
  ~ReleasedGil() {
    stopping_at_exit([this] { PyEval_RestoreThread(state_); });
  }
  ReleasedGil(const ReleasedGil&) = delete;
  ReleasedGil& operator=(const ReleasedGil&) = delete;

 private:
  PyThreadState* state_;
};

// Evaluates, with the GIL released for all but the smallest work: other threads may then change
// handles, so that what is read
// after it is read from a copy of the handle, never through a reference to one.
void evaluate(std::span<const Array> arrays);
inline const Array& evaluate(const Array& array) {
  if (array.evaluated()) return array;
  Array held = array;
  evaluate(std::span<const Array>(&held, 1));
  return array;
}

// A Python object that C++ owns. Whichever thread drops the last reference, the object is released
// by one that holds the GIL, without ever waiting for it.
using Owned = std::shared_ptr<PyObject>;
Owned own(nb::object object);

// Held by functions that descend into nested lists: RecursionError, not the end of the stack, for
// nesting without end.
class Descent {
 public:
  Descent() {
    if (Py_EnterRecursiveCall(" while reading nested arrays")) throw nb::python_error();
  }
  ~Descent() { Py_LeaveRecursiveCall(); }
  Descent(const Descent&) = delete;
  Descent& operator=(const Descent&) = delete;
};

// The parts of the module, in the order in which they are made.
void bind_dtypes(nb::module_& m);
void bind_devices(nb::module_& m);
void bind_array(nb::module_& m);
void bind_functions(nb::module_& m);
void bind_transforms(nb::module_& m);
void bind_compile(nb::module_& m);
void bind_custom_function(nb::module_& m);
void bind_evaluation(nb::module_& m);
void bind_profiler(nb::module_& m);

}  // namespace mica::python
