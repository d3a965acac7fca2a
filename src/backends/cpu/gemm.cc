#include "backends/cpu/gemm.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <thread>
#include <tuple>
#include <type_traits>

#include "backends/cpu/dots.h"
#include "backends/cpu/gemm_blocks.h"
#include "backends/cpu/tile_stream.h"
#include "base/thread_pool.h"

namespace mica::cpu {

namespace {

// Rows of a right operand that is not packed are multiplied so many at a time, into a tile of sums
// of kStreamTile elements.
constexpr int64_t kStreamDepth = 16, kStreamTile = 8192, kStreamColumns = 2048;
// Of so few rows reading is all there is to do, and stretches of this many columns are read faster.
constexpr int64_t kFewRows = 4, kLongStretch = 1024;
// Then rows of a matrix of so many bytes are fetched ahead; those of one in the caches come by
// themselves.
constexpr int64_t kFetchedBytes = 40 << 20;
// Rows whose panels stay in the second-level cache beside two panels of the right operand.
constexpr int64_t kGroupRows = 84;
// Products that are worth handing out: about two microseconds.
constexpr int64_t kTileWork = 100'000;
// The narrowest panels are four columns wide.
constexpr int64_t kMaxRightPanels = kMaxColumns / 4;

// Where part i of `parts` nearly equal parts of `total` begins.
int64_t part_begin(int64_t total, int64_t parts, int64_t i) { return total * i / parts; }

template <class T>
void pack_panel(const GemmKernels<T>& kernels, const GemmOperand& operand, int64_t first, int count,
                int width, int64_t k0, int64_t kc, T* panel) {
  if (operand.fill) return operand.fill(operand.context, first, count, width, k0, kc, panel);
  const std::byte* vectors[kMaxPanelWidth];
  for (int i = 0; i < count; ++i) vectors[i] = operand.vector(first + i);
  bool dense = operand.vector_stride == 1 && !operand.chosen;
  kernels.pack({vectors, count, operand.dtype, operand.inner_stride, dense}, width, k0, kc, panel);
}

// The last numbers of vectors of bfloat16, each a pair with zero.
void pack_half_pair(const GemmOperand& operand, int64_t first, int count, int width, int64_t k,
                    float* row) {
  std::memset(row, 0, static_cast<size_t>(width) * sizeof(float));
  for (int i = 0; i < count; ++i)
    std::memcpy(row + i, operand.vector(first + i) + k * operand.inner_stride * 2, 2);
}

// The block of rows m0 … m0 + m and columns n0 … n0 + n.
template <class T>
class BlockRun {
 public:
  BlockRun(const Gemm<T>& gemm, const Blocks<T>& blocks, T* workspace, int64_t m0, int64_t m,
           int64_t n0, int64_t n)
      : g_(gemm), b_(blocks), m0_(m0), m_(m), n0_(n0), n_(n) {
    left_ = workspace;
    right_ = left_ + b_.left_size();
    states_ = reinterpret_cast<std::byte*>(right_ + b_.right_size() + b_.sums_size());
    if (b_.needs_sums) {
      sums_ = right_ + b_.right_size();
      sums_stride_ = n_;
    } else {
      sums_ =
          b_.rounds ? nullptr : reinterpret_cast<T*>(g_.out.data) + m0_ * g_.out.row_stride + n0_;
      sums_stride_ = g_.out.row_stride;
    }
    left_panels_ = b_.left_panels(m_);
    right_panels_ = b_.right_panels(n_);
    panel_rows_ = m_ / left_panels_;
    longer_panels_ = m_ % left_panels_;
    packed_left_ = b_.left_in_place ? 0 : left_panels_;
    groups_ = ceil_div(left_panels_, std::max<int64_t>(1, kGroupRows / b_.kernels.rows));
    if (g_.next_left && g_.m == m_ && g_.n == n_ && g_.k <= b_.depth) {
      left_bytes_ = span_bytes(g_.left, m_);
      ahead_share_ = (left_bytes_ + span_bytes(g_.right, n_)) / (left_panels_ * right_panels_);
    }
  }

