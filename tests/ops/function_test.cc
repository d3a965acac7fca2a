#include "ops/function.h"

#include <set>

#include "base/expect_error.h"
#include "ops/function_args.h"
#include "ops/on_devices.h"

namespace mica {
namespace {

Value call(const Function& function, std::vector<Value> values) {
  values.push_back(Stream{});
  return function.call(values);
}

const Function& named(std::string_view name) {
  const Function* function = FunctionRegistry::shared().find(name);
  if (!function) throw std::runtime_error("no function " + std::string(name));
  return *function;
}

TEST(Function, SignaturesAreParsed) {
  FunctionRegistry registry;
  registry.add(
      "fast.f|g",
      "a: array, /, b: int | None = None, *xs: array, c: tuple[int, int] = (1, 2), d: str = 'a,b'",
      "Doc.",
      [](const Array& a, std::optional<int>, const Arrays&, const std::vector<int>&,
         const std::string&, Stream) { return a; });
  const Function& f = *registry.find("f", "fast");
  EXPECT_EQ(registry.find("g", "fast"), &f);
  EXPECT_EQ(registry.find("f"), nullptr);
  ASSERT_EQ(f.parameters.size(), 5u);
  EXPECT_TRUE(f.parameters[0].positional_only);
  EXPECT_EQ(f.parameters[0].type, "array");
  EXPECT_FALSE(f.parameters[0].default_value);
  EXPECT_TRUE(std::holds_alternative<std::monostate>(*f.parameters[1].default_value));
  EXPECT_TRUE(f.parameters[2].variadic);
  EXPECT_TRUE(f.parameters[3].keyword_only);
  EXPECT_EQ(std::get<std::vector<int64_t>>(*f.parameters[3].default_value),
            std::vector<int64_t>({1, 2}));
  EXPECT_EQ(std::get<std::string>(*f.parameters[4].default_value), "a,b");
  EXPECT_EQ(f.parameters[4].default_text, "'a,b'");
}

TEST(Function, DefaultsOfEveryKind) {
  FunctionRegistry registry;
  registry.add("f",
               "a: bool = True, b: int = -3, c: float = 1e-5, d: Dtype = float16, e: float = inf, "
               "g: list = [0.5, 1]",
               "", [](bool, int, double, Dtype, double, const std::vector<double>&, Stream) {
                 return int64_t{0};
               });
  const auto& p = registry.find("f")->parameters;
  EXPECT_EQ(std::get<bool>(*p[0].default_value), true);
  EXPECT_EQ(std::get<int64_t>(*p[1].default_value), -3);
  EXPECT_EQ(std::get<double>(*p[2].default_value), 1e-5);
  EXPECT_EQ(std::get<Dtype>(*p[3].default_value), Dtype::F16);
  EXPECT_EQ(std::get<double>(*p[4].default_value), HUGE_VAL);
  EXPECT_EQ(std::get<std::vector<double>>(*p[5].default_value), std::vector<double>({0.5, 1}));
}

TEST(Function, BindsAsPython) {
  const Function& f = named("flatten");
  Array a = counting({2, 3});
  using Keywords = std::vector<std::pair<std::string_view, Value>>;
  auto bind = [&](std::vector<Value> positional, Keywords keywords = {}) {
    return bind_arguments(f, positional, keywords);
  };
  EXPECT_EQ(std::get<int64_t>(bind({a})[2]), -1);
  EXPECT_EQ(std::get<int64_t>(bind({a}, {{"end_axis", int64_t{0}}})[2]), 0);
  EXPECT_EQ(std::get<int64_t>(bind({a, int64_t{1}})[1]), 1);
  expect_error(ErrorKind::Type, "flatten() missing required argument 'a'", [&] { bind({}); });
  expect_error(ErrorKind::Type, "takes 3 positional arguments but 4 were given",
               [&] { bind({a, int64_t{0}, int64_t{0}, int64_t{0}}); });
  expect_error(ErrorKind::Type, "unexpected keyword argument 'axis'",
               [&] { bind({a}, {{"axis", int64_t{0}}}); });
  expect_error(ErrorKind::Type, "multiple values for argument 'start_axis'",
               [&] { bind({a, int64_t{0}}, {{"start_axis", int64_t{0}}}); });
  expect_error(ErrorKind::Type, "'a' must be given by position", [&] { bind({}, {{"a", a}}); });
  std::vector<Value> two{a, a};
  EXPECT_EQ(std::get<Arrays>(bind_arguments(named("broadcast_arrays"), two)[0]).size(), 2u);
}

TEST(Function, ConversionErrorsNameTheParameter) {
  Array a = counting({2, 3});
  expect_error(ErrorKind::Type, "flatten() argument 'start_axis' must be int, got str",
               [&] { call(named("flatten"), {a, std::string("x"), int64_t{0}}); });
  expect_error(ErrorKind::Type, "flatten() argument 'a' must be array, got float",
               [&] { call(named("flatten"), {1.5, int64_t{0}, int64_t{0}}); });
  expect_error(ErrorKind::Value, "'start_axis' is too large",
               [&] { call(named("flatten"), {a, int64_t{1} << 40, int64_t{0}}); });
}

// A scalar beside arrays takes their type as in MLX; alone it has its own.
TEST(Function, ScalarsAreWeaklyTyped) {
  auto type_of = [](std::vector<Value> values) {
    return std::get<Array>(call(named("add"), values)).dtype();
  };
  Array half = counting({2}, Dtype::F16), integer = counting({2}, Dtype::I8),
        truth = counting({2}, Dtype::Bool);
  EXPECT_EQ(type_of({half, 2.5}), Dtype::F16);
  EXPECT_EQ(type_of({int64_t{2}, half}), Dtype::F16);
  EXPECT_EQ(type_of({integer, int64_t{3}}), Dtype::I8);
  EXPECT_EQ(type_of({integer, 0.5}), Dtype::F32);
  EXPECT_EQ(type_of({truth, int64_t{1}}), Dtype::I32);
  EXPECT_EQ(type_of({int64_t{1}, int64_t{1}}), Dtype::I32);
  EXPECT_EQ(type_of({int64_t{1} << 40, int64_t{1}}), Dtype::I64);
  EXPECT_EQ(type_of({1.0, int64_t{1}}), Dtype::F32);
  EXPECT_EQ(weak_scalar(true, {}, {}).dtype(), Dtype::Bool);
}

TEST(Function, CallsReturnValues) {
  Array a = counting({2, 6});
  expect_array(std::get<Array>(call(named("reshape"), {a, std::vector<int64_t>{3, -1}})), {3, 4},
               a.to_vector<double>());
  EXPECT_EQ(std::get<Arrays>(call(named("split"), {a, int64_t{3}, int64_t{1}})).size(), 3u);
  expect_array(std::get<Array>(call(named("arange"), {int64_t{3}, {}, {}, {}})), {3}, {0, 1, 2});
  EXPECT_EQ(std::get<Array>(call(named("arange"), {0.5, 2.0, {}, {}})).dtype(), Dtype::F32);
  expect_array(std::get<Array>(call(
                   named("pad"), {counting({2}), int64_t{1}, std::string("constant"), int64_t{7}})),
               {4}, {7, 0, 1, 7});
  expect_array(std::get<Array>(call(named("take"), {a, int64_t{1}, int64_t{1}})), {2}, {1, 7});
}

TEST(Function, EveryFunctionIsDocumented) {
  std::set<std::string> names;
  for (const Function& f : FunctionRegistry::shared().functions()) {
    EXPECT_GT(f.doc.size(), 3u) << f.name;
    EXPECT_TRUE(names.insert(f.module + '.' + f.name).second) << f.name << " twice";
    for (const Parameter& parameter : f.parameters)
      EXPECT_FALSE(parameter.type.empty()) << f.name << ' ' << parameter.name;
  }
  EXPECT_GT(names.size(), 60u);
}

TEST(Function, OpsHaveTheirPlaces) {
  auto ops = OpRegistry::shared().ops();
  for (size_t i = 0; i < ops.size(); ++i) EXPECT_EQ(ops[i]->index, static_cast<int>(i));
  EXPECT_EQ(OpRegistry::shared().find("reshape"), &ops::reshape_op);
  EXPECT_EQ(OpRegistry::shared().find("no such op"), nullptr);
}

}  // namespace
}  // namespace mica
