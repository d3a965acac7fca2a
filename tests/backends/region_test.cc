// Regions as a whole on the CPU: layouts against the reference device, fused against one by one,
// sizes around tiles and vectors, memory shared with inputs.
#include <gtest/gtest.h>

#include <numeric>

#include "backends/cpu/region_program.h"
#include "base/thread_pool.h"
#include "region_harness.h"

namespace mica::test {
namespace {

using Random = std::mt19937;
int64_t below(Random& random, int64_t n) {
  return static_cast<int64_t>(random() % static_cast<uint64_t>(n));
}

// An input of a space in a random layout: some axes broadcast, the others permuted, reversed, or
// with gaps.
int16_t random_input(RegionCase& c, Dtype dtype, Random& random) {
  size_t rank = c.space.size();
  Shape extents = c.space;
  bool plain = below(random, 3) == 0;
  for (size_t i = 0; i < rank && !plain; ++i)
    if (below(random, 3) == 0) extents[i] = 1;
  std::vector<size_t> order(rank);
  std::iota(order.begin(), order.end(), 0);
  if (!plain && below(random, 2)) std::shuffle(order.begin(), order.end(), random);
  Strides strides(rank, 0);
  int64_t stride = 1, offset = 0;
  for (size_t k = rank; k-- > 0;) {
    size_t axis = order[k];
    if (extents[axis] == 1) continue;
    int64_t step = !plain && below(random, 4) == 0 ? 2 : 1;
    strides[axis] = stride * step;
    stride *= extents[axis] * step;
    if (!plain && below(random, 5) == 0) {
      offset += strides[axis] * (extents[axis] - 1);
      strides[axis] = -strides[axis];
    }
  }
  HostArray values = random_array(dtype, {stride}, -9, 9, random);
  return c.input(std::move(values), strides, offset);
}

Shape random_space(Random& random) {
  static const Shape spaces[] = {{},
                                 {1},
                                 {15},
                                 {16},
                                 {17},
                                 {255},
                                 {257},
                                 {1000},
                                 {3, 5},
                                 {4, 300},
                                 {300, 4},
                                 {40, 17},
                                 {2, 3, 4},
                                 {7, 1, 64},
                                 {5, 33, 9},
                                 {2, 256, 3},
                                 {1, 1, 600},
                                 {2, 3, 2, 50},
                                 {3, 2, 4, 2, 7, 2},
                                 {0, 4}};
  return spaces[below(random, std::size(spaces))];
}

// Operations whose results are the same in float and in double rounded to float.
const Op* const kExact[] = {&ops::add_op, &ops::subtract_op, &ops::multiply_op, &ops::maximum_op,
                            &ops::minimum_op};

TEST(Region, ReadsEveryLayoutAsTheReferenceDoes) {
  Random random(4);
  for (int round = 0; round < 400; ++round) {
    RegionCase c;
    c.space = random_space(random);
    const Dtype dtypes[] = {Dtype::F32, Dtype::BF16, Dtype::F16, Dtype::F64,
                            Dtype::I32, Dtype::U8,   Dtype::I16};
    Dtype dtype = dtypes[below(random, std::size(dtypes))];
    std::vector<int16_t> values;
    for (int i = 0; i < 4; ++i) values.push_back(random_input(c, dtype, random));
    for (int i = 0; i < 4; ++i) {
      int16_t a = values[static_cast<size_t>(below(random, static_cast<int64_t>(values.size())))];
      int16_t b = values[static_cast<size_t>(below(random, static_cast<int64_t>(values.size())))];
      values.push_back(c.add(*kExact[below(random, std::size(kExact))], dtype, {a, b}));
      if (i == 3 || below(random, 3) == 0) c.output(values.back());
    }
    size_t misalign = below(random, 2) ? 1 : 0;
    auto want = run_region_on(DeviceKind::Ref, c),
         got = run_region_on(DeviceKind::Cpu, c, misalign);
    for (size_t o = 0; o < want.size(); ++o) {
      for (int64_t i = 0; i < want[o].size(); ++i)
        ASSERT_EQ(ulps(want[o], got[o], i), 0)
            << "round " << round << " " << dtype_name(dtype) << " " << to_string(c.space)
            << " element " << i << ": " << got[o].get(i) << " for " << want[o].get(i);
    }
  }
}

struct Generator {
  RegionCase c;
  Random& random;
  std::vector<std::unique_ptr<ops::CastParams>> casts;
  std::vector<std::unique_ptr<ops::FillParams>> fills;
  std::vector<int16_t> values;

