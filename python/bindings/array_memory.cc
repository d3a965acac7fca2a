// An array's memory seen from outside, without a copy where it can be: the buffer protocol (hence
// NumPy), DLPack, and pickling.
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>

#include "array.h"
#include "base/error.h"
#include "convert.h"
#include "core/buffer.h"
#include "core/node.h"
#include "dtypes.h"

namespace mica::python {

namespace {

// Where an evaluated array lies on the host, with its strides; keeps the memory alive.
struct HostView {
  std::shared_ptr<Buffer> buffer;
  std::byte* data = nullptr;
  Dtype dtype;
  Shape shape;
  Strides strides;
  bool writable = false;

  explicit HostView(Array array) : dtype(array.dtype()), shape(array.shape()) {
    evaluate(array);
    const ArrayData& from = *array.slot()->data;
    ReleasedGil release;
    buffer = from.buffer;
    strides = from.strides;
    data = buffer->read(Device{}) + from.offset * size_of(dtype);
    writable = buffer->writable();
    for (size_t i = 0; i < shape.size(); ++i)
      writable = writable && (strides[i] != 0 || shape[i] <= 1);
  }
};

const char* buffer_format(Dtype dtype) {
  constexpr const char* formats[kDtypeCount] = {"?", "B", "H", "I",     "Q", "b", "h",
                                                "i", "q", "e", nullptr, "f", "d"};
  return formats[static_cast<int>(dtype)];
}

struct Exported {
  HostView view;
  std::vector<Py_ssize_t> shape, strides;
};

bool is_row_major(const Exported& exported, Py_ssize_t item) {
  Py_ssize_t expected = item;
  for (size_t i = exported.shape.size(); i-- > 0;) {
    if (exported.shape[i] > 1 && exported.strides[i] != expected) return false;
    expected *= exported.shape[i];
  }
  return true;
}

// BufferError, which is what the protocol asks for.
int refuse(const char* message) {
  PyErr_SetString(PyExc_BufferError, message);
  return -1;
}

int get_buffer(PyObject* self, Py_buffer* out, int flags) {
  out->obj = nullptr;
  return guarded(
      [&] {
        const Array array = *array_of(self);
        const char* format = buffer_format(array.dtype());
        if (!format) return refuse("the buffer protocol has no bfloat16; use astype or DLPack");
        auto exported = std::make_unique<Exported>(Exported{HostView(array), {}, {}});
        Py_ssize_t item = size_of(array.dtype());
        exported->shape.assign(array.shape().begin(), array.shape().end());
        for (int64_t stride : exported->view.strides) exported->strides.push_back(stride * item);
        if ((flags & PyBUF_WRITABLE) && !exported->view.writable)
          return refuse("the memory of this array is read-only");
        bool needs_rows =
            !(flags & PyBUF_STRIDES & ~PyBUF_ND) || (flags & PyBUF_C_CONTIGUOUS & ~PyBUF_STRIDES);
        if (needs_rows && !is_row_major(*exported, item))
          return refuse("the memory of this array is not contiguous");
        if ((flags & PyBUF_F_CONTIGUOUS & ~PyBUF_STRIDES) && array.rank() > 1)
          return refuse("the memory of this array is not column-major");
        out->buf = exported->view.data;
        out->itemsize = item;
        out->len = array.nbytes();
        out->readonly = !exported->view.writable;
        out->ndim = static_cast<int>(array.rank());
        out->format = (flags & PyBUF_FORMAT) ? const_cast<char*>(format) : nullptr;
        out->shape = (flags & PyBUF_ND) ? exported->shape.data() : nullptr;
        out->strides =
            (flags & PyBUF_STRIDES) == PyBUF_STRIDES ? exported->strides.data() : nullptr;
        out->suboffsets = nullptr;
        out->internal = exported.release();
        out->obj = Py_NewRef(self);
        return 0;
      },
      -1);
}

void release_buffer(PyObject*, Py_buffer* view) { delete static_cast<Exported*>(view->internal); }

nb::dlpack::dtype dlpack_type(Dtype dtype) {
  using nb::dlpack::dtype_code;
  dtype_code code = dtype == Dtype::Bool       ? dtype_code::Bool
                    : dtype == Dtype::BF16     ? dtype_code::Bfloat
                    : is_floating(dtype)       ? dtype_code::Float
                    : is_signed_integer(dtype) ? dtype_code::Int
                                               : dtype_code::UInt;
  return {static_cast<uint8_t>(code), static_cast<uint8_t>(8 * size_of(dtype)), 1};
}

nb::object dlpack(Array array, const nb::kwargs& options) {
  auto view = std::make_unique<HostView>(array);
  std::vector<size_t> shape(view->shape.begin(), view->shape.end());
  std::vector<int64_t> strides(view->strides.begin(), view->strides.end());
  void* data = view->data;
  nb::capsule owner(view.release(), [](void* p) noexcept { delete static_cast<HostView*>(p); });
  nb::ndarray<nb::array_api> shared(data, shape.size(), shape.data(), owner, strides.data(),
                                    dlpack_type(array.dtype()), nb::device::cpu::value);
  return nb::cast(shared).attr("__dlpack__")(**options);
}

// NumPy's array over the memory; a copy only where one is asked for or `dtype` needs it.
nb::object numpy_array(nb::handle self, nb::handle dtype, nb::handle copy) {
  if (array_of(self)->dtype() == Dtype::BF16)
    throw_value("NumPy has no bfloat16: use astype(mx.float32) first");
  nb::module_ numpy = nb::module_::import_("numpy");
  nb::object view = nb::steal(PyMemoryView_FromObject(self.ptr()));
  if (!view.is_valid()) throw nb::python_error();
  nb::object result = numpy.attr("asarray")(view);
  bool always = !copy.is_none() && nb::cast<bool>(copy);
  if (!dtype.is_none()) return result.attr("astype")(dtype, nb::arg("copy") = always);
  return always ? nb::object(result.attr("copy")()) : result;
}

nb::object reduce(nb::handle self) {
  const Array array = *array_of(self);
  evaluate(array);
  auto bytes = array.host_bytes();
  nb::bytes data(reinterpret_cast<const char*>(bytes.get()), static_cast<size_t>(array.nbytes()));
  nb::object extents = wrap(array).attr("shape");
  nb::object rebuild = nb::module_::import_("mica.core").attr("_array_from_bytes");
  return nb::make_tuple(rebuild, nb::make_tuple(data, extents, dtype_name(array.dtype())));
}

nb::object from_bytes(nb::bytes data, const nb::tuple& extents, const std::string& name) {
  Shape shape;
  for (nb::handle extent : extents) shape.push_back(nb::cast<int64_t>(extent));
  Dtype dtype = dtype_from_name(name);
  int64_t bytes = size_of(dtype);
  for (int64_t extent : shape) {
    if (extent < 0 || __builtin_mul_overflow(bytes, extent, &bytes))
      throw_value("[array] a pickled shape is impossible");
  }
  if (static_cast<size_t>(bytes) != data.size())
    throw_value("[array] {} bytes for an array of {} bytes", data.size(), bytes);
  return wrap(Array::from_bytes(data.c_str(), static_cast<size_t>(elements(shape)), shape, dtype));
}

PyObject* from_pickle(PyObject*, PyObject* args) {
  return guarded([&] {
    auto given = nb::borrow<nb::tuple>(args);
    if (given.size() != 3) throw_type("[array] a pickled array has three parts");
    return from_bytes(nb::cast<nb::bytes>(given[0]), nb::cast<nb::tuple>(given[1]),
                      nb::cast<std::string>(given[2]))
        .release()
        .ptr();
  });
}

}  // namespace

std::vector<PyType_Slot> memory_slots() {
  return {{Py_bf_getbuffer, reinterpret_cast<void*>(&get_buffer)},
          {Py_bf_releasebuffer, reinterpret_cast<void*>(&release_buffer)}};
}

void add_memory_methods(ArrayClass& type) {
  type.def("__array__", &numpy_array, nb::arg("dtype") = nb::none(), nb::arg("copy") = nb::none(),
           nb::sig("def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any"))
      .def("__dlpack__", &dlpack, nb::sig("def __dlpack__(self, **options: Any) -> Any"))
      .def(
          "__dlpack_device__", [](const Array&) { return nb::make_tuple(1, 0); },
          nb::sig("def __dlpack_device__(self) -> tuple[int, int]"))
      .def(
          "__copy__", [](const Array& self) { return wrap(self); },
          nb::sig("def __copy__(self) -> array"))
      .def(
          "__deepcopy__", [](const Array& self, nb::handle) { return wrap(self); }, nb::arg("memo"),
          nb::sig("def __deepcopy__(self, memo: Any) -> array"))
      .def("__reduce__", &reduce, nb::sig("def __reduce__(self) -> tuple[Any, ...]"));
  // A plain C function, because pickle looks for its module and name.
  static PyMethodDef method = {"_array_from_bytes", &from_pickle, METH_VARARGS, nullptr};
  nb::object core = nb::module_::import_("mica.core");
  core.attr(method.ml_name) =
      nb::steal(PyCFunction_NewEx(&method, nullptr, nb::str("mica.core").ptr()));
}

}  // namespace mica::python
