#include "ops/indexing.h"

#include <random>

#include "base/expect_error.h"
#include "core/counters.h"
#include "ops/create.h"
#include "ops/on_devices.h"
#include "transforms/autograd.h"
#include "transforms/vmap.h"

namespace mica {
namespace {

Array mask(std::vector<int> bits) {
  std::vector<double> values(bits.begin(), bits.end());
  return astype(Array::from<double>(values), Dtype::Bool);
}

TEST(Indexing, IntegersSlicesAndNewAxes) {
  on_devices([] {
    Array a = counting({2, 3, 4});
    expect_array(index(a, {1, 2, 3}), {}, {23});
    expect_array(index(a, {-1}), {3, 4}, {12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23});
    expect_array(index(a, {Ellipsis{}, 1}), {2, 3}, {1, 5, 9, 13, 17, 21});
    expect_array(index(a, {0, Slice{1, {}}, Slice{{}, {}, 2}}), {2, 2}, {4, 6, 8, 10});
    expect_array(index(a, {1, 0, Slice{{}, {}, -1}}), {4}, {15, 14, 13, 12});
    expect_array(index(a, {1, 0, Slice{-2, {}}}), {2}, {14, 15});
    expect_array(index(a, {1, 0, Slice{2, 0, -1}}), {2}, {14, 13});
    EXPECT_EQ(index(a, {NewAxis{}, 0, Ellipsis{}, NewAxis{}}).shape(), Shape({1, 3, 4, 1}));
    EXPECT_EQ(index(a, {Slice{3, 1}}).shape(), Shape({0, 3, 4}));
    EXPECT_EQ(index(a, {Ellipsis{}}).shape(), a.shape());
    expect_array(index(counting({}), {Ellipsis{}, NewAxis{}}), {1}, {0});
  });
}

TEST(Indexing, Arrays) {
  on_devices([] {
    Array a = counting({2, 3, 4});
    expect_array(index(a, {ints({1, 0}), 0, 0}), {2}, {12, 0});
    expect_array(index(a, {0, ints({2, 0})}), {2, 4}, {8, 9, 10, 11, 0, 1, 2, 3});
    expect_array(index(a, {Slice{}, ints({2, 0}), 1}), {2, 2}, {9, 1, 21, 13});
    expect_array(index(a, {Slice{}, 0, ints({3, 1})}), {2, 2}, {3, 1, 15, 13});
    // Apart: the axes of the indices come first.
    expect_array(index(a, {0, Slice{}, ints({3, 1})}), {2, 3}, {3, 7, 11, 1, 5, 9});
    expect_array(index(a, {ints({0, 1}), Slice{}, ints({3, 1})}), {2, 3}, {3, 7, 11, 13, 17, 21});
    EXPECT_EQ(index(a, {ints({0, 1, 0, 1}), NewAxis{}, ints({2, 1, 0, 0})}).shape(),
              Shape({4, 1, 4}));
    EXPECT_EQ(index(a, {Slice{}, Slice{0, 2}, reshape(ints({0, 1, 2, 3, 0, 0}), {2, 3})}).shape(),
              Shape({2, 2, 2, 3}));
    expect_array(index(a, {reshape(ints({0, 1}), {2, 1}), ints({0, -1})}), {2, 2, 4},
                 {0, 1, 2, 3, 8, 9, 10, 11, 12, 13, 14, 15, 20, 21, 22, 23});
  });
}

TEST(Indexing, Masks) {
  on_devices([] {
    Array a = counting({3, 2});
    expect_array(index(a, {mask({1, 0, 1})}), {2, 2}, {0, 1, 4, 5});
    expect_array(index(a, {greater(a, 2)}), {3}, {3, 4, 5});
    expect_array(index(a, {Slice{}, mask({0, 1})}), {3, 1}, {1, 3, 5});
    expect_array(index(a, {mask({0, 0, 0})}), {0, 2}, {});
    expect_array(index_update(a, {mask({0, 1, 0})}, reals({9})), {3, 2}, {0, 1, 9, 9, 4, 5});
    expect_array(index_update(a, {greater(a, 2)}, reals({7, 8, 9})), {3, 2}, {0, 1, 2, 7, 8, 9});
    expect_array(index_update(a, {mask({1, 0, 1})}, reals({7, 8})), {3, 2}, {7, 8, 2, 3, 7, 8});
  });
  Array a = counting({3, 2});
  expect_error(ErrorKind::Index, "[index] a mask of shape (2,)", [&] { index(a, {mask({1, 0})}); });
  expect_error(ErrorKind::Index, "[index] a mask of shape (2,)",
               [&] { index_update(a, {mask({1, 0})}, reals({1})); });
  EXPECT_THROW(
      vmap([](const Arrays& in) { return Arrays{index(in[0], {greater(in[0], 0)})}; }, {0})({a}),
      Error);
}

TEST(Indexing, Errors) {
  Array a = counting({2, 3});
  expect_error(ErrorKind::Value, "3 indices given for an array of 2 axes",
               [&] { index(a, {0, 0, 0}); });
  expect_error(ErrorKind::Index, "index 2 is out of range for axis 0 with 2",
               [&] { index(a, {2}); });
  expect_error(ErrorKind::Value, "more than one ellipsis",
               [&] { index(a, {Ellipsis{}, Ellipsis{}}); });
  expect_error(ErrorKind::Value, "float32 are no indices", [&] { index(a, {reals({0})}); });
  expect_error(ErrorKind::Value, "step of a slice is 0", [&] { index(a, {Slice{{}, {}, 0}}); });
  expect_error(ErrorKind::Index, "index 5 is out of range",
               [&] { index(a, {Slice{}, ints({5})}).eval(); });
  expect_error(ErrorKind::Value, "do not broadcast", [&] { index_update(a, {0}, ones({2})); });
}

TEST(Indexing, Updates) {
  on_devices([] {
    Array a = counting({2, 3});
    expect_array(index_update(a, {1}, reals({9})), {2, 3}, {0, 1, 2, 9, 9, 9});
    expect_array(index_update(a, {Slice{}, -1}, reals({7, 8})), {2, 3}, {0, 1, 7, 3, 4, 8});
    expect_array(index_update(a, {Slice{}, Slice{{}, {}, -2}}, reals({7, 8})), {2, 3},
                 {8, 1, 7, 8, 4, 7});
    expect_array(index_update(a, {1, 1}, reals({0.5}), ScatterMode::Add), {2, 3},
                 {0, 1, 2, 3, 4.5, 5});
    expect_array(index_update(a, {0, NewAxis{}}, reshape(reals({7, 8, 9}), {1, 3})), {2, 3},
                 {7, 8, 9, 3, 4, 5});
    expect_array(index_update(a, {Slice{2, 2}}, ones({0, 3})), {2, 3}, {0, 1, 2, 3, 4, 5});
    expect_array(index_update(a, {ints({0, 0, 1})}, reals({1}), ScatterMode::Add), {2, 3},
                 {2, 3, 4, 4, 5, 6});
    expect_array(index_update(a, {Slice{}, ints({0, 2})}, reals({7, 8})), {2, 3},
                 {7, 1, 8, 7, 4, 8});
    expect_array(index_update(a, {1, ints({0, 2})}, reals({7, 8})), {2, 3}, {0, 1, 2, 7, 4, 8});
    expect_array(index_update(a, {ints({1, 0}), ints({0, 2})}, reals({7, 8})), {2, 3},
                 {0, 1, 8, 7, 4, 5});
    expect_array(index_update(a, {Slice{1, {}}, ints({0, 2})}, reals({7, 8}), ScatterMode::Max),
                 {2, 3}, {0, 1, 2, 7, 4, 8});
    EXPECT_EQ(index_update(counting({3}, Dtype::I32), {0}, reals({2.7f})).dtype(), Dtype::I32);
  });
}

// Reading back what was written, for random mixtures of all kinds of indices.
// What is replaced is not read.
TEST(Indexing, AnAssignedBlockIsOneOperation) {
  Array a = counting({4, 3}), row = counting({1, 3}), rows = counting({2, 3});
  auto nodes = [](auto&& f) {
    int64_t before = counters().nodes;
    f();
    return counters().nodes - before;
  };
  EXPECT_EQ(nodes([&] { index_update(a, {Slice{1, 2}}, row); }), 1);
  EXPECT_EQ(nodes([&] { index_update(a, {Slice{{}, {}, 2}}, rows); }), 1);
  EXPECT_EQ(nodes([&] { index_update(a, {Slice{1, 2}}, row, ScatterMode::Add); }), 3);
}

TEST(Indexing, WhatIsWrittenIsRead) {
  std::mt19937 random(11);
  auto pick = [&](int n) { return static_cast<int>(random() % static_cast<unsigned>(n)); };
  for (int round = 0; round < 300; ++round) {
    Array a = counting({3, 4, 2, 5}) + 1000;
    std::vector<Index> indices;
    int count = 1 + pick(4), arrays = 0;
    for (int i = 0; i < count; ++i) {
      int64_t extent = a.shape(i);
      switch (pick(5)) {
        case 0: indices.push_back(int64_t{pick(static_cast<int>(extent))}); break;
        case 1: indices.push_back(Slice{pick(2), {}, 1 + pick(2)}); break;
        case 2: indices.push_back(Slice{{}, {}, -1}); break;
        case 3:
          indices.push_back(NewAxis{});
          indices.push_back(Slice{});
          break;
        default:
          // No place twice, so that every value can be read back.
          indices.push_back(arrays++ ? ints({0, 1}) : reshape(ints({1, 0}), {2, 1}));
      }
    }
    Array old = index(a, indices);
    Array value = counting(old.shape());
    Array updated = index_update(a, indices, value);
    EXPECT_EQ(index(updated, indices).to_vector<double>(), value.to_vector<double>());
    auto before = a.to_vector<double>(), after = updated.to_vector<double>();
    int64_t changed = 0;
    for (size_t i = 0; i < before.size(); ++i) changed += before[i] != after[i];
    EXPECT_EQ(changed, value.size());
  }
}

TEST(Indexing, Derivative) {
  Array a = astype(counting({3, 4}), Dtype::F64).eval();
  auto f = [](const Arrays& in) {
    return Arrays{square(index(in[0], {ints({0, 2, 0}), Slice{1, 3}}))};
  };
  Array g = vjp(f, {a}, {ones({3, 2}, Dtype::F64)}).derivatives[0];
  expect_array(g, {3, 4}, {0, 4, 8, 0, 0, 0, 0, 0, 0, 18, 20, 0});
}

TEST(Indexing, Nonzero) {
  Arrays places = nonzero(Array::from<float>({0, 1, 2, 0, 0, 3}, {2, 3}));
  ASSERT_EQ(places.size(), 2u);
  expect_array(places[0], {3}, {0, 0, 1});
  expect_array(places[1], {3}, {1, 2, 2});
}

}  // namespace
}  // namespace mica
