#include "transforms/autograd.h"

#include <thread>

#include "ops/create.h"
#include "transforms/compile.h"
#include "transforms/support.h"
#include "transforms/vmap.h"

namespace mica {
namespace {

Array sine_of_square(const Array& x) { return sum(sin(square(x))); }

TEST(Grad, OfAScalarFunction) {
  auto g = grad([](const Array& x) { return sine_of_square(x); });
  Array x = vector_of({0.5, -1, 2});
  expect_values(g(x), {2 * 0.5 * std::cos(0.25), -2 * std::cos(1.0), 4 * std::cos(4.0)});
}

TEST(Grad, KeepsTheTypeOfItsArgument) {
  for (Dtype dtype : {Dtype::F16, Dtype::BF16, Dtype::F32}) {
    Array g = grad([](const Array& x) { return sum(x * x); })(vector_of({1, 2}, dtype));
    EXPECT_EQ(g.dtype(), dtype);
    expect_values(g, {2, 4});
  }
}

TEST(Grad, ByTheArgumentsAsked) {
  auto f = [](const Arrays& a) { return Arrays{sum(a[0] * a[1] * a[1]), a[0]}; };
  Arrays at = {vector_of({2, 3}), vector_of({5, 7})};
  auto both = value_and_grad(f, {1, 0})(at);
  ASSERT_EQ(both.grads.size(), 2u);
  expect_values(both.values[0], {2 * 25 + 3 * 49});
  expect_values(both.values[1], {2, 3});
  expect_values(both.grads[0], {20, 42});
  expect_values(both.grads[1], {25, 49});
  expect_values(grad(f, {-1})(at)[0], {20, 42});
}

TEST(Grad, OfWhatDoesNotMatterIsZero) {
  auto f = [](const Arrays& a) { return Arrays{sum(a[0]) + sum(stop_gradient(a[1]))}; };
  Arrays grads = grad(f, {0, 1, 2})({vector_of({1}), vector_of({2, 3}), vector_of({4, 5, 6})});
  expect_values(grads[1], {0, 0});
  expect_values(grads[2], {0, 0, 0});
}

TEST(Grad, SkipsWhatIsNotWanted) {
  // The derivative by a[1] would need the cosine: 3 nodes more per factor.
  auto f = [](const Arrays& a) { return Arrays{sum(a[0] * sin(a[1]))}; };
  Arrays at = {vector_of({1, 2}), vector_of({3, 4})};
  auto nodes = [&](std::vector<int> argnums) {
    int64_t before = counters().nodes;
    grad(f, argnums)(at);
    return counters().nodes - before;
  };
  EXPECT_LT(nodes({0}), nodes({0, 1}));
}

TEST(Grad, AddsUpWhereAValueIsUsedTwice) {
  auto f = [](const Array& x) {
    Array y = exp(x);
    return sum(y * y + y);
  };
  Array g = grad(f)(vector_of({0.3}));
  expect_values(g, {2 * std::exp(0.6) + std::exp(0.3)});
}

TEST(Grad, ArgumentsWithValuesNeedNoEvaluation) {
  auto f = [](const Arrays& a) {
    reset_counters();
    EXPECT_EQ(a[0].item<float>(), 2);
    EXPECT_EQ(counters().plan_hits + counters().plan_misses, 0);
    return Arrays{sum(a[0] * a[0])};
  };
  expect_values(value_and_grad(f, {0})({vector_of({2})}).grads[0], {4});
}

TEST(Grad, AnArgumentThatIsReturnedHoldsNoHistory) {
  auto step = value_and_grad([](const Arrays& a) { return Arrays{sum(a[0] * a[0]), a[0]}; }, {0});
  Array state = vector_of({1, 2});
  int64_t live = 0;
  for (int i = 0; i < 10; ++i) {
    state = step({state}).values[1];
    state.eval();
    if (i == 1) live = live_nodes();
  }
  EXPECT_EQ(live_nodes(), live);
  expect_values(state, {1, 2});
}

TEST(Grad, Nests) {
  std::function<Array(const Array&)> f = [](const Array& x) { return sum(x * x * x * x); };
  Array x = vector_of({1.5});
  auto first = grad(f);
  auto second = grad([&](const Array& a) { return sum(first(a)); });
  auto third = grad([&](const Array& a) { return sum(second(a)); });
  expect_values(first(x), {4 * std::pow(1.5, 3)});
  expect_values(second(x), {12 * 1.5 * 1.5});
  expect_values(third(x), {24 * 1.5});
}

TEST(Grad, OfACapturedOuterArgument) {
  // d/dw of w * d/dx (w x^2) at x = 3: d/dw (2 w^2 x)
  auto outer = grad([](const Array& w) {
    auto inner = grad([&](const Array& x) { return sum(w * x * x); });
    return sum(w * inner(vector_of({3})));
  });
  expect_values(outer(vector_of({5})), {4 * 5 * 3});
}

TEST(Grad, AllowsEvaluationInside) {
  for (bool evaluate : {false, true}) {
    auto f = [&](const Array& x) {
      Array y = x * x;
      Array factor = fill({}, 1, Dtype::F64);
      if (evaluate) {
        y.eval();
        factor = fill({}, sum(y).item<double>() > 4 ? 2 : 1, Dtype::F64);
      } else {
        factor = fill({}, 2, Dtype::F64);
      }
      Array z = sum(y * y) * factor;
      if (evaluate) z.eval();
      return z;
    };
    expect_values(grad(f)(vector_of({1, 2})), {8, 64});
  }
}

TEST(Grad, AllowsEvaluationBetweenNestedTransforms) {
  auto inner = grad([](const Array& x) { return sum(exp(x)).eval(); });
  auto outer = grad([&](const Array& x) {
    Array g = inner(x * x);
    g.eval();
    return sum(g);
  });
  expect_values(outer(vector_of({0.5})), {2 * 0.5 * std::exp(0.25)});
}

TEST(Grad, EvaluatedGraphsLetGoOfTheirInputsAfterwards) {
  int64_t before = live_nodes();
  {
    Array x = vector_of({1, 2, 3});
    Array value;
    {
      auto result = value_and_grad(lift([](const Array& a) {
        Array y = exp(sin(a));
        y.eval();
        return sum(y);
      }))({x});
      eval({result.values[0], result.grads[0]});
      value = result.values[0];
    }
    x = Array();
    EXPECT_LE(live_nodes(), before + 2);
  }
  EXPECT_EQ(live_nodes(), before);
}

TEST(Grad, Errors) {
  auto square_sum = lift([](const Array& x) { return sum(x * x); });
  Array x = vector_of({1, 2});
  EXPECT_NE(error_of([&] {
              grad(lift([](const Array& a) { return a * a; }))({x});
            }).find("ValueError: [grad] the first output"),
            std::string::npos);
  EXPECT_NE(error_of([&] {
              grad(square_sum)({vector_of({1}, Dtype::I32)});
            }).find("ValueError: [grad] derivatives are by floating arrays"),
            std::string::npos);
  EXPECT_NE(error_of([&] { grad(square_sum, {1})({x}); }).find("argument number 1"),
            std::string::npos);
  EXPECT_NE(error_of([&] { grad(square_sum, {0, -1})({x}); }).find("twice"), std::string::npos);
  EXPECT_NE(error_of([&] { grad(square_sum, {})({x}); }).find("ValueError"), std::string::npos);
  EXPECT_NE(error_of([&] { vjp(square_sum, {x}, {x, x}); }).find("2 cotangents for 1 outputs"),
            std::string::npos);
  EXPECT_NE(error_of([&] { vjp(square_sum, {x}, {x}); }).find("cotangent of shape (2,)"),
            std::string::npos);
  EXPECT_NE(error_of([&] { jvp(square_sum, {x}, {}); }).find("0 tangents for 1 primals"),
            std::string::npos);
}

TEST(Grad, AnExceptionLeavesNoTraceOpen) {
  auto bad = [](const Array& x) -> Array {
    grad([](const Array&) -> Array { throw std::runtime_error("inner"); })(x);
    return x;
  };
  EXPECT_THROW(grad(bad)(vector_of({1})), std::runtime_error);
  EXPECT_THROW(vmap(lift(bad))({vector_of({1})}), std::runtime_error);
  EXPECT_THROW(compile(lift(bad))({vector_of({1})}), std::runtime_error);
  EXPECT_EQ(TraceScope::depth(), 0);
  expect_values(grad([](const Array& x) { return sum(x * x); })(vector_of({3})), {6});
}

TEST(Grad, OfAMillionNodes) {
  constexpr int kLength = 1'000'000;
  int64_t before = live_nodes();
  {
    auto f = [](const Array& x) {
      Array y = x;
      for (int i = 0; i < kLength; ++i) y = i % 2 ? y * 1.5 : y * (1 / 1.5);
      return sum(y);
    };
    Array g = grad(f)(vector_of({1, 2}));
    expect_values(g, {1, 1}, 1e-6);
  }
  EXPECT_EQ(live_nodes(), before);
}

TEST(Vjp, OfSeveralOutputs) {
  auto f = [](const Arrays& a) { return Arrays{a[0] * a[1], sin(a[0]), greater(a[0], a[1])}; };
  Array c = vector_of({1, 10});
  auto result = vjp(f, {vector_of({2, 3}), vector_of({4, 5})}, {c, c, greater(c, 0)});
  expect_values(result.outputs[0], {8, 15});
  expect_values(result.derivatives[0], {4 + std::cos(2.0), 50 + 10 * std::cos(3.0)});
  expect_values(result.derivatives[1], {2, 30});
}

TEST(Vjp, OfTheIdentity) {
  auto result =
      vjp([](const Arrays& a) { return a; }, {vector_of({2, 3})}, {vector_of({4, 5}, Dtype::F32)});
  expect_values(result.outputs[0], {2, 3});
  expect_values(result.derivatives[0], {4, 5});
}

TEST(Jvp, PushesTangentsForward) {
  auto f = [](const Arrays& a) { return Arrays{a[0] * a[1], sum(a[0]), sin(a[1])}; };
  auto result =
      jvp(f, {vector_of({2, 3}), vector_of({4, 5})}, {vector_of({1, 0}), vector_of({0, 1})});
  expect_values(result.derivatives[0], {4, 3});
  expect_values(result.derivatives[1], {1});
  expect_values(result.derivatives[2], {0, std::cos(5.0)});
}

TEST(Jvp, OfVjpIsAHessianProduct) {
  auto f = lift([](const Array& x) { return sum(x * x * x); });
  auto gradient = [&](const Arrays& x) { return vjp(f, x, {ones({}, Dtype::F64)}).derivatives; };
  Array x = vector_of({1, 2}), t = vector_of({3, 5});
  expect_values(jvp(gradient, {x}, {t}).derivatives[0], {6 * 1 * 3, 6 * 2 * 5});
}

TEST(Vjp, OfJvp) {
  auto f = lift([](const Array& x) { return exp(x); });
  Array t = vector_of({2});
  auto pushed = [&](const Arrays& x) { return jvp(f, x, {t}).derivatives; };
  expect_values(vjp(pushed, {vector_of({0.5})}, {vector_of({3})}).derivatives[0],
                {6 * std::exp(0.5)});
}

TEST(Fallbacks, DerivativesOfALowering) {
  Array x = vector_of({2, -1});
  for (const Op* op : {&test_ops::lowered_cube, &test_ops::vjp_only_cube}) {
    auto f = lift([&](const Array& a) { return apply(*op, {a}, Stream{}); });
    expect_values(vjp(f, {x}, {vector_of({1, 10})}).derivatives[0], {12, 30});
    expect_values(jvp(f, {x}, {vector_of({1, 10})}).derivatives[0], {12, 30});
    auto second =
        grad([&](const Array& a) { return sum(vjp(f, {a}, {vector_of({1, 1})}).derivatives[0]); });
    expect_values(second(x), {12, -6});
  }
}

TEST(Fallbacks, WithoutAnyRuleTheErrorNamesTheOperation) {
  auto f = lift([&](const Array& a) { return sum(apply(test_ops::opaque, {a}, Stream{})); });
  EXPECT_EQ(error_of([&] { grad(f)({vector_of({1})}); }),
            "Unsupported: [vjp] opaque has no derivative");
  EXPECT_EQ(error_of([&] { jvp(f, {vector_of({1})}, {vector_of({1})}); }),
            "Unsupported: [jvp] opaque has no derivative");
}

TEST(Grad, BuildsItsGraphOnTheStreamOfTheOperations) {
  Stream ref = default_stream({DeviceKind::Ref});
  Array g =
      grad([&](const Array& x) { return sum(sin(x, ref), {}, false, ref); })(vector_of({0.5}));
  EXPECT_EQ(g.node()->stream, ref);
  expect_values(g, {std::cos(0.5)});
}

TEST(Grad, OfAParallelThreadIsItsOwn) {
  // Trace state belongs to a thread: a scope here does not touch graphs of others.
  TraceScope scope;
  Array x = scope.track(vector_of({1}));
  std::vector<double> found;
  std::thread other([&] {
    found = grad([](const Array& a) { return sum(a * a); })(vector_of({4})).to_vector<double>();
  });
  other.join();
  EXPECT_EQ(found, std::vector<double>{8});
}

}  // namespace
}  // namespace mica
