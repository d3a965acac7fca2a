// The CPU's attention: every way of computing it, on every instruction set, around the sizes at
// which work is cut; and its derivatives against the reference device.
#include <algorithm>
#include <array>

#include "ops/attention.h"

#include <hwy/targets.h>

#include "backends/attention_harness.h"
#include "base/thread_pool.h"
#include "core/device.h"
#include "core/op.h"

namespace mica {
namespace {

using namespace attention_test;

// Runs with the instruction sets at and below each one that this processor has.
template <class F>
void on_instruction_sets(F&& body) {
  for (int64_t disabled :
       {int64_t{0}, int64_t{HWY_AVX3 | HWY_AVX3_DL}, int64_t{HWY_AVX3 | HWY_AVX3_DL | HWY_AVX2}}) {
    SCOPED_TRACE(disabled);
    hwy::DisableTargets(disabled);
    body();
  }
  hwy::DisableTargets(0);
}

// Query rows of one key head around what decoding takes (8) and around the widths of panels.
TEST(CpuAttention, RowsAndSizes) {
  on_instruction_sets([] {
    for (int64_t rows : {1, 2, 3, 5, 8, 9, 16, 33, 48, 95, 97, 200}) {
      for (int64_t size : {4, 64, 80, 100}) {
        Case c{.B = 1, .H = 1, .G = 1, .L = rows, .S = 210, .K = size, .V = 140 - size};
        c.options = {.scale = 0.1, .causal = true};
        check(c);
        if (rows % 2 == 1) continue;
        c = {.B = 1, .H = 4, .G = 2, .L = rows / 2, .S = 131, .K = size, .V = size};
        c.options = {.scale = 0.1, .causal = true, .window = 50};
        c.lengths = {120};
        check(c);
      }
    }
  });
}

// Panels of a block of rows see different keys of a block: none, or those from its middle.
TEST(CpuAttention, PanelsSeeTheirOwnKeys) {
  on_instruction_sets([] {
    for (int64_t window : {0, 20, 70, 130})
      for (int32_t length : {200, 259, 300}) {
        Case c{.B = 1, .H = 2, .G = 2, .L = 200, .S = 300, .K = 24, .V = 20};
        c.options = {.scale = 0.2, .causal = true, .window = window};
        c.lengths = {length};
        check(c);
      }
  });
}

// Slots around the chunks of decoding (512) and the blocks of keys (128).
TEST(CpuAttention, Lengths) {
  on_instruction_sets([] {
    for (int32_t length : {1, 127, 129, 511, 512, 513, 1025}) {
      for (int64_t L : {1, 11}) {
        Case c{.B = 2, .H = 2, .G = 1, .L = L, .S = 1100, .K = 16, .V = 16};
        c.options = {.scale = 0.2, .causal = true};
        c.lengths = {length, 1100 - length / 2};
        check(c);
        c.options.window = 600;
        check(c);
        c.options.ring = true;
        c.lengths = {length + 900, 3 * length};
        check(c);
      }
    }
  });
}

TEST(CpuAttention, Types) {
  on_instruction_sets([] {
    for (Dtype dtype : {Dtype::F16, Dtype::BF16, Dtype::F32, Dtype::F64}) {
      for (int64_t L : {1, 4, 30}) {
        Case c{.B = 1, .H = 6, .G = 3, .L = L, .S = 150, .K = 72, .V = 72};
        c.options = {.scale = 0.2, .causal = true, .softcap = 3};
        c.dtype = c.cache_dtype = dtype;
        c.mask = {L, 150};
        check(c);
      }
    }
  });
}

// Masks in memory of any type and layout, of all heads and queries or one.
TEST(CpuAttention, MasksOfManyRows) {
  on_instruction_sets([] {
    for (Dtype dtype : {Dtype::Bool, Dtype::F16, Dtype::BF16, Dtype::F32, Dtype::F64}) {
      for (const Shape& mask :
           {Shape{2, 4, 37, 150}, {37, 150}, {4, 1, 150}, {2, 1, 1, 150}, {37, 1}, {1, 1}}) {
        Case c{.B = 2, .H = 4, .G = 2, .L = 37, .S = 150, .K = 8, .V = 8};
        c.options = {.scale = 0.3, .causal = true};
        c.mask = mask;
        c.bool_mask = dtype == Dtype::Bool;
        if (!c.bool_mask) c.mask_dtype = dtype;
        Inputs in(c);
        const auto wanted = expected(c, in);
        expect_close(attention(in.q, in.k, in.v, in.options), wanted, c);
        StreamScope on_ref(default_stream({DeviceKind::Ref}));
        Array turned = contiguous(swapaxes(in.options.mask, -1, -2)).eval();
        in.options.mask = swapaxes(turned, -1, -2);
        StreamScope on_cpu(default_stream({DeviceKind::Cpu}));
        expect_close(attention(in.q, in.k, in.v, in.options), wanted, c);
      }
    }
  });
}

// A result is a mean of values by weights that err by 2^-8 of themselves at most (rounding to
// bfloat16) and what float32 scores err by, and is rounded to bfloat16 itself.
void check_bfloat16(const Case& c, const Inputs& in) {
  std::vector<double> spread;
  const std::vector<double> wanted = expected(c, in, &spread);
  const std::vector<double> got = attention(in.q, in.k, in.v, in.options).to_vector<double>();
  constexpr double kRounding = 0x1p-8, kWeight = kRounding + 1e-4;
  for (size_t i = 0; i < got.size(); ++i) {
    const double mean = kWeight / (1 - kWeight) * spread[i] + 1e-5;
    ASSERT_LE(std::abs(got[i] - wanted[i]), mean + kRounding * (std::abs(wanted[i]) + mean))
        << c.name() << " at " << i << ": " << got[i] << " for " << wanted[i];
  }
}
Case bfloat16_case(int64_t L, int64_t S, int64_t K, int64_t V) {
  Case c{.B = 1, .H = 2, .G = 1, .L = L, .S = S, .K = K, .V = V};
  c.options = {.scale = 1 / std::sqrt(static_cast<double>(K)), .causal = true};
  c.dtype = c.cache_dtype = Dtype::BF16;
  return c;
}

TEST(CpuAttention, Bfloat16Sizes) {
  on_instruction_sets([] {
    for (int64_t size : {1, 2, 7, 16, 33, 64, 80, 95, 96, 128, 192, 256}) {
      Case c = bfloat16_case(70, 140, size, size);
      check_bfloat16(c, Inputs(c));
      c.V = 40;
      c.options.causal = false;
      check_bfloat16(c, Inputs(c));
    }
  });
}

TEST(CpuAttention, Bfloat16LengthsAndMasks) {
  on_instruction_sets([] {
    for (int64_t L : {5, 24, 47, 97, 200}) {
      // Two keys: errors of weights do not make up for each other.
      for (int32_t length : {1, 2, 3, 127, 129, 259}) {
        Case c = bfloat16_case(L, 300, 24, 20);
        c.options.causal = false;
        c.lengths = {length};
        check_bfloat16(c, Inputs(c));
        c.options = {.scale = 0.3, .causal = true, .window = 69};
        c.offsets = {length - static_cast<int32_t>(L) / 2};
        check_bfloat16(c, Inputs(c));
        c.options.window = 0;
        for (double scale : {-0.4, 0.0, 1e-35, 30.0}) {
          c.options.scale = scale;
          check_bfloat16(c, Inputs(c));
        }
      }
      Case c = bfloat16_case(L, 200, 32, 32);
      c.mask = {2, L, 200};
      for (bool is_bool : {false, true}) {
        c.bool_mask = is_bool;
        check_bfloat16(c, Inputs(c));
        c.options.softcap = 2;
        check_bfloat16(c, Inputs(c));
      }
    }
  });
}

// Scores that grow from key to key, and those that fall from 2000 on.
TEST(CpuAttention, Bfloat16ScoresOfAnySize) {
  on_instruction_sets([] {
    for (double first : {0.0, 2000.0}) {
      Case c = bfloat16_case(50, 700, 8, 16);
      c.options = {.scale = 1};
      Inputs in(c);
      StreamScope on_ref(default_stream({DeviceKind::Ref}));
      for (size_t i = 0; i < in.k_values.size(); ++i)
        in.k_values[i] = i % 8 == 0 ? std::abs(first - std::floor(i / 8.0)) : 0;
      in.k = astype(Array::from<double>(in.k_values, in.k.shape()), Dtype::BF16).eval();
      in.k_values = in.k.to_vector<double>();
      for (size_t i = 0; i < in.q_values.size(); ++i) in.q_values[i] = 1;
      in.q = astype(Array::from<double>(in.q_values, in.q.shape()), Dtype::BF16).eval();
      StreamScope on_cpu(default_stream({DeviceKind::Cpu}));
      check_bfloat16(c, in);
    }
  });
}

// The sum of the weights as they were rounded divides the sum of values.
TEST(CpuAttention, Bfloat16MeansOfOneValueAreThatValue) {
  on_instruction_sets([] {
    Case c = bfloat16_case(60, 60, 64, 48);
    Inputs in(c);
    StreamScope on_ref(default_stream({DeviceKind::Ref}));
    Array row = slice_axis(in.v, 2, 0, 1);
    in.v = astype(broadcast_to(row, in.v.shape()), Dtype::BF16);
    Array wanted = broadcast_to(row, {1, 2, 60, 48}).eval();
    in.v.eval();
    StreamScope on_cpu(default_stream({DeviceKind::Cpu}));
    EXPECT_EQ(attention(in.q, in.k, in.v, in.options).to_vector<float>(),
              wanted.to_vector<float>());
  });
}

// NaN in a key or a value reaches the queries that see it, and no others.
TEST(CpuAttention, Bfloat16KeepsNaN) {
  on_instruction_sets([] {
    for (bool in_keys : {true, false}) {
      Case c = bfloat16_case(300, 300, 32, 32);
      Inputs in(c);
      StreamScope on_ref(default_stream({DeviceKind::Ref}));
      Array here = equal(reshape(arange(300), {1, 1, 300, 1}), 250);
      Array& which = in_keys ? in.k : in.v;
      which = astype(where(here, std::nan(""), which), Dtype::BF16).eval();
      StreamScope on_cpu(default_stream({DeviceKind::Cpu}));
      std::vector<float> out = attention(in.q, in.k, in.v, in.options).to_vector<float>();
      for (size_t row = 0; row < 600; ++row) {
        if (row % 300 >= 192 && row % 300 < 250) continue;  // may be read with their neighbours
        for (size_t i = 0; i < 32; ++i)
          ASSERT_EQ(std::isnan(out[row * 32 + i]), row % 300 >= 250) << in_keys << " row " << row;
      }
    }
  });
}

// The cotangents of q, k and v, from one device.
Arrays cotangents(const Case& c, const Inputs& in, DeviceKind device, Array* given_too = nullptr) {
  StreamScope scope(default_stream({device}));
  std::mt19937_64 random(5);
  std::normal_distribution<double> normal;
  std::vector<double> values(static_cast<size_t>(c.B * c.H * c.L * c.V));
  for (double& x : values) x = normal(random);
  Array given = Array::from<double>(values, {c.B, c.H, c.L, c.V});
  {
    StreamScope on_ref(default_stream({DeviceKind::Ref}));
    given = astype(given, in.q.dtype()).eval();
    if (given_too) *given_too = given;
  }
  Arrays inputs{in.q, in.k, in.v, given};
  for (const Array& extra : {in.options.offsets, in.options.lengths})
    if (extra.defined()) inputs.push_back(extra);
  const AttentionOptions& o = c.options;
  ops::AttentionParams params{o.scale, o.causal,           o.window,           o.softcap,
                              o.ring,  !c.offsets.empty(), !c.lengths.empty(), false};
  return apply_many(ops::attention_vjp_op, inputs, params, {});
}

void check_cotangents(const Case& c) {
  Inputs in(c);
  Arrays cpu = cotangents(c, in, DeviceKind::Cpu), ref = cotangents(c, in, DeviceKind::Ref);
  for (size_t i = 0; i < 3; ++i) {
    std::vector<double> got = cpu[i].to_vector<double>(), wanted = ref[i].to_vector<double>();
    double largest = 1;
    for (double x : wanted) largest = std::max(largest, std::abs(x));
    for (size_t j = 0; j < got.size(); ++j)
      ASSERT_NEAR(got[j], wanted[j], tolerance_of(cpu[i].dtype()) * largest)
          << c.name() << " cotangent " << i << " at " << j;
  }
}

TEST(CpuAttention, Cotangents) {
  on_instruction_sets([] {
    for (int64_t L : {1, 7, 30, 150}) {
      for (Dtype dtype : {Dtype::F32, Dtype::BF16, Dtype::F64}) {
        if (dtype != Dtype::F32 && L > 30) continue;
        Case c{.B = 2, .H = 4, .G = 2, .L = L, .S = 150, .K = 24, .V = 20};
        c.dtype = c.cache_dtype = dtype;
        c.options = {.scale = 0.2, .causal = true};
        check_cotangents(c);
        c.options.window = 40;
        c.options.softcap = 2;
        c.lengths = {150, 90};
        check_cotangents(c);
        c.options.ring = true;
        c.lengths = {400, 151};
        check_cotangents(c);
      }
    }
  });
}

// A sum, and what it may err by where a factor of each term is rounded to bfloat16.
struct Sum {
  double value = 0, magnitude = 0;  // the sum of the terms' magnitudes
  double noise = 0;                 // what float32 errors of the factors are relative to
  void add(double factor, double other, double from) {
    value += factor * other;
    magnitude += std::abs(factor * other);
    noise += from * std::abs(other);
  }
  double bound() const {
    const double sum = 0x1p-8 * magnitude + 2e-5 * noise + 1e-6;
    return sum + 0x1p-8 * (std::abs(value) + sum);
  }
};

// Cotangents of q, k and v, in double.
std::array<std::vector<Sum>, 3> expected_cotangents(const Case& c, const Inputs& in,
                                                    const std::vector<double>& given) {
  std::array<std::vector<Sum>, 3> sums = {std::vector<Sum>(in.q_values.size()),
                                          std::vector<Sum>(in.k_values.size()),
                                          std::vector<Sum>(in.v_values.size())};
  const AttentionOptions& o = c.options;
  for (int64_t row = 0; row < c.B * c.H * c.L; ++row) {
    const int64_t h = row / c.L % c.H, b = row / c.L / c.H, g = h / (c.H / c.G);
    const std::vector<double> scores = scores_of(c, in, row), weights = weights_of(c, in, row);
    std::vector<double> dp(weights.size());
    double mean = 0, size = 0;
    for (int64_t s = 0; s < c.S; ++s) {
      const int64_t slot = (b * c.G + g) * c.S + s;
      for (int64_t d = 0; weights[s] > 0 && d < c.V; ++d)
        dp[s] += given[row * c.V + d] * in.v_values[slot * c.V + d];
      mean += weights[s] * dp[s];
      size += weights[s] * std::abs(dp[s]);
    }
    for (int64_t s = 0; s < c.S; ++s) {
      if (weights[s] == 0) continue;
      const int64_t slot = (b * c.G + g) * c.S + s;
      const double cap = o.softcap > 0 ? scores[s] / o.softcap : 0, slope = 1 - cap * cap;
      const double ds = o.scale * weights[s] * (dp[s] - mean) * slope;
      const double noise = std::abs(o.scale) * weights[s] * (std::abs(dp[s]) + size);
      for (int64_t d = 0; d < c.K; ++d) {
        sums[0][row * c.K + d].add(ds, in.k_values[slot * c.K + d], noise);
        sums[1][slot * c.K + d].add(ds, in.q_values[row * c.K + d], noise);
      }
      for (int64_t d = 0; d < c.V; ++d)
        sums[2][slot * c.V + d].add(weights[s], given[row * c.V + d], weights[s]);
    }
  }
  return sums;
}

void check_bfloat16_cotangents(const Case& c) {
  Inputs in(c);
  Array given;
  Arrays got = cotangents(c, in, DeviceKind::Cpu, &given);
  auto wanted = expected_cotangents(c, in, given.to_vector<double>());
  for (size_t i = 0; i < 3; ++i) {
    const std::vector<double> values = got[i].to_vector<double>();
    for (size_t j = 0; j < values.size(); ++j)
      ASSERT_LE(std::abs(values[j] - wanted[i][j].value), wanted[i][j].bound())
          << c.name() << " cotangent " << i << " at " << j << ": " << values[j] << " for "
          << wanted[i][j].value;
  }
}

TEST(CpuAttention, Bfloat16Cotangents) {
  on_instruction_sets([] {
    for (int64_t size : {1, 7, 33, 64, 80, 128}) {
      Case c = bfloat16_case(100, 131, size, 50);
      check_bfloat16_cotangents(c);
      c.V = size;
      c.options.causal = false;
      check_bfloat16_cotangents(c);
    }
    for (int64_t L : {0, 1, 17, 40, 150}) {  // rows of a key head: twice as many
      for (double scale : {0.3, -0.2, 0.0}) {
        Case c = bfloat16_case(L, 150, 24, 20);
        c.B = 2;
        c.options.scale = scale;
        c.lengths = {150, 91};
        check_bfloat16_cotangents(c);
        c.options.window = 31;
        check_bfloat16_cotangents(c);
        c.options.softcap = 2;
        c.options.ring = true;
        c.lengths = {400, 151};
        check_bfloat16_cotangents(c);
        c.options.window = 0;
        c.lengths = {201, 77};
        check_bfloat16_cotangents(c);
      }
    }
  });
}

// Neither results nor cotangents depend on what lies in slots that no query sees.
TEST(CpuAttention, UnseenSlotsAreNotRead) {
  on_instruction_sets([] {
    for (Dtype dtype : {Dtype::F32, Dtype::BF16}) {
      Case c{.B = 1, .H = 1, .G = 1, .L = 30, .S = 150, .K = 24, .V = 24};
      c.options = {.scale = 0.2, .causal = true, .window = 20};
      c.dtype = c.cache_dtype = dtype;
      c.offsets = {41};  // slots 22 to 70 are seen
      Inputs in(c);
      {
        StreamScope on_ref(default_stream({DeviceKind::Ref}));
        Array slot = reshape(arange(150), {1, 1, 150, 1});
        Array unseen = logical_or(less(slot, 22), greater(slot, 70));
        in.k = astype(where(unseen, std::nan(""), in.k), dtype).eval();
        in.v = astype(where(unseen, std::nan(""), in.v), dtype).eval();
      }
      expect_close(attention(in.q, in.k, in.v, in.options), expected(c, in), c);
      for (const Array& g : cotangents(c, in, DeviceKind::Cpu))
        for (float x : g.to_vector<float>()) ASSERT_TRUE(std::isfinite(x));
    }
  });
}

// More slots than are packed at once, and groups of several panels.
TEST(CpuAttention, Bfloat16CotangentsOfManySlots) {
  for (int64_t L : {60, 700}) {
    Case c = bfloat16_case(L, 700, 10, 6);
    check_bfloat16_cotangents(c);
    c.options.window = 101;
    c.lengths = {699};
    check_bfloat16_cotangents(c);
    c.options.ring = true;
    c.lengths = {1001};
    check_bfloat16_cotangents(c);
  }
}

TEST(CpuAttention, CotangentsForAnyNumberOfThreads) {
  Case c{.B = 2, .H = 4, .G = 2, .L = 100, .S = 100, .K = 16, .V = 16};
  c.options = {.scale = 0.2, .causal = true};
  Inputs in(c);
  auto run = [&](int threads) {
    ThreadPool::shared().set_threads(threads);
    std::vector<float> all;
    for (const Array& a : cotangents(c, in, DeviceKind::Cpu))
      for (float x : a.to_vector<float>()) all.push_back(x);
    return all;
  };
  std::vector<float> alone = run(1), together = run(3);
  ThreadPool::shared().set_threads(0);
  EXPECT_EQ(alone, together);
}

}  // namespace
}  // namespace mica
