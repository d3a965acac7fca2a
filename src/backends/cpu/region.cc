#include "backends/cpu/region.h"

#include <algorithm>

#include "backends/cpu/reduce.h"
#include "backends/cpu/region_program.h"
#include "backends/cpu/tile_io.h"
#include "backends/cpu/tile_runner.h"
#include "base/error.h"
#include "base/thread_pool.h"
#include "ops/elementwise.h"

namespace mica::cpu {

namespace {

// Operations whose results on values of a half type are values of that type: nothing to round.
bool keeps_precision(const Op& op) {
  static const Op* const kept[] = {&ops::abs_op,     &ops::negative_op, &ops::sign_op,
                                   &ops::maximum_op, &ops::minimum_op,  &ops::floor_op,
                                   &ops::ceil_op,    &ops::rint_op,     &ops::select_op};
  return std::find(std::begin(kept), std::end(kept), &op) != std::end(kept);
}

class Preparer {
 public:
  explicit Preparer(const Region& region)
      : region_(region), program_(std::make_unique<TileProgram>()) {}

  std::unique_ptr<RegionProgram> prepare() {
    size_t values = region_.inputs.size() + region_.instructions.size();
    program_->inputs = region_.inputs;
    alias_.resize(values);
    for (size_t v = 0; v < values; ++v) alias_[v] = static_cast<int16_t>(v);
    dtype_ = region_.inputs;
    defined_at_.assign(values, -1);
    count_uses();
    for (size_t i = 0; i < region_.instructions.size(); ++i)
      add(region_.instructions[i], region_.inputs.size() + i);
    for (size_t o = 0; o < region_.outputs.size(); ++o) {
      int16_t value = load(alias_[static_cast<size_t>(region_.outputs[o].value)]);
      int32_t defined_at = defined_at_[static_cast<size_t>(value)];
      program_->stores.push_back(
          {value, region_.outputs[o].dtype, defined_at, static_cast<int16_t>(o)});
    }
    std::stable_partition(
        program_->stores.begin(), program_->stores.end(),
        [&](const RegionStore& s) { return static_cast<size_t>(s.value) < region_.inputs.size(); });
    if (region_.reduction) {
      program_->reduced = load(alias_[static_cast<size_t>(region_.reduced_value)]);
      program_->reduced_dtype = computed_as(dtype_[static_cast<size_t>(region_.reduced_value)]);
    }
    assign_registers();
    return std::move(program_);
  }

 private:
  // How often values are used by instructions and the reduction, apart from being outputs.
  void count_uses() {
    uses_.assign(alias_.size(), 0);
    for (const RegionInstruction& in : region_.instructions) {
      for (int i = 0; i < in.arity; ++i) ++uses_[static_cast<size_t>(in.arguments[i])];
    }
    if (region_.reduction) ++uses_[static_cast<size_t>(region_.reduced_value)];
  }

  void add(const RegionInstruction& in, size_t value) {
    dtype_.push_back(in.dtype);
    auto out = static_cast<int16_t>(value);
    if (in.op == &ops::fill_op) {
      program_->fills.push_back({out, in.dtype, in.node});
      return;
    }
    // A half value that is only stored is rounded as it is stored.
    bool rounds = is_half(in.dtype) && uses_[value] > 0;
    int16_t arguments[3];
    for (int i = 0; i < in.arity; ++i)
      arguments[i] = load(alias_[static_cast<size_t>(in.arguments[i])]);
    std::fill(arguments + in.arity, arguments + 3, arguments[0]);
    TileFunction function;
    if (in.op == &ops::cast_op) {
      bool free = is_half(in.dtype) && computed_as(in.argument_dtype) == Dtype::F32 && !rounds;
      function = free ? nullptr : cast_function(in.argument_dtype, in.dtype);
      rounds = false;
      if (!function) {
        alias_[value] = arguments[0];
        return;
      }
    } else if (in.op == &ops::select_op) {
      function = select_function(in.argument_dtype);
    } else {
      function = table_function(*in.op, computed_as(in.argument_dtype));
    }
    if (!function) throw_type("[{}] is not defined for {}", in.op->name, in.argument_dtype);
    step({function, out, arguments[0], arguments[1], arguments[2]});
    if (rounds && !keeps_precision(*in.op)) step({round_function(in.dtype), out, out, out, out});
  }

