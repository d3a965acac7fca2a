#include "backends/cpu/quantized_int8.h"

#include <algorithm>
#include <cstring>
#include <mutex>

#include "backends/cpu/dots.h"
#include "backends/cpu/scratch.h"
#include "backends/cpu/tile_stream.h"
#include "base/thread_pool.h"

namespace mica::cpu {

namespace {

// Elements along k of a panel, and rows of x that are multiplied with it while sums are kept.
constexpr int64_t kPanelDepth = 8192, kMaxRows = 512;

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

class Int8Run {
 public:
  Int8Run(const QuantizedGemm<float>& product, std::byte* prepared)
      : p_(product), format_(product.matrix, product.k), prepared_(prepared) {}

  // The rows that cannot be rounded.
  std::vector<int64_t> prepare() {
    std::vector<int64_t> odd;
    std::mutex mutex;
    int64_t grain = std::max<int64_t>(1, 8192 / p_.k);
    ThreadPool::shared().parallel_for(p_.m, grain, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        if (prepare_row(i)) continue;
        std::memset(prepared_ + i * format_.row_bytes, 0, static_cast<size_t>(format_.row_bytes));
        std::lock_guard lock(mutex);
        odd.push_back(i);
      }
    });
    return odd;
  }

  // Few rows of x: packed rows as they lie.
  void run_dots() {
    stream(kInt8Rows, [&](const StreamTile& tile) {
      float values[kInt8FewRows * kInt8Rows];
      int64_t row = tile.index * kInt8Rows;
      int rows = static_cast<int>(std::min<int64_t>(kInt8Rows, p_.n - row));
      kernels_.dots(format_, p_.matrix, row, rows, prepared_, static_cast<int>(p_.m), values,
                    next_row(tile, kInt8Rows));
      for (int64_t i = 0; i < p_.m; ++i) store_rounded(values + i * kInt8Rows, rows, i, row);
    });
  }

  void run_panels() {
    stream(panels_.rows,
           [&](const StreamTile& tile) { run_panel(tile.index, next_row(tile, panels_.rows)); });
  }

  // What the calling thread will read first is on its way while x is made ready.
  void fetch_first() const { fetch(0, p_.m <= kInt8FewRows ? kInt8Rows : panels_.rows); }

 private:
  // Bytes of a matrix that are worth another thread.
  static constexpr int64_t kShare = 48 << 10;

  int64_t tile_bytes(int64_t rows) const { return rows * format_.groups * format_.group_bytes(); }

  template <class F>
  void stream(int64_t rows, F&& f) {
    int64_t tiles = ceil_div(p_.n, rows);
    int64_t threads = tiles * tile_bytes(rows) * std::max<int64_t>(1, p_.m / 4) / kShare;
    for_each_tile(tiles, threads, [&](const StreamTile& tile) {
      if (tile.first) fetch(tile.index, rows);
      f(tile);
    });
  }
  // Rows that lie one after the other; the last tile fetches itself again, which costs nothing.
  int64_t next_row(const StreamTile& tile, int64_t rows) const {
    return (tile.next < 0 ? tile.index : tile.next) * rows;
  }
  void fetch(int64_t tile, int64_t rows) const {
    const auto* from = reinterpret_cast<const std::byte*>(p_.matrix.packed_row(tile * rows));
    for (int64_t i = 0; i < tile_bytes(rows); i += 64) prefetch(from + i);
  }
  static void prefetch([[maybe_unused]] const std::byte* p) {
#if defined(__GNUC__)
    __builtin_prefetch(p, 0, 2);
#endif
  }

  bool prepare_row(int64_t i) {
    const GemmOperand& x = p_.left;
    std::byte* row = prepared_ + i * format_.row_bytes;
    if (x.dtype == Dtype::F32 && x.inner_stride == 1)
      return kernels_.prepare(format_, reinterpret_cast<const float*>(x.vector(i)), row);
    Scratch scratch(Scratch::padded(p_.k));
    float* wide = scratch.take(p_.k);
    GemmOperand one = x;
    one.data = x.vector(i);
    one.chosen = nullptr;
    widen_vectors(one, 1, p_.k, p_.k, wide);
    return kernels_.prepare(format_, wide, row);
  }

  void run_panel(int64_t index, int64_t next) {
    const int width = panels_.rows;
    const int64_t first = index * width;
    const int rows = static_cast<int>(std::min<int64_t>(width, p_.n - first));
    const int64_t depth = std::min(format_.groups, kPanelDepth / format_.group_size);
    const int64_t m_most = std::min(p_.m, kMaxRows);
    const int64_t quads = depth * format_.group_size * width / 4;
    Scratch scratch(Scratch::padded(quads) + 2 * Scratch::padded(depth * width) +
                    Scratch::padded(m_most * width));
    Int8Panel panel{reinterpret_cast<uint8_t*>(scratch.take(quads)), scratch.take(depth * width),
                    scratch.take(depth * width)};
    float* sums = scratch.take(m_most * width);
    for (int64_t m0 = 0; m0 < p_.m; m0 += kMaxRows) {
      int64_t m = std::min(kMaxRows, p_.m - m0);
      for (int64_t g = 0; g < format_.groups; g += depth) {
        int64_t groups = std::min(depth, format_.groups - g);
        if (m0 == 0 || depth < format_.groups)
          panels_.unpack(format_, p_.matrix, first, rows, g, groups, panel);
        panels_.multiply(format_, panel, g, groups, prepared_ + m0 * format_.row_bytes, m, sums,
                         g > 0, p_.matrix, next);
      }
      for (int64_t i = 0; i < m; ++i) store_rounded(sums + i * width, rows, m0 + i, first);
    }
  }

  void store_rounded(const float* values, int64_t count, int64_t row, int64_t column) const {
    cpu::store_rounded(values, count, p_.out.dtype, p_.out.at(row, column));
  }

  const QuantizedGemm<float>& p_;
  Int8Format format_;
  std::byte* prepared_;
  const Int8Kernels& kernels_ = int8_kernels();
  const Int8PanelKernels& panels_ = p_.m <= kernels_.few ? kernels_.few_rows : kernels_.many_rows;
};

}  // namespace

Int8Format::Int8Format(const QuantizedMatrix& matrix, int64_t k)
    : bits(matrix.bits),
      group_size(matrix.group_size),
      k(k),
      groups(k / matrix.group_size),
      padded_groups(ceil_div(groups, 16) * 16),
      row_bytes(padded_groups * 8 + ceil_div(k, 128) * 128) {}

size_t int8_workspace(const QuantizedGemm<float>& product) {
  return static_cast<size_t>(product.m * Int8Format(product.matrix, product.k).row_bytes);
}

std::vector<int64_t> run_int8(const QuantizedGemm<float>& product, std::span<std::byte> workspace) {
  MICA_ASSERT(workspace.size() >= int8_workspace(product));
  Int8Run run(product, workspace.data());
  run.fetch_first();
  std::vector<int64_t> odd = run.prepare();
  if (product.m <= kInt8FewRows)
    run.run_dots();
  else
    run.run_panels();
  return odd;
}

}  // namespace mica::cpu
