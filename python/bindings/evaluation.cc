// eval and what may be asked about it: memory and counters.
#include <algorithm>
#include <limits>

#include "base/error.h"
#include "convert.h"
#include "core/counters.h"
#include "devices.h"
#include "dtypes.h"
#include "functions.h"
#include "tree.h"

namespace mica::python {

namespace {

int64_t sum_of_kinds(int64_t MemoryUse::* part) {
  int64_t sum = 0;
  for (int kind = 0; kind < kDeviceKinds; ++kind)
    sum += memory_use(static_cast<DeviceKind>(kind)).*part;
  return sum;
}

nb::dict counters_dict() {
  Counters now = counters();
  nb::dict dict;
  dict["kernels"] = now.kernels;
  dict["lowered"] = now.lowered;
  dict["plan_hits"] = now.plan_hits;
  dict["plan_misses"] = now.plan_misses;
  dict["bytes_copied"] = now.bytes_copied;
  dict["bytes_moved"] = now.bytes_moved;
  dict["nodes"] = now.nodes;
  return dict;
}

int64_t limit_of(uint64_t bytes) {
  return static_cast<int64_t>(std::min<uint64_t>(bytes, std::numeric_limits<int64_t>::max()));
}

void bind_memory(nb::module_& m) {
  m.def(
      "get_active_memory", [] { return sum_of_kinds(&MemoryUse::active); },
      "Bytes that arrays hold, on all devices; mapped files are not counted.");
  m.def(
      "get_peak_memory", [] { return sum_of_kinds(&MemoryUse::peak); },
      "The most bytes that arrays held since the start or mx.reset_peak_memory.");
  m.def(
      "get_cache_memory", [] { return sum_of_kinds(&MemoryUse::cached); }, "Bytes kept for reuse.");
  m.def("reset_peak_memory", &reset_peak_memory, "Sets the peak to what is active now.");
  m.def("clear_cache", &clear_cache, "Gives the memory that is kept for reuse back to the system.");
  m.def("get_memory_limit", &memory_limit, "The memory limit in bytes.");
  // Unsigned: a negative limit is a TypeError, as in MLX.
  m.def(
      "set_memory_limit", [](uint64_t limit) { return set_memory_limit(limit_of(limit)); },
      nb::arg("limit"),
      "Sets the bytes beyond which evaluation is a MemoryError; gives the previous limit.");
  m.def(
      "set_cache_limit", [](uint64_t limit) { return set_cache_limit(limit_of(limit)); },
      nb::arg("limit"), "Sets the bytes that may be kept for reuse; gives the previous limit.");
  m.def("counters", &counters_dict, nb::sig("def counters() -> dict[str, int]"),
        "What evaluation did since mx.reset_counters: kernels, lowered operations, plan hits and\n"
        "misses, bytes copied and moved between devices, nodes built.");
  m.def("reset_counters", &reset_counters, "Sets all counters to 0.");
}

Dtype type_of(nb::handle object) {
  if (const Array* array = array_of(object)) return array->dtype();
  if (const Dtype* dtype = dtype_of(object)) return *dtype;
  throw_value("[result_type] Inputs must be arrays or dtypes.");
}

nb::object result_type(nb::args arguments) {
  if (arguments.size() == 0) throw_value("[result_type] at least one array or dtype is needed");
  Dtype result = type_of(arguments[0]);
  for (nb::handle item : arguments) result = promote(result, type_of(item));
  return wrap(result);
}

bool can_cast(nb::handle from, nb::handle to) {
  if (!array_of(from) && !dtype_of(from))
    throw_value("[can_cast] `from_` must be an array or a dtype.");
  const Dtype* target = dtype_of(to);
  if (!target)
    throw_type("can_cast() argument 'to' must be Dtype, got {}", Py_TYPE(to.ptr())->tp_name);
  return promote(type_of(from), *target) == *target;
}

nb::object shape_of_broadcast(nb::args shapes) {
  Shape result;
  for (nb::handle item : shapes) {
    Value value = to_value(item);
    const auto* extents = std::get_if<std::vector<int64_t>>(&value);
    if (!extents) throw_type("broadcast_shapes() takes shapes");
    result = mica::broadcast_shapes(result, Shape(*extents), "broadcast_shapes");
  }
  return from_value(std::vector<int64_t>(result.begin(), result.end()), true);
}

void bind_memory_sharing(nb::module_& m) {
  m.def(
      "asarray",
      [](nb::handle a, nb::handle dtype, nb::handle copy) {
        std::optional<Dtype> type = optional_dtype(dtype, "asarray() argument 'dtype'");
        bool never = !copy.is_none() && !nb::cast<bool>(copy);
        if (!never) return wrap(make_array(a, type));
        const Array* array = array_of(a);
        if (array && (!type || *type == array->dtype())) return wrap(*array);
        if (array || PyList_Check(a.ptr()) || PyTuple_Check(a.ptr()) || !has_memory(a))
          throw_value("Unable to avoid copy while creating an array as requested.");
        return wrap(from_memory(a, type, false));
      },
      nb::arg("a"), nb::arg("dtype") = nb::none(), nb::kw_only(), nb::arg("copy") = nb::none(),
      nb::sig("def asarray(a: Any, dtype: Dtype | None = None, *, copy: bool | None = None) -> "
              "array"),
      "An array of `a`, as mx.array makes it. With copy=False it shares the memory of `a`;\n"
      "ValueError if that cannot be.");
  m.def(
      "from_dlpack",
      [](nb::handle x, nb::handle copy) {
        std::optional<bool> wanted;
        if (!copy.is_none()) wanted = nb::cast<bool>(copy);
        if (const Array* array = array_of(x)) return wrap(*array);
        if (!has_memory(x))
          throw_type("from_dlpack() argument 'x' must have __dlpack__, got {}",
                     Py_TYPE(x.ptr())->tp_name);
        return wrap(from_memory(x, {}, wanted));
      },
      nb::arg("x"), nb::kw_only(), nb::arg("copy") = nb::none(),
      nb::sig("def from_dlpack(x: Any, /, *, copy: bool | None = None) -> array"),
      "An array over the memory that `x` shows through DLPack or the buffer protocol. float64\n"
      "becomes float32, by a copy, unless copy=False.");
}

// A plain C function: what is called most pays for no matching of arguments.
PyObject* eval_trees(PyObject*, PyObject* const* trees, Py_ssize_t count) {
  return guarded([&]() -> PyObject* {
    const Array* alone = count == 1 ? array_of(trees[0]) : nullptr;
    if (alone) {
      evaluate(*alone);
    } else {
      Arrays arrays;
      for (Py_ssize_t i = 0; i < count; ++i) flatten(trees[i], arrays);
      evaluate(arrays);
    }
    Py_RETURN_NONE;
  });
}

void bind_eval(nb::module_& m) {
  static PyMethodDef method = {
      "eval", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(&eval_trees)),
      METH_FASTCALL,
      "eval(*args)\n--\n\n"
      "Computes arrays, or trees of arrays, in one plan. Raises what the operations raise."};
  nb::object module_name = m.attr("__name__");
  nb::object function = nb::steal(PyCFunction_NewEx(&method, nullptr, module_name.ptr()));
  if (!function.is_valid()) throw nb::python_error();
  m.attr("eval") = function;
}

}  // namespace

