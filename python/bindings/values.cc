// Values of the Function table from and to Python objects.
#include "base/error.h"
#include "convert.h"
#include "dtypes.h"
#include "functions.h"
#include "ops/function_args.h"

namespace mica::python {

namespace {

// A list of numbers, flat or nested; arrays among them make it a list of arrays.
struct ListReader {
  std::vector<int64_t> ints;
  std::vector<double> reals;
  Arrays arrays;
  bool any_real = false;

  void read(nb::handle list) {
    Descent descent;
    for (Py_ssize_t i = 0; i < PySequence_Fast_GET_SIZE(list.ptr()); ++i)
      add(nb::borrow(PySequence_Fast_GET_ITEM(list.ptr(), i)));
  }

  void add(nb::handle item) {
    if (const Array* array = array_of(item)) {
      arrays.push_back(*array);
    } else if (PyList_Check(item.ptr()) || PyTuple_Check(item.ptr())) {
      read(item);
    } else if (std::optional<Value> number = scalar_value(item)) {
      const double* real = std::get_if<double>(&*number);
      const bool* truth = std::get_if<bool>(&*number);
      any_real = any_real || real;
      int64_t integer = real ? 0 : truth ? *truth : std::get<int64_t>(*number);
      ints.push_back(integer);
      reals.push_back(real ? *real : static_cast<double>(integer));
    } else if (has_memory(item)) {
      arrays.push_back(make_array(item));
    } else {
      throw_type("a list holds {}, which is neither number nor array",
                 Py_TYPE(item.ptr())->tp_name);
    }
  }

  Value value() {
    if (!arrays.empty()) {
      if (!ints.empty()) throw_type("a list mixes arrays and numbers");
      return Value(std::move(arrays));
    }
    return any_real ? Value(std::move(reals)) : Value(std::move(ints));
  }
};

}  // namespace

Value to_value(nb::handle object) {
  PyObject* p = object.ptr();
  if (const Array* array = array_of(p)) return *array;
  if (p == Py_None) return {};
  if (PyLong_Check(p) || PyFloat_Check(p)) return *scalar_value(object);
  if (const Dtype* dtype = dtype_of(object)) return *dtype;
  if (PyUnicode_Check(p)) return std::string(nb::str(object).c_str());
  if (PyList_Check(p) || PyTuple_Check(p)) {
    ListReader reader;
    reader.read(object);
    return reader.value();
  }
  if (std::optional<Value> number = scalar_value(object)) return *number;
  if (nb::hasattr(object, "__mlx__array__") || (!PyBytes_Check(p) && has_memory(object)))
    return make_array(object);
  throw_type("no function takes {}", Py_TYPE(p)->tp_name);
}

nb::object from_value(Value value, bool as_tuple) {
  return std::visit(
      [&](auto& held) -> nb::object {
        using T = std::decay_t<decltype(held)>;
        if constexpr (std::is_same_v<T, std::monostate>) {
          return nb::none();
        } else if constexpr (std::is_same_v<T, Array>) {
          return wrap(std::move(held));
        } else if constexpr (std::is_same_v<T, Dtype>) {
          return wrap(held);
        } else if constexpr (std::is_same_v<T, std::string>) {
          return nb::str(held.c_str(), held.size());
        } else if constexpr (std::is_same_v<T, bool>) {
          return nb::bool_(held);
        } else if constexpr (std::is_same_v<T, int64_t>) {
          return nb::int_(held);
        } else if constexpr (std::is_same_v<T, double>) {
          return nb::float_(held);
        } else if constexpr (std::is_same_v<T, Stream>) {
          return nb::cast(held);
        } else {
          nb::list list;
          for (auto& item : held) list.append(from_value(Value(item), false));
          return as_tuple ? nb::object(nb::tuple(list)) : nb::object(list);
        }
      },
      value);
}

}  // namespace mica::python
