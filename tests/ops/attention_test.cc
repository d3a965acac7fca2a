#include <algorithm>

#include "ops/attention.h"

#include "backends/attention_harness.h"
#include "base/expect_error.h"
#include "base/thread_pool.h"
#include "ops/function.h"
#include "ops/function_args.h"
#include "ops/join.h"
#include "ops/on_devices.h"
#include "transforms/autograd.h"

namespace mica {
namespace {

using namespace attention_test;

TEST(Attention, MasksByNumbers) {
  on_devices([] {
    for (int64_t L : {1, 3, 20}) {
      Case c{.B = 2, .H = 4, .G = 2, .L = L, .S = 40, .K = 24, .V = 20};
      c.options.scale = 0.2;
      check(c);
      c.options.causal = true;
      check(c);
      c.options.window = 9;
      check(c);
      c.lengths = {40, 25};
      check(c);
      c.offsets = {12, 5};
      check(c);
      c.offsets = {-3, 60};  // some rows see nothing
      check(c);
      c.options.causal = false;
      check(c);
      c.options.window = 0;
      c.lengths = {0, 1};
      check(c);
    }
  });
}

TEST(Attention, Ring) {
  on_devices([] {
    for (int64_t L : {1, 4, 12}) {
      for (int32_t length : {12, 31, 32, 33, 47, 64, 100}) {
        Case c{.B = 2, .H = 2, .G = 1, .L = L, .S = 32, .K = 16, .V = 16};
        c.options = {.scale = 0.3, .causal = true, .window = 20, .ring = true};
        c.lengths = {length, length + 7};
        check(c);
        c.options.window = 0;
        check(c);
      }
    }
  });
}

TEST(Attention, MasksInMemory) {
  on_devices([] {
    for (int64_t L : {2, 30}) {
      Case c{.B = 2, .H = 4, .G = 2, .L = L, .S = 35};
      c.options.scale = 0.25;
      for (const Shape& mask :
           {Shape{35}, {L, 35}, {4, 1, 35}, {2, 1, L, 1}, {2, 4, L, 35}, {1, 1}}) {
        c.mask = mask;
        for (bool is_bool : {false, true}) {
          c.bool_mask = is_bool;
          c.options.causal = false;
          check(c);
          c.options.causal = true;
          check(c);
        }
      }
    }
    // A row hidden by adding -inf, and by false, is zeros.
    Array q = ones({1, 1, 9, 4}), k = ones({1, 1, 3, 4});
    for (const Array& mask : {full({9, 3}, -INFINITY, Dtype::F32), zeros({9, 3}, Dtype::Bool)}) {
      AttentionOptions options{.mask = mask};
      expect_array(attention(q, k, k, options), {1, 1, 9, 4}, std::vector<double>(36, 0));
    }
  });
}

TEST(Attention, TypesAndSizes) {
  on_devices([] {
    for (Dtype dtype : {Dtype::F64, Dtype::F32, Dtype::F16, Dtype::BF16}) {
      for (int64_t ratio : {1, 3, 8}) {
        for (int64_t size : {1, 7, 40, 64}) {
          Case c{.B = 1, .H = 2 * ratio, .G = 2, .L = 5, .S = 19, .K = size, .V = size + 3};
          c.options = {.scale = 0.2, .causal = true, .softcap = ratio == 3 ? 2.0 : 0.0};
          c.dtype = c.cache_dtype = dtype;
          check(c);
        }
      }
      Case mixed{.B = 1, .H = 2, .G = 1, .L = 6, .S = 30};
      mixed.dtype = Dtype::F32;
      mixed.cache_dtype = dtype;
      check(mixed);
      mixed.L = 3;
      check(mixed);
    }
    EXPECT_EQ(attention(zeros({1, 1, 2, 4}, Dtype::BF16), zeros({1, 1, 3, 4}, Dtype::F16),
                        zeros({1, 1, 3, 4}, Dtype::F16), {})
                  .dtype(),
              Dtype::F32);
  });
}

TEST(Attention, ViewsAndEmpty) {
  on_devices([] {
    Case c{.B = 2, .H = 4, .G = 2, .L = 6, .S = 20, .K = 16, .V = 16};
    c.options = {.scale = 0.3, .causal = true};
    c.lengths = {20, 13};
    Inputs in(c);
    auto strided = [](const Array& a) {  // as [B, S, G, K] in memory, within more capacity
      Array rows = transpose(a, {0, 2, 1, 3});
      Array wide = concatenate({rows, full(rows.shape(), NAN, a.dtype())}, 1).eval();
      return transpose(slice_axis(wide, 1, 0, rows.shape(1)), {0, 2, 1, 3});
    };
    expect_close(attention(strided(in.q), strided(in.k), strided(in.v), in.options),
                 expected(c, in), c);
    auto reversed = [](const Array& a) {  // the last axis runs backwards
      Shape start = a.shape(), stop(4, -1000), step(4, 1);
      for (size_t i = 0; i < 3; ++i) start[i] = 0, stop[i] = a.shape()[i];
      step[3] = -1;
      return slice(a, start, stop, step);
    };
    expect_close(attention(reversed(in.q), reversed(in.k), in.v, in.options), expected(c, in), c);
    EXPECT_EQ(attention(zeros({1, 2, 0, 4}), zeros({1, 2, 3, 4}), zeros({1, 2, 3, 5}), {}).shape(),
              (Shape{1, 2, 0, 5}));
    expect_array(attention(ones({1, 2, 1, 4}), zeros({1, 2, 0, 4}), zeros({1, 2, 0, 1}), {}),
                 {1, 2, 1, 1}, {0, 0});
    expect_array(attention(ones({0, 2, 1, 4}), zeros({0, 2, 5, 4}), zeros({0, 2, 5, 1}), {}),
                 {0, 2, 1, 1}, {});
  });
}

// A sequence's bits depend neither on its neighbours, nor on capacity, nor on threads.
TEST(Attention, SequencesAreIndependent) {
  for (int64_t L : {1, 2, 40}) {
    Case c{.B = 3, .H = 8, .G = 2, .L = L, .S = 1500, .K = 64, .V = 64};
    c.options = {.scale = 0.125, .causal = true};
    c.lengths = {1500, 700, 41};
    Inputs in(c);
    ThreadPool::shared().set_threads(1);
    std::vector<float> all = attention(in.q, in.k, in.v, in.options).to_vector<float>();
    ThreadPool::shared().set_threads(3);
    EXPECT_EQ(all, attention(in.q, in.k, in.v, in.options).to_vector<float>());
    ThreadPool::shared().set_threads(0);
    for (int b = 0; b < 3; ++b) {
      auto own = [&](const Array& a) { return slice_axis(a, 0, b, b + 1); };
      auto cut = [&](const Array& a) {
        return slice_axis(own(a), 2, 0, c.lengths[static_cast<size_t>(b)]);
      };
      AttentionOptions options = in.options;
      options.lengths = own(in.options.lengths);
      std::vector<float> alone =
          attention(own(in.q), cut(in.k), cut(in.v), options).to_vector<float>();
      EXPECT_TRUE(std::equal(alone.begin(), alone.end(),
                             all.begin() + static_cast<int64_t>(alone.size()) * b));
    }
  }
}

TEST(Attention, DerivativesDoNotReadWhatIsNotHeld) {
  on_devices([] {
    Case c{.B = 2, .H = 4, .G = 2, .L = 12, .S = 50, .K = 8, .V = 8};
    c.options = {.scale = 0.3, .causal = true};
    c.lengths = {30, 50};
    Inputs in(c);
    auto run = [&](const Arrays& x) { return Arrays{attention(x[0], x[1], x[2], in.options)}; };
    Array given = ones({2, 4, 12, 8});
    auto [outputs, gradients] = vjp(run, {in.q, in.k, in.v}, {given});
    for (const Array& g : gradients)
      for (float x : g.to_vector<float>()) ASSERT_TRUE(std::isfinite(x));
    std::vector<float> dv = gradients[2].to_vector<float>();
    for (size_t i = 30 * 8; i < 50 * 8; ++i) EXPECT_EQ(dv[i], 0);  // sequence 0, slots not held
  });
}

Array call(const Array& q, const Array& k, const Array& v, double scale, Value mask) {
  const Function& f = *FunctionRegistry::shared().find("scaled_dot_product_attention", "fast");
  std::vector<std::pair<std::string_view, Value>> named{{"scale", scale}, {"mask", mask}};
  std::vector<Value> values = bind_arguments(f, std::vector<Value>{q, k, v}, named);
  values.push_back(Stream{});
  return std::get<Array>(f.call(values));
}

// mlx.core.fast.scaled_dot_product_attention 0.32.4: q = sin(0.37 i), k = cos(0.53 i), v = sin(0.71
// i).
TEST(Attention, ValuesOfMlx) {
  const std::vector<float> mlx = {
      -0.2522543f, 0.2549123f,   0.6388859f,  0.7141011f,   0.2108031f,    0.3433736f,
      0.3099998f,  0.1268104f,   -0.1224162f, -0.1310991f,  -0.07642494f,  0.0151836f,
      0.161026f,   -0.2625715f,  -0.5592743f, -0.5856932f,  -0.007461265f, 0.1625656f,
      0.2540283f,  0.2227252f,   0.1482593f,  0.3175598f,   0.3333911f,    0.1881025f,
      0.06744401f, 0.08583818f,  0.06274882f, 0.009334426f, 0.6237153f,    0.676921f,
      0.402987f,   -0.0657012f,  0.2373999f,  0.1823024f,   0.03910251f,   -0.1229947f,
      0.01045882f, -0.07009855f, -0.116779f,  -0.1070229f,  -0.2500728f,   -0.3214503f,
      -0.2374786f, -0.03873903f, 0.5609246f,  0.6524944f,   0.4287292f,    -0.002230696f};
  on_devices([&] {
    Array q = sin(counting({1, 4, 3, 4}) * 0.37f), k = cos(counting({1, 2, 5, 4}) * 0.53f),
          v = sin(counting({1, 2, 5, 4}) * 0.71f);
    std::vector<float> out = call(q, k, v, 0.5, std::string("causal")).to_vector<float>();
    for (size_t i = 0; i < mlx.size(); ++i) EXPECT_NEAR(out[i], mlx[i], 3e-6);
    Array triangle = tri(3, 5, 2, Dtype::Bool);
    out = call(q, k, v, 0.5, triangle).to_vector<float>();
    for (size_t i = 0; i < mlx.size(); ++i) EXPECT_NEAR(out[i], mlx[i], 3e-6);
  });
}

TEST(Attention, Errors) {
  Array q = zeros({2, 4, 3, 8}), k = zeros({2, 2, 5, 8}), v = zeros({2, 2, 5, 6});
  auto fails = [](ErrorKind kind, const char* part, const Array& q, const Array& k, const Array& v,
                  const AttentionOptions& o = {}) {
    expect_error(kind, part, [&] { attention(q, k, v, o); });
  };
  fails(ErrorKind::Value, "four axes", zeros({4, 3, 8}), k, v);
  fails(ErrorKind::Value, "must be floating", astype(q, Dtype::I32), k, v);
  fails(ErrorKind::Value, "batch sizes differ", q, zeros({1, 2, 5, 8}), v);
  fails(ErrorKind::Value, "differ in heads or length", q, k, zeros({2, 2, 4, 6}));
  fails(ErrorKind::Value, "head sizes of q (2, 4, 3, 8) and k (2, 2, 5, 7)", q, zeros({2, 2, 5, 7}),
        v);
  fails(ErrorKind::Value, "4 query heads are no multiple of 3", q, zeros({2, 3, 5, 8}),
        zeros({2, 3, 5, 8}));
  fails(ErrorKind::Value, "offsets must have shape () or (2,), got (3,)", q, k, v,
        {.offsets = ints({1, 2, 3})});
  fails(ErrorKind::Value, "lengths must be integers", q, k, v, {.lengths = zeros({2})});
  fails(ErrorKind::Value, "a ring of keys needs lengths", q, k, v, {.ring = true});
  fails(ErrorKind::Value, "negative window", q, k, v, {.window = -1});
  fails(ErrorKind::Value, "(4, 5) does not broadcast to (2, 4, 3, 5)", q, k, v,
        {.mask = zeros({4, 5})});
  fails(ErrorKind::Value, "mask must be bool or floating", q, k, v,
        {.mask = ints({1, 1, 1, 1, 1})});
  expect_error(ErrorKind::Value, "unknown mask 'full'",
               [&] { call(q, k, v, 1, std::string("full")); });
}

}  // namespace
}  // namespace mica
