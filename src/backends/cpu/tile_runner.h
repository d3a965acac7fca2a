// Runs the steps of a region on tiles of its iteration space.
//
//   binding.bind(call);             // layouts, once a call
//   TileRunner runner(binding);     // per thread: registers, constants
//   runner.run(start, count);       // elements start … start + count - 1, in row-major order
//   runner.finish();
//
// Contiguous inputs are read where they lie and the last step writes where the result belongs,
// wherever whole vectors fit; half types, broadcasts and other layouts go through a register.
#pragma once

#include <cstdint>
#include <vector>

#include "backends/cpu/region_program.h"
#include "backends/cpu/tile_io.h"
#include "core/backend.h"

namespace mica::cpu {

enum class InputKind : uint8_t {
  Dense,     // contiguous
  Uniform,   // one element
  Periodic,  // a contiguous block, repeated
  Strided,
};

struct BoundInput {
  InputKind kind = InputKind::Dense;
  const std::byte* data = nullptr;
  int64_t period = 1;  // of Periodic: elements
  Shape shape;         // of Periodic and Strided, with merged axes
  Strides strides;

  // From the first element to the start of row `index`, all axes but the last being numbered.
  int64_t row_offset(int64_t index) const {
    int64_t offset = 0;
    for (size_t axis = shape.size() - 1; axis-- > 0 && index > 0; index /= shape[axis])
      offset += index % shape[axis] * strides[axis];
    return offset;
  }
};

struct BoundOutput {
  std::byte* data;
  LinkFunction end;  // of a chain that writes there
  bool direct;       // the step that computes the value writes there
  bool stream;       // past the caches
};

// What a call means for its program: shared by the threads that run it.
class RegionBinding {
 public:
  // The calling thread's; one call at a time.
  static RegionBinding& own();

  void bind(const RegionCall& call);
  // Tiles worth handing to a thread.
  int64_t grain() const;
  const TileProgram& program() const { return *program_; }

 private:
  friend class TileRunner;
  void bind_input(const View& view, BoundInput& input) const;
  BoundOutput bind_output(const RegionStore& store, const View& view) const;

  const TileProgram* program_ = nullptr;
  const RegionCall* call_ = nullptr;
  int64_t total_ = 0;

  std::vector<BoundInput> inputs_;
  std::vector<BoundOutput> outputs_;
};

class TileRunner {
 public:
  explicit TileRunner(const RegionBinding& binding);
  void run(int64_t start, int64_t count);
  // Where the value lies after `run`; `count` elements are valid.
  const void* value(int16_t v) const { return values_[v]; }
  void finish();

 private:
  void set_constants();
  void place(int64_t start, bool whole);
  void place_period(size_t input, int64_t start);
  void place_strided(size_t input, int64_t start);
  void load(int16_t input, int64_t start, int64_t count);
  void load_block(size_t input, int64_t start, int64_t count, void* to);
  void store(size_t store, int64_t start, int64_t count);

  std::byte* register_at(int16_t value) const {
    return registers_ + static_cast<size_t>(program_.register_of[static_cast<size_t>(value)]) *
                            program_.tile_bytes;
  }
  // Two tiles of each input's own: its one element, or its period and a tile more.
  std::byte* own_block(size_t input) const { return blocks_ + 2 * input * program_.tile_bytes; }

  const RegionBinding& binding_;
  const TileProgram& program_;
  std::byte* registers_;
  std::byte* blocks_;
  std::byte* fills_;
  std::byte* staging_;     // one tile, of elements as they lie in memory
  void** values_;          // by value
  Link* links_;            // of the program, with pointers for values
  int64_t* splat_rows_;    // by input: the row whose one element fills its own block, or -1
  bool in_place_ = false;  // dense inputs of the tile are read where they lie

  bool streamed_ = false;
};

}  // namespace mica::cpu
