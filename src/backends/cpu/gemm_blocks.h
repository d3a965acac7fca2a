// How a product is cut into blocks, and which of its operands are packed.
#pragma once

#include <algorithm>
#include <type_traits>

#include "backends/cpu/gemm.h"

namespace mica::cpu {

// Columns that are packed at a time: the panels of both sides then fit the last-level cache, a
// task's share of them the second-level one.
inline constexpr int64_t kMaxColumns = 2048;
// A left block that stays in the second-level cache beside one panel of the right operand.
inline constexpr int64_t kFusedBytes = 640 << 10;
// Bytes of the largest panel of the right operand: 32 floats or 16 doubles wide.
inline constexpr size_t kFusedPanel = (kGemmDepth * 32 + kPanelSlack) * sizeof(float);
// Up to this many rows a right operand that lies in rows is not packed at all.
inline constexpr int64_t kStreamedRows = 32;

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
inline int64_t align_up(int64_t a, int64_t b) { return ceil_div(a, b) * b; }

// Whether neighbouring vectors lie side by side.
inline bool is_in_rows(const GemmOperand& operand) {
  return operand.vector_stride == 1 && !operand.chosen && !operand.fill;
}

template <class T>
bool is_streamed(const Gemm<T>& g) {
  return g.m <= kStreamedRows && is_in_rows(g.right);
}

inline bool has_pairs(const GemmOperand& operand) {
  return operand.dtype == Dtype::BF16 && !operand.fill &&
         (operand.inner_stride == 1 || (operand.vector_stride == 1 && !operand.chosen));
}

// The product in terms of pairs of bfloat16 numbers, if that is faster.
template <class T>
Gemm<T> in_fastest_terms(const Gemm<T>& g) {
  Gemm<T> result = g;
  if constexpr (std::is_same_v<T, float>) {
    if (!has_pairs(g.left) || !has_pairs(g.right) || is_streamed(g)) return result;
    result.kernels = bfloat16_pair_kernels();
    if (!result.kernels) return result;
    result.half_term = g.k % 2 != 0;
    result.k = (g.k + 1) / 2;
  }
  return result;
}

// Rows this many bytes apart (or multiples) lie in the same set of the first-level cache, which
// does not hold a line of each row of a tile then.
inline constexpr int64_t kCacheWay = 4096;
// Right operands up to here are multiplied as they lie: they stay in the second-level cache, whose
// speed suffices for tiles two lines wide. For narrower ones they must nearly fit the first.
inline constexpr int64_t kInPlaceBytes = 1 << 20, kInPlaceNarrow = 128 << 10;
inline constexpr int64_t kInPlaceColumns = 256 << 10;

template <class T>
bool holds_terms(const Gemm<T>& g, const GemmOperand& operand) {
  return !operand.fill && !operand.chosen &&
         operand.dtype == (g.kernels ? Dtype::BF16 : dtype_of<T>);
}

// Whether kernels can read the left operand where it lies, and find it in the caches.
template <class T>
bool is_left_in_place(const Gemm<T>& g) {
  if (!holds_terms(g, g.left) || g.half_term) return false;
  int64_t row_bytes = g.left.vector_stride * size_of(g.left.dtype);
  if (g.left.inner_stride == 1) return row_bytes % 4 == 0 && row_bytes % kCacheWay != 0;
  return g.left.vector_stride == 1 && !g.kernels &&
         g.k * g.left.inner_stride * size_of(g.left.dtype) <= kInPlaceColumns;
}

template <class T>
bool is_right_in_place(const Gemm<T>& g, int columns) {
  const bool narrow = columns * sizeof(T) < 128;
  return holds_terms(g, g.right) && !g.kernels && g.right.vector_stride == 1 &&
         g.k * g.right.inner_stride * size_of(g.right.dtype) <=
             (narrow ? kInPlaceNarrow : kInPlaceBytes);
}

// How a product is cut. Blocks of rows x columns x depth are packed and multiplied in turn.
template <class T>
struct Blocks {
  explicit Blocks(const Gemm<T>& g) : kernels(g.kernels ? *g.kernels : gemm_kernels<T>()) {
    left_in_place = is_left_in_place(g);
    right_in_place = is_right_in_place(g, kernels.columns);
    streamed = is_streamed(g) && !right_in_place;
    left_in_place = left_in_place && !streamed;
    row_blocks = ceil_div(g.m, kMaxGemmRows);
    column_blocks = ceil_div(g.n, streamed ? 8 * kMaxColumns : kMaxColumns);
    // Whole groups of quantized matrices.
    const int64_t unit = g.group > 0 ? g.group : 128;
    const int64_t most = g.group > 0 ? 2 * kGemmDepth : kGemmDepth;
    depth = std::min(g.k, align_up(ceil_div(g.k, ceil_div(g.k, most)), unit));
    rows = ceil_div(g.m, row_blocks);
    columns = ceil_div(g.n, column_blocks);
    left_panel = align_up(depth * kernels.rows + kPanelSlack, 64 / sizeof(T));
    right_panel = align_up(depth * kernels.columns + kPanelSlack, 64 / sizeof(T));
    fused = !streamed && !right_in_place &&
            rows * depth * static_cast<int64_t>(sizeof(T)) <= kFusedBytes;
    fused = fused && static_cast<size_t>(right_panel) * sizeof(T) <= kFusedPanel;
    rounds = !streamed && !g.out.chosen && g.out.dtype != dtype_of<T>;
    needs_sums = g.out.chosen || (g.out.dtype != dtype_of<T> && !(rounds && g.k <= depth));
  }
  int64_t left_panels(int64_t m) const { return ceil_div(m, kernels.rows); }
  int64_t right_panels(int64_t n) const { return ceil_div(n, kernels.columns); }
  int64_t left_size() const { return left_in_place ? 0 : left_panels(rows) * left_panel; }
  bool packs_right() const { return !fused && !streamed && !right_in_place; }
  int64_t right_size() const { return packs_right() ? right_panels(columns) * right_panel : 0; }
  int64_t sums_size() const { return needs_sums ? rows * columns : 0; }
  int64_t panels() const { return left_panels(rows) + right_panels(columns); }
  size_t bytes() const {
    return static_cast<size_t>(left_size() + right_size() + sums_size()) * sizeof(T) +
           static_cast<size_t>(panels());
  }

  const GemmKernels<T>& kernels;
  int64_t row_blocks, column_blocks, depth, rows, columns;
  int64_t left_panel, right_panel;     // elements from panel to panel
  bool left_in_place, right_in_place;  // read where they lie, again and again
  bool streamed;                       // right rows are read once, as they lie
  bool fused;       // right panels are packed by the thread that uses them, and used up at once
  bool rounds;      // tiles are rounded to the output with their last block of depth
  bool needs_sums;  // the output cannot hold unfinished sums
};

}  // namespace mica::cpu
