#include "ops/shape.h"

#include <random>

#include "base/expect_error.h"
#include "core/counters.h"
#include "ops/create.h"
#include "ops/index.h"
#include "ops/on_devices.h"

namespace mica {
namespace {

TEST(Shape, ReshapeKeepsRowMajorOrder) {
  on_devices([] {
    Array a = counting({2, 3, 4});
    std::vector<double> values = a.to_vector<double>();
    expect_array(reshape(a, {6, 4}), {6, 4}, values);
    expect_array(reshape(a, {4, -1}), {4, 6}, values);
    expect_array(reshape(a, {1, 2, 1, 12}), {1, 2, 1, 12}, values);
    expect_array(flatten(a, 1, 2), {2, 12}, values);
    expect_array(unflatten(a, 2, {2, -1}), {2, 3, 2, 2}, values);
    expect_array(reshape(transpose(counting({2, 3})), {6}), {6}, {0, 3, 1, 4, 2, 5});
    expect_array(reshape(zeros({0, 3}), {3, 0, 7}), {3, 0, 7}, {});
    expect_array(flatten(counting({})), {1}, {0});
  });
}

TEST(Shape, ReshapeErrors) {
  Array a = counting({2, 3});
  expect_error(ErrorKind::Value, "[reshape] (2, 3) has 6 elements, (4, 2) has 8",
               [&] { reshape(a, {4, 2}); });
  expect_error(ErrorKind::Value, "only one extent may be -1", [&] { reshape(a, {-1, -1}); });
  expect_error(ErrorKind::Value, "cannot infer the -1", [&] { reshape(a, {4, -1}); });
  expect_error(ErrorKind::Value, "any extent fits", [&] { reshape(zeros({0}), {0, -1}); });
  expect_error(ErrorKind::Value, "negative extent", [&] { reshape(a, {-2, -3}); });
  expect_error(ErrorKind::Value, "[squeeze] axis 1 of (2, 3) has extent 3",
               [&] { squeeze(a, {1}); });
  expect_error(ErrorKind::Index, "axis 2 is out of range", [&] { moveaxis(a, 2, 0); });
  expect_error(ErrorKind::Value, "an axis is given twice", [&] { transpose(a, {0, 0}); });
  expect_error(ErrorKind::Value, "[broadcast_to] shapes (2, 3) and (3, 3) do not broadcast",
               [&] { broadcast_to(a, {3, 3}).eval(); });
}

// Views that merge or split axes move no bytes, those that cannot be views copy once.
TEST(Shape, ReshapeCopiesOnlyWhereStridesForbidAView) {
  Array a = counting({4, 6, 8});
  auto copied = [](const Array& result) {
    reset_counters();
    result.eval();
    return counters().bytes_copied;
  };
  EXPECT_EQ(copied(reshape(a, {24, 2, 4})), 0);
  EXPECT_EQ(copied(reshape(slice_axis(a, 0, 1, 3), {12, 8})), 0);
  EXPECT_EQ(copied(reshape(slice_axis(a, 1, 0, 2), {4, 16})), 0);
  EXPECT_EQ(copied(reshape(transpose(a, {1, 0, 2}), {6, 4, 2, 4})), 0);
  EXPECT_EQ(copied(reshape(broadcast_to(counting({8}), {3, 8}), {3, 2, 4})), 0);
  EXPECT_EQ(copied(expand_dims(transpose(a), {0, 2})), 0);
  EXPECT_EQ(copied(reshape(transpose(a, {1, 0, 2}), {24, 8})), a.nbytes());
  EXPECT_EQ(copied(reshape(slice_axis(a, 1, 0, 2), {64})), 64 * 4);
}

// A random chain of views, checked element by element against index arithmetic on the host.
struct Walked {
  Array array;
  std::vector<double> values;
};

Walked random_view(std::mt19937& random, Walked from) {
  auto pick = [&](int64_t n) { return static_cast<int64_t>(random() % static_cast<uint64_t>(n)); };
  const Shape shape = from.array.shape();
  int rank = static_cast<int>(shape.size());
  Shape to = shape;
  Strides steps = row_major(shape);
  int64_t start = 0;
  Array view;
  if (pick(2) == 0) {
    int i = static_cast<int>(pick(rank)), j = static_cast<int>(pick(rank));
    view = swapaxes(from.array, i, j);
    std::swap(to[i], to[j]);
    std::swap(steps[i], steps[j]);
  } else {
    int axis = static_cast<int>(pick(rank));
    int64_t first = pick(shape[axis]), step = pick(2) ? 1 + pick(2) : -1 - pick(2);
    Shape starts(shape.size(), 0), stops = shape, strides(shape.size(), 1);
    starts[axis] = first;
    stops[axis] = step > 0 ? shape[axis] : -shape[axis] - 1;
    strides[axis] = step;
    view = slice(from.array, starts, stops, strides);
    to[axis] = step > 0 ? (shape[axis] - first - 1) / step + 1 : first / -step + 1;
    start = first * steps[axis];
    steps[axis] *= step;
  }
  EXPECT_EQ(view.shape(), to);
  Walked result{view, {}};
  Strides order = row_major(to);
  for (int64_t i = 0; i < elements(to); ++i) {
    int64_t at = start;
    for (size_t axis = 0; axis < to.size(); ++axis) at += i / order[axis] % to[axis] * steps[axis];
    result.values.push_back(from.values[static_cast<size_t>(at)]);
  }
  return result;
}

TEST(Shape, RandomViewsAndReshapes) {
  std::mt19937 random(7);
  for (int round = 0; round < 200; ++round) {
    Array a = counting({2, 6, 4, 3});
    Walked walked{a, a.to_vector<double>()};
    for (int i = 0; i < 3; ++i) walked = random_view(random, walked);
    EXPECT_EQ(walked.array.to_vector<double>(), walked.values);
    Shape flat{walked.array.size()}, merged = walked.array.shape();
    merged[1] *= merged[2];
    merged.erase(2);
    expect_array(reshape(walked.array, flat), flat, walked.values);
    expect_array(reshape(walked.array, merged), merged, walked.values);
  }
}

TEST(Shape, TransposesAndAxes) {
  on_devices([] {
    Array a = counting({2, 3, 4});
    EXPECT_EQ(transpose(a).shape(), Shape({4, 3, 2}));
    EXPECT_EQ(swapaxes(a, 0, -1).shape(), Shape({4, 3, 2}));
    EXPECT_EQ(moveaxis(a, 0, 2).shape(), Shape({3, 4, 2}));
    EXPECT_EQ(moveaxis(a, -1, 0).shape(), Shape({4, 2, 3}));
    expect_array(transpose(counting({2, 3})), {3, 2}, {0, 3, 1, 4, 2, 5});
    EXPECT_EQ(expand_dims(a, {0, -1}).shape(), Shape({1, 2, 3, 4, 1}));
    EXPECT_EQ(squeeze(expand_dims(a, {0, -1})).shape(), a.shape());
    EXPECT_EQ(at_least(counting({5}), 3).shape(), Shape({1, 5, 1}));
    EXPECT_EQ(at_least(counting({2, 5}), 3).shape(), Shape({2, 5, 1}));
    EXPECT_EQ(at_least(counting({}), 2).shape(), Shape({1, 1}));
  });
}

TEST(Shape, SliceClampsAsPython) {
  on_devices([] {
    Array a = counting({5});
    expect_array(slice(a, {1}, {4}), {3}, {1, 2, 3});
    expect_array(slice(a, {-2}, {100}), {2}, {3, 4});
    expect_array(slice(a, {-100}, {2}), {2}, {0, 1});
    expect_array(slice(a, {3}, {1}), {0}, {});
    expect_array(slice(a, {0}, {5}, {2}), {3}, {0, 2, 4});
    expect_array(slice(a, {4}, {-6}, {-2}), {3}, {4, 2, 0});
    expect_array(slice(a, {100}, {1}, {-1}), {3}, {4, 3, 2});
    expect_array(slice(a, {-100}, {-6}, {-1}), {0}, {});
    expect_array(slice_axis(counting({2, 3}), -1, 1, 3), {2, 2}, {1, 2, 4, 5});
  });
  expect_error(ErrorKind::Value, "stride of axis 0 is 0",
               [] { slice(counting({5}), {0}, {5}, {0}); });
  expect_error(ErrorKind::Value, "1 starts, 2 stops", [] { slice(counting({5}), {0}, {5, 5}); });
}

TEST(Shape, Broadcast) {
  on_devices([] {
    expect_array(broadcast_to(counting({2, 1}), {2, 2, 3}), {2, 2, 3},
                 {0, 0, 0, 1, 1, 1, 0, 0, 0, 1, 1, 1});
    Arrays both = broadcast_arrays({counting({3, 1}), counting({2})});
    expect_array(both[1], {3, 2}, {0, 1, 0, 1, 0, 1});
  });
}

TEST(Shape, AsStridedChecksItsReach) {
  on_devices([] {
    expect_array(as_strided(counting({6}), {3, 2}, {1, 2}, 0), {3, 2}, {0, 2, 1, 3, 2, 4});
    expect_array(as_strided(transpose(counting({2, 3})), {4}, {1}, 1), {4}, {3, 1, 4, 2});
  });
  expect_error(ErrorKind::Value, "reach outside of 6 elements",
               [] { as_strided(counting({6}), {2, 3}, {1, 2}, 2); });
  expect_error(ErrorKind::Value, "reach outside", [] { as_strided(counting({6}), {2}, {-1}, 0); });
  expect_error(ErrorKind::Value, "reach outside",
               [] { as_strided(counting({6}), {3}, {int64_t{1} << 62}, 0); });
}

TEST(Shape, ViewReadsTheSameBytes) {
  on_devices([] {
    Array a = Array::from<float>({1, -2}, {2});
    expect_array(view(a, Dtype::I32), {2},
                 {0x3f800000, static_cast<double>(static_cast<int32_t>(0xc0000000))});
    expect_array(view(a, Dtype::U16), {4}, {0, 0x3f80, 0, 0xc000});
    expect_array(view(view(a, Dtype::U8), Dtype::F32), {2}, {1, -2});
    expect_array(view(transpose(Array::from<int32_t>({1, 2, 3, 4}, {2, 2})), Dtype::U16), {2, 4},
                 {1, 0, 3, 0, 2, 0, 4, 0});
    expect_array(view(slice_axis(view(a, Dtype::U16), 0, 2, 4), Dtype::F32), {1}, {-2});
    expect_array(view(slice_axis(view(a, Dtype::U16), 0, 1, 3), Dtype::U32), {1}, {0x3f80});
  });
  expect_error(ErrorKind::Value, "whole number",
               [] { view(counting({3}, Dtype::U8), Dtype::I16); });
  expect_error(ErrorKind::Value, "whole number", [] { view(counting({}, Dtype::U8), Dtype::I16); });
}

TEST(Shape, ContiguousCopiesOnce) {
  Array a = transpose(counting({3, 4}));
  reset_counters();
  Array b = contiguous(a).eval();
  EXPECT_EQ(counters().bytes_copied, 48);
  reset_counters();
  contiguous(b).eval();
  EXPECT_EQ(counters().bytes_copied, 0);
}

TEST(Shape, DependsIsTheFirstInput) {
  on_devices([] {
    Array a = counting({3}), b = counting({2});
    expect_array(depends(a, {b}), {3}, {0, 1, 2});
    Array failing = take(a, ints({7}), 0);
    EXPECT_THROW(depends(b, {failing}).eval(), Error);
  });
}

}  // namespace
}  // namespace mica
