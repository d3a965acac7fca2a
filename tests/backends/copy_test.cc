// Copies of strided views into row-major memory.
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <vector>

#include "core/backend.h"
#include "tests/backends/targets.h"

namespace mica {
namespace {

// Copies a view made by permuting, reversing and thinning the axes of row-major memory.
void check(const Shape& shape, std::vector<size_t> order, int64_t step, bool reversed,
           Dtype dtype) {
  Shape stored;
  for (size_t axis : order) stored.push_back(shape[axis] * step);
  Strides memory = row_major(stored), strides(shape.size(), 0);
  int64_t offset = 0;
  for (size_t k = 0; k < order.size(); ++k) {
    strides[order[k]] = memory[k] * step;
    if (!reversed) continue;
    offset += strides[order[k]] * (shape[order[k]] - 1);
    strides[order[k]] = -strides[order[k]];
  }
  auto item = static_cast<size_t>(size_of(dtype));
  std::vector<std::byte> from(static_cast<size_t>(elements(stored)) * item);
  for (size_t i = 0; i < from.size(); ++i)
    from[i] = static_cast<std::byte>(i * 131 + i / 256 * 7 + i / 65536);
  auto bytes = static_cast<size_t>(elements(shape)) * item;
  std::vector<std::byte> memory_of_result(bytes + 64);
  std::byte* to =
      memory_of_result.data() + 64 - reinterpret_cast<uintptr_t>(memory_of_result.data()) % 64;
  std::byte* first = from.empty() ? nullptr : from.data() + offset * static_cast<int64_t>(item);
  View source{first, dtype, shape, strides};
  backend_of(DeviceKind::Cpu)->copy(source, {to, dtype, shape, row_major(shape)});
  Dims index(shape.size(), 0);
  for (int64_t i = 0; i < elements(shape); ++i) {
    int64_t at = 0, left = i;
    for (size_t a = shape.size(); a-- > 0; left /= shape[a]) at += left % shape[a] * strides[a];
    ASSERT_EQ(std::memcmp(to + i * static_cast<int64_t>(item),
                          source.data + at * static_cast<int64_t>(item), item),
              0)
        << to_string(shape) << " element " << i << " of " << dtype_name(dtype);
  }
}

class Copy : public cpu::TargetTest {};

TEST_P(Copy, EveryPermutation) {
  for (const Shape& shape : {Shape{3, 5}, Shape{64, 64}, Shape{65, 130}, Shape{200, 7},
                             Shape{3, 70, 66}, Shape{2, 3, 4, 5}, Shape{1, 33, 129}, Shape{0, 4}}) {
    std::vector<size_t> order(shape.size());
    std::iota(order.begin(), order.end(), 0);
    do {
      for (Dtype dtype : {Dtype::U8, Dtype::F16, Dtype::F32, Dtype::F64})
        check(shape, order, 1, false, dtype);
      check(shape, order, 2, false, Dtype::F32);
      check(shape, order, 1, true, Dtype::F32);
    } while (std::next_permutation(order.begin(), order.end()));
  }
}

// Results of more than 8 MiB are stored past the caches.
TEST_P(Copy, LargeTransposes) {
  check({1600, 1472}, {1, 0}, 1, false, Dtype::F32);
  check({1601, 1473}, {1, 0}, 1, false, Dtype::F32);
  check({2, 1024, 1100}, {0, 2, 1}, 1, false, Dtype::F64);
  check({2100, 2112}, {1, 0}, 1, false, Dtype::F16);
  check({2900, 2944}, {1, 0}, 1, false, Dtype::U8);
}

TEST_P(Copy, LargePermutationsOfRows) {
  check({3, 17, 1500, 32}, {0, 2, 1, 3}, 1, false, Dtype::F32);
  check({3, 17, 1500, 33}, {0, 2, 1, 3}, 1, false, Dtype::F32);
}

TEST_P(Copy, LargeThinnedAndReversedRows) {
  for (int64_t length : {2048, 2500, 40000}) {
    Shape shape{(int64_t{9} << 20) / 4 / length, length};
    check(shape, {0, 1}, 2, false, Dtype::F32);
    check(shape, {0, 1}, 3, false, Dtype::F32);
    check(shape, {0, 1}, 1, true, Dtype::F32);
  }
  check({3000, 3200}, {0, 1}, 2, true, Dtype::U8);
}

// Few rows, few columns: interleaved channels taken apart and put together.
TEST_P(Copy, LargeNarrowTransposes) {
  for (int64_t channels : {3, 17}) {
    int64_t pixels = (int64_t{9} << 20) / 4 / channels / 16 * 16;
    check({channels, pixels}, {1, 0}, 1, false, Dtype::F32);
    check({pixels, channels}, {1, 0}, 1, false, Dtype::F32);
    check({channels, pixels + 1}, {1, 0}, 1, false, Dtype::F16);
    check({pixels, channels}, {1, 0}, 1, false, Dtype::U8);
    check({2, channels, pixels}, {0, 2, 1}, 1, false, Dtype::F64);
  }
}

INSTANTIATE_TEST_SUITE_P(Targets, Copy, cpu::all_targets(), cpu::target_name);

}  // namespace
}  // namespace mica