  void run() {
    ThreadPool& pool = ThreadPool::shared();
    for (int64_t k0 = 0; k0 < g_.k; k0 += b_.depth) {
      int64_t kc = std::min(b_.depth, g_.k - k0);
      if (b_.streamed || b_.fused) {
        int64_t grain = std::max<int64_t>(1, 16384 / (kc * b_.kernels.rows));
        pool.parallel_for(packed_left_, grain, [&](int64_t begin, int64_t end) {
          for (int64_t i = begin; i < end; ++i) pack(i, k0, kc);
        });
      }
      if (b_.streamed) {
        int64_t step = stream_columns();
        pool.parallel_for(n_, step, [&](int64_t begin, int64_t end) {
          for (int64_t column = begin; column < end; column += step)
            multiply_streamed(column, std::min(end, column + step), k0, kc);
        });
      } else if (b_.fused) {
        int64_t work = m_ * kc * b_.kernels.columns;
        pool.parallel_for(right_panels_, std::max<int64_t>(1, (1 << 19) / work),
                          [&](int64_t begin, int64_t end) { multiply_fused(begin, end, k0, kc); });
      } else if (b_.left_in_place && b_.right_in_place) {
        pool.parallel_for(
            left_panels_ * right_panels_, tile_grain(kc),
            [&](int64_t begin, int64_t end) { multiply_tiles_as_they_lie(begin, end, k0, kc); });
      } else {
        std::fill_n(states_, left_panels_ + right_panels_, kRaw);
        const int64_t threads = pool.threads();
        TileRuns runs(groups_ * right_panels_, threads);
        pool.parallel_for(threads, 1, [&](int64_t, int64_t) {
          for (auto [begin, end] = runs.take(); begin < end; std::tie(begin, end) = runs.take())
            multiply_run(begin, end, k0, kc);
        });
      }
    }
  }

 private:
  static constexpr int64_t kTermBytes = sizeof(T);
  // Of a panel: who needs it first packs it, and others who need it meanwhile do something else.
  static constexpr std::byte kRaw{0}, kBeingPacked{1}, kPacked{2};

  // Left panels hold nearly equal numbers of rows, so that none is nearly empty.
  int64_t left_begin(int64_t panel) const {
    return panel * panel_rows_ + std::min(panel, longer_panels_);
  }
  int64_t right_begin(int64_t panel) const { return std::min(panel * b_.kernels.columns, n_); }

  void pack(int64_t i, int64_t k0, int64_t kc) {
    if (i >= packed_left_)
      return pack_right(i - packed_left_, k0, kc, right_ + (i - packed_left_) * b_.right_panel);
    int64_t begin = left_begin(i);
    pack_terms(g_.left, m0_ + begin, static_cast<int>(left_begin(i + 1) - begin), b_.kernels.rows,
               k0, kc, left_ + i * b_.left_panel);
  }
  void pack_right(int64_t j, int64_t k0, int64_t kc, T* panel) {
    int64_t begin = right_begin(j);
    pack_terms(g_.right, n0_ + begin, static_cast<int>(right_begin(j + 1) - begin),
               b_.kernels.columns, k0, kc, panel);
  }
  void pack_terms(const GemmOperand& operand, int64_t first, int count, int width, int64_t k0,
                  int64_t kc, T* panel) {
    const int64_t whole = kc - (g_.half_term && k0 + kc == g_.k);
    pack_panel(b_.kernels, operand, first, count, width, k0, whole, panel);
    if constexpr (std::is_same_v<T, float>) {
      if (whole < kc)
        pack_half_pair(operand, first, count, width, 2 * (k0 + whole), panel + whole * width);
    }
  }

  // Packs a panel that nobody has begun to pack; whether it is packed now.
  bool offer(int64_t i, int64_t k0, int64_t kc) {
    std::atomic_ref<std::byte> state(states_[i]);
    std::byte before = state.load(std::memory_order_acquire);
    if (before == kRaw && state.compare_exchange_strong(before, kBeingPacked)) {
      pack(i, k0, kc);
      state.store(before = kPacked, std::memory_order_release);
    }
    return before == kPacked;
  }
  // For a panel that another thread is packing.
  void await(int64_t i) const {
    std::atomic_ref<std::byte> state(states_[i]);
    while (state.load(std::memory_order_acquire) != kPacked) std::this_thread::yield();
  }

