// What the process finds around it: processors, environment variables, the cache folder, terminals.
#pragma once

#include <optional>
#include <string>
#include <vector>

namespace mica {

// A bit per CPU, as sched_getaffinity(2) fills it.
using CpuMask = std::vector<unsigned long>;

// The CPUs that the process (its main thread) may run on; empty if the system does not say.
CpuMask process_affinity();

// How many threads can run at once: the affinity mask, or the cgroup's CPU quota (rounded down:
// going past it stops every thread until the next period) where that is less. At least 1.
int usable_cpus();

// The value of an environment variable; none if it is unset or empty.
std::optional<std::string> environment_variable(const char* name);

// The folder for files that can be made again: $XDG_CACHE_HOME/mica, else ~/.cache/mica. Made on
// first use, with mode 0700. Throws Io if it cannot be made or belongs to another user.
std::string cache_folder();

// Whether a file descriptor (1 output, 2 errors) is a terminal that understands escape sequences.
bool is_terminal(int descriptor);

}  // namespace mica
