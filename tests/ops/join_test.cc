#include <algorithm>

#include "ops/join.h"

#include "base/expect_error.h"
#include "ops/create.h"
#include "ops/on_devices.h"

namespace mica {
namespace {

TEST(Join, Concatenate) {
  on_devices([] {
    Array a = counting({2, 2}), b = counting({2, 1});
    expect_array(concatenate({a, b}, 1), {2, 3}, {0, 1, 0, 2, 3, 1});
    expect_array(concatenate({a, transpose(a)}, 0), {4, 2}, {0, 1, 2, 3, 0, 2, 1, 3});
    expect_array(concatenate({broadcast_to(b, {2, 2}), a}, -1), {2, 4}, {0, 0, 0, 1, 1, 1, 2, 3});
    expect_array(concatenate({zeros({0, 2}), a, zeros({0, 2})}), {2, 2}, {0, 1, 2, 3});
    EXPECT_EQ(concatenate({a, astype(b, Dtype::F16)}, 1).dtype(), Dtype::F32);
    expect_array(stack({a, a}, 1), {2, 2, 2}, {0, 1, 0, 1, 2, 3, 2, 3});
    expect_array(stack({counting({})}, 0), {1}, {0});
  });
  Array a = counting({2, 2});
  expect_error(ErrorKind::Value, "[concatenate] shapes (2, 2) and (3, 3) differ",
               [&] { concatenate({a, counting({3, 3})}, 0); });
  expect_error(ErrorKind::Value, "no arrays", [] { concatenate({}); });
  expect_error(ErrorKind::Index, "out of range", [&] { concatenate({a}, 2); });
  expect_error(ErrorKind::Value, "[stack] shapes differ", [&] { stack({a, counting({2})}); });
}

// Large enough for several threads and for rows of many sizes.
TEST(Join, LargeConcatenate) {
  for (int64_t width : {1, 3, 1000, 100000}) {
    int64_t rows = 600000 / width;
    Array a = counting({rows, width}, Dtype::I32), b = counting({rows, 2 * width}, Dtype::I32);
    std::vector<int32_t> joined = concatenate({a, b}, 1).to_vector<int32_t>();
    for (int64_t r = 0; r < rows; r += std::max<int64_t>(rows / 1000, 1)) {
      for (int64_t c = 0; c < 3 * width; ++c) {
        int64_t expected = c < width ? r * width + c : r * 2 * width + c - width;
        ASSERT_EQ(joined[static_cast<size_t>(r * 3 * width + c)], expected) << r << ", " << c;
      }
    }
  }
}

TEST(Join, Split) {
  on_devices([] {
    Array a = counting({2, 6});
    Arrays thirds = split(a, 3, 1);
    ASSERT_EQ(thirds.size(), 3u);
    expect_array(thirds[1], {2, 2}, {2, 3, 8, 9});
    Arrays cut = split(a, Shape{1, 4}, -1);
    ASSERT_EQ(cut.size(), 3u);
    expect_array(cut[2], {2, 2}, {4, 5, 10, 11});
    EXPECT_EQ(split(a, Shape{4, 9}, 1)[2].shape(), Shape({2, 0}));
  });
  expect_error(ErrorKind::Value, "does not split into 4 equal parts",
               [] { split(counting({2, 6}), 4, 1); });
}

TEST(Join, Pad) {
  on_devices([] {
    Array a = counting({2, 2});
    expect_array(pad(a, {{1, 0}, {0, 1}}, 9), {3, 3}, {9, 9, 9, 0, 1, 9, 2, 3, 9});
    expect_array(pad(counting({2}), {{1, 2}}), {5}, {0, 0, 1, 0, 0});
    expect_array(pad(a, {{0, 1}, {1, 1}}, PadMode::Edge), {3, 4},
                 {0, 0, 1, 1, 2, 2, 3, 3, 2, 2, 3, 3});
    expect_array(pad(counting({3}), {{5, 2}}, PadMode::Reflect), {10},
                 {1, 0, 1, 2, 1, 0, 1, 2, 1, 0});
    expect_array(pad(counting({3}), {{2, 4}}, PadMode::Symmetric), {9},
                 {1, 0, 0, 1, 2, 2, 1, 0, 0});
    expect_array(pad(counting({1}), {{1, 1}}, PadMode::Reflect), {3}, {0, 0, 0});
    EXPECT_EQ(pad(zeros({0}), {{1, 1}}, 4).to_vector<double>(), std::vector<double>({4, 4}));
  });
  expect_error(ErrorKind::Value, "no elements to repeat",
               [] { pad(zeros({0}), {{1, 0}}, PadMode::Edge); });
  expect_error(ErrorKind::Value, "negative width", [] { pad(counting({2}), {{-1, 0}}); });
  expect_error(ErrorKind::Value, "2 pairs of widths", [] { pad(counting({2}), {{1, 0}, {1, 0}}); });
}

TEST(Join, RepeatTileRollFlip) {
  on_devices([] {
    Array a = counting({2, 2});
    expect_array(repeat(a, 2, 1), {2, 4}, {0, 0, 1, 1, 2, 2, 3, 3});
    expect_array(repeat(a, 2), {8}, {0, 0, 1, 1, 2, 2, 3, 3});
    expect_array(repeat(a, 0, 0), {0, 2}, {});
    expect_array(tile(a, {2}), {2, 4}, {0, 1, 0, 1, 2, 3, 2, 3});
    expect_array(tile(counting({2}), {2, 1, 2}), {2, 1, 4}, {0, 1, 0, 1, 0, 1, 0, 1});
    expect_array(roll(counting({5}), 2), {5}, {3, 4, 0, 1, 2});
    expect_array(roll(a, {1}, {1}), {2, 2}, {1, 0, 3, 2});
    expect_array(roll(a, {-1, 1}, {0, 1}), {2, 2}, {3, 2, 1, 0});
    expect_array(roll(a, 1), {2, 2}, {3, 0, 1, 2});
    expect_array(roll(counting({2, 3}), {1, 2}, {0}), {2, 3}, {3, 4, 5, 0, 1, 2});
    expect_array(roll(counting({2, 3}), {1}, {0, 1}), {2, 3}, {5, 3, 4, 2, 0, 1});
    expect_array(flip(a), {2, 2}, {3, 2, 1, 0});
    expect_array(flip(a, {-1}), {2, 2}, {1, 0, 3, 2});
    expect_array(flip(zeros({0, 2})), {0, 2}, {});
  });
}

}  // namespace
}  // namespace mica