  // A run of pairs of a group of left panels, which stay in the second-level cache, and a right
  // panel, counted along the rows.
  void multiply_run(int64_t begin, int64_t end, int64_t k0, int64_t kc) {
    while (begin < end) {
      const int64_t group = begin / right_panels_, right0 = begin % right_panels_;
      const int64_t right1 = std::min(right_panels_, right0 + end - begin);
      multiply_group(group, right0, right1, k0, kc);
      begin += right1 - right0;
    }
  }

  void multiply_group(int64_t group, int64_t right0, int64_t right1, int64_t k0, int64_t kc) {
    const int64_t left0 = part_begin(left_panels_, groups_, group);
    const int64_t left1 = part_begin(left_panels_, groups_, group + 1);
    if (packed_left_ > 0) {
      for (int64_t i = left0; i < left1; ++i) offer(i, k0, kc);
      for (int64_t i = left0; i < left1; ++i) await(i);
    }
    const auto multiply_packed = [&](int64_t j) {
      multiply_panel(left0, left1, j, k0, kc, right_ + j * b_.right_panel, b_.kernels.columns);
    };
    int64_t late[kMaxRightPanels];
    int64_t late_count = 0;
    for (int64_t j = right0; j < right1; ++j) {
      if (b_.right_in_place)
        multiply_in_place(left0, left1, j, k0, kc);
      else if (offer(packed_left_ + j, k0, kc))
        multiply_packed(j);
      else
        late[late_count++] = j;
    }
    for (int64_t i = 0; i < late_count; ++i) {
      await(packed_left_ + late[i]);
      multiply_packed(late[i]);
    }
    finish(left_begin(left0), left_begin(left1), right_begin(right0), right_begin(right1), k0, kc);
  }

  void multiply_fused(int64_t right0, int64_t right1, int64_t k0, int64_t kc) {
    alignas(64) T panel[kFusedPanel / sizeof(T)];
    for (int64_t j = right0; j < right1; ++j) {
      pack_right(j, k0, kc, panel);
      multiply_panel(0, left_panels_, j, k0, kc, panel, b_.kernels.columns);
    }
    finish(0, m_, right_begin(right0), right_begin(right1), k0, kc);
  }

  // Tiles that are handed out at once: each thread its part where these are small.
  int64_t tile_grain(int64_t kc) const {
    const int64_t threads = ThreadPool::shared().threads();
    const int64_t tiles = left_panels_ * right_panels_, part = ceil_div(tiles, threads);
    const int64_t least =
        std::max<int64_t>(1, kTileWork / (b_.kernels.rows * b_.kernels.columns * kc));
    return part > 4 * least ? least : std::max(part, least);
  }

  // Tiles begin … end, counted down the columns; the last columns, of which each run of tiles needs
  // a copy, come first, when runs are long.
  void multiply_tiles_as_they_lie(int64_t begin, int64_t end, int64_t k0, int64_t kc) {
    while (begin < end) {
      const int64_t j = right_panels_ - 1 - begin / left_panels_, left0 = begin % left_panels_;
      const int64_t left1 = std::min(left_panels_, left0 + end - begin);
      multiply_in_place(left0, left1, j, k0, kc);
      finish(left_begin(left0), left_begin(left1), right_begin(j), right_begin(j + 1), k0, kc);
      begin += left1 - left0;
    }
  }

  void multiply_in_place(int64_t left0, int64_t left1, int64_t j, int64_t k0, int64_t kc) {
    int64_t column = right_begin(j), stride = g_.right.inner_stride;
    if (right_begin(j + 1) - column == b_.kernels.columns)
      return multiply_panel(left0, left1, j, k0, kc,
                            reinterpret_cast<const T*>(g_.right.data) + k0 * stride + n0_ + column,
                            stride);
    alignas(64) T panel[kFusedPanel / sizeof(T)];  // vectors may not be read beyond the last column
    pack_right(j, k0, kc, panel);
    multiply_panel(left0, left1, j, k0, kc, panel, b_.kernels.columns);
  }

