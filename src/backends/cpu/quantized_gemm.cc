#include <algorithm>
#include <type_traits>

#include "backends/cpu/dots.h"
#include "backends/cpu/quantized.h"
#include "backends/cpu/quantized_int8.h"
#include "backends/cpu/quantized_pairs.h"
#include "backends/cpu/scratch.h"
#include "base/thread_pool.h"

namespace mica::cpu {

namespace {

// Elements that are unpacked at a time on their way into a panel.
constexpr int64_t kUnpackDepth = 128;

// Panels of the matrix product (GemmOperand::fill): columns of the product are the matrix' rows, …
template <class T>
void fill_from_rows(const void* context, int64_t first, int count, int width, int64_t k0,
                    int64_t kc, void* panel) {
  const auto& matrix = *static_cast<const QuantizedMatrix*>(context);
  alignas(64) T unpacked[kMaxPanelWidth * kUnpackDepth];
  const std::byte* vectors[kMaxPanelWidth];
  for (int i = 0; i < count; ++i)
    vectors[i] = reinterpret_cast<const std::byte*>(unpacked + i * kUnpackDepth);
  for (int64_t k = 0; k < kc; k += kUnpackDepth) {
    int64_t depth = std::min(kUnpackDepth, kc - k);
    for (int i = 0; i < count; ++i)
      unpack_row(matrix, first + i, k0 + k, depth, unpacked + i * kUnpackDepth);
    gemm_kernels<T>().pack({vectors, count, dtype_of<T>, 1, false}, width, 0, depth,
                           static_cast<T*>(panel) + k * width);
  }
}

// … or its columns.
template <class T>
void fill_from_columns(const void* context, int64_t first, int count, int width, int64_t k0,
                       int64_t kc, void* panel) {
  const auto& matrix = *static_cast<const QuantizedMatrix*>(context);
  T* row = static_cast<T*>(panel);
  for (int64_t k = 0; k < kc; ++k, row += width) {
    unpack_row(matrix, k0 + k, first, count, row);
    std::fill(row + count, row + width, T(0));
  }
}

template <class T>
Gemm<T> as_gemm(const QuantizedGemm<T>& q) {
  return {.m = q.m,
          .n = q.n,
          .k = q.k,
          .left = q.left,
          .right = {.fill = q.transpose ? &fill_from_rows<T> : &fill_from_columns<T>,
                    .context = &q.matrix},
          .out = q.out};
}

int64_t padded(int64_t k) { return (k + 15) / 16 * 16; }

// Digits of x in exact products (quantized_int8.h).
constexpr int kExactDigits = 3;

template <class T>
bool has_exact_integers(const QuantizedGemm<T>& q) {
  const bool packed = q.matrix.bits == 4 || q.matrix.bits == 8;
  return (packed || int8_kernels().fast) && has_int8_products(q.matrix.group_size) &&
         q.matrix.scales_dtype != Dtype::F64;
}

// Not as a matrix product of floats: few rows, or any number where byte products are that fast.
template <class T>
bool is_dots(const QuantizedGemm<T>& q) {
  if (!std::is_same_v<T, float> || !q.transpose) return false;
  return q.m <= kMaxDots || (has_exact_integers(q) && int8_kernels().fast);
}

size_t float_dots_workspace(const QuantizedGemm<float>& q) {
  return static_cast<size_t>(q.m * padded(q.k)) * sizeof(float);
}

// `f(row, count)` computes `count` (at most kDotRows) outputs of all rows of x, from `row` on.
template <class F>
void for_each_rows(const QuantizedGemm<float>& q, F&& f) {
  int64_t grain = std::max<int64_t>(1, 40000 / (q.k * q.m)) * kDotRows;
  ThreadPool::shared().parallel_for(q.n, grain, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; row += kDotRows)
      f(row, static_cast<int>(std::min<int64_t>(kDotRows, end - row)));
  });
}

void store_dots(const GemmOutput& out, int64_t row0, int rows, int64_t x0, int count,
                const float* values) {
  for (int r = 0; r < rows; ++r)
    for (int i = 0; i < count; ++i) out.store(x0 + i, row0 + r, values[r * kDotVectors + i]);
}