  int16_t pick(Dtype dtype) {
    std::vector<int16_t> fitting;
    for (int16_t v : values)
      if (c.dtype_of_value(v) == dtype) fitting.push_back(v);
    if (fitting.empty() || below(random, 8) == 0) return fill(dtype);
    return fitting[static_cast<size_t>(below(random, static_cast<int64_t>(fitting.size())))];
  }
  int16_t fill(Dtype dtype) {
    fills.push_back(std::make_unique<ops::FillParams>(ops::FillParams{{}, dtype, 1.7, 3}));
    return c.add(ops::fill_op, dtype, {}, fills.back().get());
  }
  void step() {
    int16_t x = values[static_cast<size_t>(below(random, static_cast<int64_t>(values.size())))];
    Dtype dtype = c.dtype_of_value(x);
    static const Op* const unary[] = {&ops::exp_op, &ops::tanh_op,    &ops::sin_op,
                                      &ops::erf_op, &ops::sigmoid_op, &ops::square_op,
                                      &ops::abs_op, &ops::log1p_op,   &ops::floor_op};
    static const Op* const binary[] = {&ops::add_op,    &ops::subtract_op, &ops::multiply_op,
                                       &ops::divide_op, &ops::maximum_op,  &ops::arctan2_op,
                                       &ops::power_op};
    switch (below(random, 5)) {
      case 0: {
        const Dtype targets[] = {Dtype::F16, Dtype::BF16, Dtype::F32,
                                 Dtype::F64, Dtype::I32,  Dtype::U8};
        casts.push_back(
            std::make_unique<ops::CastParams>(ops::CastParams{targets[below(random, 6)]}));
        values.push_back(c.add(ops::cast_op, casts.back()->dtype, {x}, casts.back().get()));
        return;
      }
      case 1: values.push_back(c.add(ops::greater_op, Dtype::Bool, {x, pick(dtype)})); return;
      case 2: {
        int16_t y = pick(dtype), condition = pick(Dtype::Bool);
        values.push_back(c.add(ops::select_op, dtype, {condition, x, y}));
        return;
      }
      case 3:
        if (!is_floating(dtype)) break;
        values.push_back(c.add(*unary[below(random, std::size(unary))], dtype, {x}));
        return;
      default: break;
    }
    if (dtype == Dtype::Bool)
      values.push_back(c.add(ops::logical_or_op, dtype, {x, pick(dtype)}));
    else if (is_floating(dtype))
      values.push_back(c.add(*binary[below(random, std::size(binary))], dtype, {x, pick(dtype)}));
    else
      values.push_back(c.add(*kExact[below(random, 5)], dtype, {x, pick(dtype)}));
  }
};

// Runs one instruction after the other, through memory.
std::vector<HostArray> run_one_by_one(const RegionCase& c) {
  std::vector<HostArray> values;
  std::vector<Strides> strides = c.strides;
  std::vector<int64_t> offsets = c.offsets;
  for (const HostArray& input : c.inputs) values.push_back(input);
  for (const RegionInstruction& in : c.region.instructions) {
    RegionCase one;
    one.space = c.space;
    std::vector<int16_t> arguments;
    for (int i = 0; i < in.arity; ++i) {
      auto v = static_cast<size_t>(in.arguments[i]);
      arguments.push_back(one.input(values[v], strides[v], offsets[v]));
    }
    one.output(one.add(*in.op, in.dtype, arguments, c.params[static_cast<size_t>(in.node)]));
    values.push_back(run_region_on(DeviceKind::Cpu, one)[0]);
    strides.push_back(row_major(c.space));
    offsets.push_back(0);
  }
  std::vector<HostArray> results;
  for (const RegionOutput& output : c.region.outputs)
    results.push_back(values[static_cast<size_t>(output.value)]);
  return results;
}

TEST(Region, FusedIsBitEqualToOneByOne) {
  Random random(5);
  for (int round = 0; round < 300; ++round) {
    Generator g{.c = {}, .random = random, .casts = {}, .fills = {}, .values = {}};
    g.c.space = random_space(random);
    const Dtype dtypes[] = {Dtype::F32, Dtype::F32, Dtype::BF16, Dtype::F16,
                            Dtype::F64, Dtype::I32, Dtype::Bool};
    int64_t inputs = 1 + below(random, 5);
    for (int64_t i = 0; i < inputs; ++i)
      g.values.push_back(random_input(g.c, dtypes[below(random, std::size(dtypes))], random));
    int64_t steps = 1 + below(random, 20);
    for (int64_t i = 0; i < steps; ++i) {
      g.step();
      if (i + 1 == steps || below(random, 6) == 0) g.c.output(g.values.back());
    }
    auto want = run_one_by_one(g.c), got = run_region_on(DeviceKind::Cpu, g.c);
    for (size_t o = 0; o < want.size(); ++o) {
      for (int64_t i = 0; i < want[o].size(); ++i) {
        auto item = static_cast<size_t>(size_of(want[o].dtype)), at = static_cast<size_t>(i) * item;
        bool same = std::memcmp(&want[o].bytes[at], &got[o].bytes[at], item) == 0;
        ASSERT_TRUE(same || (std::isnan(want[o].get(i)) && std::isnan(got[o].get(i))))
            << "round " << round << " output " << o << " " << to_string(g.c.space) << " element "
            << i << ": " << got[o].get(i) << " for " << want[o].get(i);
      }
    }
  }
}

TEST(Region, ElementsDoNotDependOnTheirPlace) {
  Random random(6);
  HostArray values = random_array(Dtype::F32, {1031}, -4, 4, random);
  auto run = [&](int64_t start, int64_t count) {
    RegionCase c;
    c.space = {count};
    int16_t x = c.input(values, {1}, start);
    int16_t y = c.add(ops::tanh_op, Dtype::F32, {x});
    c.output(c.add(ops::exp_op, Dtype::F32, {y}));
    return run_region_on(DeviceKind::Cpu, c)[0];
  };
  HostArray all = run(0, 1031);
  for (int64_t start : {1, 7, 250, 1030}) {
    HostArray part = run(start, 1031 - start);
    EXPECT_EQ(std::memcmp(part.bytes.data(), all.bytes.data() + 4 * start, part.bytes.size()), 0);
  }
}

// Outputs in the memory of an input of the same layout, whichever the first or last use is.
// A case's results where output `shared` lies in the memory of the first input: all bytes.
std::vector<std::vector<std::byte>> run_sharing(const RegionCase& c, size_t shared,
                                                const std::vector<HostArray>& like) {
  Backend& cpu = *backend_of(DeviceKind::Cpu);
  std::vector<HostArray> memory = c.inputs, results = like;
  std::vector<View> inputs, outputs;
  for (HostArray& x : memory) inputs.push_back({x.bytes.data(), x.dtype, c.space, {1}});
  for (size_t o = 0; o < results.size(); ++o)
    outputs.push_back(o == shared ? inputs[0]
                                  : View{results[o].bytes.data(), like[o].dtype, c.space, {1}});
  auto program = cpu.prepare(c.region);
  cpu.run({program.get(), &c.region, c.space, inputs, outputs, c.params, {}});
  std::vector<std::vector<std::byte>> bytes;
  for (size_t o = 0; o < results.size(); ++o)
    bytes.push_back(o == shared ? memory[0].bytes : results[o].bytes);
  return bytes;
}

// Outputs that chains write in passing and at their end, the input being read before and after.
TEST(Region, OutputsMayTakeTheMemoryOfAnInput) {
  for (int64_t n : {5, 16, 300, 4096, 5 << 20}) {
    for (Dtype dtype : {Dtype::F32, Dtype::BF16, Dtype::F16}) {
      for (bool read_again : {true, false}) {
        Random random(7);
        RegionCase c;
        c.space = {n};
        int16_t x = c.input(random_array(dtype, {n}, -2, 2, random), {1});
        int16_t y = c.input(random_array(dtype, {n}, -2, 2, random), {1});
        int16_t sum = c.add(ops::add_op, dtype, {x, y});
        int16_t product = c.add(ops::multiply_op, dtype, {sum, read_again ? x : y});
        int16_t square = c.add(ops::multiply_op, dtype, {product, product});
        c.output(sum);
        c.output(product);
        c.output(square);
        auto want = run_region_on(DeviceKind::Cpu, c);
        for (size_t shared : {0, 1, 2}) {
          auto got = run_sharing(c, shared, want);
          for (size_t o = 0; o < want.size(); ++o)
            EXPECT_TRUE(got[o] == want[o].bytes) << n << " " << dtype_name(dtype) << " " << o;
        }
      }
    }
  }
}

// What several want is written in passing: a chain goes on, whatever the order of instructions.
TEST(Region, ChainsKeepValuesInPassing) {
  RegionCase c;
  c.space = {1000};
  Random random(3);
  int16_t x = c.input(random_array(Dtype::BF16, {1000}, -2, 2, random), {1});
  int16_t y = c.input(random_array(Dtype::BF16, {1000}, -2, 2, random), {1});
  int16_t sum = c.add(ops::add_op, Dtype::BF16, {x, y});
  int16_t other = c.add(ops::sqrt_op, Dtype::BF16, {y});
  int16_t root = c.add(ops::tanh_op, Dtype::BF16, {sum});
  int16_t product = c.add(ops::multiply_op, Dtype::BF16, {root, sum});
  c.output(sum);
  c.output(c.add(ops::subtract_op, Dtype::BF16, {product, other}));
  auto program = backend_of(DeviceKind::Cpu)->prepare(c.region);
  int chains = 0;
  for (const cpu::RegionStep& step : static_cast<cpu::TileProgram&>(*program).steps)
    chains += step.kind == cpu::RegionStep::Kind::Chain;
  EXPECT_EQ(chains, 2);  // sum to product; sqrt and the difference
}

// Large enough for stores past the caches, with a tail.
TEST(Region, LargeOutputsAreComplete) {
  int64_t n = (int64_t{3} << 20) + 77;
  for (Dtype dtype : {Dtype::F32, Dtype::BF16, Dtype::F64}) {
    RegionCase c;
    c.space = {n};
    HostArray values(dtype, {n});
    for (int64_t i = 0; i < n; ++i) values.set(i, static_cast<double>(i % 251));
    int16_t x = c.input(values, {1});
    c.output(c.add(ops::add_op, dtype, {x, x}));
    if (dtype == Dtype::F32)
      c.output(c.add(ops::greater_op, Dtype::Bool, {x, static_cast<int16_t>(x + 1)}));
    auto got = run_region_on(DeviceKind::Cpu, c)[0];
    for (int64_t i = 0; i < n; ++i) ASSERT_EQ(got.get(i), 2 * static_cast<double>(i % 251)) << i;
  }
}

TEST(Region, PrepareRefusesWhatAnOperationDoesNotTake) {
  RegionCase c;
  c.space = {4};
  int16_t x = c.input(HostArray(Dtype::F32, {4}), {1});
  c.output(c.add(ops::bitwise_and_op, Dtype::F32, {x, x}));
  EXPECT_THROW(backend_of(DeviceKind::Cpu)->prepare(c.region), Error);
}

}  // namespace
}  // namespace mica::test
