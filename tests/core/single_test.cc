// One small operation at a time: the path without a segment's tables gives what plans give.
#include "core/single.h"

#include <gtest/gtest.h>

#include <thread>

#include "core/counters.h"
#include "core/node.h"
#include "ops/create.h"
#include "ops/elementwise.h"
#include "ops/index.h"
#include "ops/matmul.h"
#include "ops/reduce.h"
#include "ops/shape.h"

namespace mica {
namespace {

Array counting(const Shape& shape) {
  std::vector<float> values(static_cast<size_t>(elements(shape)));
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i % 97) * 0.5f;
  return Array::from<float>(values, shape);
}

// A thread's memo of plans. `meet` evaluates a graph the long way, so that its structure is known.
class Single : public testing::Test {
 protected:
  bool alone(const Array& array) { return eval_single(array, plans_, key_, evaluation_); }
  void meet(const Array& array) {
    Work work;
    Segment segment;
    GraphLock lock;
    collect({&array, 1}, work, lock);
    number_segment(work, 0, work.nodes.size(), segment, lock);
    lock.let_go();
    plans_.plan_for(segment);
    unclaim(work, 0, work.nodes.size());
  }

  PlanMemo plans_;
  KeyWords key_;
  Evaluation evaluation_;
};

TEST_F(Single, RunsPlansOfOneNode) {
  auto same = [&](const char* what, auto&& build) {
    Array expected = build(), seen = build();
    EXPECT_FALSE(alone(seen)) << what << ": not met yet";
    EXPECT_FALSE(seen.evaluated()) << what;
    meet(expected);
    reset_counters();
    EXPECT_TRUE(alone(seen)) << what;
    EXPECT_EQ(counters().kernels, 1) << what;
    EXPECT_EQ(counters().plan_hits, 1) << what;
    EXPECT_EQ(counters().plan_misses, 0) << what;
    EXPECT_EQ(seen.node()->input_count, 0u) << what;
    // Beside another array it is not alone: a plan of two nodes.
    Array other = counting({3}) + counting({3});
    eval({expected, other});
    EXPECT_EQ(seen.to_vector<float>(), expected.to_vector<float>()) << what;
  };
  Array x = counting({5, 7}), row = counting({7}), column = counting({5, 1});
  Array turned = transpose(counting({7, 5}));
  turned.eval();
  same("two arrays", [&] { return x + counting({5, 7}); });
  same("one array twice", [&] { return x * x; });
  same("row", [&] { return x + row; });
  same("column first", [&] { return column - x; });
  same("outer", [&] { return row + column; });
  same("transposed", [&] { return turned * x; });
  same("unary", [&] { return exp(row); });
  same("half", [&] { return astype(x, Dtype::BF16); });
  same("sum over rows", [&] { return sum(x, {{0}}, true); });
  same("sum over columns", [&] { return sum(x, {{1}}, true); });
  same("sum, its axis gone", [&] { return sum(x, {{1}}); });
  same("sum of all, transposed", [&] { return sum(turned, {}, true); });
  same("product", [&] { return matmul(turned, counting({7, 5})); });
  same("gathered rows", [&] { return take(x, Array::from<int32_t>({3, 1}, {2}), 0); });
}

// Neither dropping reduced axes nor undoing a broadcast takes a node of its own.
TEST(Nodes, OfReductions) {
  auto nodes = [](auto&& build) {
    reset_counters();
    build();
    return counters().nodes;
  };
  Array x = counting({5, 7});
  EXPECT_EQ(nodes([&] { EXPECT_EQ(sum(x, {{0}}).shape(), (Shape{7})); }), 1);
  EXPECT_EQ(nodes([&] { EXPECT_EQ(max(x).shape(), Shape{}); }), 1);
  EXPECT_EQ(nodes([&] { EXPECT_EQ(ops::sum_to_shape(x, {7}).shape(), (Shape{7})); }), 1);
  EXPECT_EQ(nodes([&] { EXPECT_EQ(ops::sum_to_shape(x, {5, 1}).shape(), (Shape{5, 1})); }), 1);
}

TEST_F(Single, LeavesLongerWorkAlone) {
  Array x = counting({8});
  auto refused = [&](const Array& array) {
    meet(array);
    bool ran = alone(array);
    EXPECT_FALSE(array.evaluated());
    return !ran;
  };
  EXPECT_TRUE(refused(x + x * x)) << "its input is not there";
  EXPECT_TRUE(refused(counting({3000}) + counting({3000}))) << "not small";
  EXPECT_TRUE(refused(reshape(x, {2, 4}))) << "a view";
  EXPECT_TRUE(refused(counting({0}) + counting({0}))) << "nothing to compute";
  Array held = zeros({4, 2});
  held.eval();
  EXPECT_TRUE(refused(slice_update(held, ones({1, 2}).eval(), {1, 0}, {2, 2}))) << "a copy";
  EXPECT_FALSE(alone(x)) << "evaluated";
}

TEST_F(Single, KeysTellStructuresApart) {
  Array x = counting({4, 4}), y = counting({4, 4}), row = counting({4});
  meet(x + y);
  EXPECT_FALSE(alone(x + x));
  EXPECT_FALSE(alone(x + row));
  EXPECT_FALSE(alone(x - y));
  EXPECT_FALSE(alone(astype(x, Dtype::F16) + astype(y, Dtype::F16)));
  meet(astype(x, Dtype::F16));
  EXPECT_FALSE(alone(astype(x, Dtype::BF16)));
  EXPECT_TRUE(alone(y + x));
}

TEST_F(Single, UpdatesInPlaceAndTakesDyingMemory) {
  Array row = Array::from<float>({5, 6}, {1, 2});
  Array state = zeros({1000, 2}) + 0.0f;
  state.eval();
  meet(slice_update(state, row, {0, 0}, {1, 2}));
  const void* memory = state.host_bytes().get();
  reset_counters();
  for (int64_t i = 0; i < 4; ++i) {
    state = slice_update(state, row, {i, 0}, {i + 1, 2});
    EXPECT_TRUE(alone(state));
  }
  EXPECT_EQ(counters().bytes_copied, 0);
  EXPECT_EQ(state.host_bytes().get(), memory);
  EXPECT_EQ(sum(state).item<float>(), 44);

  Array x = counting({100});
  memory = x.host_bytes().get();
  meet(x + x);
  Array held = x;
  x = x + x;
  EXPECT_TRUE(alone(x));
  EXPECT_NE(x.host_bytes().get(), memory);
  memory = x.host_bytes().get();
  x = x + x;
  EXPECT_TRUE(alone(x));
  EXPECT_EQ(x.host_bytes().get(), memory);
  EXPECT_EQ(held.to_vector<float>()[3], 1.5f);
  EXPECT_EQ(x.to_vector<float>()[3], 6);
}

TEST_F(Single, FailuresAreTheNodesAndNameIt) {
  Array x = counting({4});
  auto out_of_range = [&] { return take(x, Array::from<int32_t>({9}, {1}), 0); };
  Array bad = out_of_range();
  meet(bad);
  try {
    alone(bad);
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::Index);
    EXPECT_NE(std::string(error.what()).find("take((4,)"), std::string::npos) << error.what();
  }
  EXPECT_THROW(bad.eval(), Error);
  EXPECT_THROW((bad + 1.0f).eval(), Error);

  Array fine = x + x;
  meet(fine);
  int64_t previous = set_memory_limit(0);
  clear_cache();
  EXPECT_THROW(alone(fine), Error);
  set_memory_limit(previous);
  EXPECT_TRUE(alone(fine));
  EXPECT_EQ(fine.to_vector<float>()[2], 2);
}

TEST(SingleThreads, ShareOperations) {
  for (int round = 0; round < 200; ++round) {
    Array x = counting({64}), y = x + x, z = y * y;
    auto read = [&] {
      Array own = y;
      own.eval();
      EXPECT_EQ(own.to_vector<float>()[3], 3);
    };
    auto read_after = [&] { EXPECT_EQ(z.to_vector<float>()[3], 9); };
    std::thread one(read), two(read), three(read_after);
    one.join();
    two.join();
    three.join();
  }
}

}  // namespace
}  // namespace mica
