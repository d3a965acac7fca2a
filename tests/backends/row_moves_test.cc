// Copies of many rows: every length, alignment and spacing, with and without stores past the
// caches; nothing beside the rows is written.
#include "backends/cpu/row_moves.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "backends/cpu/tile_io.h"
#include "tests/backends/targets.h"

namespace mica::cpu {
namespace {

class RowMoves : public TargetTest {};

struct Case {
  int64_t bytes, from_gap, to_gap, shift;
  bool stream;
};

void check(const Case& c) {
  constexpr int64_t kRows = 150;
  int64_t from_step = c.bytes + c.from_gap, to_step = c.bytes + c.to_gap;
  std::vector<std::byte> from(static_cast<size_t>(kRows * from_step));
  for (size_t i = 0; i < from.size(); ++i) from[i] = static_cast<std::byte>(i * 131 + i / 251);
  std::vector<int64_t> offsets(kRows);
  for (int64_t i = 0; i < kRows; ++i) offsets[i] = i * 37 % kRows;
  for (bool gathered : {false, true}) {
    std::vector<std::byte> memory(static_cast<size_t>(kRows * to_step) + 256, std::byte{0x5a});
    auto expected = memory;
    int64_t start = 64 - reinterpret_cast<intptr_t>(memory.data()) % 64 + c.shift;
    RowMove move{from.data(), from_step, memory.data() + start, to_step, kRows, c.bytes, c.stream};
    gathered ? gather_rows(move, offsets.data()) : move_rows(move);
    stream_fence();
    for (int64_t i = 0; i < kRows; ++i) {
      int64_t row = gathered ? offsets[i] : i;
      std::copy_n(from.data() + row * from_step, c.bytes, expected.data() + start + i * to_step);
    }
    ASSERT_TRUE(memory == expected)
        << c.bytes << " bytes, gaps " << c.from_gap << ", " << c.to_gap << ", shifted by "
        << c.shift << (c.stream ? ", streamed" : "") << (gathered ? ", gathered" : "");
  }
}

TEST_P(RowMoves, EveryLength) {
  std::vector<int64_t> lengths(200);
  for (size_t i = 0; i < lengths.size(); ++i) lengths[i] = static_cast<int64_t>(i) + 1;
  for (int64_t length : {256, 1023, 1024, 1025, 4032, 4096, 4099, 8192}) lengths.push_back(length);
  for (int64_t bytes : lengths) {
    for (bool stream : {false, true}) {
      check({bytes, 0, 0, 0, stream});
      check({bytes, 5, 3, 1, stream});
      check({bytes, 64, 64, 0, stream});
    }
  }
}

TEST_P(RowMoves, RowsThatRepeatAndRunBackwards) {
  std::vector<int> from{1, 2, 3, 4, 5, 6}, to(6);
  auto* in = reinterpret_cast<std::byte*>(from.data());
  auto* out = reinterpret_cast<std::byte*>(to.data());
  move_rows({in, 0, out, 8, 3, 8, false});
  EXPECT_EQ(to, (std::vector<int>{1, 2, 1, 2, 1, 2}));
  move_rows({in + 16, -8, out, 8, 3, 8, false});
  EXPECT_EQ(to, (std::vector<int>{5, 6, 3, 4, 1, 2}));
  move_rows({in, 8, out, 8, 0, 8, true});
  EXPECT_EQ(to, (std::vector<int>{5, 6, 3, 4, 1, 2}));
}

INSTANTIATE_TEST_SUITE_P(Targets, RowMoves, all_targets(), target_name);

}  // namespace
}  // namespace mica::cpu
