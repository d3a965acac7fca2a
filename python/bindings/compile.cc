// mx.compile: arguments and captured state as trees, constants as words of the signature.
#include "transforms/compile.h"

#include <cstring>

#include "base/error.h"
#include "dtypes.h"
#include "transformed.h"
#include "tree.h"

namespace mica::python {

namespace {

// Writes what is not an array of the arguments' trees, so that equal words mean equal arguments.
class Signature {
 public:
  explicit Signature(std::vector<uint64_t>& words) : words_(words) {}

  void add(nb::handle tree) {
    Descent descent;
    PyObject* p = tree.ptr();
    if (array_of(tree)) {
      words_.push_back('A');
    } else if (PyList_Check(p) || PyTuple_Check(p)) {
      Py_ssize_t count = PySequence_Fast_GET_SIZE(p);
      words_.push_back(PyList_Check(p) ? 'L' : 'T');
      words_.push_back(static_cast<uint64_t>(count));
      for (Py_ssize_t i = 0; i < count; ++i) add(PySequence_Fast_GET_ITEM(p, i));
    } else if (PyDict_Check(p)) {
      words_.push_back('D');
      words_.push_back(static_cast<uint64_t>(PyDict_GET_SIZE(p)));
      PyObject *key = nullptr, *child = nullptr;
      Py_ssize_t at = 0;
      while (PyDict_Next(p, &at, &key, &child)) {
        add(key);
        add(child);
      }
    } else {
      constant(tree);
    }
  }

 private:
  void constant(nb::handle object) {
    PyObject* p = object.ptr();
    if (p == Py_None) {
      words_.push_back('N');
    } else if (PyBool_Check(p)) {
      words_.push_back(p == Py_True ? 'B' : 'b');
    } else if (PyFloat_Check(p)) {
      double value = PyFloat_AS_DOUBLE(p);
      words_.push_back('F');
      words_.push_back(0);
      std::memcpy(&words_.back(), &value, sizeof value);
    } else if (PyLong_Check(p) || PyUnicode_Check(p)) {
      text(PyLong_Check(p) ? 'I' : 'S', nb::str(object));
    } else if (const Dtype* dtype = dtype_of(object)) {
      words_.push_back('t');
      words_.push_back(static_cast<uint64_t>(*dtype));
    } else {
      throw_value(
          "[compile] Function arguments must be trees of arrays or constants (floats, ints, "
          "strings, or None), but received type {}.",
          Py_TYPE(p)->tp_name);
    }
  }

  void text(char kind, const nb::str& string) {
    Py_ssize_t length = 0;
    const char* data = PyUnicode_AsUTF8AndSize(string.ptr(), &length);
    if (!data) throw nb::python_error();
    words_.push_back(static_cast<uint64_t>(kind));
    words_.push_back(static_cast<uint64_t>(length));
    for (Py_ssize_t i = 0; i < length; i += 8) {
      words_.push_back(0);
      std::memcpy(&words_.back(), data + i,
                  static_cast<size_t>(std::min<Py_ssize_t>(8, length - i)));
    }
  }

  std::vector<uint64_t>& words_;
};

// One call, for the function that the library calls back when it traces.
struct Call {
  nb::handle function;
  nb::tuple given;                // args, kwargs
  std::vector<nb::object> state;  // the leaves of the captured inputs
};

thread_local Call* current_call = nullptr;

class CurrentCall {
 public:
  explicit CurrentCall(Call& call) : outer_(current_call) { current_call = &call; }
  ~CurrentCall() { current_call = outer_; }
  CurrentCall(const CurrentCall&) = delete;
  CurrentCall& operator=(const CurrentCall&) = delete;

 private:
  Call* outer_;
};

// Gives leaves other arrays while it lives.
class Replaced {
 public:
  Replaced(const std::vector<nb::object>& objects, std::span<const Array> arrays)
      : objects_(objects) {
    for (size_t i = 0; i < objects.size(); ++i) {
      before_.push_back(*leaf_array(objects[i]));
      set_leaf(objects[i], arrays[i]);
    }
  }
  ~Replaced() {
    for (size_t i = 0; i < objects_.size(); ++i) set_leaf(objects_[i], before_[i]);
  }
  Replaced(const Replaced&) = delete;
  Replaced& operator=(const Replaced&) = delete;

