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
constexpr int64_t kPanelDepth = 8192, kMaxRows = 513;
static_assert(kMaxRows % 3 == 0);  // a row's digits stay together

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

bool prepare_row(const Int8Format& format, const GemmOperand& x, int64_t i, std::byte* to) {
  const Int8Kernels& kernels = int8_kernels();
  if (x.dtype == Dtype::F32 && x.inner_stride == 1)
    return kernels.prepare(format, reinterpret_cast<const float*>(x.vector(i)), to);
  Scratch scratch(Scratch::padded(format.k));
  float* wide = scratch.take(format.k);
  GemmOperand one = x;
  one.data = x.vector(i);
  one.chosen = nullptr;
  widen_vectors(one, 1, format.k, format.k, wide);
  return kernels.prepare(format, wide, to);
}

void prefetch([[maybe_unused]] const std::byte* p) {
#if defined(__GNUC__)
  __builtin_prefetch(p, 0, 2);
#endif
}

// Several products: tiles of rows of their matrices are numbered through.
class Int8Run {
 public:
  Int8Run(const Int8Format& format, std::span<const Int8Product> products)
      : format_(format), products_(products) {
    for (const Int8Product& p : products) {
      const auto m = static_cast<int64_t>(p.x.size());
      const int64_t tiles = m == 0 ? 0 : ceil_div(p.n, rows_of(p));
      bytes_ += static_cast<double>(tiles * tile_bytes(rows_of(p)) * std::max<int64_t>(1, m / 4));
      ends_.push_back((ends_.empty() ? 0 : ends_.back()) + tiles);
    }
  }

  void run() {
    if (ends_.empty() || ends_.back() == 0) return;
    const auto threads = static_cast<int64_t>(std::min(bytes_ / kShare, 1e6));
    for_each_tile(ends_.back(), threads, [&](const StreamTile& tile) {
      if (tile.first) fetch(tile.index);
      // The last tile fetches itself again, which costs nothing.
      const Tile at = tile_at(tile.index), next = tile_at(tile.next < 0 ? tile.index : tile.next);
      const Int8Place ahead{&next.product->matrix, next.row};
      if (is_few(*at.product))
        run_dots(at, ahead);
      else
        run_panel(at, ahead);
    });
  }

  void fetch(int64_t index) const {
    const Tile tile = tile_at(index);
    const Int8Place place{&tile.product->matrix, tile.row};
    const int64_t bytes = tile_bytes(rows_of(*tile.product));
    for (int64_t i = 0; i < bytes; i += 64) prefetch(place.packed() + i);
  }

 private:
  // Bytes of matrices that are worth another thread.
  static constexpr double kShare = 48 << 10;

  struct Tile {
    const Int8Product* product;
    int64_t row;  // its first
  };

  static bool is_few(const Int8Product& p) { return p.x.size() <= kInt8FewRows; }
  const Int8PanelKernels& panels_of(const Int8Product& p) const {
    const bool few = static_cast<int64_t>(p.x.size()) <= kernels_.few;
    return few ? kernels_.few_rows : kernels_.many_rows;
  }
  int64_t rows_of(const Int8Product& p) const { return is_few(p) ? kInt8Rows : panels_of(p).rows; }
  int64_t tile_bytes(int64_t rows) const { return rows * format_.groups * format_.group_bytes(); }

  Tile tile_at(int64_t index) const {
    size_t i = 0;
    if (products_.size() > 1)
      i = static_cast<size_t>(std::upper_bound(ends_.begin(), ends_.end(), index) - ends_.begin());
    const int64_t begin = i == 0 ? 0 : ends_[i - 1];
    return {&products_[i], (index - begin) * rows_of(products_[i])};
  }

  // Few rows of x: packed rows as they lie.
  void run_dots(const Tile& tile, const Int8Place& next) const {
    const Int8Product& p = *tile.product;
    float values[kInt8FewRows * kInt8Rows];
    const int rows = static_cast<int>(std::min<int64_t>(kInt8Rows, p.n - tile.row));
    const auto m = static_cast<int64_t>(p.x.size());
    kernels_.dots(format_, p.matrix, tile.row, rows, p.x.data(), static_cast<int>(m), values, next);
    store(p, values, kInt8Rows, rows, 0, m, tile.row);
  }

