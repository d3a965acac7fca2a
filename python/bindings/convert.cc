#include "convert.h"

#include <cstring>
#include <limits>

#include "core/buffer.h"
#include "core/node.h"
#include "ops/elementwise.h"
#include "ops/function_args.h"
#include "ops/join.h"
#include "ops/shape.h"

namespace mica::python {

namespace {

[[noreturn]] void invalid_type(nb::handle object) {
  throw_value("Invalid type {} received in array initialization.", Py_TYPE(object.ptr())->tp_name);
}

Dtype dtype_of_memory(nb::dlpack::dtype type) {
  using nb::dlpack::dtype_code;
  if (type.lanes != 1) throw_value("[array] vector types are not supported");
  auto code = static_cast<dtype_code>(type.code);
  if (code == dtype_code::Bool) return Dtype::Bool;
  if (code == dtype_code::Bfloat && type.bits == 16) return Dtype::BF16;
  auto by_size = [&](Dtype first, int smallest) {
    for (int k = 0; k < 4; ++k) {
      if (type.bits == smallest << k) return static_cast<Dtype>(static_cast<int>(first) + k);
    }
    throw_value("[array] elements of {} bits are not supported", type.bits);
  };
  if (code == dtype_code::UInt) return by_size(Dtype::U8, 8);
  if (code == dtype_code::Int) return by_size(Dtype::I8, 8);
  if (code == dtype_code::Float && type.bits == 16) return Dtype::F16;
  if (code == dtype_code::Float && type.bits == 32) return Dtype::F32;
  if (code == dtype_code::Float && type.bits == 64) return Dtype::F64;
  throw Error(ErrorKind::Unsupported, std::string("[array] this element type is not supported"));
}

using Memory = nb::ndarray<nb::ro>;

// The memory as an array over it, without a copy; `owner` keeps it alive.
Array share_memory(const Memory& memory, Dtype dtype, Owned owner) {
  Shape shape(memory.ndim(), 0), strides(memory.ndim(), 0);
  int64_t first = 0, last = 0;  // of the elements reached, counted from the data pointer
  for (size_t i = 0; i < memory.ndim(); ++i) {
    shape[i] = static_cast<int64_t>(memory.shape(i));
    strides[i] = memory.stride(i);
    (strides[i] < 0 ? first : last) += strides[i] * std::max<int64_t>(shape[i] - 1, 0);
  }
  int64_t item = size_of(dtype);
  auto* start = static_cast<std::byte*>(const_cast<void*>(memory.data())) + first * item;
  size_t bytes = elements(shape) == 0 ? 0 : static_cast<size_t>((last - first + 1) * item);
  auto buffer = Buffer::wrap(start, bytes, std::shared_ptr<const void>(std::move(owner)), false);
  return make_constant(std::move(buffer), shape, dtype, strides, -first);
}

struct Scan {
  Shape shape;
  bool any_float = false, any_int = false, any_wide = false, any_array = false;
  size_t leaf_depth = SIZE_MAX;  // of the lists that hold numbers
};

bool is_list(nb::handle object) {
  return PyList_Check(object.ptr()) || PyTuple_Check(object.ptr());
}

void scan_leaf(nb::handle object, Scan& scan) {
  PyObject* p = object.ptr();
  if (PyBool_Check(p)) return;
  if (PyLong_Check(p)) {
    int overflow = 0;
    long long value = PyLong_AsLongLongAndOverflow(p, &overflow);
    if (overflow) throw_value("[array] an int that does not fit in 64 bits");
    scan.any_int = true;
    scan.any_wide = scan.any_wide || value != static_cast<int32_t>(value);
  } else if (PyFloat_Check(p)) {
    scan.any_float = true;
  } else if (array_of(object)) {
    scan.any_array = true;
  } else if (has_memory(object)) {
    nb::object item = nb::steal(PyObject_CallMethod(p, "item", nullptr));  // NumPy's scalars
    if (!item.is_valid()) {
      PyErr_Clear();
      invalid_type(object);
    }
    scan_leaf(item, scan);
  } else {
    invalid_type(object);
  }
}

[[noreturn]] void not_uniform() { throw_value("Initialization encountered non-uniform length."); }

void scan_list(nb::handle list, size_t depth, Scan& scan) {
  Descent descent;
  auto count = static_cast<int64_t>(PySequence_Fast_GET_SIZE(list.ptr()));
  if (depth > scan.leaf_depth) not_uniform();
  if (scan.shape.size() == depth) {
    scan.shape.push_back(count);
  } else if (scan.shape[depth] != count) {
    not_uniform();
  }
  for (int64_t i = 0; i < PySequence_Fast_GET_SIZE(list.ptr()); ++i) {
    PyObject* item = PySequence_Fast_GET_ITEM(list.ptr(), i);
    bool plain = PyLong_CheckExact(item) || PyFloat_CheckExact(item);
    nb::object held = plain ? nb::object() : nb::borrow(item);
    if (!plain && is_list(item)) {
      scan_list(item, depth + 1, scan);
      continue;
    }
    scan_leaf(item, scan);
    if (!plain && array_of(item)) continue;  // stacking compares the shapes
    if (scan.shape.size() > depth + 1) not_uniform();
    scan.leaf_depth = depth;
  }
}

double as_double(PyObject* p) {
  if (PyFloat_CheckExact(p)) return PyFloat_AS_DOUBLE(p);
  double value = PyFloat_AsDouble(p);
  if (value == -1.0 && PyErr_Occurred()) throw nb::python_error();
  return value;
}

int64_t as_integer(PyObject* p) {
  if (p == Py_True) return 1;
  if (p == Py_False) return 0;
  nb::object number = nb::steal(PyNumber_Long(p));  // also NumPy's bool, which is no index
  if (!number.is_valid()) throw nb::python_error();
  return PyLong_AsLongLong(number.ptr());
}

template <class T>
T converted_number(PyObject* item) {
  if constexpr (std::is_floating_point_v<T>)
    return static_cast<T>(as_double(item));
  else
    return static_cast<T>(as_integer(item));
}

// The numbers of a list that was scanned. Numbers may be classes of programs, whose conversions may
// change the list meanwhile: nothing is held but a reference to the element, nor written past
// `end`.
template <class T>
void fill_list(nb::handle list, T*& to, const T* end) {
  for (Py_ssize_t i = 0; i < PySequence_Fast_GET_SIZE(list.ptr()); ++i) {
    PyObject* item = PySequence_Fast_GET_ITEM(list.ptr(), i);
    T value{};
    if (PyLong_CheckExact(item)) {
      value = static_cast<T>(PyLong_AsLongLong(item));
    } else if (PyFloat_CheckExact(item)) {
      value = static_cast<T>(PyFloat_AS_DOUBLE(item));
    } else {
      nb::object held = nb::borrow(item);
      if (is_list(item)) {
        fill_list(item, to, end);
        continue;
      }
      value = converted_number<T>(item);
    }
    if (to == end) not_uniform();
    *to++ = value;
  }
}

template <class T>
Array filled(nb::handle list, const Shape& shape) {
  auto count = static_cast<size_t>(elements(shape));
  auto values = std::make_unique<T[]>(count + 1);
  T* to = values.get();
  fill_list(list, to, values.get() + count);
  if (to != values.get() + count) not_uniform();
  return Array::from_bytes(values.get(), count, shape, dtype_of<T>);
}

Array converted(Array array, std::optional<Dtype> dtype) {
  if (!dtype || array.dtype() == *dtype) return array;
  Array result = astype(array, *dtype);
  evaluate(result);
  return result;
}

// Lists with arrays among their elements are stacked.
Array stack_list(nb::handle list) {
  Arrays parts;
  for (nb::handle item : nb::borrow<nb::sequence>(list)) parts.push_back(make_array(item));
  Dtype common = parts[0].dtype();
  for (const Array& part : parts) {
    if (part.shape() != parts[0].shape()) not_uniform();
    common = promote(common, part.dtype());
  }
  for (Array& part : parts) part = astype(part, common);
  return stack(parts, 0);
}

Array from_list(nb::handle list, std::optional<Dtype> dtype) {
  Scan scan;
  scan_list(list, 0, scan);
  if (scan.any_array) return converted(stack_list(list), dtype);
  if (elements(scan.shape) == 0) return converted(filled<float>(list, scan.shape), dtype);
  if (scan.any_float) {
    if (!dtype || *dtype == Dtype::F32) return filled<float>(list, scan.shape);
    return converted(filled<double>(list, scan.shape), dtype);
  }
  if (scan.any_wide) return converted(filled<int64_t>(list, scan.shape), dtype);
  if (scan.any_int) return converted(filled<int32_t>(list, scan.shape), dtype);
  return converted(filled<bool>(list, scan.shape), dtype);
}

template <class T>
nb::object python_number(T value) {
  if constexpr (std::is_same_v<T, bool>) {
    return nb::bool_(value);
  } else if constexpr (std::is_integral_v<T>) {
    return nb::int_(value);
  } else {
    return nb::float_(static_cast<double>(value));
  }
}

template <class T>
nb::object list_of(const T*& from, const Shape& shape, size_t axis) {
  if (axis == shape.size()) return python_number(*from++);
  nb::object list = nb::steal(PyList_New(shape[axis]));
  for (int64_t i = 0; i < shape[axis]; ++i)
    PyList_SET_ITEM(list.ptr(), i, list_of(from, shape, axis + 1).release().ptr());
  return list;
}

}  // namespace

bool has_memory(nb::handle object) {
  return PyObject_CheckBuffer(object.ptr()) || nb::hasattr(object, "__dlpack__");
}

Array from_memory(nb::handle object, std::optional<Dtype> dtype, std::optional<bool> copy) {
  Memory memory;
  if (!nb::try_cast(nb::borrow(object), memory)) {
    throw_value(
        "[array] the memory of {} cannot be read: its element type or layout is not "
        "supported",
        Py_TYPE(object.ptr())->tp_name);
  }
  if (memory.device_type() != nb::device::cpu::value)
    throw_value("[array] the memory lies on a device that this build does not know");
  Dtype given = dtype_of_memory(memory.dtype());
  bool never = copy && !*copy, always = copy && *copy;
  Dtype wanted = dtype.value_or(given == Dtype::F64 && !never ? Dtype::F32 : given);
  auto* keeper = new Memory(memory);
  nb::capsule owner(keeper, [](void* p) noexcept { delete static_cast<Memory*>(p); });
  bool aligned = reinterpret_cast<uintptr_t>(memory.data()) % size_of(given) == 0;
  if (!aligned) throw_value("[array] memory that is not aligned to its elements");
  Array shared = share_memory(memory, given, own(owner));
  if (never && wanted != given)
    throw_value("Unable to avoid copy while creating an array as requested.");
  if (!always && wanted == given) return shared;
  if (wanted != given) return converted(shared, wanted);
  Array packed = contiguous(shared);
  evaluate(packed);
  auto bytes = packed.host_bytes();
  return Array::from_bytes(bytes.get(), static_cast<size_t>(packed.size()), packed.shape(), given);
}

std::optional<Value> scalar_value(nb::handle object) {
  PyObject* p = object.ptr();
  if (PyFloat_Check(p)) return Value(PyFloat_AS_DOUBLE(p));
  if (PyBool_Check(p)) return Value(p == Py_True);
  if (PyLong_Check(p)) {
    int overflow = 0;
    long long value = PyLong_AsLongLongAndOverflow(p, &overflow);
    if (overflow) throw_value("an int that does not fit in 64 bits");
    return Value(static_cast<int64_t>(value));
  }
  // NumPy's scalars show their memory, as arrays do, but are told apart by `item` and `shape`.
  if (!PyObject_CheckBuffer(p) || !nb::hasattr(object, "item") || !nb::hasattr(object, "shape"))
    return {};
  if (PyObject_Length(object.attr("shape").ptr()) != 0) return {};
  return scalar_value(object.attr("item")());
}

Array make_array(nb::handle object, std::optional<Dtype> dtype) {
  if (const Array* array = array_of(object)) return dtype ? astype(*array, *dtype) : *array;
  if (is_list(object)) return from_list(object, dtype);
  PyObject* p = object.ptr();
  if (PyFloat_Check(p) || PyLong_Check(p)) {
    Value value = *scalar_value(object);
    if (const double* number = std::get_if<double>(&value)) {
      if (!dtype || *dtype == Dtype::F32)
        return Array::from<float>({static_cast<float>(*number)}, {});
      return converted(Array::from<double>({*number}, {}), dtype);
    }
    if (const bool* truth = std::get_if<bool>(&value))
      return converted(Array::from<bool>({*truth}, {}), dtype);
    int64_t integer = std::get<int64_t>(value);
    if (integer != static_cast<int32_t>(integer))
      return converted(Array::from<int64_t>({integer}, {}), dtype);
    return converted(Array::from<int32_t>({static_cast<int32_t>(integer)}, {}), dtype);
  }
  if (nb::hasattr(object, "__mlx__array__"))
    return make_array(object.attr("__mlx__array__")(), dtype);
  if (has_memory(object)) return from_memory(object, dtype, true);
  if (object.is_none()) throw_type("array() argument 'val' must not be None");
  invalid_type(object);
}

Array numpy_beside(Array array, std::optional<Dtype> beside) {
  if (!beside || *beside == array.dtype()) return array;
  bool cuts = is_floating(array.dtype()) && !is_floating(*beside);
  if (cuts || *beside == Dtype::Bool) return array;
  return astype(array, *beside);
}

std::optional<Array> operand(nb::handle object, const Array& beside, Stream s) {
  if (const Array* array = array_of(object)) return *array;
  if (std::optional<Value> value = scalar_value(object))
    return weak_scalar(*value, beside.dtype(), s);
  if (nb::hasattr(object, "__mlx__array__")) return make_array(object);
  if (PyBytes_Check(object.ptr()) || !has_memory(object)) return {};
  return numpy_beside(make_array(object), beside.dtype());
}

nb::object to_scalar(Array array) {
  if (array.size() != 1)
    throw_value("[convert] Only length-1 arrays can be converted to Python scalars.");
  evaluate(array);
  auto bytes = array.host_bytes();
  return dispatch(array.dtype(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    return python_number(*reinterpret_cast<const T*>(bytes.get()));
  });
}

nb::object to_list(Array array) {
  evaluate(array);
  auto bytes = array.host_bytes();
  return dispatch(array.dtype(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    const T* from = reinterpret_cast<const T*>(bytes.get());
    return list_of(from, array.shape(), 0);
  });
}

}  // namespace mica::python
