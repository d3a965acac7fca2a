// grad, value_and_grad, vjp, jvp, vmap and checkpoint of Python functions: their arguments are
// trees, flattened here for the transforms of the library.
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "base/error.h"
#include "transformed.h"
#include "transforms/autograd.h"
#include "transforms/checkpoint.h"
#include "transforms/vmap.h"
#include "tree.h"

namespace mica::python {

nb::object call_python(nb::handle function, nb::handle args, nb::handle kwargs) {
  bool any = kwargs.is_valid() && PyDict_GET_SIZE(kwargs.ptr()) > 0;
  nb::object result = nb::steal(stopping_at_exit(
      [&] { return PyObject_Call(function.ptr(), args.ptr(), any ? kwargs.ptr() : nullptr); }));
  if (!result.is_valid()) throw nb::python_error();
  return result;
}

void need_callable(nb::handle function, const char* transform) {
  if (!PyCallable_Check(function.ptr()))
    throw_type("{}() argument 'fun' must be callable, got {}", transform,
               Py_TYPE(function.ptr())->tp_name);
}

nb::object make_transformed(nb::object function, std::unique_ptr<Transform> transform) {
  return nb::cast(new Transformed{std::move(function), std::move(transform)},
                  nb::rv_policy::take_ownership);
}

namespace {

std::string class_name(nb::handle object) { return Py_TYPE(object.ptr())->tp_name; }

// Which arguments to differentiate by.
struct Wanted {
  std::vector<int> numbers;
  std::vector<std::string> names;
};

Wanted wanted_of(nb::handle numbers, nb::handle names) {
  Wanted wanted;
  if (PyUnicode_Check(names.ptr())) {
    wanted.names.push_back(nb::str(names).c_str());
  } else if (!nb::try_cast(nb::borrow(names), wanted.names)) {
    throw_type("grad() argument 'argnames' must be str or a list of str");
  }
  if (numbers.is_none()) {
    if (wanted.names.empty()) wanted.numbers.push_back(0);
  } else if (int number = 0; nb::try_cast(nb::borrow(numbers), number)) {
    wanted.numbers.push_back(number);
  } else if (!nb::try_cast(nb::borrow(numbers), wanted.numbers)) {
    throw_type("grad() argument 'argnums' must be int or a list of ints");
  }
  if (wanted.numbers.empty() && wanted.names.empty())
    throw_value("[grad] Gradient wrt no argument requested");
  for (size_t i = 0; i < wanted.numbers.size(); ++i) {
    if (wanted.numbers[i] < 0)
      throw_value("[grad] Can't compute the gradient of negative argument index {}",
                  wanted.numbers[i]);
    for (size_t j = 0; j < i; ++j) {
      if (wanted.numbers[i] == wanted.numbers[j])
        throw_value("[grad] Duplicate argument index {} is not allowed.", wanted.numbers[i]);
    }
  }
  return wanted;
}

class Gradient : public Transform {
 public:
  Gradient(Wanted wanted, bool with_value) : wanted_(std::move(wanted)), with_value_(with_value) {}

  nb::object call(nb::handle function, nb::tuple args, nb::dict kwargs) override {
    check_arguments(args, kwargs);
    Arrays inputs;
    inputs.reserve(16);
    for (int number : wanted_.numbers) flatten(args[number], inputs, true);
    for (const std::string& name : wanted_.names) flatten(kwargs[name.c_str()], inputs, true);
    // The function may change the lists and dictionaries that it was given.
    nb::tuple places = nb::borrow<nb::tuple>(skeleton(args));
    nb::dict named_places = nb::borrow<nb::dict>(skeleton(kwargs));
    nb::object result;
    auto flat = [&](const Arrays& traced) {
      result = call_python(function, replaced(args, traced), replaced(kwargs, traced));
      check_result(result);
      Arrays outputs;
      flatten(result, outputs);
      return outputs;
    };
    std::vector<int> all(inputs.size());
    for (size_t i = 0; i < all.size(); ++i) all[i] = static_cast<int>(i);
    ValueAndGrad computed =
        inputs.empty() ? ValueAndGrad{flat({}), {}} : mica::value_and_grad(flat, all)(inputs);
    nb::object grads = gradients(places, named_places, computed.grads);
    if (!with_value_) return grads;
    return nb::make_tuple(rebuild(result, computed.values), grads);
  }