  void run_panel(const Tile& tile, const Int8Place& next) const {
    const Int8Product& p = *tile.product;
    const Int8PanelKernels& panels = panels_of(p);
    const int width = panels.rows;
    const int rows = static_cast<int>(std::min<int64_t>(width, p.n - tile.row));
    const auto all = static_cast<int64_t>(p.x.size());
    const int64_t depth = std::min(format_.groups, kPanelDepth / format_.group_size);
    const int64_t m_most = std::min(all, kMaxRows);
    const int64_t quads = depth * format_.group_size * width / 4;
    Scratch scratch(Scratch::padded(quads) + 2 * Scratch::padded(depth * width) +
                    Scratch::padded(m_most * width));
    Int8Panel panel{reinterpret_cast<uint8_t*>(scratch.take(quads)), scratch.take(depth * width),
                    scratch.take(depth * width)};
    float* sums = scratch.take(m_most * width);
    for (int64_t m0 = 0; m0 < all; m0 += kMaxRows) {
      const int64_t m = std::min(kMaxRows, all - m0);
      for (int64_t g = 0; g < format_.groups; g += depth) {
        const int64_t groups = std::min(depth, format_.groups - g);
        if (m0 == 0 || depth < format_.groups)
          panels.unpack(format_, p.matrix, tile.row, rows, g, groups, panel);
        panels.multiply(format_, panel, g, groups, p.x.data() + m0, m, sums, g > 0, next);
      }
      store(p, sums, width, rows, m0, m, tile.row);
    }
  }

  // Of digits first … first + m, `stride` values apart, the rows.
  void store(const Int8Product& p, float* values, int64_t stride, int count, int64_t first,
             int64_t m, int64_t column) const {
    const int digits = format_.digits;
    for (int64_t i = 0; i < m; i += digits, values += digits * stride) {
      for (int digit = digits - 2; digit >= 0; --digit)
        for (int j = 0; j < count; ++j)
          values[digit * stride + j] += values[(digit + 1) * stride + j];
      store_rounded(values, count, p.out.dtype, p.out.at((first + i) / digits, column));
    }
  }

  const Int8Format& format_;
  std::span<const Int8Product> products_;
  std::vector<int64_t> ends_;  // of the products' tiles
  double bytes_ = 0;
  const Int8Kernels& kernels_ = int8_kernels();
};

}  // namespace

Int8Format::Int8Format(const QuantizedMatrix& matrix, int64_t k, int digits)
    : bits(matrix.bits),
      group_size(matrix.group_size),
      digits(digits),
      k(k),
      groups(k / matrix.group_size),
      padded_groups(ceil_div(groups, 16) * 16),
      row_bytes(padded_groups * 8 + ceil_div(k, 128) * 128) {}

std::vector<int64_t> prepare_int8(const Int8Format& format, const GemmOperand& x, int64_t m,
                                  std::byte* prepared) {
  std::vector<int64_t> odd;
  std::mutex mutex;
  const int64_t grain = std::max<int64_t>(1, 8192 / format.k);
  ThreadPool::shared().parallel_for(m, grain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t bytes = format.digits * format.row_bytes;
      if (prepare_row(format, x, i, prepared + i * bytes)) continue;
      std::memset(prepared + i * bytes, 0, static_cast<size_t>(bytes));
      std::lock_guard lock(mutex);
      odd.push_back(i);
    }
  });
  return odd;
}

void fetch_int8(const Int8Format& format, const Int8Product& first) {
  if (!first.x.empty() && first.n > 0) Int8Run(format, {&first, 1}).fetch(0);
}

void run_int8(const Int8Format& format, std::span<const Int8Product> products) {
  Int8Run(format, products).run();
}

size_t int8_workspace(const QuantizedGemm<float>& product, int digits) {
  const Int8Format format(product.matrix, product.k, digits);
  return static_cast<size_t>(product.m * digits * format.row_bytes);
}

std::vector<int64_t> run_int8(const QuantizedGemm<float>& product, int digits,
                              std::span<std::byte> workspace) {
  MICA_ASSERT(workspace.size() >= int8_workspace(product, digits));
  const Int8Format format(product.matrix, product.k, digits);
  Int8Product one{{}, product.matrix, product.n, product.out};
  for (int64_t i = 0; i < product.m; ++i)
    one.add(workspace.data() + i * digits * format.row_bytes, format);
  fetch_int8(format, one);
  std::vector<int64_t> odd = prepare_int8(format, product.left, product.m, workspace.data());
  run_int8(format, {&one, 1});
  return odd;
}

}  // namespace mica::cpu