void run_float_dots(const QuantizedGemm<float>& q, std::span<std::byte> workspace) {
  const int64_t stride = padded(q.k);
  float* x = reinterpret_cast<float*>(workspace.data());
  widen_vectors(q.left, q.m, q.k, stride, x);
  for_each_rows(q, [&](int64_t row, int rows) {
    float values[kDotRows * kDotVectors];
    Scratch scratch(kDotRows * stride);
    float* unpacked = scratch.take(kDotRows * stride);
    const std::byte* pointers[kDotRows];
    for (int r = 0; r < rows; ++r) {
      unpack_row(q.matrix, row + r, 0, q.k, unpacked + r * stride);
      pointers[r] = reinterpret_cast<const std::byte*>(unpacked + r * stride);
    }
    for (int64_t i = 0; i < q.m; i += kDotVectors) {
      int count = static_cast<int>(std::min<int64_t>(kDotVectors, q.m - i));
      dot_block({pointers, rows, Dtype::F32, x + i * stride, stride, count, q.k, values});
      store_dots(q.out, row, rows, i, count, values);
    }
  });
}

// The exact product of one row of x.
template <class T>
QuantizedGemm<T> row_of(const QuantizedGemm<T>& q, int64_t row) {
  QuantizedGemm<T> one = q;
  one.m = 1;
  one.int8 = false;
  one.left.data = q.left.vector(row);
  one.out.data = q.out.at(row, 0);
  one.left.chosen = one.out.chosen = nullptr;
  return one;
}

void run_as_floats(const QuantizedGemm<float>& q, std::span<const int64_t> rows,
                   std::span<std::byte> workspace) {
  for (int64_t row : rows) run_float_dots(row_of(q, row), workspace);
}

// Rows that have no digits are multiplied as floats.
void run_dots(const QuantizedGemm<float>& q, std::span<std::byte> workspace) {
  if (!has_exact_integers(q)) return run_float_dots(q, workspace);
  run_as_floats(q, run_int8(q, kExactDigits, workspace), workspace);
}

template <class T>
size_t exact_workspace(const QuantizedGemm<T>& q) {
  if constexpr (std::is_same_v<T, float>) {
    if (has_pair_products(q))
      return std::max(pairs_workspace(q), float_dots_workspace(row_of(q, 0)));
    if (is_dots(q) && !has_exact_integers(q)) return float_dots_workspace(q);
    if (is_dots(q))
      return std::max(float_dots_workspace(row_of(q, 0)), int8_workspace(q, kExactDigits));
  }
  return as_gemm(q).workspace();
}

}  // namespace

template <class T>
size_t QuantizedGemm<T>::workspace() const {
  if (m == 0 || n == 0 || k == 0) return 0;
  if (!int8) return exact_workspace(*this);
  if constexpr (std::is_same_v<T, float>)
    return std::max(int8_workspace(*this, 1), exact_row_workspace());
  MICA_ASSERT(false);
}

template <class T>
size_t QuantizedGemm<T>::largest_workspace() const {
  size_t bytes = 0;
  for (int64_t rows : {m, kMaxDots, kMaxGemmRows}) {
    QuantizedGemm<T> fewer = *this;
    fewer.m = std::min(m, rows);
    bytes = std::max(bytes, fewer.workspace());
  }
  return bytes;
}

template <class T>
void QuantizedGemm<T>::run(std::span<std::byte> workspace) const {
  if (m == 0 || n == 0) return;
  MICA_ASSERT(workspace.size() >= this->workspace());
  if constexpr (std::is_same_v<T, float>) {
    if (int8 && k > 0) return run_exactly(run_int8(*this, 1, workspace), workspace);
    if (k > 0 && has_pair_products(*this))
      return run_as_floats(*this, run_pairs(*this, workspace), workspace);
    if (is_dots(*this) && k > 0) return run_dots(*this, workspace);
  }
  as_gemm(*this).run(workspace);
}

template <class T>
void QuantizedGemm<T>::run_exactly(std::span<const int64_t> rows,
                                   std::span<std::byte> workspace) const {
  for (int64_t row : rows) row_of(*this, row).run(workspace);
}

template <class T>
size_t QuantizedGemm<T>::exact_row_workspace() const {
  return m == 0 || n == 0 || k == 0 ? 0 : exact_workspace(row_of(*this, 0));
}

template struct QuantizedGemm<float>;
template struct QuantizedGemm<double>;

}  // namespace mica::cpu
