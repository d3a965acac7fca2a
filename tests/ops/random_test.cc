#include "ops/random.h"

#include <gtest/gtest.h>

#include <functional>
#include <map>
#include <thread>

#include "base/error.h"
#include "ops/create.h"
#include "ops/elementwise.h"
#include "ops/fixture.h"
#include "ops/index.h"
#include "ops/on_devices.h"
#include "ops/reduce.h"
#include "ops/shape.h"
#include "transforms/autograd.h"
#include "transforms/vmap.h"

namespace mica {
namespace {

Array real(double value) { return full({}, value, Dtype::F32); }
Array integer(int value) { return full({}, value, Dtype::I32); }
Array recorded_logits() {
  return Array::from<float>({0.1f, -1, 2, 0.5f, 3, 0.25f, -0.75f, 1, 0, 0, 0, 0}, {3, 4});
}

using Line = std::istringstream;
template <class T>
T next(Line& line) {
  T value;
  line >> value;
  return value;
}
Dtype next_dtype(Line& line) { return dtype_from_name(next<std::string>(line)); }

// What each recorded line was computed by; those with a checksum must be equal bit for bit.
using Recipe = std::function<Array(Line&, const Array& key)>;
const std::map<std::string, Recipe>& exact_recipes() {
  using namespace random;
  static const std::map<std::string, Recipe> recipes = {
      {"key", [](Line&, const Array& key) { return key; }},
      {"split", [](Line& line, const Array& key) { return split(key, next<int>(line)); }},
      {"uniform",
       [](Line& line, const Array& key) {
         return uniform(real(-1.5), real(2.25), {7, 11}, next_dtype(line), key);
       }},
      {"unit", [](Line&, const Array& key) { return uniform({1000}, Dtype::F32, key); }},
      {"randint",
       [](Line&, const Array& key) {
         return randint(integer(-5), integer(100), {123}, Dtype::I32, key);
       }},
      {"bernoulli", [](Line&, const Array& key) { return bernoulli(real(0.3), {123}, key); }},
      {"permutation", [](Line&, const Array& key) { return permutation(int64_t{100}, key); }},
      {"rows",
       [](Line&, const Array& key) { return permutation(reshape(arange(60), {5, 12}), 1, key); }},
      {"categorical",
       [](Line&, const Array& key) { return categorical(recorded_logits(), -1, key); }},
      {"categorical0",
       [](Line&, const Array& key) { return categorical(recorded_logits(), 0, key); }},
      {"shaped",
       [](Line&, const Array& key) {
         return categorical(recorded_logits(), -1, Shape{5, 3}, key);
       }},
      {"samples",
       [](Line&, const Array& key) { return categorical_samples(recorded_logits(), -1, 40, key); }},
      {"single",
       [](Line&, const Array& key) {
         return categorical_samples(take(recorded_logits(), 0, 0), -1, 40, key);
       }},
  };
  return recipes;
}
const std::map<std::string, Recipe>& close_recipes() {
  using namespace random;
  static const std::map<std::string, Recipe> recipes = {
      {"normal",
       [](Line& line, const Array& key) { return normal({9}, next_dtype(line), {}, {}, key); }},
      {"located",
       [](Line&, const Array& key) { return normal({5}, Dtype::F32, real(2), real(0.5), key); }},
      {"truncated",
       [](Line&, const Array& key) {
         return truncated_normal(real(-0.5), real(1.5), {7}, Dtype::F32, key);
       }},
      {"gumbel", [](Line&, const Array& key) { return gumbel({7}, Dtype::F32, key); }},
      {"laplace", [](Line&, const Array& key) { return laplace({7}, Dtype::F32, 0.5, 2, key); }},
  };
  return recipes;
}

TEST(Random, GivesTheNumbersThatMlxGives) {
  on_devices([] {
    int seen = 0;
    for (auto& line : fixture_lines("mlx/random.txt")) {
      SCOPED_TRACE(line.str());
      std::string name = next<std::string>(line);
      Array key = random::key(next<uint64_t>(line));
      if (auto exact = exact_recipes().find(name); exact != exact_recipes().end()) {
        Array numbers = exact->second(line, key);
        line >> std::hex;
        EXPECT_EQ(checksum(numbers), next<uint32_t>(line));
        ++seen;
      } else if (auto close = close_recipes().find(name); close != close_recipes().end()) {
        Array numbers = close->second(line, key);
        double tolerance = numbers.dtype() == Dtype::F32   ? 2e-6
                           : numbers.dtype() == Dtype::F16 ? 2e-3
                                                           : 2e-2;
        for (double value : numbers.to_vector<double>()) {
          double expected = next<double>(line);
          EXPECT_NEAR(value, expected, tolerance * (1 + std::fabs(expected)));
        }
        ++seen;
      }
    }
    EXPECT_EQ(seen, 3 * (1 + 6 + 3 + 10 + 3 + 4));
  });
}

TEST(Random, DefaultKeyAdvancesAsInMlx) {
  for (auto& line : fixture_lines("mlx/random.txt")) {
    if (next<std::string>(line) != "seeded") continue;
    random::seed(next<uint64_t>(line));
    Array first = random::uniform({4}), second = random::uniform({3});
    line >> std::hex;
    EXPECT_EQ(checksum(first), next<uint32_t>(line));
    EXPECT_EQ(checksum(second), next<uint32_t>(line));
  }
}

TEST(Random, EveryThreadHasItsOwnKey) {
  random::seed(3);
  uint32_t here = checksum(random::bits({8}));
  random::seed(3);
  std::thread([] {
    random::seed(4);
    random::bits({8}).eval();
  }).join();
  EXPECT_EQ(checksum(random::bits({8})), here);
  Array saved = random::state();
  uint32_t later = checksum(random::bits({8}));
  random::set_state(saved);
  EXPECT_EQ(checksum(random::bits({8})), later);
}

TEST(Random, BatchedKeysGiveWhatEachGives) {
  Array keys = random::split(random::key(5), 4);
  on_devices([&] {
    Array all = vmap(
        [](const Arrays& a) { return Arrays{random::normal({3, 5}, Dtype::F32, {}, {}, a[0])}; },
        {0})({keys})[0];
    ASSERT_EQ(all.shape(), (Shape{4, 3, 5}));
    for (int64_t i = 0; i < 4; ++i)
      EXPECT_EQ(checksum(take(all, i, 0)),
                checksum(random::normal({3, 5}, Dtype::F32, {}, {}, take(keys, i, 0))));
  });
}

TEST(Random, MomentsAreThoseOfTheDistribution) {
  random::seed(11);
  Array x = random::normal({200000});
  EXPECT_NEAR(mean(x).item<float>(), 0, 0.01);
  EXPECT_NEAR(var(x).item<float>(), 1, 0.02);
  Array u = random::uniform({200000}, Dtype::BF16);
  EXPECT_LT(max(u).item<float>(), 1);
  EXPECT_NEAR(mean(astype(u, Dtype::F32)).item<float>(), 0.5, 0.01);
  Array logits = log(Array::from<float>({0.1f, 0.2f, 0.7f}));
  Array drawn = random::categorical_samples(logits, -1, 100000);
  for (int i = 0; i < 3; ++i)
    EXPECT_NEAR(mean(astype(equal(drawn, i), Dtype::F32)).item<float>(),
                i == 0   ? 0.1
                : i == 1 ? 0.2
                         : 0.7,
                0.01);
}

TEST(Random, DerivativesReachLocationAndScale) {
  Array key = random::key(1);
  auto draw = [&](const Arrays& p) {
    return Arrays{sum(random::normal({50}, Dtype::F32, p[0], p[1], key))};
  };
  Arrays gradients = vjp(draw, {real(1), real(2)}, {real(1)}).derivatives;
  EXPECT_FLOAT_EQ(gradients[0].item<float>(), 50);
  EXPECT_NEAR(gradients[1].item<float>(),
              sum(random::normal({50}, Dtype::F32, {}, {}, key)).item<float>(), 1e-4);
}

TEST(Random, EmptyShapesAndErrors) {
  EXPECT_EQ(random::uniform({0, 3}).to_vector<float>().size(), 0u);
  EXPECT_EQ(random::bits({}, 1, random::key(1)).shape(), Shape{});
  EXPECT_THROW(random::bits({-1}), Error);
  EXPECT_THROW(random::bits({2}, 3), Error);
  EXPECT_THROW(random::bits({2}, 4, arange(2)), Error);
  EXPECT_THROW(random::uniform({2}, Dtype::I32), Error);
  EXPECT_THROW(random::uniform(zeros({3}), ones({3}), {2}), Error);
  EXPECT_THROW(random::bernoulli(arange(2), {2}), Error);
  EXPECT_THROW(random::categorical(zeros({2, 3}), -1, Shape{3}), Error);
  EXPECT_THROW(random::randint(integer(0), integer(2), {2}, Dtype::F32), Error);
}

}  // namespace
}  // namespace mica
