#include "functions.h"

#include <structmember.h>

#include <algorithm>
#include <array>
#include <new>

#include "base/error.h"
#include "convert.h"
#include "devices.h"
#include "ops/function_args.h"

namespace mica::python {

namespace {

constexpr size_t kMostParameters = 16;

// What a call needs, prepared once.
struct Row {
  const Function* function = nullptr;
  std::string doc;
  std::string signature;
  std::vector<PyObject*> names;  // interned
  std::vector<bool> weak;        // `scalar | array`: NumPy's arrays take the others' type
  size_t positional = 0;         // parameters that may be given by position
  size_t variadic = SIZE_MAX;    // place of *arrays
  bool spreads_ints = false;     // x.reshape(2, 3) for x.reshape((2, 3))
  bool as_tuple = false;
};

struct FunctionObject {
  PyObject_HEAD vectorcallfunc vectorcall;
  const Row* row;
  PyObject* name;
  PyObject* module_name;
};

PyObject* stream_name = nullptr;

// Values of one call: constructed as far as they are used.
class Values {
 public:
  explicit Values(size_t count) : count_(count) {
    for (size_t i = 0; i < count; ++i) new (at(i)) Value();
  }
  ~Values() {
    for (size_t i = 0; i < count_; ++i) at(i)->~Value();
  }
  Values(const Values&) = delete;
  Values& operator=(const Values&) = delete;
  Value& operator[](size_t i) { return *at(i); }
  std::span<const Value> span() { return {at(0), count_}; }