 private:
  const std::vector<nb::object>& objects_;
  Arrays before_;
};

class Compilation : public Transform {
 public:
  Compilation(nb::object inputs, nb::object outputs)
      : inputs_(std::move(inputs)),
        outputs_(std::move(outputs)),
        compiled_([this](const Arrays& arrays, std::shared_ptr<void>& structure) {
          return trace(*current_call, arrays, structure);
        }) {}

  nb::object call(nb::handle function, nb::tuple args, nb::dict kwargs) override {
    Call call{function, nb::make_tuple(args, kwargs), {}};
    std::vector<uint64_t> constants;
    Signature signature(constants);
    signature.add(call.given);
    Arrays arrays;
    flatten(call.given, arrays);
    if (inputs_.is_valid() && !inputs_.is_none()) {
      collect(inputs_, call.state);
      for (const nb::object& object : call.state) arrays.push_back(*leaf_array(object));
      constants.push_back(call.state.size());
    }
    std::shared_ptr<void> structure;
    Arrays results;
    {
      CurrentCall scope(call);
      results = compiled_(arrays, constants, &structure);
    }
    size_t next = 0;
    nb::object result =
        rebuild(static_cast<PyObject*>(structure.get()), std::span<const Array>(results), next);
    store_state(results, next);
    return result;
  }

  int traverse(visitproc visit, void* arg) override {
    Py_VISIT(inputs_.ptr());
    Py_VISIT(outputs_.ptr());
    return 0;
  }
  void clear() override {
    inputs_.reset();
    outputs_.reset();
  }

 private:
  Arrays trace(Call& call, const Arrays& arrays, std::shared_ptr<void>& structure) {
    size_t next = 0;
    nb::tuple given = nb::borrow<nb::tuple>(rebuild(call.given, arrays, next));
    Replaced state(call.state, std::span<const Array>(arrays).subspan(next));
    nb::object result = call_python(call.function, given[0], given[1]);
    Arrays results;
    flatten(result, results);
    if (outputs_.is_valid() && !outputs_.is_none()) flatten(outputs_, results);
    structure = own(skeleton(result));
    return results;
  }

  // The captured outputs' objects take the new arrays.
  void store_state(const Arrays& results, size_t next) {
    if (!outputs_.is_valid() || outputs_.is_none()) return;
    std::vector<nb::object> objects;
    collect(outputs_, objects);
    if (objects.size() != results.size() - next)
      throw_value(
          "[compile] the captured outputs have {} arrays, but had {} when the function "
          "was traced",
          objects.size(), results.size() - next);
    for (const nb::object& object : objects) set_leaf(object, results[next++]);
  }

  nb::object inputs_, outputs_;
  Compiled compiled_;
};

}  // namespace

void bind_compile(nb::module_& m) {
  m.def(
      "compile",
      [](nb::object fun, nb::object inputs, nb::object outputs, bool) {
        need_callable(fun, "compile");
        return make_transformed(
            std::move(fun), std::make_unique<Compilation>(std::move(inputs), std::move(outputs)));
      },
      nb::arg("fun"), nb::arg("inputs") = nb::none(), nb::arg("outputs") = nb::none(),
      nb::arg("shapeless") = false,
      nb::sig("def compile(fun: Callable[..., Any], inputs: Any | None = None, outputs: Any | None "
              "= None, shapeless: bool = False) -> Callable[..., Any]"),
      "`fun`, called once per signature of its arguments; its graph is simplified and kept.\n\n"
      "Arguments are trees of arrays and constants (numbers, strings, None, dtypes). Arrays that\n"
      "`fun` reads from elsewhere stay as they are at the trace, unless the lists or dictionaries\n"
      "that hold them are given as `inputs` (read) and `outputs` (written). `shapeless` is\n"
      "accepted: a new shape means a new trace.");
  m.def("disable_compile", &disable_compile,
        "Compiled functions call their function until mx.enable_compile. MICA_DISABLE_COMPILE=1\n"
        "in the environment starts so.");
  m.def("enable_compile", &enable_compile, "Undoes mx.disable_compile.");
}

}  // namespace mica::python
