// Devices and streams as Python sees them.
#pragma once

#include "common.h"
#include "core/device.h"

namespace mica::python {

// What `stream=` and the like accept: a Stream, a Device, a DeviceType, or None for the default.
// TypeError naming the argument for anything else; ValueError for a device this build lacks.
Stream stream_of(nb::handle object);

}  // namespace mica::python
