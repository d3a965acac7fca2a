#include "transforms/compile.h"

#include "ops/create.h"
#include "transforms/support.h"
#include "transforms/vmap.h"

namespace mica {
namespace {

using transforms::Tape;

// A function that counts how often it is called.
struct Counted {
  std::shared_ptr<int> calls = std::make_shared<int>(0);
  Arrays operator()(const Arrays& a) const {
    ++*calls;
    return {sin(a[0]) * a[0]};
  }
};

TEST(Compile, TracesOncePerSignature) {
  Counted f;
  auto g = compile(f);
  expect_values(g({vector_of({1, 2})})[0], {std::sin(1.0), 2 * std::sin(2.0)});
  expect_values(g({vector_of({3, 4})})[0], {3 * std::sin(3.0), 4 * std::sin(4.0)});
  EXPECT_EQ(*f.calls, 1);
  g({vector_of({1, 2, 3})});
  EXPECT_EQ(*f.calls, 2);
  g({vector_of({1, 2}, Dtype::F32)});
  EXPECT_EQ(*f.calls, 3);
  g({vector_of({5, 6})});
  EXPECT_EQ(*f.calls, 3);
  {
    StreamScope ref(default_stream({DeviceKind::Ref}));
    EXPECT_EQ(g({vector_of({5, 6})})[0].node()->stream.device.kind, DeviceKind::Ref);
  }
  EXPECT_EQ(*f.calls, 4);
}

TEST(Compile, ShapelessAcceptsAnyShape) {
  auto g =
      compile(lift([](const Array& x) { return sum(x) * static_cast<double>(x.size()); }), true);
  expect_values(g({vector_of({1, 2})})[0], {6});
  expect_values(g({vector_of({1, 2, 3})})[0], {18});
}

TEST(Compile, ConstantsArePartOfTheSignature) {
  int calls = 0;
  Compiled f([&](const Arrays& a, std::shared_ptr<void>& structure) {
    structure = std::make_shared<int>(++calls);
    return Arrays{a[0] * 2.0};
  });
  uint64_t one = 1, two = 2;
  std::shared_ptr<void> structure;
  f({vector_of({1})}, {&one, 1}, &structure);
  f({vector_of({1})}, {&two, 1}, &structure);
  EXPECT_EQ(*std::static_pointer_cast<int>(structure), 2);
  f({vector_of({1})}, {&one, 1}, &structure);
  EXPECT_EQ(*std::static_pointer_cast<int>(structure), 1);
  EXPECT_EQ(f.traces(), 2u);
}

TEST(Compile, KeepsABoundedNumberOfTraces) {
  Compiled f([](const Arrays& a, std::shared_ptr<void>&) { return Arrays{a[0]}; });
  for (uint64_t round = 0; round < 2; ++round) {
    for (uint64_t k = 0; k < Compiled::kTracesKept + 1; ++k) f({vector_of({1})}, {&k, 1});
  }
  EXPECT_EQ(f.traces(), 2 * (Compiled::kTracesKept + 1));
}

TEST(Compile, CanBeDisabled) {
  Counted f;
  auto g = compile(f);
  disable_compile();
  g({vector_of({1})});
  g({vector_of({1})});
  EXPECT_EQ(*f.calls, 2);
  enable_compile();
  g({vector_of({1})});
  g({vector_of({1})});
  EXPECT_EQ(*f.calls, 3);
}

TEST(Compile, CapturedArraysAreInputs) {
  Array w = vector_of({2, 3}) * 2.0;  // not evaluated yet
  auto g = compile(lift([&](const Array& x) { return x * w; }));
  expect_values(g({vector_of({1, 1})})[0], {4, 6});
  w = vector_of({0, 0});  // the trace keeps what it captured
  expect_values(g({vector_of({10, 10})})[0], {40, 60});
}

TEST(Compile, ReturnsArgumentsAndConstants) {
  Array w = vector_of({2, 3});
  auto g = compile([&](const Arrays& a) { return Arrays{a[0], w, zeros({2})}; });
  for (int i = 0; i < 2; ++i) {
    Arrays out = g({vector_of({7})});
    expect_values(out[0], {7});
    expect_values(out[1], {2, 3});
    expect_values(out[2], {0, 0});
  }
}

TEST(Compile, DoesNotKeepItsArguments) {
  auto g = compile(lift([](const Array& x) { return x * 2.0; }));
  int64_t before = live_nodes();
  g({vector_of({1, 2})});
  int64_t after = live_nodes();
  for (int i = 0; i < 3; ++i) g({vector_of({1, 2})}).clear();
  EXPECT_EQ(live_nodes(), after);
  EXPECT_LE(after, before + 2);
}

TEST(Compile, EvaluationInsideIsAnError) {
  auto g = compile(lift([](const Array& x) { return x * x.item<double>(); }));
  EXPECT_NE(error_of([&] {
              g({vector_of({1})});
            }).find("ValueError: [eval] an array inside vmap or compile"),
            std::string::npos);
  EXPECT_EQ(TraceScope::depth(), 0);
}

TEST(Compile, NestsWithOtherTransforms) {
  auto f = lift([](const Array& x) { return sum(x * x * x); });
  Array x = vector_of({1, 2});
  auto of_grad = compile(grad(f));
  auto grad_of = grad(compile(f));
  auto twice = compile(compile(f));
  for (int i = 0; i < 2; ++i) {
    expect_values(of_grad({x})[0], {3, 12});
    expect_values(grad_of({x})[0], {3, 12});
    expect_values(twice({x})[0], {9});
    expect_values(vmap(compile(f))({x})[0], {1, 8});
  }
  auto step = compile([&](const Arrays& a) {
    auto result = value_and_grad(f)(a);
    return Arrays{result.values[0], a[0] - 0.1 * result.grads[0]};
  });
  expect_values(step({x})[1], {0.7, 0.8});
}

TEST(Compile, ATraceWithOuterArraysIsNotKept) {
  auto inner = [](const Array& w) {
    return compile(lift([w](const Array& x) { return sum(x * w); }));
  };
  auto g = grad([&](const Array& w) { return inner(w)({vector_of({5, 7})})[0]; });
  expect_values(g(vector_of({1, 1})), {5, 7});
  // One compiled function whose captured array changes from call to call.
  Array captured;
  auto f = compile(lift([&](const Array& x) { return sum(x * captured); }));
  for (double scale : {1.0, 2.0}) {
    auto outer = grad([&](const Array& w) {
      captured = w * scale;
      return f({vector_of({5, 7})})[0];
    });
    expect_values(outer(vector_of({1, 1})), {5 * scale, 7 * scale});
  }
}

size_t tape_size(const std::function<Array(const Array&)>& f, bool simplify) {
  TraceScope scope;
  Array x = placeholder({3}, Dtype::F64);
  Array out = f(x);
  return Tape({&out, 1}, {&x, 1}, simplify).size();
}

TEST(Tape, MergesEqualApplications) {
  auto f = [](const Array& x) { return sin(x * 2.0) + sin(x * 2.0) * sin(x * 3.0); };
  EXPECT_EQ(tape_size(f, true), 2 + 2 + 2 + 2u);  // constants, products, sines, * and +
  EXPECT_GT(tape_size(f, false), 8u);
}

TEST(Tape, DropsDeadCode) {
  auto f = [](const Array& x) {
    Array dead = exp(x);
    return sin(x);
  };
  EXPECT_EQ(tape_size(f, true), 1u);
}

TEST(Tape, TellsParametersApart) {
  auto f = [](const Array& x) {
    Array y = reshape(x, {1, 3});
    return sum(y, {{0}}, true) + sum(y, {{1}}, true);
  };
  EXPECT_EQ(tape_size(f, true), 4u);
}

TEST(Compile, GivesTheSameBits) {
  auto f = lift([](const Array& x) {
    Array y = sin(x) * 3.0 + exp(x * 0.25);
    return y / sum(y, {{-1}}, true);
  });
  for (Dtype dtype : {Dtype::F32, Dtype::BF16}) {
    Array x = reshape(vector_of({0.1, -2, 3.7, 0.4, 5, 0.6}, dtype), {2, 3}).eval();
    EXPECT_EQ(f({x})[0].to_vector<float>(), compile(f)({x})[0].to_vector<float>());
  }
}

TEST(Compile, ALongTraceDoesNotRecurse) {
  auto f = compile(lift([](const Array& x) {
    Array y = x;
    for (int i = 0; i < 200'000; ++i) y = i % 2 ? negative(y) : abs(y);
    return y;
  }));
  expect_values(f({vector_of({2})})[0], {-2});
  expect_values(f({vector_of({3})})[0], {-3});
}

}  // namespace
}  // namespace mica
