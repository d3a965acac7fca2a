#include "backends/cpu/reduce.h"

#include <algorithm>
#include <vector>

#include "backends/cpu/reduce_functions.h"
#include "backends/cpu/region_program.h"
#include "backends/cpu/tile_runner.h"
#include "base/thread_pool.h"

namespace mica::cpu {

namespace {

constexpr int64_t kTaskElements = 32768;
constexpr int64_t kStretchElements = 2048;
constexpr int64_t kMaxTaskOutputs = 2048;  // their accumulators stay in the cache
constexpr int64_t kEnoughTasks = 16;       // for the threads to share
// Rows are read as whole as possible, at the price of accumulators in the second-level cache.
constexpr int64_t kMaxTaskColumns = 8192;
// So many are read side by side, so that an accumulator is used so often at a time.
constexpr int64_t kRowsAbreast = 8;
// Spaces up to this size are not worth waking a thread for.
constexpr int64_t kInlineElements = 32768;

constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// A run of axes that are all kept or all reduced.
struct AxisRun {
  int64_t extent;
  int64_t stride;  // in the row-major space
  bool reduced;
};

// The space as (outer runs) x mid x inner, of which mid and inner differ in kind.
//
// Inner reduced: "rows", each output is a sum along rows of `inner` elements. Inner kept:
// "columns", rows of `inner` elements are added up. Either way `count` outputs (or the elements of
// a row) form a task together, over a share of what is reduced, which is counted in pieces of a row
// (rows) or groups of rows (columns).
struct ReductionPlan {
  std::vector<AxisRun> outer;
  int64_t mid = 1, inner = 1;
  bool rows = true;
  int64_t outer_kept = 1, outer_reduced = 1;
  int64_t count = 1;   // outputs of a task: mid rows or inner columns
  int64_t blocks = 1;  // of them per outer kept index
  int64_t piece = 1;   // elements of a row, or rows
  int64_t pieces = 1;  // per outer reduced index
  int64_t parts = 1;   // tasks that share an output
  int64_t packed = 1;  // short rows to a tile
  int64_t outputs() const { return outer_kept * (rows ? mid : inner); }
  int64_t tasks() const { return outer_kept * blocks * parts; }
};

std::vector<AxisRun> axis_runs(const Shape& space, const std::vector<int>& axes) {
  std::vector<AxisRun> runs;
  runs.reserve(space.size());
  Strides strides = row_major(space);
  for (size_t i = 0; i < space.size(); ++i) {
    bool reduced = std::binary_search(axes.begin(), axes.end(), static_cast<int>(i));
    if (space[i] == 1) continue;
    if (!runs.empty() && runs.back().reduced == reduced) {
      runs.back().extent *= space[i];
      runs.back().stride = strides[i];
    } else {
      runs.push_back({space[i], strides[i], reduced});
    }
  }
  return runs;
}

ReductionPlan plan_reduction(const Shape& space, const std::vector<int>& axes) {
  ReductionPlan plan;
  plan.outer = axis_runs(space, axes);
  auto& runs = plan.outer;
  if (!runs.empty()) {
    plan.rows = runs.back().reduced;
    plan.inner = runs.back().extent;
    runs.pop_back();
  }
  if (!runs.empty()) {
    plan.mid = runs.back().extent;
    runs.pop_back();
  }
  for (const AxisRun& run : runs)
    (run.reduced ? plan.outer_reduced : plan.outer_kept) *= run.extent;

  plan.packed = std::max<int64_t>(1, kTile / plan.inner);
  if (plan.rows) {
    // Enough rows for a task, and enough in a stretch to read whole pages.
    int64_t fit = std::max(ceil_div(kTaskElements, plan.inner * plan.outer_reduced),
                           ceil_div(kStretchElements, plan.inner));
    plan.count =
        std::min({plan.mid, ceil_div(std::min(fit, kMaxTaskOutputs), plan.packed) * plan.packed});
    plan.piece = std::min(plan.inner, kTaskElements / 2);
    plan.pieces = ceil_div(plan.inner, plan.piece);
  } else {
    plan.count = std::min(plan.inner, kMaxTaskColumns);
    int64_t rows = std::max(kRowsAbreast, ceil_div(kTaskElements / 2, plan.count));
    plan.piece = std::min(plan.mid, ceil_div(rows, plan.packed) * plan.packed);
    plan.pieces = ceil_div(plan.mid, plan.piece);
  }
  plan.blocks = ceil_div(plan.rows ? plan.mid : plan.inner, plan.count);
  int64_t owners = plan.outer_kept * plan.blocks;
  if (owners < kEnoughTasks)
    plan.parts = std::min(plan.outer_reduced * plan.pieces, ceil_div(kEnoughTasks, owners));
  return plan;
}

// Offset of an outer index, given as the row-major number among kept (or reduced) outer runs.
int64_t outer_offset(const ReductionPlan& plan, int64_t number, bool reduced) {
  int64_t offset = 0;
  for (size_t i = plan.outer.size(); i-- > 0;) {
    const AxisRun& run = plan.outer[i];
    if (run.reduced != reduced) continue;
    offset += number % run.extent * run.stride;
    number /= run.extent;
  }
  return offset;
}

// Per thread: the accumulators of a task and the chains of a row.
struct ReduceScratch {
  std::vector<std::byte> accumulators;
  alignas(64) std::byte chains[kChains * sizeof(double)];
};
thread_local ReduceScratch scratch;

// The values to be reduced, where they lie in memory as they are and in order: an input's. Null
// where they have to be computed, or other outputs written. They are read without tiles.
const std::byte* values_in_memory(const RegionCall& call, const TileProgram& program) {
  auto value = static_cast<size_t>(program.reduced);
  bool as_they_are = !program.computes && program.stores.empty() && value < call.inputs.size();
  return as_they_are && call.inputs[value].contiguous() ? call.inputs[value].data : nullptr;
}
Dtype reduced_from(const RegionCall& call, const TileProgram& program) {
  if (!values_in_memory(call, program)) return program.reduced_dtype;
  Dtype stored = call.inputs[static_cast<size_t>(program.reduced)].dtype;
  return is_half(stored) ? stored : program.reduced_dtype;
}

class Reducer {
 public:
  Reducer(const RegionCall& call, const ReductionPlan& plan, const RegionBinding& binding)
      : call_(call),
        plan_(plan),
        binding_(binding),
        functions_(reduce_functions(call.region->reduction->reduce,
                                    reduced_from(call, binding.program()),
                                    binding.program().reduces_half)),
        values_(values_in_memory(call, binding.program())) {
    if (values_)
      element_bytes_ = size_of(call.inputs[static_cast<size_t>(binding.program().reduced)].dtype);
  }

