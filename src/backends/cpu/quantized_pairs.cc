#include "backends/cpu/quantized_pairs.h"

#include <algorithm>
#include <mutex>

#include "backends/cpu/tile_stream.h"
#include "base/thread_pool.h"

namespace mica::cpu {

namespace {

// Up to this many rows of x are multiplied with the packed rows, kPairRows at a time.
constexpr int64_t kMostDots = 24;
// Bytes of a matrix that are worth another thread.
constexpr double kShare = 48 << 10;

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
int64_t padded(int64_t bytes) { return ceil_div(bytes, 64) * 64; }

bool is_dots(const QuantizedGemm<float>& q) { return q.m <= kMostDots; }

// What is multiplied.
struct PairOperands {
  const QuantizedGemm<float>& product;
  PairFormat format;
  const std::byte* rows;  // of x, made ready

  const std::byte* row(int64_t i) const { return rows + i * format.row_bytes; }

  int64_t terms() const { return format.group_size / 2 + 2; }
};

void fill_left(const void* context, int64_t first, int count, int width, int64_t k0, int64_t kc,
               void* panel) {
  const auto& operands = *static_cast<const PairOperands*>(context);
  const int64_t terms = operands.terms(), pairs = terms - 2;
  const std::byte* vectors[kMaxPanelWidth];
  for (int i = 0; i < count; ++i)
    vectors[i] = reinterpret_cast<const std::byte*>(operands.format.words(operands.row(first + i)));
  float* to = static_cast<float*>(panel);
  for (int64_t g = k0 / terms; g < (k0 + kc) / terms; ++g, to += terms * width) {
    bfloat16_pair_kernels()->pack({vectors, count, Dtype::BF16, 1, false}, width, g * pairs, pairs,
                                  to);
    float* sums = to + pairs * width;
    std::fill_n(sums, 2 * width, 0.0f);
    for (int i = 0; i < count; ++i)
      sums[width + i] = operands.format.sums(operands.row(first + i))[g];
  }
}

void fill_right(const void* context, int64_t first, int count, int, int64_t k0, int64_t kc,
                void* panel) {
  const auto& operands = *static_cast<const PairOperands*>(context);
  const int64_t terms = operands.terms();
  pair_kernels()->unpack(operands.format, operands.product.matrix, first, count, k0 / terms,
                         kc / terms, static_cast<float*>(panel));
}

Gemm<float> as_gemm(const PairOperands& operands) {
  const QuantizedGemm<float>& q = operands.product;
  return {.m = q.m,
          .n = q.n,
          .k = operands.format.groups * operands.terms(),
          .left = {.fill = &fill_left, .context = &operands},
          .right = {.fill = &fill_right, .context = &operands},
          .out = q.out,
          .kernels = &pair_kernels()->gemm,
          .group = operands.terms()};
}

// Makes all rows of x ready; gives those that are out of range.
std::vector<int64_t> prepare(const QuantizedGemm<float>& q, const PairFormat& format,
                             std::byte* rows) {
  const PairKernels& kernels = *pair_kernels();
  std::vector<int64_t> odd;
  std::mutex mutex;
  const int64_t grain = std::max<int64_t>(1, 16384 / q.k);
  ThreadPool::shared().parallel_for(q.m, grain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const auto* x = reinterpret_cast<const bfloat16_t*>(q.left.vector(i));
      std::byte* row = rows + i * format.row_bytes;
      if (is_dots(q))
        kernels.arrange(format, x, format.words(row));
      else
        kernels.pair_up(x, q.k, format.words(row));
      if (kernels.sum(format, x, format.sums(row))) continue;
      std::lock_guard lock(mutex);
      odd.push_back(i);
    }
  });
  return odd;
}

// Tiles of rows of the matrix, each times all rows of x.
void run_dots(const PairOperands& operands) {
  const auto& [q, format, rows] = operands;
  const double bytes = static_cast<double>(q.n * q.m) * static_cast<double>(q.k * format.bits / 8);
  const auto threads = static_cast<int64_t>(std::min(bytes / kShare, 1e6));
  for_each_tile(ceil_div(q.n, kInt8Rows), threads, [&](const StreamTile& tile) {
    const int64_t row = tile.index * kInt8Rows;
    const int count = static_cast<int>(std::min<int64_t>(kInt8Rows, q.n - row));
    const Int8Place next{&q.matrix, tile.next < 0 ? row : tile.next * kInt8Rows};
    for (int64_t i = 0; i < q.m; i += kPairRows) {
      const int some = static_cast<int>(std::min<int64_t>(kPairRows, q.m - i));
      const std::byte* x[kPairRows];
      for (int j = 0; j < some; ++j) x[j] = operands.row(i + j);
      float values[kPairRows * kInt8Rows];
      pair_kernels()->dots(format, q.matrix, row, count, x, some, values, next);
      for (int j = 0; j < some; ++j)
        store_rounded(values + j * kInt8Rows, count, q.out.dtype, q.out.at(i + j, row));
    }
  });
}

}  // namespace

PairFormat::PairFormat(const QuantizedMatrix& matrix, int64_t k)
    : bits(matrix.bits),
      group_size(matrix.group_size),
      k(k),
      groups(k / matrix.group_size),
      padded_groups(ceil_div(groups, 16) * 16),
      row_bytes(padded_groups * 4 + padded(ceil_div(k, 128) * 256)) {}

bool has_pair_products(const QuantizedGemm<float>& q) {
  return q.transpose && q.left.dtype == Dtype::BF16 && q.left.inner_stride == 1 &&
         q.matrix.group_size >= 32 && q.matrix.scales_dtype != Dtype::F64 && pair_kernels();
}

size_t pairs_workspace(const QuantizedGemm<float>& q) {
  const PairFormat format(q.matrix, q.k);
  const auto rows = static_cast<size_t>(q.m * format.row_bytes);
  return is_dots(q) ? rows : rows + as_gemm({q, format, nullptr}).workspace();
}

std::vector<int64_t> run_pairs(const QuantizedGemm<float>& q, std::span<std::byte> workspace) {
  const PairFormat format(q.matrix, q.k);
  std::vector<int64_t> odd = prepare(q, format, workspace.data());
  const PairOperands operands{q, format, workspace.data()};
  if (is_dots(q))
    run_dots(operands);
  else
    as_gemm(operands).run(workspace.subspan(static_cast<size_t>(q.m * format.row_bytes)));
  return odd;
}

}  // namespace mica::cpu
