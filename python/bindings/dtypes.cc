#include "dtypes.h"

#include <nanobind/stl/string.h>
#include <nanobind/stl/string_view.h>

#include <cmath>
#include <limits>
#include <string>

namespace mica::python {

namespace {

PyTypeObject* dtype_type = nullptr;
PyObject* dtypes[kDtypeCount] = {};

enum class Category { Generic, Number, Integer, Signed, Unsigned, Inexact, Floating, Complex };

constexpr const char* kCategoryNames[] = {"generic",       "number",          "integer",
                                          "signedinteger", "unsignedinteger", "inexact",
                                          "floating",      "complexfloating"};

bool is_in(Dtype dtype, Category category) {
  switch (category) {
    case Category::Generic: return true;
    case Category::Number: return dtype != Dtype::Bool;
    case Category::Integer: return is_integer(dtype);
    case Category::Signed: return is_signed_integer(dtype);
    case Category::Unsigned: return is_unsigned_integer(dtype);
    case Category::Inexact:
    case Category::Floating: return is_floating(dtype);
    default: return false;
  }
}

bool is_under(Category a, Category b) {
  if (a == b || b == Category::Generic) return true;
  bool integer = a == Category::Signed || a == Category::Unsigned;
  bool inexact = a == Category::Floating || a == Category::Complex;
  if (b == Category::Number) return a != Category::Generic;
  return (b == Category::Integer && integer) || (b == Category::Inexact && inexact);
}

bool is_subtype(nb::handle a, nb::handle b) {
  const Dtype* first = dtype_of(a);
  const Dtype* second = dtype_of(b);
  if (first && second) return *first == *second;
  Category category{}, of{};
  if (second) return false;
  if (!nb::try_cast(nb::borrow(b), category))
    throw_type("issubdtype() takes dtypes and categories");
  if (first) return is_in(*first, category);
  if (!nb::try_cast(nb::borrow(a), of))
    throw_value("[issubdtype] Received invalid type for first input.");
  return is_under(of, category);
}

// The array API's kinds of types.
bool is_of_kind(Dtype dtype, nb::handle kind) {
  if (const Dtype* other = dtype_of(kind)) return *other == dtype;
  if (PyTuple_Check(kind.ptr())) {
    for (nb::handle one : nb::borrow<nb::tuple>(kind)) {
      if (is_of_kind(dtype, one)) return true;
    }
    return false;
  }
  if (!PyUnicode_Check(kind.ptr()))
    throw_type("isdtype() argument 'kind' must be Dtype, str or a tuple of them, got {}",
               Py_TYPE(kind.ptr())->tp_name);
  constexpr std::pair<std::string_view, Category> kinds[] = {
      {"signed integer", Category::Signed},    {"unsigned integer", Category::Unsigned},
      {"integral", Category::Integer},         {"real floating", Category::Floating},
      {"complex floating", Category::Complex}, {"numeric", Category::Number}};
  std::string_view name = nb::cast<std::string_view>(kind);
  if (name == "bool") return dtype == Dtype::Bool;
  for (const auto& [text, category] : kinds) {
    if (name == text) return is_in(dtype, category);
  }
  throw_value("[isdtype] Unknown data type kind: '{}'.", name);
}

// bool is a Python name already.
const char* attribute_name(Dtype dtype) {
  return dtype == Dtype::Bool ? "bool_" : dtype_name(dtype);
}

Dtype needed(nb::handle object, const char* what) {
  if (const Dtype* dtype = dtype_of(object)) return *dtype;
  throw_type("{} must be Dtype, got {}", what, Py_TYPE(object.ptr())->tp_name);
}

struct FloatInfo {
  Dtype dtype;
  double min, max, eps, smallest_normal;
  int bits;
};

FloatInfo float_info(Dtype dtype) {
  switch (dtype) {
    case Dtype::F16: return {dtype, -65504, 65504, std::ldexp(1, -10), std::ldexp(1, -14), 16};
    case Dtype::BF16: {
      double max = std::ldexp(255.0 / 128, 127);
      return {dtype, -max, max, std::ldexp(1, -7), std::ldexp(1, -126), 16};
    }
    case Dtype::F32: {
      using Limits = std::numeric_limits<float>;
      return {dtype, Limits::lowest(), Limits::max(), Limits::epsilon(), Limits::min(), 32};
    }
    case Dtype::F64: {
      using Limits = std::numeric_limits<double>;
      return {dtype, Limits::lowest(), Limits::max(), Limits::epsilon(), Limits::min(), 64};
    }
    default: throw_value("[finfo] dtype {} is not inexact.", dtype);
  }
}

struct IntInfo {
  Dtype dtype;
  nb::object min, max;
  int bits;
};

IntInfo int_info(Dtype dtype) {
  if (!is_integer(dtype)) throw_value("[iinfo] dtype {} is not integral.", dtype);
  return dispatch(dtype, [&](auto tag) -> IntInfo {
    using T = typename decltype(tag)::type;
    if constexpr (std::is_integral_v<T>) {
      return {dtype, nb::int_(std::numeric_limits<T>::min()),
              nb::int_(std::numeric_limits<T>::max()), 8 * size_of(dtype)};
    } else {
      return {};
    }
  });
}

void bind_infos(nb::module_& m) {
  nb::class_<FloatInfo>(m, "finfo", "Limits of a floating type.")
      .def(
          "__init__",
          [](FloatInfo* self, nb::handle dtype) {
            new (self) FloatInfo(float_info(needed(dtype, "finfo() argument 'dtype'")));
          },
          nb::arg("dtype"), nb::sig("def __init__(self, dtype: Dtype) -> None"))
      .def_ro("min", &FloatInfo::min, "The lowest finite number.")
      .def_ro("max", &FloatInfo::max, "The largest finite number.")
      .def_ro("eps", &FloatInfo::eps, "The distance from 1 to the next number.")
      .def_ro("smallest_normal", &FloatInfo::smallest_normal, "The smallest normal number.")
      .def_ro("bits", &FloatInfo::bits, "Bits of an element.")
      .def_prop_ro(
          "dtype", [](const FloatInfo& self) { return wrap(self.dtype); },
          nb::sig("def dtype(self) -> Dtype"), "The type itself.")
      .def("__repr__", [](const FloatInfo& self) {
        return fmt::format("finfo(min={:g}, max={:g}, dtype={})", self.min, self.max, self.dtype);
      });
  nb::class_<IntInfo>(m, "iinfo", "Limits of an integer type.")
      .def(
          "__init__",
          [](IntInfo* self, nb::handle dtype) {
            new (self) IntInfo(int_info(needed(dtype, "iinfo() argument 'dtype'")));
          },
          nb::arg("dtype"), nb::sig("def __init__(self, dtype: Dtype) -> None"))
      .def_prop_ro(
          "min", [](const IntInfo& self) { return self.min; }, nb::sig("def min(self) -> int"),
          "The lowest number.")
      .def_prop_ro(
          "max", [](const IntInfo& self) { return self.max; }, nb::sig("def max(self) -> int"),
          "The largest number.")
      .def_ro("bits", &IntInfo::bits, "Bits of an element.")
      .def_prop_ro(
          "dtype", [](const IntInfo& self) { return wrap(self.dtype); },
          nb::sig("def dtype(self) -> Dtype"), "The type itself.")
      .def("__repr__", [](const IntInfo& self) {
        return fmt::format("iinfo(min={}, max={}, dtype={})", nb::str(self.min).c_str(),
                           nb::str(self.max).c_str(), self.dtype);
      });
}

void bind_categories(nb::module_& m) {
  nb::enum_<Category> category(
      m, "DtypeCategory",
      "Categories of types, as in MLX: generic > number > integer (signedinteger,\n"
      "unsignedinteger), inexact (floating, complexfloating).");
  for (int i = 0; i < 8; ++i) {
    category.value(kCategoryNames[i], static_cast<Category>(i));
    m.attr(kCategoryNames[i]) = nb::cast(static_cast<Category>(i));
  }
  m.def("issubdtype", &is_subtype, nb::arg("arg1"), nb::arg("arg2"),
        nb::sig("def issubdtype(arg1: Dtype | DtypeCategory, arg2: Dtype | DtypeCategory) -> bool"),
        "Is the type, or category, the second one or below it?");
  m.def(
      "isdtype",
      [](nb::handle dtype, nb::handle kind) {
        return is_of_kind(needed(dtype, "isdtype() argument 'dtype'"), kind);
      },
      nb::arg("dtype"), nb::arg("kind"),
      nb::sig("def isdtype(dtype: Dtype, kind: Dtype | str | tuple[Dtype | str, ...]) -> bool"),
      "Is the type one of these, or of these kinds: 'bool', 'signed integer', 'unsigned integer',\n"
      "'integral', 'real floating', 'complex floating', 'numeric'?");
}

}  // namespace

nb::object wrap(Dtype dtype) { return nb::borrow(dtypes[static_cast<int>(dtype)]); }

const Dtype* dtype_of(nb::handle object) {
  if (Py_TYPE(object.ptr()) != dtype_type) return nullptr;
  return &nb::inst_ptr<DtypeObject>(object)->value;
}

std::optional<Dtype> optional_dtype(nb::handle object, const char* what) {
  if (object.is_none()) return {};
  return needed(object, what);
}

void bind_dtypes(nb::module_& m) {
  nb::class_<DtypeObject> type(m, "Dtype",
                               "The type of an array's elements: mx.float32, mx.int8, ….");
  type.def_prop_ro(
          "size", [](DtypeObject self) { return size_of(self.value); }, "Bytes of an element.")
      .def("__repr__",
           [](DtypeObject self) { return std::string("mica.core.") + dtype_name(self.value); })
      .def("__hash__", [](DtypeObject self) { return static_cast<int64_t>(self.value); })
      .def(
          "__eq__",
          [](DtypeObject self, nb::handle other) {
            const Dtype* dtype = dtype_of(other);
            return dtype && *dtype == self.value;
          },
          nb::arg("other").none(), nb::sig("def __eq__(self, other: object) -> bool"))
      // A string from __reduce__ is the name of the module's attribute.
      .def(
          "__reduce__", [](DtypeObject self) { return attribute_name(self.value); },
          nb::sig("def __reduce__(self) -> str"));
  dtype_type = reinterpret_cast<PyTypeObject*>(type.ptr());
  for (int i = 0; i < kDtypeCount; ++i) {
    auto dtype = static_cast<Dtype>(i);
    dtypes[i] = nb::cast(DtypeObject{dtype}).release().ptr();
    m.attr(attribute_name(dtype)) = nb::handle(dtypes[i]);
  }
  bind_categories(m);
  bind_infos(m);
}

}  // namespace mica::python