  void step(const RegionStep& step) {
    program_->computes = true;
    defined_at_[static_cast<size_t>(step.out)] = static_cast<int32_t>(program_->steps.size());
    program_->steps.push_back(step);
  }

  // The value, loaded just before its first use if it is an input.
  int16_t load(int16_t value) {
    auto v = static_cast<size_t>(value);
    if (v < region_.inputs.size() && defined_at_[v] < 0) {
      defined_at_[v] = static_cast<int32_t>(program_->steps.size());
      program_->steps.push_back({nullptr, value, value, value, value});
    }
    return value;
  }

  size_t element_bytes(int16_t value) const {
    return static_cast<size_t>(size_of(computed_as(dtype_[static_cast<size_t>(value)])));
  }

  // Registers by the intervals in which values live. A result may take the register of an argument
  // that ends here only if their elements have one size: it is written while the argument is read.
  void assign_registers() {
    size_t values = alias_.size();
    auto& steps = program_->steps;
    std::vector<int32_t> last(values, -1);
    size_t widest = 1;
    for (size_t s = 0; s < steps.size(); ++s) {
      for (int16_t v : {steps[s].a, steps[s].b, steps[s].c, steps[s].out}) {
        last[static_cast<size_t>(v)] = static_cast<int32_t>(s);
        widest = std::max(widest, element_bytes(v));
      }
    }
    for (const RegionFill& fill : program_->fills)
      widest = std::max(widest, element_bytes(fill.value));
    program_->last_use.assign(last.begin(),
                              last.begin() + static_cast<std::ptrdiff_t>(region_.inputs.size()));
    for (const RegionStore& store : program_->stores)
      last[static_cast<size_t>(store.value)] = INT32_MAX;
    if (program_->reduced >= 0) last[static_cast<size_t>(program_->reduced)] = INT32_MAX;
    program_->tile_bytes = widest * static_cast<size_t>(kTile);

    auto& register_of = program_->register_of;
    register_of.assign(values, -1);
    std::vector<int16_t> free;
    auto release = [&](size_t s, bool same_size) {
      for (int16_t v : {steps[s].a, steps[s].b, steps[s].c}) {
        auto i = static_cast<size_t>(v);
        bool ends = last[i] == static_cast<int32_t>(s) && register_of[i] >= 0;
        if (!ends || v == steps[s].out ||
            (element_bytes(v) == element_bytes(steps[s].out)) != same_size)
          continue;
        free.push_back(register_of[i]);
        last[i] = -2;  // released
      }
    };
    for (size_t s = 0; s < steps.size(); ++s) {
      release(s, true);
      int16_t& out = register_of[static_cast<size_t>(steps[s].out)];
      if (out < 0) {
        if (free.empty()) free.push_back(static_cast<int16_t>(program_->registers++));
        out = free.back();
        free.pop_back();
      }
      release(s, false);
    }
  }

  const Region& region_;
  std::unique_ptr<TileProgram> program_;
  std::vector<int16_t> alias_;  // the value that holds the bits of this one
  std::vector<Dtype> dtype_;    // by value
  std::vector<int32_t> defined_at_;
  std::vector<int> uses_;
};

}  // namespace

bool has_elementwise(const Op& op) {
  static const std::vector<bool> known = [] {
    std::vector<bool> by_index;
    for (const Op* op : OpRegistry::shared().ops()) {
      bool special = op == &ops::fill_op || op == &ops::cast_op || op == &ops::select_op;
      by_index.push_back(special || is_table_op(*op));
    }
    return by_index;
  }();
  auto i = static_cast<size_t>(op.index);
  return i < known.size() && known[i];
}

std::unique_ptr<RegionProgram> prepare_region(const Region& region) {
  return Preparer(region).prepare();
}

size_t region_workspace(const RegionCall& call) {
  return call.region->reduction ? reduction_workspace(call) : 0;
}

void run_region(const RegionCall& call) {
  if (call.region->reduction) return run_reduction(call);
  int64_t total = elements(call.space);
  if (total == 0) return;
  RegionBinding& binding = RegionBinding::own();
  binding.bind(call);
  int64_t tiles = (total + kTile - 1) / kTile;
  ThreadPool::shared().parallel_for(tiles, binding.grain(), [&](int64_t begin, int64_t end) {
    TileRunner runner(binding);
    for (int64_t t = begin; t < end; ++t) runner.run(t * kTile, std::min(kTile, total - t * kTile));
    runner.finish();
  });
}

}  // namespace mica::cpu
