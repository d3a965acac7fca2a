#include "core/device.h"

#include <atomic>

#include "base/error.h"
#include "core/backend.h"

namespace mica {

namespace {
constexpr const char* kDeviceNames[kDeviceKinds] = {"cpu", "ref"};

std::atomic<DeviceKind> process_default{DeviceKind::Cpu};
std::atomic<int16_t> next_stream{1};

struct ThreadDefaults {
  Stream streams[kDeviceKinds] = {{{DeviceKind::Cpu}, 0}, {{DeviceKind::Ref}, 0}};
};
thread_local ThreadDefaults thread_defaults;
thread_local Stream scoped_stream;
}  // namespace

Device default_device() { return {process_default.load(std::memory_order_relaxed)}; }

void set_default_device(Device device) {
  backend_of(device);  // throws if this build has none
  process_default = device.kind;
}

Stream default_stream(Device device) {
  return thread_defaults.streams[static_cast<int>(device.kind)];
}
void set_default_stream(Stream stream) {
  set_default_device(stream.device);
  thread_defaults.streams[static_cast<int>(stream.device.kind)] = stream;
}
Stream new_stream(Device device) { return {device, next_stream++}; }
Stream resolve(Stream stream) {
  if (stream.chosen()) return stream;
  return scoped_stream.chosen() ? scoped_stream : default_stream(default_device());
}

StreamScope::StreamScope(Stream stream) : outer_(scoped_stream) { scoped_stream = stream; }
StreamScope::~StreamScope() { scoped_stream = outer_; }

const char* device_name(Device device) { return kDeviceNames[static_cast<int>(device.kind)]; }

Device device_from_name(std::string_view name) {
  for (int i = 0; i < kDeviceKinds; ++i) {
    if (name == kDeviceNames[i]) return {static_cast<DeviceKind>(i)};
  }
  throw_value("unknown device '{}'; known: cpu, ref", name);
}

Backend& backend_of(Device device) {
  Backend* backend = backend_of(device.kind);
  if (!backend) throw_value("this build has no device '{}'", device_name(device));
  return *backend;
}

}  // namespace mica
