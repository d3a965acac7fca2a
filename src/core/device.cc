#include "core/device.h"

#include <atomic>

#include "base/error.h"
#include "core/backend.h"
#include "core/workshop.h"

namespace mica {

namespace {
constexpr const char* kDeviceNames[kDeviceKinds] = {"cpu", "ref"};

std::atomic<DeviceKind> process_default{DeviceKind::Cpu};
std::atomic<int16_t> next_stream{1};
}  // namespace

Device default_device() { return {process_default.load(std::memory_order_relaxed)}; }

void set_default_device(Device device) {
  backend_of(device);  // throws if this build has none
  process_default = device.kind;
}

Stream default_stream(Device device) {
  return workshop.default_streams[static_cast<int>(device.kind)];
}
void set_default_stream(Stream stream) {
  set_default_device(stream.device);
  workshop.default_streams[static_cast<int>(stream.device.kind)] = stream;
}
Stream new_stream(Device device) { return {device, next_stream++}; }
Stream resolve(Stream stream) { return workshop.resolve(stream); }

StreamScope::StreamScope(Stream stream) : outer_(workshop.scoped_stream) {
  workshop.scoped_stream = stream;
}
StreamScope::~StreamScope() { workshop.scoped_stream = outer_; }

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