void bind_evaluation(nb::module_& m) {
  bind_eval(m);
  m.def(
      "async_eval",
      [](nb::args trees) {
        Arrays arrays;
        flatten(trees, arrays);
        ReleasedGil release;
        async_eval(arrays);
      },
      nb::sig("def async_eval(*args: Any) -> None"),
      "Starts to compute arrays, or trees of arrays, and returns at once. Errors are raised by\n"
      "what reads the arrays.");
  m.def(
      "synchronize",
      [](nb::handle stream) {
        stream_of(stream);
        ReleasedGil release;
        synchronize();
      },
      nb::arg("stream") = nb::none(),
      nb::sig("def synchronize(stream: StreamOrDevice = None) -> None"),
      "Waits for everything that mx.async_eval started.");
  m.def("result_type", &result_type, nb::sig("def result_type(*args: array | Dtype) -> Dtype"),
        "The type that arrays or types are promoted to together.");
  m.def("can_cast", &can_cast, nb::arg("from_"), nb::arg("to"),
        nb::sig("def can_cast(from_: array | Dtype, to: Dtype) -> bool"),
        "Does promoting the type together with `to` give `to`?");
  m.def("broadcast_shapes", &shape_of_broadcast,
        nb::sig("def broadcast_shapes(*shapes: Sequence[int]) -> tuple[int, ...]"),
        "The shape that shapes broadcast to together.");
  bind_memory(m);
  bind_memory_sharing(m);
}

}  // namespace mica::python
