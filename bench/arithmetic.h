// Ways to do arithmetic at full speed: independent chains of one instruction on registers.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace mica::bench {

struct ArithmeticWay {
  std::string ceiling;  // "f32", "int8", "bf16", "f16"
  std::string name;     // the instruction and its width
  bool (*supported)();
  void (*run)(int64_t steps);
  double work_per_step;  // operations
  bool beyond_avx2;      // needs more than AVX2 and FMA, on x86
};

const std::vector<ArithmeticWay>& arithmetic_ways();

}  // namespace mica::bench
