// Many places, read a piece at a time with those to fetch ahead: every update counts once, in
// order.
#include "backends/cpu/places.h"

#include <gtest/gtest.h>

#include "base/thread_pool.h"
#include "core/array.h"
#include "ops/index.h"

namespace mica {
namespace {

std::vector<int32_t> places_below(int32_t extent, size_t count) {
  std::vector<int32_t> places(count);
  uint32_t state = 12345;
  for (int32_t& place : places) {
    state = state * 1664525 + 1013904223;
    place = static_cast<int32_t>(state >> 8) % (2 * extent) - extent;  // negative: from the end
  }
  return places;
}

TEST(Places, PiecesKnowWhatComesLater) {
  for (int64_t count : {1, 63, 64, 65, 511, 512, 513, 575, 576, 577, 2000}) {
    std::vector<int32_t> indices = places_below(1000, static_cast<size_t>(count));
    Array at = Array::from<int32_t>(indices);
    auto data = at.host_bytes();
    View view{const_cast<std::byte*>(data.get()), Dtype::I32, {count}, {1}};
    View of{nullptr, Dtype::F32, {1000, 4}, {4, 1}};
    const int axis = 0;
    const int64_t block[] = {1, 4};
    cpu::BlockPlaces places({&view, 1}, {&axis, 1}, of, block, "test");
    for (size_t ahead : {0, 1, 64}) {
      std::vector<int64_t> seen, later;
      int64_t next = 0;
      places.for_each_chunk(
          0, count, ahead,
          [&](int64_t first, std::span<const int64_t> offsets, std::span<const int64_t> ones) {
            EXPECT_EQ(first, next);
            next = first + static_cast<int64_t>(offsets.size());
            EXPECT_TRUE(ones.empty() || ones.data() == offsets.data() + ahead);
            seen.insert(seen.end(), offsets.begin(), offsets.end());
            later.insert(later.end(), ones.begin(), ones.end());
          });
      ASSERT_EQ(seen.size(), indices.size());
      for (size_t i = 0; i < seen.size(); ++i)
        EXPECT_EQ(seen[i], 4 * (indices[i] + (indices[i] < 0 ? 1000 : 0)));
      ASSERT_EQ(later.size(), indices.size() - std::min(ahead, indices.size()));
      for (size_t i = 0; i < later.size(); ++i) EXPECT_EQ(later[i], seen[i + ahead]);
    }
  }
}

TEST(Places, GathersAndAddsOfManyElements) {
  constexpr int32_t kExtent = 1 << 21;  // far enough to be fetched ahead
  constexpr size_t kCount = 3000;
  std::vector<int32_t> indices = places_below(kExtent, kCount);
  indices[700] = indices[3], indices[2999] = indices[3];
  std::vector<float> from(kExtent), updates(kCount);
  for (size_t i = 0; i < from.size(); ++i) from[i] = static_cast<float>(i % 1013);
  for (size_t i = 0; i < kCount; ++i) updates[i] = static_cast<float>(i);
  Array a = Array::from(from), at = Array::from(indices);
  std::vector<float> taken = take(a, at, 0).to_vector<float>();
  std::vector<float> added =
      scatter(a, {at}, Array::from<float>(updates, {kCount, 1}), {0}, ScatterMode::Add)
          .to_vector<float>();
  for (size_t i = 0; i < kCount; ++i) {
    auto place = static_cast<size_t>(indices[i] + (indices[i] < 0 ? kExtent : 0));
    EXPECT_EQ(taken[i], static_cast<float>(place % 1013));
    from[place] += updates[i];
  }
  EXPECT_EQ(added, from);
}

// So many elements that threads share the rows.
TEST(Places, AddsRowsOnSeveralThreads) {
  constexpr int32_t kRows = 3000;
  constexpr size_t kWidth = 16;
  ThreadPool::shared().set_threads(3);
  for (size_t count : {4096, 4097, 4700, 20000}) {
    const std::vector<int32_t> indices = places_below(kRows, count);
    std::vector<float> sums(kRows * kWidth), updates(count * kWidth);
    for (size_t i = 0; i < updates.size(); ++i) updates[i] = static_cast<float>(i % 97);
    Array added = scatter(Array::from<float>(sums, {kRows, kWidth}), {Array::from(indices)},
                          Array::from<float>(updates, {static_cast<int64_t>(count), 1, kWidth}),
                          {0}, ScatterMode::Add);
    for (size_t i = 0; i < updates.size(); ++i) {
      const int32_t row = indices[i / kWidth] + (indices[i / kWidth] < 0 ? kRows : 0);
      sums[static_cast<size_t>(row) * kWidth + i % kWidth] += updates[i];
    }
    EXPECT_EQ(added.to_vector<float>(), sums);
  }
  ThreadPool::shared().set_threads(0);
}

}  // namespace
}  // namespace mica
