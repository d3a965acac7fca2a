#include "backends/cpu/region.h"

#include <algorithm>

#include "backends/cpu/reduce.h"
#include "backends/cpu/region_program.h"
#include "backends/cpu/tile_runner.h"
#include "base/thread_pool.h"
#include "ops/elementwise.h"

namespace mica::cpu {

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

std::unique_ptr<RegionProgram> prepare_region(const Region& region) { return make_program(region); }

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
