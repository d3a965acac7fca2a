// Every elementwise operation on every dtype: the CPU against the reference device, and against
// <cmath> over the whole range of float32.
#include <gtest/gtest.h>

#include "region_harness.h"
#include "targets.h"

namespace mica::test {
namespace {

struct Row {
  const char* name;
  const Op* op;
  ElementKind kind;
  int arity;
  double low, high;
};

const std::vector<Row>& rows() {
  static const std::vector<Row> rows = {
#define MICA_UNARY(name, kind, low, high, scalar, dx, doc) \
  {#name, &ops::name##_op, ElementKind::kind, 1, low, high},
#define MICA_BINARY(name, kind, low, high, scalar, dx, dy, doc) \
  {#name, &ops::name##_op, ElementKind::kind, 2, low, high},
#include "ops/elementwise.def"
  };
  return rows;
}

bool takes(const Row& row, Dtype dtype) {
  switch (row.kind) {
    case ElementKind::Floating:
    case ElementKind::Rounding:
    case ElementKind::Test: return is_floating(dtype);
    case ElementKind::Logical: return dtype == Dtype::Bool;
    case ElementKind::Bits: return !is_floating(dtype);
    case ElementKind::Shift: return is_integer(dtype);
    default: return true;
  }
}
Dtype result_of(const Row& row, Dtype dtype) {
  bool to_bool = row.kind == ElementKind::Test || row.kind == ElementKind::Comparison ||
                 row.kind == ElementKind::Logical;
  return to_bool ? Dtype::Bool : dtype;
}

constexpr Dtype kDtypes[] = {Dtype::Bool, Dtype::U8,  Dtype::U16, Dtype::U32, Dtype::U64,
                             Dtype::I8,   Dtype::I16, Dtype::I32, Dtype::I64, Dtype::F16,
                             Dtype::BF16, Dtype::F32, Dtype::F64};

double special_value(size_t i) {
  const double inf = std::numeric_limits<double>::infinity();
  const double values[] = {0.0,  -0.0, 1.0,  -1.0, inf,   -inf,   std::nan(""), 0.5,    -0.5,
                           2.0,  -2.0, 3.0,  -3.0, 1e-40, -1e-40, 3e38,         -3e38,  88.9,
                           -104, 1e7,  2.5,  -2.5, 100.7, 65504,  -65504,       1e-7,   7,
                           -7,   127,  -128, 255,  32767, 0x1p31, -0x1p31,      0x1p40, 0.999999};
  return values[i % std::size(values)];
}
constexpr size_t kSpecials = 36;

RegionCase one_operation(const Row& row, Dtype dtype, const std::vector<HostArray>& inputs) {
  RegionCase c;
  c.space = inputs[0].shape;
  std::vector<int16_t> arguments;
  for (const HostArray& input : inputs) arguments.push_back(c.input(input, row_major(c.space)));
  c.output(c.add(*row.op, result_of(row, dtype), arguments));
  return c;
}

// Floating operations whose float32 code works in float may be 2 units off; the half types round
// that.
double allowed(Dtype dtype) { return dtype == Dtype::F64 ? 0.51 : dtype == Dtype::F32 ? 2 : 1; }

void expect_close(const Row& row, Dtype dtype, const RegionCase& c) {
  auto want = run_region_on(DeviceKind::Ref, c)[0], got = run_region_on(DeviceKind::Cpu, c)[0];
  for (int64_t i = 0; i < want.size(); ++i) {
    double distance = ulps(want, got, i);
    ASSERT_LE(distance, allowed(dtype))
        << row.name << " " << dtype_name(dtype) << " of " << c.inputs[0].get(i) << ", "
        << c.inputs.back().get(i) << ": " << got.get(i) << " for " << want.get(i);
  }
}

TEST(RegionOps, MatchTheReferenceOnEveryDtype) {
  std::mt19937 random(1);
  for (const Row& row : rows()) {
    for (Dtype dtype : kDtypes) {
      if (!takes(row, dtype)) continue;
      for (int64_t size : {1, 7, 16, 300}) {
        std::vector<HostArray> inputs;
        for (int i = 0; i < row.arity; ++i)
          inputs.push_back(random_array(dtype, {size}, row.low, row.high, random));
        expect_close(row, dtype, one_operation(row, dtype, inputs));
      }
    }
  }
}

TEST(RegionOps, MatchTheReferenceOnSpecialValues) {
  for (const Row& row : rows()) {
    for (Dtype dtype : kDtypes) {
      if (!takes(row, dtype)) continue;
      std::string name = row.name;
      // Between float and double the quotient may round up to an integer.
      if (name == "floor_divide" && is_floating(dtype)) continue;
      auto n = static_cast<int64_t>(kSpecials * kSpecials);
      std::vector<HostArray> inputs(static_cast<size_t>(row.arity), HostArray(dtype, {n}));
      for (int64_t i = 0; i < n; ++i) {
        inputs[0].set(i, special_value(static_cast<size_t>(i)));
        if (row.arity == 2) inputs[1].set(i, special_value(static_cast<size_t>(i) / kSpecials));
      }
      expect_close(row, dtype, one_operation(row, dtype, inputs));
    }
  }
}

// Every `step`th float, of both signs.
void expect_accurate(uint64_t step) {
  std::vector<float> values;
  for (uint64_t bits = 0; bits < (uint64_t{1} << 32); bits += step)
    values.push_back(detail::bits_to_float(static_cast<uint32_t>(bits)));
  HostArray input(Dtype::F32, {static_cast<int64_t>(values.size())});
  std::memcpy(input.bytes.data(), values.data(), input.bytes.size());
  for (const Row& row : rows()) {
    if (row.arity != 1 || (row.kind != ElementKind::Floating && row.kind != ElementKind::Rounding))
      continue;
    RegionCase c = one_operation(row, Dtype::F32, {input});
    auto want = run_region_on(DeviceKind::Ref, c)[0], got = run_region_on(DeviceKind::Cpu, c)[0];
    double worst = 0;
    int64_t at = 0;
    for (int64_t i = 0; i < want.size(); ++i) {
      double distance = ulps(want, got, i);
      if (distance > worst) worst = distance, at = i;
    }
    ::testing::Test::RecordProperty(row.name, std::to_string(worst));
    EXPECT_LE(worst, 2) << row.name << " of " << input.get(at) << ": " << got.get(at) << " for "
                        << want.get(at);
  }
}

TEST(RegionOps, FloatFunctionsAreAccurateOverTheirWholeRange) { expect_accurate(3571); }

class RegionOpsOn : public cpu::TargetTest {};
INSTANTIATE_TEST_SUITE_P(Targets, RegionOpsOn, cpu::all_targets(), cpu::target_name);

TEST_P(RegionOpsOn, FloatFunctionsAreAccurate) { expect_accurate(199999); }

TEST_P(RegionOpsOn, BoundedFunctionsReachTheirBounds) {
  const float inf = std::numeric_limits<float>::infinity();
  struct Case {
    const char* name;
    float below, above;
  };
  for (const Case& c :
       {Case{"tanh", -1, 1}, Case{"erf", -1, 1}, Case{"sigmoid", 0, 1}, Case{"exp", 0, inf}}) {
    for (const Row& row : rows()) {
      if (std::string(c.name) != row.name) continue;
      HostArray input(Dtype::F32, {5});
      const float values[] = {-inf, -105, 105, inf, std::nanf("")};
      std::memcpy(input.bytes.data(), values, sizeof(values));
      auto got = run_region_on(DeviceKind::Cpu, one_operation(row, Dtype::F32, {input}))[0];
      EXPECT_EQ(got.get(0), c.below) << c.name;
      EXPECT_EQ(got.get(1), c.below) << c.name;
      EXPECT_EQ(got.get(2), c.above) << c.name;
      EXPECT_EQ(got.get(3), c.above) << c.name;
      EXPECT_TRUE(std::isnan(got.get(4))) << c.name;
    }
  }
}

// Rounded between two operations, in registers.
TEST_P(RegionOpsOn, EveryValueOfAHalfTypeIsRoundedAsByTheReference) {
  for (Dtype dtype : {Dtype::BF16, Dtype::F16}) {
    HostArray input(dtype, {65536});
    for (uint32_t bits = 0; bits < 65536; ++bits) {
      auto half = static_cast<uint16_t>(bits);
      std::memcpy(input.bytes.data() + 2 * bits, &half, 2);
    }
    RegionCase c;
    c.space = input.shape;
    ops::FillParams factor{{}, dtype, 0.7, 0}, term{{}, dtype, 0.01, 0};
    int16_t x = c.input(input, {1});
    int16_t product = c.add(ops::multiply_op, dtype, {x, c.add(ops::fill_op, dtype, {}, &factor)});
    int16_t sum = c.add(ops::add_op, dtype, {product, c.add(ops::fill_op, dtype, {}, &term)});
    c.output(c.add(ops::multiply_op, dtype, {sum, x}));
    auto want = run_region_on(DeviceKind::Ref, c)[0], got = run_region_on(DeviceKind::Cpu, c)[0];
    for (int64_t i = 0; i < want.size(); ++i)
      ASSERT_EQ(ulps(want, got, i), 0) << dtype_name(dtype) << " of " << input.get(i) << ": "
                                       << got.get(i) << " for " << want.get(i);
  }
}

TEST_P(RegionOpsOn, EveryNaNStaysOneInBfloat16) {
  HostArray input(Dtype::F32, {4});
  const uint32_t bits[] = {0x7fffffff, 0x7f800001, 0xffffffff, 0xff800001};
  std::memcpy(input.bytes.data(), bits, sizeof(bits));
  RegionCase c;
  c.space = input.shape;
  ops::CastParams params{Dtype::BF16};
  int16_t narrow = c.add(ops::cast_op, Dtype::BF16, {c.input(input, {1})}, &params);
  c.output(narrow);
  c.output(c.add(ops::add_op, Dtype::BF16, {narrow, narrow}));
  for (const HostArray& got : run_region_on(DeviceKind::Cpu, c))
    for (int64_t i = 0; i < got.size(); ++i) EXPECT_TRUE(std::isnan(got.get(i))) << i;
}

TEST(RegionOps, CastsMatchTheReferenceBetweenAllDtypes) {
  std::mt19937 random(2);
  for (Dtype from : kDtypes) {
    for (Dtype to : kDtypes) {
      HostArray input = random_array(from, {333}, -300, 300, random);
      for (size_t i = 0; i < kSpecials; ++i) input.set(static_cast<int64_t>(i), special_value(i));
      RegionCase c;
      c.space = input.shape;
      ops::CastParams params{to};
      int16_t in = c.input(input, {1});
      c.output(c.add(ops::cast_op, to, {in}, &params));
      auto want = run_region_on(DeviceKind::Ref, c)[0], got = run_region_on(DeviceKind::Cpu, c)[0];
      for (int64_t i = 0; i < want.size(); ++i)
        ASSERT_EQ(ulps(want, got, i), 0)
            << dtype_name(from) << " to " << dtype_name(to) << " of " << input.get(i) << ": "
            << got.get(i) << " for " << want.get(i);
    }
  }
}

TEST(RegionOps, SelectAndFillMatchTheReferenceOnEveryDtype) {
  std::mt19937 random(3);
  for (Dtype dtype : kDtypes) {
    RegionCase c;
    c.space = {3, 111};
    int16_t condition = c.input(random_array(Dtype::Bool, c.space, 0, 1, random), {111, 1});
    int16_t x = c.input(random_array(dtype, c.space, 0, 50, random), {111, 1});
    ops::FillParams fill{{}, dtype, 0.1, 7};
    int16_t y = c.add(ops::fill_op, dtype, {}, &fill);
    c.output(c.add(ops::select_op, dtype, {condition, x, y}));
    auto want = run_region_on(DeviceKind::Ref, c)[0], got = run_region_on(DeviceKind::Cpu, c)[0];
    EXPECT_EQ(want.bytes, got.bytes) << dtype_name(dtype);
  }
}

TEST(RegionOps, IntegersWrapAroundAndNeverTrap) {
  auto of = [](const char* name, Dtype dtype, int64_t a, int64_t b) {
    for (const Row& row : rows()) {
      if (std::string(name) != row.name) continue;
      std::vector<HostArray> inputs(static_cast<size_t>(row.arity), HostArray(dtype, {1}));
      auto put = [&](HostArray& array, int64_t value) {
        std::memcpy(array.bytes.data(), &value, array.bytes.size());
      };
      put(inputs[0], a);
      if (row.arity == 2) put(inputs[1], b);
      return run_region_on(DeviceKind::Cpu, one_operation(row, dtype, inputs))[0].get(0);
    }
    return -1e300;
  };
  EXPECT_EQ(of("add", Dtype::I8, 100, 100), -56);
  EXPECT_EQ(of("multiply", Dtype::U16, 65535, 2), 65534);
  EXPECT_EQ(of("negative", Dtype::I32, INT32_MIN, 0), INT32_MIN);
  EXPECT_EQ(of("abs", Dtype::I64, INT64_MIN, 0), static_cast<double>(INT64_MIN));
  EXPECT_EQ(of("floor_divide", Dtype::I32, INT32_MIN, -1), INT32_MIN);
  EXPECT_EQ(of("floor_divide", Dtype::I32, 5, 0), 0);
  EXPECT_EQ(of("floor_divide", Dtype::I32, -7, 2), -4);
  EXPECT_EQ(of("remainder", Dtype::I32, -7, 2), 1);
  EXPECT_EQ(of("remainder", Dtype::I32, 7, -2), -1);
  EXPECT_EQ(of("remainder", Dtype::U8, 7, 0), 0);
  EXPECT_EQ(of("power", Dtype::I32, -2, 5), -32);
  EXPECT_EQ(of("power", Dtype::I32, -1, -3), -1);
  EXPECT_EQ(of("power", Dtype::I32, 2, -1), 0);
  EXPECT_EQ(of("left_shift", Dtype::I32, 1, 31), INT32_MIN);
  EXPECT_EQ(of("left_shift", Dtype::I32, 1, 32), 0);
  EXPECT_EQ(of("right_shift", Dtype::I8, -128, 100), -1);
  EXPECT_EQ(of("bitwise_invert", Dtype::U8, 1, 0), 254);
}

}  // namespace
}  // namespace mica::test