 private:
  void check_arguments(const nb::tuple& args, const nb::dict& kwargs) const {
    for (int number : wanted_.numbers) {
      if (static_cast<size_t>(number) >= args.size())
        throw_value(
            "[grad] Can't compute the gradient of argument index {} because the function is "
            "called with only {} positional arguments.",
            number, args.size());
    }
    for (const std::string& name : wanted_.names) {
      if (!kwargs.contains(name.c_str()))
        throw_value(
            "[grad] Can't compute the gradient of keyword argument '{}' because the function is "
            "called without it",
            name);
    }
  }

  void check_result(nb::handle result) const {
    bool tuple = PyTuple_Check(result.ptr()) || PyList_Check(result.ptr());
    const char* needed =
        "[grad] The return value of the function whose gradient we want to "
        "compute should be ";
    if (!with_value_ || !tuple) {
      if (!array_of(result))
        throw_value("{}{}; but {} was returned.", needed,
                    with_value_ ? "either a scalar array or a tuple with the first value being a "
                                  "scalar array"
                                : "a scalar array",
                    class_name(result));
    } else if (PySequence_Fast_GET_SIZE(result.ptr()) == 0 ||
               !array_of(PySequence_Fast_GET_ITEM(result.ptr(), 0))) {
      throw_value("{}a tuple with the first value being a scalar array", needed);
    }
  }

  // The arguments with traced arrays in the places to differentiate by.
  nb::tuple replaced(const nb::tuple& args, const Arrays& traced) const {
    nb::list list(args);
    size_t next = 0;
    for (int number : wanted_.numbers) list[number] = rebuild(args[number], traced, next);
    return nb::tuple(list);
  }
  nb::dict replaced(const nb::dict& kwargs, const Arrays& traced) const {
    if (wanted_.names.empty()) return kwargs;
    nb::dict dict = nb::steal<nb::dict>(PyDict_Copy(kwargs.ptr()));
    size_t named = 0;
    Arrays inside;
    for (const std::string& name : wanted_.names) flatten(kwargs[name.c_str()], inside);
    size_t next = traced.size() - inside.size();
    for (const std::string& name : wanted_.names) {
      dict[name.c_str()] = rebuild(kwargs[name.c_str()], traced, next);
      ++named;
    }
    return dict;
  }

  nb::object gradients(const nb::tuple& args, const nb::dict& kwargs, const Arrays& grads) const {
    size_t next = 0;
    nb::object positional = nb::none();
    if (wanted_.numbers.size() == 1) {
      positional = rebuild(args[wanted_.numbers[0]], grads, next);
    } else if (!wanted_.numbers.empty()) {
      nb::list list;
      for (int number : wanted_.numbers) list.append(rebuild(args[number], grads, next));
      positional = nb::tuple(list);
    }
    if (wanted_.names.empty()) return positional;
    nb::dict named;
    for (const std::string& name : wanted_.names)
      named[name.c_str()] = rebuild(kwargs[name.c_str()], grads, next);
    return nb::make_tuple(positional, named);
  }

  Wanted wanted_;
  bool with_value_;
};

nb::object gradient(nb::object function, nb::handle numbers, nb::handle names, bool with_value) {
  need_callable(function, with_value ? "value_and_grad" : "grad");
  return make_transformed(std::move(function),
                          std::make_unique<Gradient>(wanted_of(numbers, names), with_value));
}

Arrays list_of_arrays(nb::handle list, const char* what) {
  if (!PyList_Check(list.ptr()) && !PyTuple_Check(list.ptr()))
    throw_type("argument '{}' must be a list of arrays, got {}", what, class_name(list));
  Arrays arrays;
  for (nb::handle item : nb::borrow<nb::sequence>(list)) {
    if (!array_of(item))
      throw_type("argument '{}' must be a list of arrays, got {} in it", what, class_name(item));
    arrays.push_back(*array_of(item));
  }
  return arrays;
}

nb::list list_of(const Arrays& arrays) {
  nb::list list;
  for (const Array& array : arrays) list.append(wrap(array));
  return list;
}

// A function of arrays that gives an array or a list of arrays.
ArraysFunction flat_function(nb::handle function) {
  return [function](const Arrays& inputs) {
    nb::object result = call_python(function, nb::tuple(list_of(inputs)), {});
    Arrays outputs;
    flatten(result, outputs, true);
    return outputs;
  };
}

class Batching : public Transform {
 public:
  Batching(nb::object in_axes, nb::object out_axes)
      : in_axes_(std::move(in_axes)), out_axes_(std::move(out_axes)) {}

