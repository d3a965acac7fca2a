#include "devices.h"

#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>

#include "base/error.h"
#include "core/backend.h"

namespace mica::python {

namespace {

// MLX's types, so that programs may ask for a GPU and be told no; `ref` is Mica's.
enum class DeviceType { cpu, gpu, ref };

struct DeviceObject {
  DeviceType type;
  int index;
  bool operator==(const DeviceObject&) const = default;
};

const char* name_of(DeviceType type) {
  constexpr const char* names[] = {"cpu", "gpu", "ref"};
  return names[static_cast<int>(type)];
}

bool available(DeviceType type) {
  if (type == DeviceType::gpu) return false;
  return backend_of(type == DeviceType::ref ? DeviceKind::Ref : DeviceKind::Cpu) != nullptr;
}

Device native(DeviceObject device) {
  if (!available(device.type)) throw_value("this build has no device '{}'", name_of(device.type));
  return {device.type == DeviceType::ref ? DeviceKind::Ref : DeviceKind::Cpu,
          static_cast<uint8_t>(device.index)};
}

DeviceObject python_device(Device device) {
  return {device.kind == DeviceKind::Ref ? DeviceType::ref : DeviceType::cpu, device.index};
}

// Device or DeviceType.
std::optional<DeviceObject> device_of(nb::handle object) {
  DeviceObject device{};
  if (nb::try_cast(nb::borrow(object), device)) return device;
  if (nb::try_cast(nb::borrow(object), device.type)) return device;
  return {};
}

DeviceObject needed_device(nb::handle object, const char* function) {
  if (std::optional<DeviceObject> device = device_of(object)) return *device;
  throw_type("{}() argument 'device' must be Device or DeviceType, got {}", function,
             Py_TYPE(object.ptr())->tp_name);
}

// with mx.stream(mx.cpu): …
class StreamContext {
 public:
  explicit StreamContext(Stream stream) : stream_(stream) {}
  void enter() {
    device_ = default_device();
    outer_ = default_stream(stream_.device);
    set_default_stream(stream_);
  }
  void exit() {
    set_default_stream(outer_);
    set_default_device(device_);
  }

 private:
  Stream stream_, outer_;
  Device device_;
};

void bind_device_classes(nb::module_& m) {
  nb::enum_<DeviceType>(m, "DeviceType",
                        "Kinds of devices: cpu; gpu (not in this build); and ref, the plain "
                        "float64-minded\ndefinition of every operation, in an address space of "
                        "its own.")
      .value("cpu", DeviceType::cpu)
      .value("gpu", DeviceType::gpu)
      .value("ref", DeviceType::ref);
  nb::class_<DeviceObject>(m, "Device", "A device to run operations on.")
      .def(
          "__init__",
          [](DeviceObject* self, DeviceType type, int index) {
            new (self) DeviceObject{type, index};
          },
          nb::arg("type"), nb::arg("index") = 0)
      .def_prop_ro(
          "type", [](DeviceObject self) { return self.type; }, "The kind of the device.")
      .def(
          "__eq__",
          [](DeviceObject self, nb::handle other) {
            std::optional<DeviceObject> device = device_of(other);
            return device && *device == self;
          },
          nb::arg("other").none(), nb::sig("def __eq__(self, other: object) -> bool"))
      .def("__hash__",
           [](DeviceObject self) { return static_cast<int>(self.type) * 256 + self.index; })
      .def("__repr__", [](DeviceObject self) {
        return fmt::format("Device({}, {})", name_of(self.type), self.index);
      });
  for (DeviceType type : {DeviceType::cpu, DeviceType::gpu, DeviceType::ref})
    m.attr(name_of(type)) = nb::cast(type);
}

void bind_stream_classes(nb::module_& m) {
  nb::class_<Stream>(m, "Stream", "The order of the work of one device.")
      .def_prop_ro(
          "device", [](Stream self) { return python_device(self.device); }, "Where it runs.")
      .def_ro("index", &Stream::index, "Its number.")
      .def(
          "__eq__",
          [](Stream self, nb::handle other) {
            Stream stream;
            return nb::try_cast(nb::borrow(other), stream) && stream == self;
          },
          nb::arg("other").none(), nb::sig("def __eq__(self, other: object) -> bool"))
      .def("__hash__", [](Stream self) { return static_cast<int>(self.index); })
      .def("__repr__", [](Stream self) {
        DeviceObject device = python_device(self.device);
        return fmt::format("Stream(Device({}, {}), {})", name_of(device.type), device.index,
                           self.index);
      });
  nb::class_<StreamContext>(m, "StreamContext", "What mx.stream gives: a context manager.")
      .def(
          "__init__",
          [](StreamContext* self, nb::handle stream) {
            new (self) StreamContext(stream_of(stream));
          },
          nb::arg("s"), nb::sig("def __init__(self, s: Stream | Device | DeviceType) -> None"))
      .def("__enter__", &StreamContext::enter)
      .def(
          "__exit__", [](StreamContext& self, nb::args) { self.exit(); },
          nb::sig("def __exit__(self, *args: object) -> None"));
  m.def(
      "stream", [](nb::handle s) { return StreamContext(stream_of(s)); }, nb::arg("s"),
      nb::sig("def stream(s: Stream | Device | DeviceType) -> StreamContext"),
      "A context manager in which operations go to this stream, or device, by default.");
}

}  // namespace

Stream stream_of(nb::handle object) {
  if (object.is_none()) return {};
  Stream stream;
  if (nb::try_cast(nb::borrow(object), stream)) return stream;
  if (std::optional<DeviceObject> device = device_of(object))
    return default_stream(native(*device));
  throw_type("argument 'stream' must be Stream, Device, DeviceType or None, got {}",
             Py_TYPE(object.ptr())->tp_name);
}

void bind_devices(nb::module_& m) {
  bind_device_classes(m);
  bind_stream_classes(m);
  m.def(
      "default_device", [] { return python_device(default_device()); },
      "The device of operations that name none.");
  m.def(
      "set_default_device",
      [](nb::handle device) {
        set_default_device(native(needed_device(device, "set_default_device")));
      },
      nb::arg("device"), nb::sig("def set_default_device(device: Device | DeviceType) -> None"),
      "Sets the device of operations that name none. ValueError if this build lacks it.");
  m.def(
      "default_stream",
      [](nb::handle device) {
        return default_stream(native(needed_device(device, "default_stream")));
      },
      nb::arg("device"), nb::sig("def default_stream(device: Device | DeviceType) -> Stream"),
      "The calling thread's default stream on a device.");
  m.def("set_default_stream", &set_default_stream, nb::arg("stream"),
        "Sets the calling thread's default stream, and with it the default device.");
  m.def(
      "new_stream",
      [](nb::handle device) { return new_stream(native(needed_device(device, "new_stream"))); },
      nb::arg("device"), nb::sig("def new_stream(device: Device | DeviceType) -> Stream"),
      "A new stream on a device.");
  m.def(
      "is_available",
      [](nb::handle device) { return available(needed_device(device, "is_available").type); },
      nb::arg("device"), nb::sig("def is_available(device: Device | DeviceType) -> bool"),
      "Does this build have the device?");
  // Programs ask these before they use what only the one or the other has.
  for (const char* name : {"metal", "cuda"}) {
    nb::module_ other = m.def_submodule(name, "What programs ask about other devices.");
    other.def("is_available", [] { return false; }, "False: this build has no such device.");
  }
}

}  // namespace mica::python