  // Panel j of the right operand: rows of its columns, `stride` elements apart.
  void multiply_panel(int64_t left0, int64_t left1, int64_t j, int64_t k0, int64_t kc,
                      const T* panel, int64_t stride) {
    GemmTile<T> tile{.m = 0,
                     .n = static_cast<int>(right_begin(j + 1) - right_begin(j)),
                     .kc = kc,
                     .a = nullptr,
                     .a_stride = b_.kernels.rows,
                     .lie = Lie::Panel,
                     .b = panel,
                     .ldb = stride,
                     .c = nullptr,
                     .ldc = sums_stride_,
                     .accumulate = k0 > 0,
                     .ahead = {reinterpret_cast<const std::byte*>(panel)}};
    tile.group = g_.group;
    tile.rounded_stride = g_.out.row_stride * size_of(g_.out.dtype);
    tile.dtype = g_.out.dtype;
    if (ahead_share_ > 0)
      look_ahead(j * left_panels_ + left0, left1 - left0, tile);
    else if (!b_.right_in_place)
      look_at_panel((j + 1) % right_panels_, k0, tile);
    // Tiles of equal height at once.
    const int64_t middle = std::clamp(longer_panels_, left0, left1);
    multiply_tiles(left0, middle, j, k0, tile);
    multiply_tiles(middle, left1, j, k0, tile);
  }

  void multiply_tiles(int64_t left0, int64_t left1, int64_t j, int64_t k0, GemmTile<T>& tile) {
    if (left0 == left1) return;
    const int64_t row = left_begin(left0), column = right_begin(j);
    tile.m = static_cast<int>(left_begin(left0 + 1) - row);
    if (b_.left_in_place) {
      find_left(row, k0, tile);
    } else {
      tile.a = left_ + left0 * b_.left_panel;
      tile.a_step = b_.left_panel;
    }
    if (sums_) {
      tile.c = sums_ + row * sums_stride_ + column;
      tile.c_step = tile.m * sums_stride_;
    }
    if (b_.rounds && k0 + tile.kc == g_.k) {
      tile.rounded = g_.out.at(m0_ + row, n0_ + column);
      tile.rounded_step = tile.m * tile.rounded_stride;
    }
    const int64_t calls = b_.kernels.several ? 1 : left1 - left0;
    tile.count = (left1 - left0) / calls;
    for (int64_t i = 0; i < calls; ++i, tile.advance()) {
      b_.kernels.multiply(tile);
      tile.ahead.skip(tile.count * tile.kc);
    }
  }

  // Tiles `number` … `number` + `tiles` fetch their share of the operands of the product that
  // follows.
  void look_ahead(int64_t number, int64_t tiles, GemmTile<T>& tile) const {
    const int64_t from = number * ahead_share_, to = from + tiles * ahead_share_;
    const int64_t step = std::min<int64_t>(64, ahead_share_ / tile.kc + 1);
    const auto places = [&](int64_t begin, int64_t end) {
      return std::max<int64_t>(1, (end - begin) / step);
    };
    if (from >= left_bytes_) {
      tile.ahead = {g_.next_right + (from - left_bytes_), step, places(from, to)};
      return;
    }
    tile.ahead = {g_.next_left + from, step, places(from, std::min(to, left_bytes_))};
    if (to <= left_bytes_) return;
    tile.ahead.jump = g_.next_right - (tile.ahead.at + tile.ahead.left * step);
    tile.ahead.length = places(left_bytes_, to);
    tile.ahead.runs = 2;
  }

  bool is_packed(int64_t j) const {
    if (b_.fused) return false;
    return std::atomic_ref<std::byte>(states_[packed_left_ + j]).load(std::memory_order_relaxed) !=
           kRaw;
  }

