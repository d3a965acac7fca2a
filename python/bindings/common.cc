#include "common.h"

#include <mutex>
#include <new>
#include <vector>

#include "base/error.h"
#include "core/graph.h"

namespace mica::python {

namespace {

PyObject* class_of(ErrorKind kind) {
  switch (kind) {
    case ErrorKind::Type: return PyExc_TypeError;
    case ErrorKind::Index: return PyExc_IndexError;
    case ErrorKind::Io: return PyExc_OSError;
    case ErrorKind::OutOfMemory: return PyExc_MemoryError;
    case ErrorKind::Unsupported: return PyExc_NotImplementedError;
    default: return PyExc_ValueError;
  }
}

// References dropped by threads without the GIL, waiting for one that has it.
class Dropped {
 public:
  void add(PyObject* object) {
    std::lock_guard lock(mutex_);
    objects_.push_back(object);
    if (objects_.size() == 1) Py_AddPendingCall(&Dropped::release, this);
  }

 private:
  static int release(void* self) {
    auto* dropped = static_cast<Dropped*>(self);
    std::vector<PyObject*> objects;
    {
      std::lock_guard lock(dropped->mutex_);
      objects.swap(dropped->objects_);
    }
    for (PyObject* object : objects) Py_DECREF(object);
    return 0;
  }

  std::mutex mutex_;
  std::vector<PyObject*> objects_;
};

Dropped& dropped() {
  static Dropped* instance = new Dropped;  // outlives every thread
  return *instance;
}

void drop(PyObject* object) {
  if (!Py_IsInitialized()) return;  // the interpreter is gone, and the object with it
  if (PyGILState_Check()) {
    Py_DECREF(object);
  } else {
    dropped().add(object);
  }
}

}  // namespace

void set_error() noexcept {
  try {
    throw;
  } catch (nb::python_error& error) {
    error.restore();
  } catch (const Error& error) {
    PyErr_SetString(class_of(error.kind()), error.what());
  } catch (const nb::builtin_exception& error) {
    PyObject* type = error.type() == nb::exception_type::type_error    ? PyExc_TypeError
                     : error.type() == nb::exception_type::index_error ? PyExc_IndexError
                                                                       : PyExc_ValueError;
    PyErr_SetString(type, error.what());
  } catch (const nb::cast_error&) {
    PyErr_SetString(PyExc_TypeError, "an argument has the wrong type");
  } catch (const std::bad_alloc&) {
    PyErr_NoMemory();
  } catch (const std::exception& error) {
    PyErr_SetString(PyExc_RuntimeError, error.what());
  }
}

Owned own(nb::object object) { return Owned(object.release().ptr(), &drop); }

void evaluate(std::span<const Array> arrays) {
  std::optional<ReleasedGil> released;
  eval(arrays, [&] { released.emplace(); });
}

}  // namespace mica::python
