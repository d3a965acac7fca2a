// What makes the command start sooner.
#include <hwy/nanobenchmark.h>

namespace hwy::platform {

// Highway's library measures its timer for 4 ms whenever a program loads it, for benchmarks that
// Mica does not have. The program's own definition comes before the library's.
uint64_t TimerResolution() { return 1; }

}  // namespace hwy::platform
