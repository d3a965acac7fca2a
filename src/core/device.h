// Devices and streams. An operation chooses its device through its stream; arrays belong to none.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace mica {

// Ref is the definition of every operation: a separate address space with naive float64-minded
// kernels.
enum class DeviceKind : uint8_t { Cpu, Ref };
inline constexpr int kDeviceKinds = 2;

struct Device {
  DeviceKind kind = DeviceKind::Cpu;
  uint8_t index = 0;
  friend bool operator==(Device, Device) = default;
};

// A stream orders the work of one device. Stream{} means: the calling thread's default stream.
struct Stream {
  Device device;
  int16_t index = -1;  // -1: not chosen
  bool chosen() const { return index >= 0; }
  friend bool operator==(Stream, Stream) = default;
};

// The calling thread's default; every thread starts on stream 0 of the process's default device.
Device default_device();
void set_default_device(Device device);
Stream default_stream(Device device);
void set_default_stream(Stream stream);
Stream new_stream(Device device);
// `stream` if it was chosen, else that of the innermost StreamScope, else the default stream of the
// default device.
Stream resolve(Stream stream);

// While it lives, operations of this thread that name no stream go to `stream`. For derivative and
// batching rules, which use operators: they belong on the stream of the operation itself.
class StreamScope {
 public:
  explicit StreamScope(Stream stream);
  ~StreamScope();
  StreamScope(const StreamScope&) = delete;
  StreamScope& operator=(const StreamScope&) = delete;

 private:
  Stream outer_;
};

// "cpu", "ref"; the inverse throws ValueError naming the known devices.
const char* device_name(Device device);
Device device_from_name(std::string_view name);

}  // namespace mica
