#include "transforms/custom.h"

#include "ops/create.h"
#include "transforms/compile.h"
#include "transforms/support.h"
#include "transforms/vmap.h"

namespace mica {
namespace {

// f(x, y) = x * y and x + y, with a vjp that differs from the true one by a factor, to tell them
// apart.
ArraysFunction product_and_sum(double factor) {
  CustomRules rules;
  rules.vjp = [factor](const Arrays& primals, const Arrays& cotangents, const Arrays& outputs) {
    EXPECT_EQ(outputs.size(), 2u);
    EXPECT_EQ(primals.size(), 2u);
    return Arrays{factor * (cotangents[0] * primals[1] + cotangents[1]),
                  factor * (cotangents[0] * primals[0] + cotangents[1])};
  };
  return custom_function([](const Arrays& a) { return Arrays{a[0] * a[1], a[0] + a[1]}; }, rules);
}

ArraysFunction total(ArraysFunction f) {
  return [f](const Arrays& a) {
    Arrays out = f(a);
    Array result = sum(out[0]);
    for (size_t i = 1; i < out.size(); ++i) result = result + sum(out[i]);
    return Arrays{result};
  };
}

TEST(CustomFunction, IsTheFunctionWhereNobodyDifferentiates) {
  Arrays out = product_and_sum(2)({vector_of({2}), vector_of({5})});
  expect_values(out[0], {10});
  expect_values(out[1], {7});
}

TEST(CustomFunction, UsesItsVjp) {
  Arrays at = {vector_of({2, 3}), vector_of({5, 7})};
  Arrays grads = grad(total(product_and_sum(2)), {0, 1})(at);
  expect_values(grads[0], {12, 16});
  expect_values(grads[1], {6, 8});
  expect_values(compile(grad(total(product_and_sum(2)), {0, 1}))(at)[0], {12, 16});
  expect_values(grad(compile(total(product_and_sum(2))), {0, 1})(at)[1], {6, 8});
}

TEST(CustomFunction, AnUnusedOutputHasAZeroCotangent) {
  auto f = [](const Arrays& a) { return Arrays{sum(product_and_sum(2)(a)[1])}; };
  expect_values(grad(f)({vector_of({2, 3}), vector_of({5, 7})})[0], {2, 2});
}

TEST(CustomFunction, AnUnusedOutputMayBeReadByTheRule) {
  CustomRules rules;
  rules.vjp = [](const Arrays&, const Arrays& cotangents, const Arrays& outputs) {
    return Arrays{cotangents[1] * outputs[0]};
  };
  auto f = custom_function([](const Arrays& a) { return Arrays{exp(a[0]), sin(a[0])}; }, rules);
  for (bool evaluate : {false, true}) {
    auto g = grad([&](const Array& x) {
      Array y = f({x})[1];
      if (evaluate) y.eval();
      return sum(y);
    });
    expect_values(g(vector_of({0.5})), {std::exp(0.5)});
  }
}

TEST(CustomFunction, GradientsDoNotReachWhatItCaptures) {
  Array w;
  CustomRules rules;
  rules.vjp = [](const Arrays&, const Arrays& cotangents, const Arrays&) { return cotangents; };
  auto f = custom_function([&](const Arrays& a) { return Arrays{a[0] * w}; }, rules);
  auto g = [&](const Arrays& a) {
    w = a[0];
    return Arrays{sum(f({a[1]})[0])};
  };
  Arrays grads = grad(g, {0, 1})({vector_of({3}), vector_of({4})});
  expect_values(grads[0], {0});
  expect_values(grads[1], {1});
}

TEST(CustomFunction, UsesItsJvp) {
  CustomRules rules;
  rules.jvp = [](const Arrays& primals, const Arrays& tangents) {
    return Arrays{10.0 * tangents[0] * primals[1] + tangents[1]};
  };
  auto f = custom_function([](const Arrays& a) { return Arrays{a[0] * a[1]}; }, rules);
  Array x = vector_of({2}), y = vector_of({3}), one = vector_of({1});
  expect_values(jvp(f, {x, y}, {one, one}).derivatives[0], {31});
  auto by_first = [&](const Arrays& a) { return f({a[0], y}); };
  expect_values(jvp(by_first, {x}, {one}).derivatives[0], {30});
  // Without a vjp rule the gradient is that of the function.
  expect_values(grad(total(f))({x, y})[0], {3});
}

TEST(CustomFunction, WithoutAJvpTheFunctionIsPushedThrough) {
  Array one = vector_of({1});
  auto result = jvp(product_and_sum(2), {vector_of({2}), vector_of({3})}, {one, one});
  expect_values(result.derivatives[0], {5});
  expect_values(result.derivatives[1], {2});
}

TEST(CustomFunction, UsesItsVmap) {
  CustomRules rules;
  rules.vmap = [](const Arrays& inputs, const std::vector<int>& axes) {
    EXPECT_EQ(axes, (std::vector<int>{1, -1}));
    return std::pair(Arrays{moveaxis(inputs[0], 1, 0) * inputs[1] * 100.0}, std::vector<int>{0});
  };
  auto f = custom_function([](const Arrays& a) { return Arrays{a[0] * a[1]}; }, rules);
  Array x = reshape(vector_of({1, 2, 3, 4}), {2, 2}).eval();
  expect_values(vmap(f, {1, std::nullopt})({x, vector_of({1, 10})})[0], {100, 3000, 200, 4000});
}

TEST(CustomFunction, BatchesItsRulesToo) {
  Array x = reshape(vector_of({1, 2, 3, 4}), {2, 2}).eval();
  Array y = vector_of({5, 7});
  auto f = total(product_and_sum(2));
  // Per-example gradients, and the gradient of a batch: the second argument is shared.
  expect_values(vmap(grad(f, {0, 1}), {0, std::nullopt})({x, y})[1], {4, 6, 8, 10});
  auto batch = [&](const Arrays& a) { return Arrays{sum(vmap(f, {0, std::nullopt})(a)[0])}; };
  Arrays grads = grad(batch, {0, 1})({x, y});
  expect_values(grads[0], {12, 16, 12, 16});
  expect_values(grads[1], {2 * (1 + 3 + 2), 2 * (2 + 4 + 2)});
  // And along another axis.
  auto turned = [&](const Arrays& a) { return Arrays{sum(vmap(f, {1, std::nullopt})(a)[0])}; };
  expect_values(grad(turned, {1})({x, y})[0], {2 * (1 + 2 + 2), 2 * (3 + 4 + 2)});
}

TEST(CustomFunction, WrongRulesAreErrors) {
  CustomRules rules;
  rules.vjp = [](const Arrays&, const Arrays&, const Arrays&) { return Arrays{}; };
  auto f = custom_function([](const Arrays& a) { return Arrays{sum(a[0])}; }, rules);
  EXPECT_NE(error_of([&] {
              grad(f)({vector_of({1})});
            }).find("the vjp rule gave 0 arrays for 1 arguments"),
            std::string::npos);
  rules.vjp = [](const Arrays& a, const Arrays&, const Arrays&) { return Arrays{sum(a[0])}; };
  auto g = custom_function([](const Arrays& a) { return Arrays{sum(a[0])}; }, rules);
  EXPECT_NE(error_of([&] {
              grad(g)({vector_of({1, 2})});
            }).find("custom_function gave float64 of shape ()"),
            std::string::npos);
}

}  // namespace
}  // namespace mica
