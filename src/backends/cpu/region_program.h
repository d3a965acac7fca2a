// A region made ready to run: steps over numbered values, with a register (a tile of scratch
// memory) for each value that may need one. What depends on layouts is decided when it runs
// (tile_runner.h).
#pragma once

#include <vector>

#include "backends/cpu/tile.h"
#include "backends/cpu/tile_io.h"
#include "core/backend.h"

namespace mica::cpu {

struct ChainLink {
  LinkFunction run;
  int16_t p = -1, q = -1;  // values, if it has operands
  bool keeps = false;      // writes p: a value that others than the next link want
};

struct RegionStep {
  enum class Kind : uint8_t {
    Load,      // makes input `out` readable
    Function,  // a tile function of the values a, b, c
    Chain,     // `links` links from `first` on; the block ends in a tile of floats
    Test,      // the same, but the last link writes bytes itself
  };
  Kind kind;
  int16_t out;
  int16_t a = 0, b = 0, c = 0;
  TileFunction function = nullptr;
  int32_t first = 0, links = 0;  // the end of a Chain comes after them
};

// An operand of a link whose place in memory may change from tile to tile.
struct LinkPatch {
  int32_t link;
  bool second;  // q, else p
  int16_t value;
};

struct RegionFill {
  int16_t value;
  Dtype dtype;
  int32_t node;
  bool whole_tile;  // false: its first element is enough
};

struct RegionInput {
  Dtype dtype;
  bool raw;             // read as stored, by the start of a chain
  int32_t last_use;     // the last step that reads it
  int32_t last_link;    // the last link that does
  int64_t bytes;        // of an element in memory
  int64_t tile_bytes;   // of an element in a tile
  WidenFunction widen;  // for half types, unless raw
};

struct RegionStore {
  int16_t value;
  Dtype dtype;                      // in memory
  int16_t output;                   // of the call
  int32_t defined_at;               // step that computes or loads it; -1 for fills
  int32_t kept_by;                  // link of that step, unless it is the step's `out`; else -1
  int64_t bytes;                    // of an element in memory
  NarrowFunction narrow = nullptr;  // for half types
  // How the chain that computes the value writes it to memory, if nothing but that chain uses it;
  // null otherwise.
  LinkFunction end = nullptr, end_stream = nullptr;
  bool direct = false;  // a step may write it to memory: as it is, to be read again

  // Whether the input's memory is still read where the value is written.
  bool written_before(const RegionInput& input) const {
    return input.last_use > defined_at ||
           (kept_by >= 0 && input.last_use == defined_at && input.last_link > kept_by);
  }
};

// Takes the region apart; throws TypeError for an operation on types that it does not take.
class TileProgram;
std::unique_ptr<TileProgram> make_program(const Region& region);

class TileProgram final : public RegionProgram {
 public:
  std::vector<RegionStep> steps;
  std::vector<ChainLink> links;
  std::vector<LinkPatch> patches;
  std::vector<RegionFill> fills;

  std::vector<RegionStore> stores;  // inputs first: an output may take an input's memory
  std::vector<RegionInput> inputs;
  std::vector<int16_t> register_of;  // by value; fills have none
  int registers = 0;
  size_t tile_bytes = 0;  // of a register
  int64_t chain_block = 1;
  LinkFunction end_in_tile = nullptr, keep_in_tile = nullptr;

  int16_t reduced = -1;              // value that the reduction takes
  Dtype reduced_dtype = Dtype::F32;  // as it is computed
  bool reduces_half = false;         // its own type, before casts were left out, is a half type
  bool computes = false;             // has steps other than loads

  // The values that a chain writes apart from its result.
  template <class F>
  void each_kept(const RegionStep& step, F&& f) const {
    for (int32_t l = step.first; l < step.first + step.links; ++l)
      if (links[static_cast<size_t>(l)].keeps) f(links[static_cast<size_t>(l)].p);
  }
  template <class F>
  void each_argument(const RegionStep& step, F&& f) const {
    if (step.kind == RegionStep::Kind::Function) {
      f(step.a);
      f(step.b);
      f(step.c);
    }
    for (int32_t l = step.first; l < step.first + step.links; ++l) {
      const ChainLink& link = links[static_cast<size_t>(l)];
      if (link.p >= 0) f(link.p);
      if (link.q >= 0) f(link.q);
    }
  }
};

}  // namespace mica::cpu