  void run() {
    int64_t tasks = plan_.tasks();
    auto some = [&](int64_t begin, int64_t end) {
      TileRunner runner(binding_);
      for (int64_t t = begin; t < end; ++t) run_task(runner, t);
      runner.finish();
    };
    if (elements(call_.space) <= kInlineElements)
      some(0, tasks);
    else
      ThreadPool::shared().parallel_for(tasks, 1, some);
    if (plan_.parts > 1) merge();
  }

 private:
  std::byte* output_at(int64_t output) const {
    const View& out = call_.outputs.back();
    return out.data + output * size_of(out.dtype);
  }
  std::byte* partial_at(int64_t part, int64_t output) const {
    return call_.workspace.data() +
           static_cast<size_t>(part * plan_.outputs() + output) * functions_.accumulator_bytes;
  }

  // Neighbouring tasks share outputs rather than inputs, so that threads write apart.
  void run_task(TileRunner& runner, int64_t task) {
    int64_t part = task % plan_.parts, block = task / plan_.parts % plan_.blocks;
    int64_t kept = task / plan_.parts / plan_.blocks;
    int64_t extent = plan_.rows ? plan_.mid : plan_.inner;
    int64_t first = block * plan_.count, count = std::min(plan_.count, extent - first);
    int64_t output = kept * extent + first;
    std::byte* accumulators;
    if (plan_.parts > 1) {
      accumulators = partial_at(part, output);
    } else {
      scratch.accumulators.resize(
          std::max(scratch.accumulators.size(),
                   static_cast<size_t>(std::max(count, kTile)) * kMaxAccumulatorBytes));
      accumulators = scratch.accumulators.data();
    }
    functions_.clear(accumulators, count);
    int64_t all = plan_.outer_reduced * plan_.pieces;
    int64_t base = outer_offset(plan_, kept, false);
    for (int64_t p = all * part / plan_.parts, end = all * (part + 1) / plan_.parts; p < end; ++p) {
      int64_t start = base + outer_offset(plan_, p / plan_.pieces, true);
      int64_t begin = p % plan_.pieces * plan_.piece;
      if (plan_.rows) {
        int64_t stop = std::min(plan_.inner, begin + plan_.piece);
        if (plan_.inner <= kTile)
          short_rows(runner, start + first * plan_.inner, count, accumulators);
        else
          for (int64_t r = 0; r < count; ++r)
            long_row(runner, start + (first + r) * plan_.inner + begin, stop - begin,
                     accumulators + static_cast<size_t>(r) * functions_.accumulator_bytes);
      } else {
        int64_t stop = std::min(plan_.mid, begin + plan_.piece);
        add_columns(runner, start + begin * plan_.inner + first, stop - begin, count, accumulators);
      }
    }
    if (plan_.parts == 1)
      functions_.write(accumulators, count, call_.outputs.back().dtype, output_at(output));
  }

