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
constexpr int64_t kPanelDepth = 8192, kMaxRows = 516;
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

// Whole vectors without a call.
void copy_floats(const float* from, int count, std::byte* to) {
  if (count == kInt8Rows)
    std::memcpy(to, from, kInt8Rows * sizeof(float));
  else if (count == 2 * kInt8Rows)
    std::memcpy(to, from, 2 * kInt8Rows * sizeof(float));
  else
    std::memcpy(to, from, static_cast<size_t>(count) * sizeof(float));
}

// Several products: tiles of rows of their matrices are numbered through.
class Int8Run {
 public:
  Int8Run(const Int8Format& format, std::span<const Int8Product> products, std::byte* tiles)
      : format_(format), products_(products) {
    std::byte* next = tiles;
    for (const Int8Product& p : products) {
      const auto m = static_cast<int64_t>(p.x.size());
      const int64_t parts = m == 0 ? 0 : ceil_div(p.n, rows_of(p));
      bytes_ += static_cast<double>(parts * part_bytes(rows_of(p)) * std::max<int64_t>(1, m / 4));
      ends_.push_back((ends_.empty() ? 0 : ends_.back()) + parts);
      const bool again = &p != products.data() && p.x == (&p - 1)->x;
      tiles_.push_back(again ? tiles_.back() : next);
      if (!again) next += m * format.tile_row_bytes();
    }
  }

  void run() {
    if (ends_.empty() || ends_.back() == 0) return;
    for (size_t i = 0; i < products_.size(); ++i)
      if (i == 0 || tiles_[i] != tiles_[i - 1]) make_tiles(products_[i], tiles_[i]);
    const auto threads = static_cast<int64_t>(std::min(bytes_ / kShare, 1e6));
    for_each_tile(ends_.back(), threads, [&](const StreamTile& tile) {
      if (tile.first) fetch(tile.index);
      // The last part fetches itself again, which costs nothing.
      const Part at = part_at(tile.index), next = part_at(tile.next < 0 ? tile.index : tile.next);
      const Int8Place ahead{&product_of(next).matrix, next.row};
      if (is_dots(product_of(at)))
        run_dots(at, ahead);
      else if (is_few(product_of(at)))
        run_few(at, ahead);
      else
        run_panel(at, ahead);
    });
  }

  void fetch(int64_t index) const {
    const Part part = part_at(index);
    const Int8Place place{&product_of(part).matrix, part.row};
    const int64_t bytes = part_bytes(rows_of(product_of(part)));
    for (int64_t i = 0; i < bytes; i += 64) prefetch(place.packed() + i);
  }

 private:
  // Bytes of matrices that are worth another thread.
  static constexpr double kShare = 48 << 10;

  struct Part {
    size_t product;
    int64_t row;  // its first
  };

  bool is_dots(const Int8Product& p) const {
    return static_cast<int>(p.x.size()) <= kernels_.dot_rows;
  }
  bool is_few(const Int8Product& p) const {
    return static_cast<int64_t>(p.x.size()) <= kernels_.few.most;
  }
  int64_t rows_of(const Int8Product& p) const {
    return is_dots(p) || is_few(p) ? kInt8Rows : kernels_.panels.rows;
  }
  int64_t part_bytes(int64_t rows) const { return rows * format_.groups * format_.group_bytes(); }

  const Int8Product& product_of(const Part& part) const { return products_[part.product]; }
  Part part_at(int64_t index) const {
    size_t i = 0;
    if (products_.size() > 1)
      i = static_cast<size_t>(std::upper_bound(ends_.begin(), ends_.end(), index) - ends_.begin());
    const int64_t begin = i == 0 ? 0 : ends_[i - 1];
    return {i, (index - begin) * rows_of(products_[i])};
  }

