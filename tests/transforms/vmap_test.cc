#include "transforms/vmap.h"

#include "ops/create.h"
#include "ops/join.h"
#include "transforms/compile.h"
#include "transforms/support.h"

namespace mica {
namespace {

Array matrix() { return reshape(vector_of({1, 2, 3, 4, 5, 6}), {2, 3}).eval(); }

TEST(Vmap, OverTheFirstAxis) {
  Array out = vmap(lift([](const Array& x) { return sum(x); }))({matrix()})[0];
  expect_values(out, {6, 15});
}

TEST(Vmap, OverOtherAxesAndNone) {
  auto f = [](const Arrays& a) { return Arrays{a[0] * a[1], sum(a[0])}; };
  Array w = vector_of({10, 100});
  Arrays columns = vmap(f, {-1, std::nullopt}, {1, 0})({matrix(), w});
  EXPECT_EQ(columns[0].shape(), (Shape{2, 3}));
  expect_values(columns[0], {10, 20, 30, 400, 500, 600});
  expect_values(columns[1], {5, 7, 9});
  Arrays back = vmap(f, {1, std::nullopt}, {-2, -1})({matrix(), w});
  EXPECT_EQ(back[0].shape(), (Shape{3, 2}));
}

TEST(Vmap, RepeatsOutputsThatAreNotBatched) {
  Array w = vector_of({1, 2});
  auto f = [&](const Arrays&) { return Arrays{w * 2.0, w}; };
  Arrays out = vmap(f, {0}, {0, std::nullopt})({matrix()});
  EXPECT_EQ(out[0].shape(), (Shape{2, 2}));
  expect_values(out[0], {2, 4, 2, 4});
  expect_values(out[1], {1, 2});
  expect_values(vmap(f, {1}, {1, std::nullopt})({matrix()})[0], {2, 2, 2, 4, 4, 4});
}

TEST(Vmap, ReturnsItsArguments) {
  Arrays out = vmap([](const Arrays& a) { return a; }, {1, std::nullopt},
                    {0, std::nullopt})({matrix(), matrix()});
  EXPECT_EQ(out[0].shape(), (Shape{3, 2}));
  EXPECT_EQ(out[1].shape(), (Shape{2, 3}));
}

TEST(Vmap, Nests) {
  // Outer product by two vmaps.
  auto row = [](const Arrays& a) { return Arrays{a[0] * a[1]}; };
  auto outer = vmap(vmap(row, {std::nullopt, 0}), {0, std::nullopt});
  expect_values(outer({vector_of({1, 2}), vector_of({3, 4, 5})})[0], {3, 4, 5, 6, 8, 10});
}

TEST(Vmap, OfGradAndGradOfVmap) {
  auto f = [](const Arrays& a) { return Arrays{sum(a[0] * a[0] * a[1])}; };
  Array w = vector_of({1, 10, 100});
  Array per_example = vmap(grad(f), {0, std::nullopt})({matrix(), w})[0];
  expect_values(per_example, {2, 40, 600, 8, 100, 1200});
  auto total = [&](const Arrays& a) { return Arrays{sum(vmap(f, {0, std::nullopt})(a)[0])}; };
  expect_values(grad(total, {1})({matrix(), w})[0], {1 + 16, 4 + 25, 9 + 36});
}

TEST(Vmap, OfJvp) {
  auto f = lift([](const Array& x) { return sin(x); });
  auto pushed = [&](const Arrays& a) { return jvp(f, {a[0]}, {a[1]}).derivatives; };
  Array x = vector_of({0.1, 0.2});
  expect_values(vmap(pushed)({x, x})[0], {0.1 * std::cos(0.1), 0.2 * std::cos(0.2)});
}

TEST(Vmap, GraphDoesNotGrowWithTheBatch) {
  auto nodes = [](int64_t batch) {
    Array x = ones({batch, 4}, Dtype::F64).eval();
    auto f = lift([](const Array& a) { return sum(exp(sin(a) * a)); });
    int64_t before = counters().nodes;
    vmap(grad(f))({x});
    return counters().nodes - before;
  };
  EXPECT_EQ(nodes(2), nodes(1000));
}

TEST(Vmap, FallsBackToTheLoweringAndToALoop) {
  Array x = reshape(vector_of({1, 2, 3, 4}), {2, 2}).eval();
  for (const Op* op : {&test_ops::lowered_cube, &test_ops::vjp_only_cube}) {
    auto f = lift([&](const Array& a) { return apply(*op, {a}, Stream{}); });
    expect_values(vmap(f, {1}, {1})({x})[0], {1, 8, 27, 64});
  }
  // Without a lowering: one application per element, on unbatched inputs.
  auto f = lift([&](const Array& a) { return apply(test_ops::opaque, {a}, Stream{}); });
  Array out = vmap(f)({x})[0];
  EXPECT_EQ(out.shape(), (Shape{2, 2}));
  ASSERT_EQ(out.node()->input_count, 2u);
  EXPECT_EQ(vmap(f)({zeros({0, 5}, Dtype::F64)})[0].shape(), (Shape{0, 5}));
}

TEST(Vmap, RebuildsWhatTurnsOutNotToBeBatched) {
  std::string name = "a name too long to lie in the string itself";
  auto f = lift([&](const Array& a) {
    Array same = apply(test_ops::unbatching, {a}, Stream{});
    return apply(test_ops::scaled_cube, {same}, test_ops::ScaledParams{2, name}, Stream{});
  });
  Array x = reshape(vector_of({1, 2, 3, 4}), {2, 2}).eval();
  expect_values(vmap(f)({x})[0], {2, 16, 2, 16});
}

TEST(Vmap, EvaluationInsideIsAnError) {
  auto f = lift([](const Array& x) {
    Array y = x * 2.0;
    y.eval();
    return y;
  });
  std::string error = error_of([&] { vmap(f)({matrix()}); });
  EXPECT_NE(error.find("ValueError: [eval] an array inside vmap or compile"), std::string::npos)
      << error;
  EXPECT_EQ(TraceScope::depth(), 0);
  // What does not depend on an argument may be evaluated.
  auto g = lift([](const Array& x) { return x * vector_of({2, 3, 4}).eval(); });
  expect_values(vmap(g)({matrix()})[0], {2, 6, 12, 8, 15, 24});
}

TEST(Vmap, Errors) {
  auto f = lift([](const Array& x) { return x; });
  auto two = [](const Arrays& a) { return Arrays{a[0]}; };
  EXPECT_NE(error_of([&] { vmap(f, {std::nullopt})({matrix()}); }).find("none of the 1 arguments"),
            std::string::npos);
  EXPECT_NE(error_of([&] { vmap(f, {0, 0})({matrix()}); }).find("2 axes for 1 argument"),
            std::string::npos);
  EXPECT_NE(error_of([&] { vmap(f, {2})({matrix()}); }).find("IndexError"), std::string::npos);
  EXPECT_NE(error_of([&] {
              vmap(two, {0, 1})({matrix(), matrix()});
            }).find("batch extents differ: 2 and 3"),
            std::string::npos);
  EXPECT_NE(error_of([&] { vmap(f, {0}, {std::nullopt})({matrix()}); }).find("output axis is none"),
            std::string::npos);
  EXPECT_NE(error_of([&] { vmap(f, {0}, {2})({matrix()}); }).find("IndexError"), std::string::npos);
  EXPECT_NE(error_of([&] { vmap(f)({ones({})}); }).find("IndexError"), std::string::npos);
}

TEST(VmapTrace, GivesTheOutputsBeforeTheirAxesAreChosen) {
  VmapTrace trace([](const Arrays& a) { return Arrays{a[0], sum(a[0])}; }, {matrix()}, {0});
  ASSERT_EQ(trace.outputs().size(), 2u);
  EXPECT_EQ(trace.outputs()[0].shape(), (Shape{3}));
  Arrays out = trace.batched({1, 0});
  EXPECT_EQ(out[0].shape(), (Shape{3, 2}));
  expect_values(out[1], {6, 15});
}

TEST(Vmap, OfACompiledFunction) {
  auto f = compile(lift([](const Array& x) { return sum(x * x); }));
  expect_values(vmap(f)({matrix()})[0], {14, 77});
  expect_values(compile(vmap(f))({matrix()})[0], {14, 77});
}

}  // namespace
}  // namespace mica
