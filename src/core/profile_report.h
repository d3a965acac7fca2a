// What a recording says: a table for people, rows for programs, a trace for viewers.
//
//   std::puts(profile_summary(profile, measured_ceilings()).c_str());
//   save_profile(profile, "trace.json");    // open it at https://ui.perfetto.dev
//
// The share of the ceiling is the time that the machine needs at least, for the bytes at its read
// bandwidth or for the arithmetic at its peak, whichever is longer, over the time that was taken.
// It passes 1 where operands came from caches.
#pragma once

#include <string>
#include <vector>

#include "core/profiler.h"

namespace mica {

// Bytes and operations per second on the pool's threads; 0: not known.
struct Ceilings {
  double read = 0, float32 = 0, bfloat16 = 0, int8 = 0;

  double& of(Arithmetic kind) {
    return kind == Arithmetic::Float32 ? float32 : kind == Arithmetic::Int8 ? int8 : bfloat16;
  }
  double of(Arithmetic kind) const { return Ceilings(*this).of(kind); }
};
// Measured at the first call, for about half a second, and kept for the process.
const Ceilings& measured_ceilings();

// All calls of one name.
struct ProfileOperation {
  std::string name;
  ProfileKind kind = ProfileKind::Kernel;
  int64_t calls = 0, duration = 0;  // nanoseconds
  double bytes = 0, flops = 0;
  double share = 0;           // of the ceiling; 0: not known
  int64_t slowest = 0;        // nanoseconds of the slowest call
  int32_t slowest_call = -1;  // its place in Profile::calls
};
// By time, longest first.
std::vector<ProfileOperation> profile_operations(const Profile& profile, const Ceilings& ceilings);

// "float32 (2, 3), uint32 (4, 5) -> float32 (2, 4)", the first `most` operands of each side.
std::string call_text(const ProfileCall& call, size_t most = 4);

std::string profile_summary(const Profile& profile, const Ceilings& ceilings);

// Chrome's trace-event format (JSON object, complete events; "Trace Event Format", Google, 2016),
// which Perfetto and chrome://tracing open: phases and kernels per thread, with shapes, dtypes,
// bytes and arithmetic. Appears when it is complete; throws Io.
void save_profile(const Profile& profile, const std::string& path);

}  // namespace mica
