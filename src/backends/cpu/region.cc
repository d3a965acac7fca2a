#include "backends/cpu/region.h"

#include <algorithm>
#include <cstdlib>
#include <vector>

#include "backends/cpu/copy.h"
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

namespace {

// Where rows of the space run across the rows of memory, a tile would touch a cache line for each
// of its elements. Such inputs, if they do not fit into the caches, are laid out as the space is
// first.
constexpr int64_t kLaidOutElements = 16384;

// The axes of an input along which it is not broadcast.
Shape own_shape(const View& view) {
  Shape shape = view.shape;
  for (size_t i = 0; i < shape.size(); ++i)
    if (view.strides[i] == 0) shape[i] = 1;
  return shape;
}

bool crosses_rows(const View& view) {
  if (elements(view.shape) < kLaidOutElements || view.contiguous()) return false;
  Shape shape = own_shape(view);
  if (elements(shape) < kLaidOutElements) return false;
  Strides strides = view.strides;
  merge_axes(shape, strides);
  bool dense_elsewhere = false;
  for (size_t i = 0; i + 1 < shape.size(); ++i) dense_elsewhere |= strides[i] == 1 && shape[i] >= 8;
  return dense_elsewhere && std::abs(strides.back()) > 1 && shape.back() >= 8;
}

size_t laid_out_bytes(const View& view) {
  auto bytes = static_cast<size_t>(elements(own_shape(view)) * size_of(view.dtype));
  return (bytes + 63) / 64 * 64;
}

View lay_out(const View& view, std::byte* memory) {
  Shape shape = own_shape(view);
  View dense{memory, view.dtype, shape, row_major(shape)};
  copy_strided({view.data, view.dtype, shape, view.strides}, dense);
  return {memory, view.dtype, view.shape, broadcast_strides(shape, dense.strides, view.shape)};
}

void run_laid_out(const RegionCall& call) {
  if (call.region->reduction) return run_reduction(call);
  int64_t total = elements(call.space);
  if (total == 0) return;
  RegionBinding& binding = RegionBinding::own();
  binding.bind(call);
  if (total <= kTile) {  // nothing to share, not even the pool's word for it
    TileRunner(binding).run(0, total);
    return;
  }
  int64_t tiles = (total + kTile - 1) / kTile;
  ThreadPool::shared().parallel_for(tiles, binding.grain(), [&](int64_t begin, int64_t end) {
    TileRunner runner(binding);
    for (int64_t t = begin; t < end; ++t) runner.run(t * kTile, std::min(kTile, total - t * kTile));
    runner.finish();
  });
}

}  // namespace

size_t region_workspace(const RegionCall& call) {
  size_t bytes = call.region->reduction ? reduction_workspace(call) : 0;
  for (const View& view : call.inputs)
    if (crosses_rows(view)) bytes = (bytes + 63) / 64 * 64 + laid_out_bytes(view);
  return bytes;
}

void run_region(const RegionCall& call) {
  if (std::none_of(call.inputs.begin(), call.inputs.end(), &crosses_rows))
    return run_laid_out(call);
  std::vector<View> inputs(call.inputs.begin(), call.inputs.end());
  size_t used = call.workspace.size();
  for (View& view : inputs) {
    if (!crosses_rows(view)) continue;
    used -= laid_out_bytes(view);
    view = lay_out(view, call.workspace.data() + used);
  }
  RegionCall laid_out = call;
  laid_out.inputs = inputs;
  run_laid_out(laid_out);
}

}  // namespace mica::cpu