  nb::object call(nb::handle function, nb::tuple args, nb::dict kwargs) override {
    if (kwargs.size() > 0) throw_type("[vmap] Keyword arguments are not supported.");
    Arrays inputs;
    flatten(args, inputs, true);
    BatchAxes in_axes;
    axes_of(args, axes_for(args), in_axes, "vmap");
    nb::object result;
    VmapTrace trace(
        [&](const Arrays& singles) {
          result = call_python(function, rebuild(args, singles), {});
          Arrays outputs;
          flatten(result, outputs, true);
          return outputs;
        },
        inputs, in_axes);
    BatchAxes out_axes;
    axes_of(result, out_axes_, out_axes, "vmap");
    return rebuild(result, trace.batched(out_axes));
  }

  int traverse(visitproc visit, void* arg) override {
    Py_VISIT(in_axes_.ptr());
    Py_VISIT(out_axes_.ptr());
    return 0;
  }
  void clear() override {
    in_axes_.reset();
    out_axes_.reset();
  }

 private:
  // One axis, or tree of axes, per argument; that of a lone argument may be given alone.
  nb::object axes_for(const nb::tuple& args) const {
    bool single = in_axes_.is_none() || PyLong_Check(in_axes_.ptr());
    bool list = PyList_Check(in_axes_.ptr()) || PyTuple_Check(in_axes_.ptr());
    if (single || args.size() != 1) return in_axes_;
    bool per_argument = list && PySequence_Fast_GET_SIZE(in_axes_.ptr()) == 1;
    return per_argument ? in_axes_ : nb::object(nb::make_tuple(in_axes_));
  }

