#include "transforms/cotangent_sum.h"

#include <functional>
#include <set>

#include "core/node.h"
#include "ops/create.h"
#include "ops/index.h"
#include "ops/join.h"
#include "transforms/autograd.h"
#include "transforms/support.h"

namespace mica {
namespace {

// How many nodes of the graph behind an array are of this operation.
int count_of(const Array& array, const Op& op) {
  std::set<const Node*> seen;
  int count = 0;
  std::function<void(const Array&)> visit = [&](const Array& a) {
    if (!seen.insert(a.node()).second) return;
    count += a.node()->op == &op;
    for (const Array& input : a.node()->input_span()) visit(input);
  };
  visit(array);
  return count;
}

Array integers(std::vector<double> values) { return vector_of(std::move(values), Dtype::I32); }

Array rows_of(int64_t rows, int64_t columns) {
  return reshape(arange(rows * columns, Dtype::F32) / 8, {rows, columns});
}

// A table that is read by rows and as a whole: no table of zeros is made for the rows, whichever
// way comes first.
TEST(CotangentSum, UpdatesGoToTheSumThatIsThere) {
  Array ids = integers({1, 3, 1}), table = rows_of(4, 2);
  auto whole = [](const Array& t) { return sum(exp(t)); };
  auto by_rows = [&](const Array& t) { return sum(take(t, ids, 0) * 5); };
  std::vector<double> expected;
  for (int i = 0; i < 8; ++i)
    expected.push_back(std::exp(i / 8.0) + (i / 2 == 1 ? 10 : i / 2 == 3 ? 5 : 0));
  for (bool rows_first : {true, false}) {
    Array g = grad([&](const Array& t) {
      return rows_first ? by_rows(t) + whole(t) : whole(t) + by_rows(t);
    })(table);
    EXPECT_EQ(count_of(g, ops::scatter_op), 1);
    EXPECT_NE(g.node()->op, &ops::add_op);
    expect_values(g, expected, 1e-5);
  }
}

TEST(CotangentSum, SeveralReadsAreOneArray) {
  Array ids = integers({1, 3, 1}), table = rows_of(4, 2);
  Array g =
      grad([&](const Array& t) { return sum(take(t, ids, 0)) + sum(take(t, ids, 0) * 2); })(table);
  EXPECT_EQ(count_of(g, ops::scatter_op), 2);
  EXPECT_EQ(g.node()->op, &ops::scatter_op);
  expect_values(g, {0, 0, 6, 6, 0, 0, 3, 3});
}

TEST(CotangentSum, ChosenElementsGoToTheSumThatIsThere) {
  Array chosen = reshape(integers({1, 0}), {2, 1});
  Array g = grad([&](const Array& x) { return sum(x * 4) - sum(take_along_axis(x, chosen, -1)); })(
      rows_of(2, 3));
  EXPECT_EQ(g.node()->op, &ops::scatter_axis_op);
  expect_values(g, {4, 3, 4, 3, 4, 4});
}

TEST(CotangentSum, PartsThatDoNotOverlapAreOneArray) {
  Array x = rows_of(2, 6);
  Array g = grad([](const Array& x) {
    Arrays parts = split(x, 3, 1);
    return sum(parts[0]) + sum(parts[1] * 2) + sum(parts[2] * 3);
  })(x);
  EXPECT_EQ(count_of(g, ops::add_op), 0);
  EXPECT_EQ(count_of(g, ops::slice_update_op), 3);
  expect_values(g, {1, 1, 2, 2, 3, 3, 1, 1, 2, 2, 3, 3});
}

TEST(CotangentSum, PartsThatOverlapAreAdded) {
  Array x = rows_of(1, 5);
  Array g = grad([](const Array& x) {
    return sum(slice(x, {0, 0}, {1, 3})) + sum(slice(x, {0, 2}, {1, 5}) * 10) +
           sum(slice(x, {0, 0}, {1, 5}, {1, 2}) * 100);
  })(x);
  expect_values(g, {101, 1, 111, 10, 110});
}

TEST(CotangentSum, PartsReadBackwards) {
  Array x = rows_of(1, 4);
  Array g = grad([](const Array& x) {
    return sum(slice(x, {0, 3}, {1, 1}, {1, -1}) * rows_of(1, 2)) + sum(slice(x, {0, 0}, {1, 2}));
  })(x);
  expect_values(g, {1, 1, 0.125, 0});
}

TEST(CotangentSum, DerivativesOfDerivatives) {
  Array ids = integers({0, 0, 2});
  auto f = [&](const Array& t) {
    Array rows = take(t, ids, 0);
    return sum(rows * rows * rows) + sum(t * t);
  };
  Array g = grad([&](const Array& t) { return sum(grad(f)(t)); })(rows_of(3, 1));
  expect_values(g, {2 + 12 * 0.0, 2, 2 + 6 * 0.25});
}

}  // namespace
}  // namespace mica
