// Reductions on the CPU: every subset of axes against the reference device; independence of layout,
// fusion and threads.
#include <gtest/gtest.h>

#include "base/thread_pool.h"
#include "region_harness.h"

namespace mica::test {
namespace {

const Op* const kReductions[] = {&ops::sum_op, &ops::prod_op, &ops::max_op,
                                 &ops::min_op, &ops::all_op,  &ops::any_op};

RegionCase reduction(const Op& op, const HostArray& values, std::vector<int> axes) {
  RegionCase c;
  c.space = values.shape;
  int16_t x = c.input(values, row_major(c.space));
  c.reduce(op, x, std::move(axes));
  return c;
}

std::vector<std::vector<int>> axis_subsets(size_t rank) {
  std::vector<std::vector<int>> subsets;
  for (unsigned bits = 1; bits < 1u << rank; ++bits) {
    subsets.emplace_back();
    for (size_t i = 0; i < rank; ++i)
      if (bits >> i & 1) subsets.back().push_back(static_cast<int>(i));
  }
  return subsets;
}

void expect_close(const RegionCase& c) {
  auto want = run_region_on(DeviceKind::Ref, c), got = run_region_on(DeviceKind::Cpu, c);
  const Op& op = *c.region.reduction;
  for (size_t o = 0; o < want.size(); ++o) {
    double allowed = want[o].dtype != Dtype::F64 ? 1 : op.reduce == Reduce::Prod ? 100 : 2;
    for (int64_t i = 0; i < want[o].size(); ++i)
      ASSERT_LE(ulps(want[o], got[o], i), allowed)
          << op.name << " " << dtype_name(c.inputs[0].dtype) << " " << to_string(c.space)
          << " over " << fmt::format("{}", fmt::join(c.region.axes, ",")) << " element " << i
          << ": " << got[o].get(i) << " for " << want[o].get(i);
  }
}

TEST(Reduce, EverySubsetOfAxesMatchesTheReference) {
  std::mt19937 random(1);
  const Shape shapes[] = {{1},          {7},          {16},        {300},     {3, 5},
                          {40, 1},      {1, 70},      {5, 257},    {257, 5},  {3, 520},
                          {520, 3},     {2, 3, 4},    {4, 130, 6}, {3, 1, 9}, {2, 300, 2},
                          {5, 4, 3, 2}, {2, 3, 40, 7}};
  for (const Shape& shape : shapes) {
    for (const auto& axes : axis_subsets(shape.size())) {
      for (const Op* op : kReductions) {
        bool logical = op->reduce == Reduce::All || op->reduce == Reduce::Any;
        for (Dtype dtype :
             {Dtype::Bool, Dtype::U8, Dtype::I8, Dtype::U16, Dtype::I32, Dtype::U32, Dtype::I64,
              Dtype::U64, Dtype::F16, Dtype::BF16, Dtype::F32, Dtype::F64}) {
          if (logical != (dtype == Dtype::Bool) &&
              !(dtype == Dtype::Bool && op->reduce == Reduce::Sum))
            continue;
          // Mostly true for all, mostly false for any.
          double low = op->reduce == Reduce::Any ? -1 : 0.5,
                 high = op->reduce == Reduce::Any ? 0.02 : 1.5;
          if (is_integer(dtype)) low = 0, high = 200;
          HostArray values = random_array(dtype, shape, low, high, random);
          if (logical)
            for (int64_t i = 0; i < values.size(); ++i)
              values.set(
                  i, random() % 50 == 0 ? op->reduce == Reduce::Any : op->reduce == Reduce::All);
          expect_close(reduction(*op, values, axes));
        }
      }
    }
  }
}

TEST(Reduce, LargeSpacesMatchTheReference) {
  std::mt19937 random(2);
  for (const Shape& shape : {Shape{200000}, Shape{100, 3000}, Shape{3000, 100}, Shape{40, 70, 130},
                             Shape{6, 50000}, Shape{50000, 6}, Shape{2, 20000, 3}}) {
    for (Dtype dtype : {Dtype::F32, Dtype::BF16, Dtype::F64}) {
      HostArray values = random_array(dtype, shape, 0.5, 1.5, random);
      for (const auto& axes : axis_subsets(shape.size())) {
        expect_close(reduction(ops::sum_op, values, axes));
        if (dtype == Dtype::F32) expect_close(reduction(ops::max_op, values, axes));
      }
    }
  }
}

TEST(Reduce, SumsDoNotLoseSmallTermsBesideLargeOnes) {
  HostArray values(Dtype::F32, {1 << 20});
  for (int64_t i = 0; i < values.size(); ++i) values.set(i, 1);
  values.set(0, 0x1p24);
  auto got = run_region_on(DeviceKind::Cpu, reduction(ops::sum_op, values, {0}))[0];
  EXPECT_EQ(got.get(0), 0x1p24 + 0x1p20);  // rounded once
}

TEST(Reduce, ExtremesPropagateNaN) {
  for (int64_t at : {0, 5, 299}) {
    HostArray values(Dtype::F32, {300});
    for (int64_t i = 0; i < 300; ++i) values.set(i, static_cast<double>(i));
    values.set(at, std::nan(""));
    for (const Op* op : {&ops::max_op, &ops::min_op})
      EXPECT_TRUE(
          std::isnan(run_region_on(DeviceKind::Cpu, reduction(*op, values, {0}))[0].get(0)));
  }
  for (Dtype dtype : {Dtype::F32, Dtype::F16, Dtype::BF16}) {
    HostArray columns(dtype, {21, 300});  // rows that are read together, and some more
    for (int64_t i = 0; i < columns.size(); ++i) columns.set(i, static_cast<double>(i % 64));
    for (int64_t at : {0, 9 * 300 + 70, 20 * 300 + 299}) columns.set(at, std::nan(""));
    for (const Op* op : {&ops::max_op, &ops::min_op}) {
      auto got = run_region_on(DeviceKind::Cpu, reduction(*op, columns, {0}))[0];
      for (int64_t c = 0; c < 300; ++c)
        EXPECT_EQ(std::isnan(got.get(c)), c == 0 || c == 70 || c == 299) << c;
    }
  }
}

TEST(Reduce, OfNothingIsTheIdentity) {
  HostArray none(Dtype::F32, {0, 3});
  auto sum = run_region_on(DeviceKind::Cpu, reduction(ops::sum_op, none, {0}))[0];
  auto prod = run_region_on(DeviceKind::Cpu, reduction(ops::prod_op, none, {0}))[0];
  for (int64_t i = 0; i < 3; ++i) {
    EXPECT_EQ(sum.get(i), 0);
    EXPECT_EQ(prod.get(i), 1);
  }
  EXPECT_EQ(run_region_on(DeviceKind::Cpu, reduction(ops::sum_op, none, {1}))[0].size(), 0);
}

RegionCase wide_reduction(const Op& op, const HostArray& values, std::vector<int> axes) {
  RegionCase c = reduction(op, values, std::move(axes));
  if (op.reduce == Reduce::Sum) c.region.reduction_dtype = Dtype::F32;  // so that all bits show
  return c;
}

void expect_bits_of_shape(const Op& op, const HostArray& values, const std::vector<int>& axes) {
  int threads = ThreadPool::shared().threads();
  const Shape& shape = values.shape;
  RegionCase fused = wide_reduction(op, values, axes);
  int16_t y = fused.add(ops::exp_op, values.dtype, {0});
  fused.output(y);
  fused.region.reduced_value = y;
  auto want = run_region_on(DeviceKind::Cpu, fused);
  auto unfused = run_region_on(DeviceKind::Cpu, wide_reduction(op, want[0], axes));
  EXPECT_EQ(want[1].bytes, unfused[0].bytes) << to_string(shape);

  ThreadPool::shared().set_threads(threads == 1 ? 3 : 1);
  EXPECT_EQ(run_region_on(DeviceKind::Cpu, fused)[1].bytes, want[1].bytes) << to_string(shape);
  ThreadPool::shared().set_threads(threads);

  HostArray transposed(values.dtype, {shape[1], shape[0]});
  for (int64_t r = 0; r < shape[0]; ++r)
    for (int64_t c = 0; c < shape[1]; ++c)
      transposed.set(c * shape[0] + r, values.get(r * shape[1] + c));
  RegionCase other = fused;
  other.inputs[0] = transposed;
  other.strides[0] = {1, shape[0]};
  EXPECT_EQ(run_region_on(DeviceKind::Cpu, other)[1].bytes, want[1].bytes) << to_string(shape);
}

// The bits do not depend on what is fused in front, on the layout, or on the number of threads.
TEST(Reduce, BitsDependOnShapesOnly) {
  std::mt19937 random(3);
  for (const Shape& shape :
       {Shape{37, 1000}, Shape{1000, 37}, Shape{300000, 1}, Shape{5, 9000}, Shape{700, 300}}) {
    for (Dtype dtype : {Dtype::F32, Dtype::F16, Dtype::BF16}) {
      HostArray values = random_array(dtype, shape, -1, 1, random);
      for (const auto& axes : axis_subsets(2))
        for (const Op* op : {&ops::sum_op, &ops::max_op}) expect_bits_of_shape(*op, values, axes);
    }
  }
}

}  // namespace
}  // namespace mica::test
