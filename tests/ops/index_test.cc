#include "ops/index.h"

#include <random>

#include "base/expect_error.h"
#include "base/thread_pool.h"
#include "core/counters.h"
#include "ops/create.h"
#include "ops/on_devices.h"

namespace mica {
namespace {

TEST(Index, Take) {
  on_devices([] {
    Array a = counting({3, 4});
    expect_array(take(a, ints({2, 0, -1}), 0), {3, 4}, {8, 9, 10, 11, 0, 1, 2, 3, 8, 9, 10, 11});
    expect_array(take(a, reshape(ints({3, 0, -3, 1}), {2, 2}), 1), {3, 2, 2},
                 {3, 0, 1, 1, 7, 4, 5, 5, 11, 8, 9, 9});
    expect_array(take(a, ints({5, -1})), {2}, {5, 11});
    expect_array(take(a, reshape(ints({1}), {}), 0), {4}, {4, 5, 6, 7});
    expect_array(take(a, 1, 1), {3}, {1, 5, 9});
    expect_array(take(a, ints({}), 0), {0, 4}, {});
    expect_array(take(transpose(a), ints({1, 1}), 0), {2, 3}, {1, 5, 9, 1, 5, 9});
    expect_array(take(counting({2, 2, 2}), ints({1}), 1), {2, 1, 2}, {2, 3, 6, 7});
    for (Dtype dtype : {Dtype::U8, Dtype::I8, Dtype::U32, Dtype::I64, Dtype::U64}) {
      expect_array(take(counting({5}), astype(ints({4, 2}), dtype), 0), {2}, {4, 2});
    }
  });
}

TEST(Index, TakeErrors) {
  on_devices([] {
    Array a = counting({3, 4});
    expect_error(ErrorKind::Index, "[take] index 3 is out of range for axis 0 with 3 elements",
                 [&] { take(a, ints({0, 3}), 0).eval(); });
    expect_error(ErrorKind::Index, "index -5 is out of range for axis 1",
                 [&] { take(a, ints({-5}), 1).eval(); });
    expect_error(ErrorKind::Index, "nothing to take", [&] { take(zeros({0, 3}), ints({0}), 0); });
  });
  expect_error(ErrorKind::Value, "[take] indices must be integers, got float32",
               [] { take(counting({3}), reals({0}), 0); });
  expect_error(ErrorKind::Index, "axis 2 is out of range",
               [] { take(counting({3, 4}), ints({0}), 2); });
  expect_error(ErrorKind::Index, "index 3 is out of range", [] { take(counting({3}), 3, 0); });
}

// A result that is stored past the caches.
TEST(Index, TakeOfManyRows) {
  for (int64_t width : {20, 32}) {
    constexpr int64_t kRows = 110000;
    std::vector<int32_t> order(kRows);
    for (int64_t i = 0; i < kRows; ++i) order[i] = static_cast<int32_t>(i * 7919 % kRows);
    Array taken = take(astype(counting({kRows, width}), Dtype::F32), ints(order), 0);
    auto values = taken.to_vector<float>();
    for (int64_t i = 0; i < kRows; ++i) {
      for (int64_t k = 0; k < width; ++k)
        ASSERT_EQ(values[i * width + k], static_cast<float>(order[i] * width + k))
            << i << ", " << k;
    }
  }
}

// Single elements of an array that no cache holds; pieces of the indices that end anywhere.
TEST(Index, TakeOfFarElements) {
  constexpr int64_t kSize = int64_t{3} << 20;
  Array a = counting({kSize});
  for (int64_t count : {1, 63, 64, 65, 512, 600, 1500}) {
    std::vector<int32_t> chosen(static_cast<size_t>(count));
    for (int64_t i = 0; i < count; ++i) chosen[i] = static_cast<int32_t>(i * 1000003 % kSize);
    EXPECT_EQ(take(a, ints(chosen), 0).to_vector<int32_t>(), chosen);
  }
}

// Rows, columns and blocks of many sizes against index arithmetic.
TEST(Index, TakeOfEverySize) {
  std::mt19937 random(3);
  for (Shape shape : {Shape{1000, 64}, Shape{64, 1000}, Shape{7, 50, 3}, Shape{2, 9, 70},
                      Shape{20000}, Shape{3, 70000}}) {
    Array a = counting(shape, Dtype::F64);
    for (int axis = 0; axis < static_cast<int>(shape.size()); ++axis) {
      std::vector<int32_t> chosen(50);
      for (int32_t& at : chosen)
        at = static_cast<int32_t>(random() % static_cast<uint32_t>(shape[axis]));
      std::vector<double> taken = take(a, ints(chosen), axis).to_vector<double>();
      int64_t before = 1, after = 1;
      for (int i = 0; i < axis; ++i) before *= shape[i];
      for (size_t i = axis + 1; i < shape.size(); ++i) after *= shape[i];
      for (size_t i = 0; i < taken.size(); i += 1 + taken.size() / 5000) {
        auto p = static_cast<int64_t>(i) / after % 50, head = static_cast<int64_t>(i) / after / 50;
        ASSERT_LT(head, before);
        ASSERT_EQ(taken[i], static_cast<double>((head * shape[axis] + chosen[p]) * after +
                                                static_cast<int64_t>(i) % after));
      }
    }
  }
}

TEST(Index, AlongAnAxis) {
  on_devices([] {
    Array a = counting({2, 3});
    Array at = reshape(ints({2, 0, -1, 1}), {2, 2});
    expect_array(take_along_axis(a, at, 1), {2, 2}, {2, 0, 5, 4});
    expect_array(take_along_axis(a, reshape(ints({1}), {1, 1}), 0), {1, 3}, {3, 4, 5});
    expect_array(take_along_axis(a, ints({5, 0})), {2}, {5, 0});
    expect_array(take_along_axis(transpose(a), reshape(ints({1, 0, 1}), {3, 1}), 1), {3, 1},
                 {3, 1, 5});
    expect_array(put_along_axis(a, at, reals({7, 8}), 1), {2, 3}, {8, 1, 7, 3, 8, 7});
    expect_array(put_along_axis(counting({3}), ints({1, 1}), reals({5, 6}), 0), {3}, {0, 6, 2});
    expect_array(scatter_add_axis(counting({3}), ints({1, 1, -1}), reals({5, 6, 1}), 0), {3},
                 {0, 12, 3});
    expect_error(ErrorKind::Index, "[take_along_axis] index 3",
                 [&] { take_along_axis(a, reshape(ints({3}), {1, 1}), 1).eval(); });
    expect_error(ErrorKind::Index, "[put_along_axis] index 2",
                 [&] { put_along_axis(a, reshape(ints({2}), {1, 1}), reals({0}), 0).eval(); });
  });
  expect_error(ErrorKind::Value, "need as many axes",
               [] { take_along_axis(counting({2, 3}), ints({0}), 1); });
}

TEST(Index, GatherAndScatter) {
  on_devices([] {
    Array a = counting({3, 4});
    expect_array(gather(a, {ints({0, 2})}, {0}, {1, 2}), {2, 1, 2}, {0, 1, 8, 9});
    expect_array(gather(a, {ints({0, 1}), ints({2, -3})}, {0, 1}, {2, 2}), {2, 2, 2},
                 {2, 3, 6, 7, 5, 6, 9, 10});
    expect_array(gather(a, {reshape(ints({0, 2}), {2, 1}), ints({1, 3})}, {0, 1}, {1, 1}),
                 {2, 2, 1, 1}, {1, 3, 9, 11});
    Array z = zeros({3, 2});
    Array rows = reshape(reals({1, 2, 3, 4, 5, 6}), {3, 1, 2});
    expect_array(scatter(z, {ints({0, 2, 0})}, rows, {0}, ScatterMode::Add), {3, 2},
                 {6, 8, 0, 0, 3, 4});
    expect_array(scatter(z, {ints({0, 2, 0})}, rows, {0}), {3, 2}, {5, 6, 0, 0, 3, 4});
    expect_array(scatter(z + 2, {ints({1, 1, 0})}, rows, {0}, ScatterMode::Max), {3, 2},
                 {5, 6, 3, 4, 2, 2});
    expect_array(scatter(z + 2, {ints({1, 1, 0})}, rows, {0}, ScatterMode::Min), {3, 2},
                 {2, 2, 1, 2, 2, 2});
    expect_array(scatter(z + 2, {ints({1, 1, 0})}, rows, {0}, ScatterMode::Prod), {3, 2},
                 {10, 12, 6, 16, 2, 2});
    // Blocks that overlap.
    expect_array(scatter(zeros({4}), {ints({0, 1, 1})}, ones({3, 2}), {0}, ScatterMode::Add), {4},
                 {1, 3, 2, 0});
    expect_array(scatter(counting({2, 2}, Dtype::I8), {ints({-1})}, full({1, 2, 1}, 100, Dtype::I8),
                         {1}, ScatterMode::Add),
                 {2, 2}, {0, 101, 2, 103});
  });
}

TEST(Index, GatherAndScatterErrors) {
  on_devices([] {
    Array a = counting({3, 4});
    expect_error(ErrorKind::Index, "[gather] 2 elements from 2 on do not fit in axis 0 with 3",
                 [&] { gather(a, {ints({2})}, {0}, {2, 1}).eval(); });
    expect_error(ErrorKind::Index, "[scatter] index 3",
                 [&] { scatter(a, {ints({3})}, ones({1, 1, 4}), {0}).eval(); });
  });
  Array a = counting({3, 4});
  expect_error(ErrorKind::Value, "[gather] 1 index arrays given for 2 axes",
               [&] { gather(a, {ints({0})}, {0, 1}, {1, 1}); });
  expect_error(ErrorKind::Value, "slice sizes (4, 1) do not fit",
               [&] { gather(a, {ints({0})}, {0}, {4, 1}); });
  expect_error(ErrorKind::Value, "[scatter] updates of shape (1, 4)",
               [&] { scatter(a, {ints({0})}, ones({1, 4}), {0}); });
}

// Sums over equal indices: the same bits for every number of threads, half types rounded once.
TEST(Index, ScatterAddIsDeterministicAndWide) {
  std::mt19937 random(5);
  std::normal_distribution<float> normal;
  auto& pool = ThreadPool::shared();
  int threads = pool.threads();
  for (Shape row : {Shape{}, Shape{300}, Shape{3}}) {
    int64_t count = row.empty() ? 50000 : 2000, places = row.empty() ? 700 : 40;
    Shape target = row, updates = row;
    target.insert(0, places);
    updates.insert(0, 1);
    updates.insert(0, count);
    std::vector<float> values(static_cast<size_t>(elements(updates)));
    for (float& v : values) v = normal(random);
    std::vector<int32_t> chosen(static_cast<size_t>(count));
    for (int32_t& at : chosen) at = static_cast<int32_t>(random() % static_cast<uint32_t>(places));
    for (Dtype dtype : {Dtype::F32, Dtype::BF16}) {
      Array given = astype(Array::from<float>(values, updates), dtype).eval();
      auto run = [&](int n) {
        pool.set_threads(n);
        Array sums = scatter(zeros(target, dtype), {ints(chosen)}, given, {0}, ScatterMode::Add);
        return sums.to_vector<double>();
      };
      std::vector<double> one = run(1);
      EXPECT_EQ(one, run(2));
      EXPECT_EQ(one, run(5));
      std::vector<double> wide = given.to_vector<double>(), expected(one.size(), 0);
      size_t width = one.size() / static_cast<size_t>(places);
      for (size_t i = 0; i < wide.size(); ++i) {
        expected[static_cast<size_t>(chosen[i / width]) * width + i % width] += wide[i];
      }
      double tolerance = dtype == Dtype::F32 ? 1e-4 : 0.02;
      for (size_t i = 0; i < one.size(); ++i) {
        ASSERT_NEAR(one[i], expected[i], tolerance * (1 + std::fabs(expected[i])));
      }
    }
  }
  pool.set_threads(threads);
}

TEST(Index, SliceUpdates) {
  on_devices([] {
    Array a = counting({3, 4});
    expect_array(slice_update(a, reals({7, 8}), {1, 1}, {3, 3}), {3, 4},
                 {0, 1, 2, 3, 4, 7, 8, 7, 8, 7, 8, 11});
    EXPECT_EQ(slice_update(a, reals({7, 8}), {1, 1}, {2, 3}).to_vector<double>()[5], 7);
    expect_array(slice_update(counting({5}), reals({7, 8, 9}), {4}, {-6}, {-2}), {5},
                 {9, 1, 8, 3, 7});
    expect_array(slice(a, ints({1, 2}), {0, 1}, {2, 2}), {2, 2}, {6, 7, 10, 11});
    expect_array(slice(transpose(a), ints({2}), {0}, {2, 3}), {2, 3}, {2, 6, 10, 3, 7, 11});
    expect_array(slice_update(a, full({1, 2}, 9, Dtype::F32), ints({2, 1}), {1, 0}), {3, 4},
                 {0, 1, 2, 3, 4, 5, 9, 9, 8, 9, 10, 11});
    expect_error(ErrorKind::Index, "[slice] 2 elements from 2 on do not fit in axis 0 with 3",
                 [&] { slice(a, ints({2}), {0}, {2, 4}).eval(); });
    expect_error(ErrorKind::Index, "[slice_update] 1 elements from -1 on",
                 [&] { slice_update(a, ones({1, 4}), ints({-1}), {0}).eval(); });
  });
  expect_error(ErrorKind::Value, "do not broadcast",
               [] { slice_update(counting({4}), ones({3}), {0}, {2}); });
}

TEST(Index, RaggedUpdates) {
  on_devices([] {
    Array cache = zeros({2, 4, 1});
    Array rows = reshape(reals({1, 2, 3, 4}), {2, 2, 1});
    expect_array(ragged_slice_update(cache, rows, ints({2, 0}), 1), {2, 4, 1},
                 {0, 0, 1, 2, 3, 4, 0, 0});
    expect_array(ragged_slice_update(cache, rows, ints({3, 6}), 1, true), {2, 4, 1},
                 {2, 0, 0, 1, 0, 0, 3, 4});
    Array many = reshape(counting({2, 6}) + 1, {2, 6, 1});
    expect_array(ragged_slice_update(cache, many, ints({0, 3}), 1, true), {2, 4, 1},
                 {5, 6, 3, 4, 12, 9, 10, 11});
    expect_error(ErrorKind::Index,
                 "[ragged_slice_update] 2 elements from 3 on do not fit in axis 1 with 4",
                 [&] { ragged_slice_update(cache, rows, ints({0, 3}), 1).eval(); });
    expect_error(ErrorKind::Index, "from -1 on",
                 [&] { ragged_slice_update(cache, rows, ints({-1, 0}), 1, true).eval(); });
  });
  expect_error(ErrorKind::Value, "starts of shape (3,) given for 2 sequences",
               [] { ragged_slice_update(zeros({2, 4}), ones({2, 1}), ints({0, 1, 2}), 1); });
  expect_error(ErrorKind::Value, "does not fit in",
               [] { ragged_slice_update(zeros({2, 4}), ones({1, 1}), ints({0, 1}), 1); });
}

// A cache that only its owner holds is written where it lies.
TEST(Index, UpdatesOfWhatNobodyElseHoldsAreInPlace) {
  Array cache = zeros({2, 8, 64, 16}).eval();
  for (int step = 0; step < 5; ++step) {
    Array row = full({2, 8, 1, 16}, step, Dtype::F32).eval();
    Array starts = ints({step, 2 * step});
    reset_counters();
    cache = ragged_slice_update(cache, row, starts, 2);
    cache.eval();
    EXPECT_EQ(counters().bytes_copied, 0);
    EXPECT_EQ(counters().plan_misses, step == 0 ? 1 : 0);
  }
  Array held = cache;
  reset_counters();
  cache = slice_update(cache, ones({2, 8, 1, 16}).eval(), {0, 0, 9, 0}, {2, 8, 10, 16}).eval();
  EXPECT_EQ(counters().bytes_copied, cache.nbytes());
  EXPECT_EQ(held.to_vector<float>()[9 * 16], 0);
}

// The last of equal places stays, whatever the number of threads; rows that are parts of a target's
// rows, and several indexed axes.
TEST(Index, ScatterOfManyRowsKeepsTheirOrder) {
  auto& pool = ThreadPool::shared();
  int threads = pool.threads();
  constexpr int64_t kUpdates = 6000, kWidth = 24, kRows = 40, kLayers = 3;
  std::vector<int32_t> row(kUpdates), layer(kUpdates);
  std::vector<double> expected(kLayers * kRows * 2 * kWidth, -1);
  for (int64_t i = 0; i < kUpdates; ++i) {
    row[i] = static_cast<int32_t>(i * 31 % kRows);
    layer[i] = static_cast<int32_t>(i * 7 % kLayers);
    for (int64_t k = 0; k < kWidth; ++k)
      expected[(layer[i] * kRows + row[i]) * 2 * kWidth + k] = static_cast<double>(i * kWidth + k);
  }
  Array updates = counting({kUpdates, 1, 1, kWidth}, Dtype::I32);
  for (int n : {1, 2, 5}) {
    pool.set_threads(n);
    Array target = full({kLayers, kRows, 2 * kWidth}, -1, Dtype::I32);
    Array out = scatter(target, {ints(layer), ints(row)}, updates, {0, 1});
    EXPECT_EQ(out.to_vector<double>(), expected) << n << " threads";
  }
  pool.set_threads(threads);
}

}  // namespace
}  // namespace mica