  const void* evaluate(TileRunner& runner, int64_t start, int64_t count) {
    runner.run(start, count);
    return runner.value(binding_.program().reduced);
  }

  const std::byte* value_at(int64_t element) const { return values_ + element * element_bytes_; }

  void long_row(TileRunner& runner, int64_t start, int64_t length, void* accumulator) {
    functions_.begin(scratch.chains);
    if (values_) {
      functions_.fold(scratch.chains, value_at(start), length);
      return functions_.end(scratch.chains, accumulator);
    }
    for (int64_t i = 0; i < length; i += kTile) {
      int64_t count = std::min(kTile, length - i);
      functions_.fold(scratch.chains, evaluate(runner, start + i, count), count);
    }
    functions_.end(scratch.chains, accumulator);
  }

  void short_rows(TileRunner& runner, int64_t start, int64_t rows, std::byte* accumulators) {
    if (values_) return functions_.rows(value_at(start), rows, plan_.inner, accumulators);
    for (int64_t r = 0; r < rows; r += plan_.packed) {
      int64_t count = std::min(plan_.packed, rows - r);
      const void* values = evaluate(runner, start + r * plan_.inner, count * plan_.inner);
      functions_.rows(values, count, plan_.inner,
                      accumulators + static_cast<size_t>(r) * functions_.accumulator_bytes);
    }
  }

  // Rows of `count` columns; short ones, several to a tile, go to accumulators of their own first.
  void add_columns(TileRunner& runner, int64_t start, int64_t rows, int64_t count,
                   std::byte* accumulators) {
    if (plan_.packed == 1) {
      if (values_)
        return functions_.columns(value_at(start), rows, plan_.inner, count, accumulators);
      // Row by row: inputs are read in order, sums stay in the second-level cache.
      for (int64_t r = 0; r < rows; ++r) {
        for (int64_t c = 0, n; c < count; c += n) {
          n = std::min(kTile, count - c);
          functions_.columns(evaluate(runner, start + r * plan_.inner + c, n), 1, 0, n,
                             accumulators + static_cast<size_t>(c) * functions_.accumulator_bytes);
        }
      }
      return;
    }
    alignas(64) std::byte many[kTile * kMaxAccumulatorBytes];
    int64_t used = std::min(plan_.packed, rows), r = 0;
    functions_.clear(many, used * count);
    if (values_) {
      functions_.columns(value_at(start), rows / used, used * count, used * count, many);
      r = rows / used * used;
    }
    for (; r < rows; r += used) {
      int64_t n = std::min(used, rows - r) * count, at = start + r * count;
      functions_.columns(values_ ? value_at(at) : evaluate(runner, at, n), 1, 0, n, many);
    }
    for (r = 0; r < used; ++r)
      functions_.merge(accumulators,
                       many + static_cast<size_t>(r * count) * functions_.accumulator_bytes, count);
  }

  void merge() {
    int64_t outputs = plan_.outputs();
    ThreadPool::shared().parallel_for(
        outputs, kTaskElements / plan_.parts, [&](int64_t begin, int64_t end) {
          for (int64_t part = 1; part < plan_.parts; ++part)
            functions_.merge(partial_at(0, begin), partial_at(part, begin), end - begin);
          functions_.write(partial_at(0, begin), end - begin, call_.outputs.back().dtype,
                           output_at(begin));
        });
  }

  const RegionCall& call_;
  const ReductionPlan& plan_;
  const RegionBinding& binding_;
  const ReduceFunctions& functions_;
  const std::byte* values_;  // or null: tiles have them
  int64_t element_bytes_ = 0;
};

}  // namespace

size_t reduction_workspace(const RegionCall& call) {
  if (elements(call.space) == 0) return 0;
  ReductionPlan plan = plan_reduction(call.space, call.region->axes);
  return plan.parts > 1 ? static_cast<size_t>(plan.parts * plan.outputs()) * kMaxAccumulatorBytes
                        : 0;
}

void run_reduction(const RegionCall& call) {
  if (elements(call.space) == 0) {
    const View& out = call.outputs.back();
    const auto& program = static_cast<const TileProgram&>(*call.program);
    const ReduceFunctions& functions = reduce_functions(
        call.region->reduction->reduce, program.reduced_dtype, program.reduces_half);
    std::vector<std::byte> start(kMaxAccumulatorBytes);
    functions.clear(start.data(), 1);
    for (int64_t i = 0; i < out.size(); ++i)
      functions.write(start.data(), 1, out.dtype, out.data + i * size_of(out.dtype));
    return;
  }
  RegionBinding& binding = RegionBinding::own();
  binding.bind(call);
  ReductionPlan plan = plan_reduction(call.space, call.region->axes);
  Reducer(call, plan, binding).run();
}

}  // namespace mica::cpu