  // Meanwhile the panel that comes next is fetched: as it was packed, or the rows or columns that
  // it will be packed from.
  void look_at_panel(int64_t j, int64_t k0, GemmTile<T>& tile) const {
    const GemmOperand& right = g_.right;
    if (is_packed(j)) {
      tile.ahead = {reinterpret_cast<const std::byte*>(right_ + j * b_.right_panel), 64,
                    ceil_div(tile.kc * b_.kernels.columns * kTermBytes, 64)};
      return;
    }
    if (right.chosen || right.fill) return;
    const int64_t element = size_of(right.dtype), terms = g_.kernels ? 2 : 1;
    const std::byte* panel = right.vector(n0_ + right_begin(j));
    if (right.vector_stride == 1) {
      const int64_t stride = right.inner_stride * element, rows = tile.kc * terms;
      tile.ahead = {panel + k0 * terms * stride, stride, rows, 64 - rows * stride,
                    ceil_div(b_.kernels.columns * element, 64)};
    } else if (right.inner_stride == 1) {
      const int64_t stride = right.vector_stride * element;
      const int64_t lines = ceil_div(tile.kc * terms * element, 64);
      tile.ahead = {panel + k0 * terms * element, 64, lines, stride - lines * 64,
                    b_.kernels.columns};
    }
  }

  // Of the memory of a matrix without gaps; otherwise 0.
  int64_t span_bytes(const GemmOperand& operand, int64_t vectors) const {
    int64_t k = g_.k * (g_.kernels ? 2 : 1), least = operand.inner_stride == 1 ? k : vectors;
    bool dense = std::max(operand.inner_stride, operand.vector_stride) <= least;
    return dense ? vectors * k * size_of(operand.dtype) : 0;
  }

  void find_left(int64_t row, int64_t k0, GemmTile<T>& tile) const {
    const std::byte* vector = g_.left.vector(m0_ + row);
    const bool rows = g_.left.inner_stride == 1;
    tile.lie = rows ? Lie::Rows : Lie::Panel;
    tile.a_stride =
        rows ? g_.left.vector_stride * size_of(g_.left.dtype) / kTermBytes : g_.left.inner_stride;
    tile.a = reinterpret_cast<const T*>(vector) + (rows ? k0 : k0 * tile.a_stride);
    tile.a_step = rows ? tile.m * tile.a_stride : tile.m;
  }

  // Columns that a task of a streamed product takes.
  int64_t stream_columns() const {
    const int64_t threads = ThreadPool::shared().threads();
    const int64_t most = std::min(kStreamTile / m_, kStreamColumns) / 64 * 64;
    int64_t share = ceil_div(n_, 4 * threads);
    if (m_ <= kFewRows) share = std::max(2 * share, std::min(kLongStretch, 4 * share));
    return std::clamp(align_up(share, 64), int64_t{128}, most);
  }

  void multiply_streamed(int64_t column0, int64_t column1, int64_t k0, int64_t kc) {
    // Rows of sums would share cache sets if their distance was a power of two.
    constexpr int64_t kGap = 64 / sizeof(T);
    alignas(64) T tile[kStreamTile + kStreamedRows * kGap];
    int64_t n = column1 - column0, width = align_up(n, b_.kernels.columns) + kGap;
    // Few rows of the right operand are read at once then: they share cache sets.
    int64_t depth = m_ > kFewRows ? kStreamDepth : kStreamDepth / 2;
    for (int64_t k = 0; k < kc; k += depth)
      for (int64_t column = 0; column < n; column += b_.kernels.columns)
        stream_panel(k0 + k, std::min(depth, kc - k), column0 + column,
                     std::min<int64_t>(b_.kernels.columns, n - column), k, tile + column, width);
    for (int64_t row = 0; row < m_; ++row) {
      T* to = sums_ + row * sums_stride_ + column0;
      const T* from = tile + row * width;
      for (int64_t j = 0; j < n; ++j) to[j] = k0 > 0 ? to[j] + from[j] : from[j];
    }
    finish(0, m_, column0, column1, k0, kc);
  }

