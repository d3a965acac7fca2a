// What evaluation promises, by its counters: fusion, plans, memory, threads, failures.
#include <gtest/gtest.h>

#include <thread>

#include "core/array.h"
#include "core/counters.h"
#include "core/graph.h"
#include "core/node.h"
#include "core/plan.h"
#include "ops/create.h"
#include "ops/elementwise.h"
#include "ops/index.h"
#include "ops/join.h"
#include "ops/matmul.h"
#include "ops/reduce.h"
#include "ops/shape.h"

namespace mica {
namespace {

Array vector_of(int64_t n, float value = 1) {
  return Array::from<float>(std::vector<float>(static_cast<size_t>(n), value), {n});
}

template <class F>
Counters counted(F&& f) {
  reset_counters();
  f();
  return counters();
}

TEST(Eval, FiveOpChainIsOneKernel) {
  Array x = vector_of(1000, 2);
  Array y = exp(-(square(x) * 0.5f + 1.0f));
  Counters c = counted([&] { y.eval(); });
  EXPECT_EQ(c.kernels, 1);
  EXPECT_EQ(c.bytes_copied, 0);
  EXPECT_NEAR(y.to_vector<float>()[7], std::exp(-3.0f), 1e-6);
}

TEST(Eval, BuildingAllocatesNothing) {
  Array x = vector_of(16);
  int64_t before = memory_use(DeviceKind::Cpu).active;
  Array y = x;
  for (int i = 0; i < 1000; ++i)
    y = broadcast_to(expand_dims(y, {0}), {1 << 20, 16}) + 1.0f, y = slice_axis(y, 0, 0, 1),
    y = reshape(y, {16});
  EXPECT_EQ(memory_use(DeviceKind::Cpu).active, before);
}

TEST(Eval, ReductionEndsARegion) {
  Array x = vector_of(4096, 3);
  Array y = sum(square(x) + 1.0f);
  EXPECT_EQ(counted([&] { y.eval(); }).kernels, 1);
  EXPECT_EQ(y.item<float>(), 40960);
}

TEST(Eval, SharedValuesAreComputedOnce) {
  Array x = vector_of(100, 2);
  Array shared = x * 3.0f;
  Array a = shared + 1.0f, b = shared - 1.0f;
  EXPECT_EQ(counted([&] { eval({a, b}); }).kernels, 1);
  EXPECT_EQ(a.to_vector<float>()[0], 7);
  EXPECT_EQ(b.to_vector<float>()[99], 5);
}

// The residual x reaches the last addition both directly and through the product: one region would
// wait for itself.
TEST(Eval, RegionAroundAMatmulsResidual) {
  Array w = Array::from<float>({1, 2, 3, 4}, {2, 2});
  Array x = Array::from<float>({1, 1, 2, 2}, {2, 2}) * 2.0f;
  Array h = x + 1.0f;
  Array y = matmul(h, w) * 0.5f + h;
  EXPECT_EQ(counted([&] { y.eval(); }).kernels, 3);
  EXPECT_EQ(y.to_vector<float>(), (std::vector<float>{9, 12, 15, 20}));
}

TEST(Eval, MillionNodeChain) {
  int64_t before = live_nodes();
  {
    Array y = vector_of(4, 0);
    for (int i = 0; i < 1'000'000; ++i) y = y + 1.0f;
    y.eval();
    EXPECT_EQ(y.to_vector<float>()[3], 1'000'000);
    Array never = y;
    for (int i = 0; i < 1'000'000; ++i) never = -never;
  }
  EXPECT_LE(live_nodes(), before + 1);
}

TEST(Eval, EvaluatedNodesLetGoOfTheirInputs) {
  int64_t before = live_nodes();
  Array y = vector_of(8);
  for (int i = 0; i < 50; ++i) y = square(y) - 0.5f;
  y.eval();
  EXPECT_EQ(live_nodes(), before + 1);
}

TEST(Eval, LengthsAreNotPartOfAPlan) {
  auto step = [](int64_t n) {
    Array x = vector_of(n, 2);
    Array y = matmul(reshape(exp(x * 0.25f), {1, n}), reshape(x + 1.0f, {n, 1}));
    return y.item<float>();
  };
  step(17);
  Counters c = counted([&] {
    for (int64_t n = 18; n < 60; ++n) step(n);
  });
  EXPECT_EQ(c.plan_misses, 0);
  EXPECT_GT(c.plan_hits, 0);
}

TEST(Eval, ScalarValuesAreNotPartOfAPlan) {
  Array x = vector_of(5, 2);
  auto line = [&](float slope, float start) {
    Array y = x * slope + start;
    return y.to_vector<float>()[0];
  };
  line(1.5f, 2);
  Counters c = counted([&] { EXPECT_EQ(line(2.5f, 4), 9); });
  EXPECT_EQ(c.plan_misses, 0);
}

TEST(Eval, UpdatesOfStateCopyNothing) {
  Array state = zeros({1, 2, 64, 4});
  state.eval();
  Array row = Array::from<float>(std::vector<float>(8, 1), {1, 2, 1, 4});
  Counters c = counted([&] {
    for (int32_t i = 0; i < 32; ++i) {
      state = ragged_slice_update(state, row, Array::from<int32_t>({i}, {1}), 2);
      Array seen = sum(state);
      eval({seen, state});
      EXPECT_EQ(seen.item<float>(), 8 * (i + 1));
    }
  });
  EXPECT_EQ(c.bytes_copied, 0);
}

TEST(Eval, UpdatesWaitForEarlierReaders) {
  Array state = vector_of(1000, 1);
  Array old_sum = sum(state);
  Array updated = slice_update(state, vector_of(10, 5), {0}, {10});
  state = Array();
  Counters c = counted([&] { eval({updated, old_sum}); });
  EXPECT_EQ(c.bytes_copied, 0);
  EXPECT_EQ(old_sum.item<float>(), 1000);
  EXPECT_EQ(sum(updated).item<float>(), 1040);
}

TEST(Eval, HeldStateIsCopiedNotOverwritten) {
  Array state = vector_of(16, 1);
  Array updated = slice_update(state, vector_of(4, 2), {0}, {4});
  EXPECT_GT(counted([&] { updated.eval(); }).bytes_copied, 0);
  EXPECT_EQ(sum(state).item<float>(), 16);
  EXPECT_EQ(sum(updated).item<float>(), 20);
}

TEST(Eval, TemporariesShareMemory) {
  Array x = vector_of(1 << 20);
  reset_peak_memory();
  int64_t before = memory_use(DeviceKind::Cpu).peak;
  Array y = x;
  for (int i = 0; i < 10; ++i) y = reshape(transpose(reshape(y, {1024, 1024})), {1 << 20}) + 1.0f;
  y.eval();
  EXPECT_LE(memory_use(DeviceKind::Cpu).peak - before, 3 * (4 << 20) + 4096);
}

// The workspace of a kernel serves later steps too.
TEST(Eval, ScratchIsSharedBetweenSteps) {
  Array y = reshape(vector_of(1 << 18), {512, 512});
  Array weights = y;
  reset_peak_memory();
  int64_t before = memory_use(DeviceKind::Cpu).peak;
  for (int i = 0; i < 10; ++i) y = matmul(y, transpose(weights)) * 1e-9f;
  y.eval();
  EXPECT_LE(memory_use(DeviceKind::Cpu).peak - before, 5 * (1 << 20) + 4096);
}

TEST(Eval, ASharedGraphInTwoThreads) {
  for (int round = 0; round < 50; ++round) {
    Array x = vector_of(100, 1);
    Array shared = x;
    for (int i = 0; i < 200; ++i) shared = shared + 1.0f;
    Array a = sum(shared * 2.0f), b = max(shared) + 1.0f;
    std::thread one([&] { EXPECT_EQ(a.item<float>(), 40200); });
    std::thread two([&] { EXPECT_EQ(b.item<float>(), 202); });
    one.join();
    two.join();
    EXPECT_EQ(shared.to_vector<float>()[0], 201);
  }
}

TEST(Eval, SaysWhenItMayTakeLong) {
  auto says = [](const Array& array) {
    int times = 0;
    eval(std::span<const Array>(&array, 1), [&] { ++times; });
    EXPECT_TRUE(array.evaluated());
    return times;
  };
  Array x = vector_of(16);
  Array large = vector_of(1 << 20), state = large + 0.0f;
  state.eval();
  EXPECT_EQ(says(exp(x) + 1.0f), 0);
  EXPECT_EQ(says(matmul(reshape(x, {4, 4}), reshape(x, {4, 4}))), 0);
  EXPECT_EQ(says(large + 1.0f), 1);
  EXPECT_EQ(says(sum(large)), 1);
  EXPECT_EQ(says(matmul(reshape(large, {1024, 1024}), ones({1024, 1}))), 1);
  // In place it is as long as what is written, else as what is copied.
  EXPECT_EQ(says(slice_update(large, x, {0}, {16}, {1})), 1);
  state = slice_update(state, x, {0}, {16}, {1});
  EXPECT_EQ(says(state), 0);
  Array y = x;
  for (int i = 0; i < 1000; ++i) y = -y;
  EXPECT_EQ(says(y), 1);
}

TEST(Eval, AsyncEvalAndReads) {
  Array x = vector_of(1000, 1);
  Array y = x;
  for (int i = 0; i < 10; ++i) {
    y = y * 2.0f;
    async_eval(std::span<const Array>(&y, 1));
  }
  EXPECT_EQ(y.to_vector<float>()[0], 1024);
  synchronize();
}

// take checks its indices when it runs, so this plan fails in the middle.
TEST(Eval, AFailureNamesItsOpAndSparesTheRest) {
  Array x = vector_of(4, 1);
  Array before = exp(x);
  Array bad = take(before * 2.0f, Array::from<int32_t>({9}, {1}), 0);
  Array after = bad + 1.0f;
  Array independent = x + 5.0f;
  try {
    eval({before, after, independent});
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::Index);
    EXPECT_NE(std::string(error.what()).find("take"), std::string::npos) << error.what();
    EXPECT_NE(std::string(error.what()).find("(4,)"), std::string::npos) << error.what();
  }
  EXPECT_THROW(after.eval(), Error);
  EXPECT_THROW((after * 2.0f).eval(), Error);
  EXPECT_EQ(x.to_vector<float>()[0], 1);
  EXPECT_NEAR(before.to_vector<float>()[0], 2.718282f, 1e-5);
  EXPECT_EQ(independent.to_vector<float>()[3], 6);
}

TEST(Eval, StateThatAFailedUpdateTookIsPoisoned) {
  Array state = zeros({1, 4, 2});
  state.eval();
  Array rows = Array::from<float>({1, 1}, {1, 1, 2});
  state = ragged_slice_update(state, rows, Array::from<int32_t>({7}, {1}), 1);
  EXPECT_THROW(state.eval(), Error);
  EXPECT_THROW((state + 1.0f).eval(), Error);
  state = zeros({1, 4, 2});
  EXPECT_EQ(sum(state).item<float>(), 0);
}

TEST(Eval, OutOfMemoryRunsNothingAndCanBeRetried) {
  Array x = vector_of(1 << 16, 1);
  Array y = exp(x);
  Array big = broadcast_to(reshape(y, {1 << 16, 1}), {1 << 16, 1 << 8}) + 1.0f;
  clear_cache();
  int64_t previous = set_memory_limit(memory_use(DeviceKind::Cpu).active + (1 << 20));
  Counters c = counted([&] { EXPECT_THROW(big.eval(), Error); });
  EXPECT_EQ(c.kernels, 0);
  set_memory_limit(previous);
  EXPECT_NEAR(max(big).item<float>(), 3.718282f, 1e-5);
}

TEST(Eval, BytesMoveOnlyWhereTheyAreNeeded) {
  Stream ref = default_stream({DeviceKind::Ref});
  Array x = vector_of(1000, 2);
  Counters c = counted([&] {
    Array y = add(x, x, ref);
    Array z = multiply(y, y, ref);
    Array back = z + 1.0f;
    EXPECT_EQ(back.to_vector<float>()[10], 17);
  });
  EXPECT_EQ(c.bytes_moved, 8000);
  EXPECT_EQ(counted([&] { add(x, x, ref).eval(); }).bytes_moved, 0);
}

TEST(Eval, PlansAreABoundedCache) {
  size_t previous = set_plan_cache_limit(4);
  for (int length = 1; length < 40; ++length) {
    Array y = vector_of(3, 1);
    for (int i = 0; i < length; ++i) y = i % 2 ? exp(y) : sin(y);
    y.eval();
  }
  set_plan_cache_limit(previous);
}

TEST(Eval, EmptyAndMovedFromArraysAreErrors) {
  Array nothing;
  EXPECT_THROW(eval({nothing}), Error);
  EXPECT_THROW(vector_of(2).item<float>(), Error);
}

}  // namespace
}  // namespace mica