 private:
  Value* at(size_t i) { return reinterpret_cast<Value*>(storage_) + i; }
  alignas(Value) std::byte storage_[sizeof(Value) * (kMostParameters + 1)];
  size_t count_;
};

struct Arguments {
  PyObject* const* positional;
  size_t count;
  PyObject* names;  // tuple or nullptr; the values follow the positional arguments
  size_t named() const { return names ? static_cast<size_t>(PyTuple_GET_SIZE(names)) : 0; }
};

// Explains what is wrong with the arguments in the table's own words; returns if it finds nothing.
void explain(const Row& row, const Arguments& given) {
  std::vector<Value> positional;
  for (size_t i = 0; i < given.count; ++i) positional.push_back(to_value(given.positional[i]));
  std::vector<std::pair<std::string_view, Value>> keywords;
  for (size_t i = 0; i < given.named(); ++i) {
    PyObject* name = PyTuple_GET_ITEM(given.names, i);
    if (PyUnicode_Compare(name, stream_name) == 0) continue;
    keywords.emplace_back(PyUnicode_AsUTF8(name), to_value(given.positional[given.count + i]));
  }
  bind_arguments(*row.function, positional, keywords);
}

// The value of one argument; what it is for stands in the error.
Value argument(const Row& row, size_t place, PyObject* object) {
  try {
    return to_value(object);
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::Type) throw;
    if (row.function->parameters[place].type == "scalar | array")
      throw_value("[{}] argument '{}': Invalid type {} received in array initialization.",
                  row.function->name, row.function->parameters[place].name,
                  Py_TYPE(object)->tp_name);
    throw_type("{}() argument '{}': {}", row.function->name, row.function->parameters[place].name,
               error.what());
  }
}

size_t place_of(const Row& row, PyObject* name) {
  for (size_t i = 0; i < row.names.size(); ++i)
    if (row.names[i] == name) return i;
  for (size_t i = 0; i < row.names.size(); ++i)
    if (PyUnicode_Compare(row.names[i], name) == 0) return i;
  return SIZE_MAX;
}

Value collected(PyObject* const* from, size_t count, bool ints) {
  nb::object list = nb::steal(PyList_New(static_cast<Py_ssize_t>(count)));
  for (size_t i = 0; i < count; ++i) PyList_SET_ITEM(list.ptr(), i, Py_NewRef(from[i]));
  Value value = to_value(list);
  const auto* empty = std::get_if<std::vector<int64_t>>(&value);
  if (!ints && empty && empty->empty()) return Arrays{};
  return value;
}

// False if the arguments do not fit.
bool bind_positional(const Row& row, const Arguments& given, Values& values, uint32_t& set) {
  size_t count = given.count;
  if (row.variadic != SIZE_MAX) {
    size_t first = std::min(row.variadic, count);
    bool listed = count == first + 1 &&
                  (PyList_Check(given.positional[first]) || PyTuple_Check(given.positional[first]));
    values[row.variadic] = listed ? to_value(given.positional[first])
                                  : collected(given.positional + first, count - first, false);
    set |= 1u << row.variadic;
    count = first;
  } else if (row.spreads_ints && count > 1 && PyLong_Check(given.positional[1])) {
    values[1] = collected(given.positional + 1, count - 1, true);
    set |= 2;
    count = 1;
  }
  if (count > row.positional) return false;
  for (size_t i = 0; i < count; ++i) {
    values[i] = argument(row, i, given.positional[i]);
    set |= 1u << i;
  }
  return true;
}

bool bind_named(const Row& row, const Arguments& given, Values& values, uint32_t& set) {
  const auto& parameters = row.function->parameters;
  for (size_t k = 0; k < given.named(); ++k) {
    PyObject* name = PyTuple_GET_ITEM(given.names, k);
    PyObject* object = given.positional[given.count + k];
    if (name == stream_name || PyUnicode_Compare(name, stream_name) == 0) {
      values[parameters.size()] = stream_of(object);
      continue;
    }
    size_t i = place_of(row, name);
    if (i == SIZE_MAX || parameters[i].positional_only || parameters[i].variadic || (set & 1u << i))
      return false;
    values[i] = argument(row, i, object);
    set |= 1u << i;
  }
  return true;
}

// NumPy's arrays beside arrays take their type; the table knows arrays and scalars only.
void adapt_numpy(const Row& row, const Arguments& given, Values& values) {
  bool foreign = false;
  std::optional<Dtype> beside;
  for (size_t i = 0; i < std::min(given.count, row.weak.size()); ++i) {
    const Array* array = row.weak[i] ? std::get_if<Array>(&values[i]) : nullptr;
    if (!array) continue;
    if (array_of(given.positional[i])) {
      beside = beside ? promote(*beside, array->dtype()) : array->dtype();
    } else {
      foreign = true;
    }
  }
  if (!foreign || !beside) return;
  for (size_t i = 0; i < std::min(given.count, row.weak.size()); ++i) {
    Array* array = row.weak[i] ? std::get_if<Array>(&values[i]) : nullptr;
    if (array && !array_of(given.positional[i])) *array = numpy_beside(*array, beside);
  }
}

PyObject* call_row(const Row& row, const Arguments& given) {
  const auto& parameters = row.function->parameters;
  Values values(parameters.size() + 1);
  values[parameters.size()] = Stream{};
  uint32_t set = 0;
  bool fits = bind_positional(row, given, values, set) && bind_named(row, given, values, set);
  for (size_t i = 0; fits && i < parameters.size(); ++i) {
    if (set & 1u << i) continue;
    if (!parameters[i].default_value) {
      fits = false;
    } else {
      values[i] = *parameters[i].default_value;
    }
  }
  if (!fits) {
    explain(row, given);
    throw_type("{}() cannot be called with these arguments", row.function->name);
  }
  if (!row.weak.empty()) adapt_numpy(row, given, values);
  Value result = row.function->call(values.span());
  if (Array* array = std::get_if<Array>(&result)) return wrap(std::move(*array)).release().ptr();
  return from_value(std::move(result), row.as_tuple).release().ptr();
}

PyObject* call(PyObject* self, PyObject* const* arguments, size_t flags, PyObject* names) {
  return guarded([&] {
    const Row& row = *reinterpret_cast<FunctionObject*>(self)->row;
    Arguments given{arguments, static_cast<size_t>(PyVectorcall_NARGS(flags)), names};
    return call_row(row, given);
  });
}

PyObject* bind_method(PyObject* self, PyObject* instance, PyObject*) {
  if (!instance || instance == Py_None) return Py_NewRef(self);
  return PyMethod_New(self, instance);
}

void destroy(PyObject* self) {
  auto* object = reinterpret_cast<FunctionObject*>(self);
  Py_CLEAR(object->name);
  Py_CLEAR(object->module_name);
  PyTypeObject* type = Py_TYPE(self);
  type->tp_free(self);
  Py_DECREF(type);
}

PyObject* text(const std::string& string) {
  return PyUnicode_FromStringAndSize(string.data(), static_cast<Py_ssize_t>(string.size()));
}

const Row& row_of(PyObject* self) { return *reinterpret_cast<FunctionObject*>(self)->row; }

PyObject* show(PyObject* self) {
  auto* object = reinterpret_cast<FunctionObject*>(self);
  return PyUnicode_FromFormat("<function %U.%U>", object->module_name, object->name);
}

// A string from __reduce__ is the name of a module's attribute.
PyObject* pickle(PyObject* self, PyObject*) {
  return Py_NewRef(reinterpret_cast<FunctionObject*>(self)->name);
}

// __module__ is a string in the class, and another for each function.
PyObject* attribute(PyObject* self, PyObject* name) {
  if (PyUnicode_CompareWithASCIIString(name, "__module__") == 0)
    return Py_NewRef(reinterpret_cast<FunctionObject*>(self)->module_name);
  return PyObject_GenericGetAttr(self, name);
}

PyGetSetDef getters[] = {
    {"__doc__", [](PyObject* self, void*) { return text(row_of(self).doc); }, nullptr, nullptr,
     nullptr},
    {"__name__",
     [](PyObject* self, void*) { return Py_NewRef(reinterpret_cast<FunctionObject*>(self)->name); },
     nullptr, nullptr, nullptr},
    {"__qualname__",
     [](PyObject* self, void*) { return Py_NewRef(reinterpret_cast<FunctionObject*>(self)->name); },
     nullptr, nullptr, nullptr},
    {"__text_signature__",
     [](PyObject* self, void*) { return text(text_signature(*row_of(self).function)); }, nullptr,
     nullptr, nullptr},
    {"__mica_parameters__",
     [](PyObject* self, void*) { return text(typed_parameters(*row_of(self).function)); }, nullptr,
     nullptr, nullptr},
    {"__mica_returns__", [](PyObject* self, void*) { return text(row_of(self).function->returns); },
     nullptr, nullptr, nullptr},
    {nullptr, nullptr, nullptr, nullptr, nullptr}};

PyMemberDef members[] = {
    {"__vectorcalloffset__", T_PYSSIZET, offsetof(FunctionObject, vectorcall), READONLY, nullptr},
    {nullptr, 0, 0, 0, nullptr}};

PyMethodDef methods[] = {{"__reduce__", &pickle, METH_NOARGS, nullptr},
                         {nullptr, nullptr, 0, nullptr}};

PyType_Slot function_slots[] = {{Py_tp_dealloc, reinterpret_cast<void*>(&destroy)},
                                {Py_tp_call, reinterpret_cast<void*>(&PyVectorcall_Call)},
                                {Py_tp_descr_get, reinterpret_cast<void*>(&bind_method)},
                                {Py_tp_repr, reinterpret_cast<void*>(&show)},
                                {Py_tp_getattro, reinterpret_cast<void*>(&attribute)},
                                {Py_tp_getset, getters},
                                {Py_tp_members, members},
                                {Py_tp_methods, methods},
                                {0, nullptr}};

PyType_Spec function_spec = {"mica.core.Function", sizeof(FunctionObject), 0,
                             Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_VECTORCALL |
                                 Py_TPFLAGS_METHOD_DESCRIPTOR | Py_TPFLAGS_DISALLOW_INSTANTIATION,
                             function_slots};

bool has(const std::string& text, const char* part) { return text.find(part) != std::string::npos; }

const Row& make_row(const Function& function) {
  auto* row = new Row;  // as long as the process, like the table
  row->function = &function;
  bool any_weak = false, past_variadic = false;
  for (size_t i = 0; i < function.parameters.size(); ++i) {
    const Parameter& parameter = function.parameters[i];
    row->names.push_back(PyUnicode_InternFromString(parameter.name.c_str()));
    row->weak.push_back(has(parameter.type, "scalar"));
    any_weak = any_weak || row->weak.back();
    if (parameter.variadic) {
      row->variadic = i;
      past_variadic = true;
    }
    if (!parameter.keyword_only && !past_variadic) row->positional = i + 1;
  }
  if (!any_weak) row->weak.clear();
  MICA_ASSERT(function.parameters.size() <= kMostParameters);
  const auto& parameters = function.parameters;
  row->spreads_ints = parameters.size() == 2 && has(parameters[1].type, "Sequence[int]") &&
                      !has(parameters[1].type, "int |");
  row->as_tuple = function.returns.starts_with("tuple");
  row->doc = function.name + text_signature(function) + "\n\n" + function.doc;
  return *row;
}

nb::object make_object(PyTypeObject* type, const Row& row, const std::string& name,
                       const char* module_name) {
  auto* object = PyObject_New(FunctionObject, type);
  if (!object) throw nb::python_error();
  object->vectorcall = &call;
  object->row = &row;
  object->name = PyUnicode_InternFromString(name.c_str());
  object->module_name = PyUnicode_InternFromString(module_name);
  return nb::steal(reinterpret_cast<PyObject*>(object));
}

// x.sum() for mx.sum(x): every function of the main module whose first argument is one array.
bool is_method(const Function& function) {
  if (!function.module.empty() || function.parameters.empty()) return false;
  const std::string& type = function.parameters[0].type;
  return (type == "array" || type == "scalar | array") && !function.parameters[0].variadic &&
         function.parameters[0].name != "condition";
}

nb::module_ module_for(nb::module_& m, const std::string& name) {
  if (name.empty()) return m;
  if (nb::hasattr(m, name.c_str())) return nb::borrow<nb::module_>(m.attr(name.c_str()));
  std::string doc = "mica.core." + name + ": functions of the family " + name + ".";
  return m.def_submodule(name.c_str(), doc.c_str());
}

}  // namespace