  nb::object in_axes_, out_axes_;
};

class Checkpointing : public Transform {
 public:
  nb::object call(nb::handle function, nb::tuple args, nb::dict kwargs) override {
    nb::tuple given = nb::make_tuple(args, kwargs);
    Arrays inputs;
    flatten(given, inputs);
    nb::object result;
    auto flat = [&](const Arrays& arrays) {
      nb::tuple both = nb::borrow<nb::tuple>(rebuild(given, arrays));
      result = call_python(function, both[0], both[1]);
      Arrays outputs;
      flatten(result, outputs);
      return outputs;
    };
    Arrays outputs = mica::checkpoint(flat)(inputs);
    return rebuild(result, outputs);
  }
};

int traverse(PyObject* self, visitproc visit, void* arg) {
  Py_VISIT(Py_TYPE(self));
  if (!nb::inst_ready(self)) return 0;
  auto* transformed = nb::inst_ptr<Transformed>(self);
  Py_VISIT(transformed->function.ptr());
  return transformed->transform ? transformed->transform->traverse(visit, arg) : 0;
}

int clear(PyObject* self) {
  auto* transformed = nb::inst_ptr<Transformed>(self);
  transformed->function.reset();
  if (transformed->transform) transformed->transform->clear();
  return 0;
}

PyObject* bind_to(PyObject* self, PyObject* instance, PyObject*) {
  if (!instance || instance == Py_None) return Py_NewRef(self);
  return PyMethod_New(self, instance);
}

// As a slot, because a class cannot be given an attribute of this name.
PyObject* name_of_function(PyObject* self, void*) {
  return guarded([&] {
    nb::handle function = nb::inst_ptr<Transformed>(self)->function;
    return nb::getattr(function, "__name__", nb::str("transformed")).release().ptr();
  });
}

void bind_transformed(nb::module_& m) {
  static PyGetSetDef getters[] = {
      {"__name__", &name_of_function, nullptr, "The name of the function.", nullptr},
      {nullptr, nullptr, nullptr, nullptr, nullptr}};
  PyType_Slot slots[] = {{Py_tp_getset, getters},
                         {Py_tp_traverse, reinterpret_cast<void*>(&traverse)},
                         {Py_tp_clear, reinterpret_cast<void*>(&clear)},
                         {Py_tp_descr_get, reinterpret_cast<void*>(&bind_to)},
                         {0, nullptr}};
  nb::class_<Transformed>(m, "Transformed", nb::type_slots(slots),
                          "The function that a transform such as mx.grad or mx.compile gives.")
      .def(
          "__call__",
          [](Transformed& self, nb::args args, nb::kwargs kwargs) {
            nb::object function = self.function;  // alive even if the cycle collector runs
            return self.transform->call(function, nb::tuple(args), nb::dict(kwargs));
          },
          nb::sig("def __call__(self, *args: Any, **kwargs: Any) -> Any"))
      .def_prop_ro(
          "__wrapped__", [](const Transformed& self) { return self.function; },
          nb::sig("def __wrapped__(self) -> Callable[..., Any]"), "The function itself.");
}

void bind_gradients(nb::module_& m) {
  m.def(
      "grad",
      [](nb::object fun, nb::handle argnums, nb::handle argnames) {
        return gradient(std::move(fun), argnums, argnames, false);
      },
      nb::arg("fun"), nb::arg("argnums") = nb::none(), nb::arg("argnames") = nb::list(),
      nb::sig("def grad(fun: Callable[..., Any], argnums: int | Sequence[int] | None = None, "
              "argnames: str | Sequence[str] = []) -> Callable[..., Any]"),
      "A function that gives the gradient of `fun`, whose result must be a scalar array.\n\n"
      "By the first argument, or those that `argnums` and `argnames` name; arguments may be trees\n"
      "of arrays. With names the result is a pair: the gradients by position, and a dictionary of\n"
      "those by name. ValueError for integer arrays and results that are no scalar.");
  m.def(
      "value_and_grad",
      [](nb::object fun, nb::handle argnums, nb::handle argnames) {
        return gradient(std::move(fun), argnums, argnames, true);
      },
      nb::arg("fun"), nb::arg("argnums") = nb::none(), nb::arg("argnames") = nb::list(),
      nb::sig("def value_and_grad(fun: Callable[..., Any], argnums: int | Sequence[int] | None = "
              "None, argnames: str | Sequence[str] = []) -> Callable[..., tuple[Any, Any]]"),
      "A function that gives the result of `fun` and its gradient, as mx.grad does.\n\n"
      "`fun` may give a tuple: its first value is differentiated, the others pass through.");
}

nb::tuple differential(Differential (*transform)(const ArraysFunction&, const Arrays&,
                                                 const Arrays&),
                       nb::handle fun, nb::handle primals, nb::handle others, const char* name) {
  Differential computed = transform(flat_function(fun), list_of_arrays(primals, "primals"),
                                    list_of_arrays(others, name));
  return nb::make_tuple(list_of(computed.outputs), list_of(computed.derivatives));
}

void bind_products(nb::module_& m) {
  m.def(
      "vjp",
      [](nb::handle fun, nb::handle primals, nb::handle cotangents) {
        need_callable(fun, "vjp");
        return differential(&mica::vjp, fun, primals, cotangents, "cotangents");
      },
      nb::arg("fun"), nb::arg("primals"), nb::arg("cotangents"),
      nb::sig("def vjp(fun: Callable[..., Any], primals: Sequence[array], cotangents: "
              "Sequence[array]) -> tuple[list[array], list[array]]"),
      "The outputs of `fun` at `primals`, and the cotangents (one per output) pulled back to "
      "them.");
  m.def(
      "jvp",
      [](nb::handle fun, nb::handle primals, nb::handle tangents) {
        need_callable(fun, "jvp");
        return differential(&mica::jvp, fun, primals, tangents, "tangents");
      },
      nb::arg("fun"), nb::arg("primals"), nb::arg("tangents"),
      nb::sig("def jvp(fun: Callable[..., Any], primals: Sequence[array], tangents: "
              "Sequence[array]) -> tuple[list[array], list[array]]"),
      "The outputs of `fun` at `primals`, and the tangents (one per primal) pushed forward.");
}

}  // namespace

void bind_transforms(nb::module_& m) {
  bind_transformed(m);
  bind_gradients(m);
  bind_products(m);
  m.def(
      "vmap",
      [](nb::object fun, nb::object in_axes, nb::object out_axes) {
        need_callable(fun, "vmap");
        return make_transformed(
            std::move(fun), std::make_unique<Batching>(std::move(in_axes), std::move(out_axes)));
      },
      nb::arg("fun"), nb::arg("in_axes").none() = 0, nb::arg("out_axes").none() = 0,
      nb::sig("def vmap(fun: Callable[..., Any], in_axes: Any = 0, out_axes: Any = 0) -> "
              "Callable[..., Any]"),
      "`fun` of single examples as a function of batches.\n\n"
      "`in_axes` and `out_axes` give the batch axis of each argument and result: an int, None for\n"
      "what is not batched, or trees of them that are prefixes of the arguments' trees.");
  m.def(
      "checkpoint",
      [](nb::object fun) {
        need_callable(fun, "checkpoint");
        return make_transformed(std::move(fun), std::make_unique<Checkpointing>());
      },
      nb::arg("fun"), nb::sig("def checkpoint(fun: Callable[..., Any]) -> Callable[..., Any]"),
      "`fun`, whose intermediate results are computed again for the gradient instead of kept.");
}

}  // namespace mica::python
