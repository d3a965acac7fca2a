// A region made ready to run: steps over numbered values, with a register (a tile of scratch
// memory) for each value that may need one. What depends on layouts is decided when it runs
// (tile_runner.h).
#pragma once

#include <vector>

#include "backends/cpu/tile.h"
#include "core/backend.h"

namespace mica::cpu {

struct RegionStep {
  TileFunction function;  // null: loads input `out`
  int16_t out, a, b, c;   // values
};

struct RegionFill {
  int16_t value;
  Dtype dtype;
  int32_t node;
};

struct RegionStore {
  int16_t value;
  Dtype dtype;         // in memory
  int32_t defined_at;  // step that computes or loads it; -1 for fills
  int16_t output;      // of the call
};

class TileProgram final : public RegionProgram {
 public:
  std::vector<RegionStep> steps;
  std::vector<RegionFill> fills;
  std::vector<RegionStore> stores;  // inputs first: an output may take an input's memory
  std::vector<Dtype> inputs;
  std::vector<int32_t> last_use;     // by input: the last step that reads it
  std::vector<int16_t> register_of;  // by value; fills have none
  int registers = 0;
  size_t tile_bytes = 0;             // of a register
  int16_t reduced = -1;              // value that the reduction takes
  Dtype reduced_dtype = Dtype::F32;  // as it is computed
  bool computes = false;             // has steps other than loads
};

}  // namespace mica::cpu
