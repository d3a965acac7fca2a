// mx.custom_function: derivative and batching rules written in Python.
#include <nanobind/stl/string.h>

#include "base/error.h"
#include "transformed.h"
#include "transforms/custom.h"
#include "tree.h"

namespace mica::python {

namespace {

struct CustomFunction {
  nb::object function, vjp, jvp, vmap;
};

// A lone argument stands for itself in a rule, several are a tuple.
nb::object lone_or_tuple(const nb::tuple& args) {
  return args.size() == 1 ? nb::object(args[0]) : nb::object(args);
}

// One call: how flat arrays stand in its arguments and results.
struct Call {
  Owned args, kwargs, result;

  nb::object arguments(const Arrays& arrays) const {
    return lone_or_tuple(nb::borrow<nb::tuple>(rebuild(args.get(), arrays)));
  }
  nb::object results(const Arrays& arrays) const { return rebuild(result.get(), arrays); }
};

// The arrays of what a rule gave; None stands for zeros where the structure of `like` has arrays.
Arrays rule_result(nb::handle given, size_t count, const char* rule) {
  Arrays arrays;
  bool several = PyList_Check(given.ptr()) || PyTuple_Check(given.ptr());
  if (several) {
    for (nb::handle item : nb::borrow<nb::sequence>(given)) {
      if (item.is_none()) {
        arrays.emplace_back();
      } else {
        flatten(item, arrays, true);
      }
    }
  } else {
    flatten(given, arrays, true);
  }
  if (arrays.size() != count)
    throw_value("[custom_function] the {} rule gave {} arrays, {} are needed", rule, arrays.size(),
                count);
  return arrays;
}

nb::object axes_tree(const Call& call, const std::vector<int>& axes) {
  nb::list list;
  for (int axis : axes) list.append(axis < 0 ? nb::object(nb::none()) : nb::object(nb::int_(axis)));
  // Axes follow the arguments one by one; arguments that are trees get their arrays' axes in a row.
  nb::tuple args = nb::borrow<nb::tuple>(call.args.get());
  return args.size() == 1 && axes.size() == 1 ? nb::object(list[0]) : nb::object(nb::tuple(list));
}

CustomRules rules_of(const CustomFunction& self, std::shared_ptr<Call> call) {
  CustomRules rules;
  // The rules outlive this call inside the graph, and die with it on any thread.
  if (self.vjp.is_valid() && !self.vjp.is_none()) {
    rules.vjp = [call, rule = own(self.vjp)](const Arrays& primals, const Arrays& cotangents,
                                             const Arrays& outputs) {
      nb::tuple given = nb::make_tuple(call->arguments(primals), call->results(cotangents),
                                       call->results(outputs));
      nb::object result = call_python(rule.get(), given, call->kwargs.get());
      return rule_result(result, primals.size(), "vjp");
    };
  }
  if (self.jvp.is_valid() && !self.jvp.is_none()) {
    rules.jvp = [call, rule = own(self.jvp)](const Arrays& primals, const Arrays& tangents) {
      nb::tuple given = nb::make_tuple(call->arguments(primals), call->arguments(tangents));
      nb::object result = call_python(rule.get(), given, call->kwargs.get());
      Arrays arrays;
      flatten(result, arrays, true);
      return arrays;
    };
  }
  if (self.vmap.is_valid() && !self.vmap.is_none()) {
    rules.vmap = [call, rule = own(self.vmap)](const Arrays& inputs, const std::vector<int>& axes) {
      nb::tuple given = nb::make_tuple(call->arguments(inputs), axes_tree(*call, axes));
      nb::object pair = call_python(rule.get(), given, call->kwargs.get());
      if (!PyTuple_Check(pair.ptr()) || PyTuple_GET_SIZE(pair.ptr()) != 2)
        throw_value("[custom_function] the vmap rule must give a pair: outputs and axes");
      std::pair<Arrays, std::vector<int>> result;
      flatten(pair[0], result.first, true);
      std::vector<std::optional<int>> places;
      axes_of(pair[0], pair[1], places, "custom_function");
      for (std::optional<int> place : places) result.second.push_back(place.value_or(-1));
      return result;
    };
  }
  return rules;
}

nb::object call_custom(CustomFunction& self, const nb::args& args, const nb::kwargs& kwargs) {
  auto call = std::make_shared<Call>();
  auto given = nb::borrow<nb::tuple>(args);
  call->args = own(skeleton(given));
  call->kwargs = own(nb::borrow(kwargs));
  Arrays inputs;
  flatten(given, inputs);
  nb::object function = self.function;
  auto flat = [&](const Arrays& arrays) {
    nb::object result = call_python(function, rebuild(given, arrays), kwargs);
    call->result = own(skeleton(result));
    Arrays outputs;
    flatten(result, outputs);
    return outputs;
  };
  Arrays outputs = mica::custom_function(flat, rules_of(self, call))(inputs);
  return rebuild(call->result.get(), outputs);
}

int traverse(PyObject* self, visitproc visit, void* arg) {
  Py_VISIT(Py_TYPE(self));
  if (!nb::inst_ready(self)) return 0;
  auto* custom = nb::inst_ptr<CustomFunction>(self);
  for (nb::object* part : {&custom->function, &custom->vjp, &custom->jvp, &custom->vmap})
    Py_VISIT(part->ptr());
  return 0;
}

int clear(PyObject* self) {
  auto* custom = nb::inst_ptr<CustomFunction>(self);
  for (nb::object* part : {&custom->function, &custom->vjp, &custom->jvp, &custom->vmap})
    part->reset();
  return 0;
}

template <nb::object CustomFunction::* rule>
nb::object set_rule(nb::object self, nb::object f) {
  need_callable(f, "custom_function");
  nb::inst_ptr<CustomFunction>(self)->*rule = std::move(f);
  return self;
}

}  // namespace

void bind_custom_function(nb::module_& m) {
  PyType_Slot slots[] = {{Py_tp_traverse, reinterpret_cast<void*>(&traverse)},
                         {Py_tp_clear, reinterpret_cast<void*>(&clear)},
                         {0, nullptr}};
  nb::class_<CustomFunction>(
      m, "custom_function", nb::type_slots(slots),
      "A decorator for functions with derivative or batching rules of their own.\n\n"
      "After `f = mx.custom_function(f)`, @f.vjp, @f.jvp and @f.vmap take the rules; what has no\n"
      "rule is what the transform makes of the function itself.")
      .def(
          "__init__",
          [](CustomFunction* self, nb::object f) {
            need_callable(f, "custom_function");
            new (self) CustomFunction{std::move(f), {}, {}, {}};
          },
          nb::arg("f"), nb::sig("def __init__(self, f: Callable[..., Any]) -> None"))
      .def("__call__", &call_custom,
           nb::sig("def __call__(self, *args: Any, **kwargs: Any) -> Any"))
      .def("vjp", &set_rule<&CustomFunction::vjp>, nb::arg("f"),
           nb::sig("def vjp(self, f: Callable[..., Any]) -> custom_function"),
           "Takes f(primals, cotangents, outputs), which gives one cotangent per primal.")
      .def("jvp", &set_rule<&CustomFunction::jvp>, nb::arg("f"),
           nb::sig("def jvp(self, f: Callable[..., Any]) -> custom_function"),
           "Takes f(primals, tangents), which gives one tangent per output.")
      .def("vmap", &set_rule<&CustomFunction::vmap>, nb::arg("f"),
           nb::sig("def vmap(self, f: Callable[..., Any]) -> custom_function"),
           "Takes f(inputs, axes), which gives the outputs and their axes.");
}

}  // namespace mica::python