  // Rows k … k + depth of a panel's columns, times all of the left panels from their element
  // `left_k`.
  void stream_panel(int64_t k, int64_t depth, int64_t column, int64_t n, int64_t left_k, T* tile,
                    int64_t width) {
    alignas(64) T copy[kStreamDepth * kMaxPanelWidth];
    const GemmOperand& right = g_.right;
    Dtype dtype = right.dtype;
    int64_t stride = right.inner_stride;
    const std::byte* rows = right.data + (k * stride + n0_ + column) * size_of(dtype);
    bool fetches = m_ <= kFewRows && g_.k * stride * size_of(dtype) >= kFetchedBytes;
    if (n < b_.kernels.columns) {  // the last columns: a whole panel may not be read
      b_.kernels.pack({&rows, static_cast<int>(n), dtype, stride, true}, b_.kernels.columns, 0,
                      depth, copy);
      rows = reinterpret_cast<const std::byte*>(copy);
      dtype = dtype_of<T>;
      stride = b_.kernels.columns;
      fetches = false;
    }
    for (int64_t i = 0; i < left_panels_; ++i) {
      int64_t row = left_begin(i);
      b_.kernels.stream(static_cast<int>(left_begin(i + 1) - row), depth,
                        left_ + i * b_.left_panel + left_k * b_.kernels.rows, rows, dtype, stride,
                        tile + row * width, width, left_k > 0, fetches && i == 0);
    }
  }

  // After the last block of k: rounds finished sums into the output.
  void finish(int64_t row0, int64_t row1, int64_t column0, int64_t column1, int64_t k0,
              int64_t kc) {
    if (!b_.needs_sums || b_.rounds || k0 + kc < g_.k) return;
    for (int64_t row = row0; row < row1; ++row) {
      std::byte* to = g_.out.at(m0_ + row, n0_ + column0);
      const T* from = sums_ + row * sums_stride_ + column0;
      if constexpr (std::is_same_v<T, float>)
        store_rounded(from, column1 - column0, g_.out.dtype, to);
      else
        std::memcpy(to, from, static_cast<size_t>(column1 - column0) * sizeof(T));
    }
  }

  const Gemm<T>& g_;
  const Blocks<T>& b_;
  int64_t m0_, m_, n0_, n_;
  T *left_, *right_;
  std::byte* states_;  // of left panels that are packed, then of right ones
  T* sums_;            // none where tiles are rounded at once
  int64_t sums_stride_, left_panels_, right_panels_;
  int64_t groups_;                            // of left panels
  int64_t panel_rows_, longer_panels_;        // rows of a left panel; so many have one more
  int64_t left_bytes_ = 0, ahead_share_ = 0;  // to be fetched: of the next left operand, per tile
  int64_t packed_left_;                       // left panels that are packed: all or none
};

}  // namespace

template <class T>
size_t Gemm<T>::workspace() const {
  if (m == 0 || n == 0 || k == 0) return 0;
  if (is_dots(*this)) return dots_workspace(*this);
  return Blocks<T>(in_fastest_terms(*this)).bytes();
}

template <class T>
size_t Gemm<T>::largest_workspace() const {
  size_t bytes = 0;
  for (int64_t rows : {m, kMaxDots, kStreamedRows, kMaxGemmRows}) {
    Gemm<T> fewer = *this;
    fewer.m = std::min(m, rows);
    bytes = std::max(bytes, fewer.workspace());
  }
  return bytes;
}

template <class T>
void Gemm<T>::run(std::span<std::byte> workspace) const {
  if (m == 0 || n == 0) return;
  if (k == 0) {
    for (int64_t i = 0; i < m; ++i)
      std::memset(out.at(i, 0), 0, static_cast<size_t>(n * size_of(out.dtype)));
    return;
  }
  MICA_ASSERT(workspace.size() >= this->workspace());
  if (is_dots(*this)) return run_dots(*this, workspace);
  const Gemm<T> gemm = in_fastest_terms(*this);
  Blocks<T> blocks(gemm);
  T* memory = reinterpret_cast<T*>(workspace.data());
  for (int64_t i = 0; i < blocks.row_blocks; ++i) {
    int64_t m0 = part_begin(m, blocks.row_blocks, i);
    int64_t m1 = part_begin(m, blocks.row_blocks, i + 1);
    for (int64_t j = 0; j < blocks.column_blocks; ++j) {
      int64_t n0 = part_begin(n, blocks.column_blocks, j);
      int64_t n1 = part_begin(n, blocks.column_blocks, j + 1);
      BlockRun<T>(gemm, blocks, memory, m0, m1 - m0, n0, n1 - n0).run();
    }
  }
}

template struct Gemm<float>;
template struct Gemm<double>;

}  // namespace mica::cpu