  // Of each kMaxRows rows, nearly equal ones.
  void make_tiles(const Int8Product& p, std::byte* tiles) const {
    if (is_dots(p)) return;
    const auto all = static_cast<int64_t>(p.x.size());
    const int64_t most = is_few(p) ? kernels_.few.tile : kernels_.panels.tile;
    for (int64_t m0 = 0; m0 < all; m0 += kMaxRows) {
      const Int8Tiles parts{std::min(kMaxRows, all - m0), most};
      const int64_t grain = std::max<int64_t>(1, 65536 / (most * format_.k));
      ThreadPool::shared().parallel_for(parts.count(), grain, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) {
          const int64_t first = m0 + parts.begin(i), rows = m0 + parts.begin(i + 1) - first;
          kernels_.interleave(format_, p.x.data() + first, static_cast<int>(rows),
                              tiles + first * format_.tile_row_bytes());
        }
      });
    }
  }

  // Rows of the matrix, of kInt8Rows at most.
  int some_rows(const Part& part) const {
    return static_cast<int>(std::min<int64_t>(kInt8Rows, product_of(part).n - part.row));
  }

  // Rows of a matrix as kernels take them.
  struct Rows {
    QuantizedMatrix matrix;
    int64_t first;
  };
  // Of 4 and 8 bits as they lie; those of other bits are unpacked into bytes, which stay until the
  // thread asks for others.
  Rows rows_at(const Part& part, int count) const {
    const QuantizedMatrix& matrix = product_of(part).matrix;
    if (matrix.bits == format_.bits) return {matrix, part.row};
    static thread_local std::vector<uint8_t> bytes;
    const int64_t stride = format_.k + 64;  // not a power of two, whose rows would share cache sets
    bytes.resize(std::max(bytes.size(), static_cast<size_t>(stride * count)));
    for (int i = 0; i < count; ++i)
      unpack_integers(matrix, part.row + i, format_.k, bytes.data() + i * stride);
    QuantizedMatrix unpacked = matrix;
    unpacked.packed = reinterpret_cast<const uint32_t*>(bytes.data());
    unpacked.packed_stride = stride / 4;
    unpacked.scales = matrix.scales_row(part.row);
    unpacked.biases = matrix.biases_row(part.row);
    unpacked.bits = 8;
    return {unpacked, 0};
  }

  void run_dots(const Part& part, const Int8Place& next) const {
    const Int8Product& p = product_of(part);
    float values[kInt8DotRows * kInt8Rows];
    const auto m = static_cast<int64_t>(p.x.size());
    const Rows rows = rows_at(part, some_rows(part));
    kernels_.dots(format_, rows.matrix, rows.first, some_rows(part), p.x.data(),
                  static_cast<int>(m), values, next);
    store(p, values, kInt8Rows, some_rows(part), 0, m, part.row);
  }

  void run_few(const Part& part, const Int8Place& next) const {
    const Int8Product& p = product_of(part);
    const auto m = static_cast<int64_t>(p.x.size());
    const Int8Tiles parts{m, kernels_.few.tile};
    const Rows rows = rows_at(part, some_rows(part));
    Scratch scratch(Scratch::padded(m * kInt8Rows));
    float* values = scratch.take(m * kInt8Rows);
    for (int64_t i = 0; i < parts.count(); ++i) {
      const int64_t begin = parts.begin(i);
      kernels_.few.multiply(format_, rows.matrix, rows.first, some_rows(part),
                            tiles_[part.product] + begin * format_.tile_row_bytes(),
                            static_cast<int>(parts.begin(i + 1) - begin),
                            values + begin * kInt8Rows, next);
    }
    store(p, values, kInt8Rows, some_rows(part), 0, m, part.row);
  }

  void run_panel(const Part& part, const Int8Place& next) const {
    const Int8Product& p = product_of(part);
    const Int8PanelKernels& panels = kernels_.panels;
    const int width = panels.rows;
    const int rows = static_cast<int>(std::min<int64_t>(width, p.n - part.row));
    const Rows taken = rows_at(part, rows);
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
      const Int8Tiles tiles{std::min(kMaxRows, all - m0), panels.tile};
      for (int64_t g = 0; g < format_.groups; g += depth) {
        const int64_t groups = std::min(depth, format_.groups - g);
        const bool is_last = g + groups == format_.groups;
        if (m0 == 0 || depth < format_.groups)
          panels.unpack(format_, taken.matrix, taken.first, rows, g, groups, panel);
        for (int64_t i = 0; i < tiles.count(); ++i) {
          const int64_t begin = tiles.begin(i), m = tiles.begin(i + 1) - begin;
          const std::byte* tile = tiles_[part.product] + (m0 + begin) * format_.tile_row_bytes() +
                                  m * g * format_.tile_group_bytes();
          const bool is_first = m0 == 0 && g == 0 && i == 0;
          panels.multiply(format_, panel, groups, tile, m, sums + begin * width, g > 0,
                          is_first ? &next : nullptr);
          // While the rows of the result are fetched, the next tile is multiplied.
          if (is_last && format_.digits == 1)
            store(p, sums + begin * width, width, rows, m0 + begin, m, part.row);
        }
      }
      if (format_.digits > 1) store(p, sums, width, rows, m0, tiles.rows, part.row);
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
      std::byte* to = p.out.at((first + i) / digits, column);
      if (p.out.dtype == Dtype::F32)
        copy_floats(values, count, to);
      else
        store_rounded(values, count, p.out.dtype, to);
    }
  }

  const Int8Format& format_;
  std::span<const Int8Product> products_;
  std::vector<int64_t> ends_;      // of the products' parts
  std::vector<std::byte*> tiles_;  // where those of each product are
  double bytes_ = 0;
  const Int8Kernels& kernels_ = int8_kernels();
};

}  // namespace

Int8Format::Int8Format(const QuantizedMatrix& matrix, int64_t k, int digits)
    : bits(matrix.bits == 4 ? 4 : 8),
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
  if (!first.x.empty() && first.n > 0) Int8Run(format, {&first, 1}, nullptr).fetch(0);
}

void run_int8(const Int8Format& format, std::span<const Int8Product> products,
              std::span<std::byte> tiles) {
  Int8Run(format, products, tiles.data()).run();
}

size_t int8_tile_bytes(const Int8Format& format, int64_t rows) {
  return static_cast<size_t>(rows * format.digits * format.tile_row_bytes());
}

size_t int8_workspace(const QuantizedGemm<float>& product, int digits) {
  const Int8Format format(product.matrix, product.k, digits);
  return static_cast<size_t>(product.m * digits * format.row_bytes) +
         int8_tile_bytes(format, product.m);
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
  run_int8(format, {&one, 1},
           workspace.subspan(static_cast<size_t>(product.m * digits * format.row_bytes)));
  return odd;
}

}  // namespace mica::cpu
