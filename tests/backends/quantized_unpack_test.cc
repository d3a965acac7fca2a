// Rows of quantized matrices unpacked by every instruction set, element by element.
#include <fmt/format.h>

#include <algorithm>

#include "tests/backends/quantized_matrices.h"
#include "tests/backends/targets.h"

namespace mica::cpu {
namespace {

class UnpackTest : public TargetTest {};

// Parts that begin and end anywhere, in memory without a byte behind the matrix.
TEST_P(UnpackTest, PartsOfRows) {
  for (int bits : {2, 3, 4, 5, 6, 8})
    for (int group : {16, 32, 64, 128}) {
      const Quantized w(3, 3 * 128, group, bits, Dtype::F32, static_cast<uint32_t>(bits + group));
      for (int64_t first : {0, 8, 40, 128, 376})
        for (int64_t count : {8, 16, 24, 64, 72, 136, 384}) {
          if (first + count > w.columns) continue;
          SCOPED_TRACE(fmt::format("{} bits, group {}, {} from {}", bits, group, count, first));
          std::vector<float> got(static_cast<size_t>(count) + 1, -7);
          for (int64_t row = 0; row < w.rows; ++row) {
            unpack_row(w.view, row, first, count, got.data());
            for (int64_t i = 0; i < count; ++i)
              ASSERT_NEAR(got[static_cast<size_t>(i)], w.at(row, first + i), 1e-6) << i;
            ASSERT_EQ(got.back(), -7);
          }
        }
    }
}

TEST_P(UnpackTest, IntegersAsBfloat16) {
  for (int bits : {2, 3, 4, 5, 6, 8}) {
    const Quantized w(2, 256, 64, bits, Dtype::BF16, static_cast<uint32_t>(bits));
    std::vector<bfloat16_t> got(256);
    for (int64_t row = 0; row < 2; ++row) {
      unpack_centred(w.view, row, 0, 256, got.data());
      for (int64_t i = 0; i < 256; ++i) {
        const int q = static_cast<int>(ops::quantized_element(w.view.packed_row(row), i, bits));
        ASSERT_EQ(static_cast<float>(got[static_cast<size_t>(i)]),
                  static_cast<float>(q - (1 << (bits - 1))));
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Targets, UnpackTest, all_targets(), target_name);

}  // namespace
}  // namespace mica::cpu