std::string text_signature(const Function& function) {
  std::string text;
  auto add = [&](const std::string& piece) { text += (text.empty() ? "" : ", ") + piece; };
  bool marked = false;
  for (size_t i = 0; i < function.parameters.size(); ++i) {
    const Parameter& p = function.parameters[i];
    if (p.keyword_only && !marked) add("*");
    marked = marked || p.keyword_only || p.variadic;
    bool literal = !p.default_value || !std::holds_alternative<Dtype>(*p.default_value);
    add((p.variadic ? "*" : "") + p.name +
        (p.default_value ? "=" + (literal ? p.default_text : "...") : ""));
    bool last = i + 1 == function.parameters.size();
    if (p.positional_only && (last || !function.parameters[i + 1].positional_only)) add("/");
  }
  if (!marked) add("*");
  add("stream=None");
  return "(" + text + ")";
}

std::string typed_parameters(const Function& function) {
  bool marked = false;
  for (const Parameter& p : function.parameters) marked = marked || p.keyword_only || p.variadic;
  std::string text = function.signature;
  if (!text.empty()) text += ", ";
  return text + (marked ? "" : "*, ") + "stream: StreamOrDevice = None";
}

void bind_functions(nb::module_& m) {
  stream_name = PyUnicode_InternFromString("stream");
  nb::object type = nb::steal(PyType_FromSpec(&function_spec));
  if (!type.is_valid()) throw nb::python_error();
  m.attr("Function") = type;
  nb::object array_class = m.attr("array");
  auto* type_object = reinterpret_cast<PyTypeObject*>(type.ptr());
  for (const Function& function : FunctionRegistry::shared().functions()) {
    nb::module_ module = module_for(m, function.module);
    std::string module_name = nb::str(module.attr("__name__")).c_str();
    const Row& row = make_row(function);
    std::vector<std::string> names = {function.name};
    names.insert(names.end(), function.aliases.begin(), function.aliases.end());
    for (const std::string& name : names) {
      nb::object object = make_object(type_object, row, name, module_name.c_str());
      module.attr(name.c_str()) = object;
      if (is_method(function)) array_class.attr(name.c_str()) = object;
    }
  }
}

}  // namespace mica::python
