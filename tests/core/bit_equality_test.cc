// However a graph runs, its bits are the same: every node evaluated on its own, everything in one
// eval (fused), or compiled. On random graphs of elementwise operations, casts, broadcasts and
// reductions.
#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "ops/create.h"
#include "ops/elementwise.h"
#include "ops/reduce.h"
#include "ops/shape.h"
#include "transforms/compile.h"

namespace mica {
namespace {

// A recipe of a graph: the same seed builds the same graph from the same inputs.
class RandomGraph {
 public:
  RandomGraph(uint64_t seed, bool one_by_one) : random_(seed), one_by_one_(one_by_one) {}

  Arrays operator()(const Arrays& inputs) {
    values_ = inputs;
    int steps = 5 + pick(40);
    for (int i = 0; i < steps; ++i) {
      values_.push_back(step());
      if (one_by_one_) values_.back().eval();
    }
    // Some values, not only the last, are outputs of their regions.
    Arrays outputs;
    for (size_t i = inputs.size(); i < values_.size(); ++i) {
      if (i + 1 == values_.size() || pick(5) == 0) outputs.push_back(values_[i]);
    }
    return outputs;
  }

 private:
  int pick(int count) { return static_cast<int>(random_() % static_cast<uint64_t>(count)); }
  // Recent values more often, so that chains grow long.
  Array any() {
    auto count = static_cast<int>(values_.size());
    return values_[static_cast<size_t>(pick(2) ? pick(count)
                                               : count - 1 - pick(std::min(count, 4)))];
  }
  Array floating(Array a) { return is_floating(a.dtype()) ? a : astype(a, Dtype::F32); }

  Array step() {
    switch (pick(12)) {
      case 0: return unary(floating(any()));
      case 1: return unary(floating(any()));
      case 2: return reduced(any());
      case 3: return cast(any());
      case 4: return add(any(), Scalar(0.37));
      case 5: return where(less(any(), any()), any(), any());
      case 6: return add(transpose(any()), transpose(any()));
      default: return binary(any(), any());
    }
  }
  Array unary(const Array& a) {
    switch (pick(8)) {
      case 0: return exp(clamp(a));
      case 1: return sin(a);
      case 2: return sqrt(abs(a));
      case 3: return sigmoid(a);
      case 4: return tanh(a);
      case 5: return log1p(abs(a));
      case 6: return erf(a);
      default: return negative(a);
    }
  }
  Array clamp(const Array& a) { return minimum(a, Scalar(4.0)); }
  Array binary(const Array& a, const Array& b) {
    switch (pick(5)) {
      case 0: return add(a, b);
      case 1: return subtract(a, b);
      case 2: return multiply(floating(a), floating(b));
      case 3: return maximum(a, b);
      default: return divide(a, add(abs(floating(b)), Scalar(1)));
    }
  }
  Array cast(const Array& a) {
    constexpr Dtype kTypes[] = {Dtype::F32, Dtype::BF16, Dtype::F16, Dtype::F64, Dtype::I32};
    return astype(minimum(maximum(a, Scalar(-100)), Scalar(100)), kTypes[pick(5)]);
  }
  Array reduced(const Array& a) {
    std::vector<int> axes = pick(3) ? std::vector<int>{pick(2)} : std::vector<int>{0, 1};
    Array result = pick(3) ? mean(floating(a), axes, true) : max(a, axes, true);
    return pick(2) ? broadcast_to(result, a.shape()) : add(result, a);
  }

  std::mt19937_64 random_;
  bool one_by_one_;
  Arrays values_;
};

std::vector<std::byte> bytes_of(const Array& a) {
  auto host = a.host_bytes();
  return {host.get(), host.get() + a.nbytes()};
}

// Square, so that transposes and broadcasts of any two values fit.
Arrays random_inputs(uint64_t seed, int64_t n) {
  std::mt19937_64 random(seed);
  std::normal_distribution<float> normal;
  Arrays inputs;
  for (const Shape& shape : {Shape{n, n}, Shape{n, n}, Shape{1, n}, Shape{n, 1}, Shape{1, 1}}) {
    std::vector<float> values(static_cast<size_t>(elements(shape)));
    for (float& value : values) value = normal(random);
    inputs.push_back(broadcast_to(Array::from<float>(values, shape), {n, n}));
  }
  return inputs;
}

class BitEquality : public ::testing::TestWithParam<DeviceKind> {};

TEST_P(BitEquality, OfRandomGraphs) {
  StreamScope device(default_stream({GetParam()}));
  const bool fast = GetParam() == DeviceKind::Cpu;
  for (uint64_t seed = 0; seed < (fast ? 300 : 60); ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    constexpr int64_t kExtents[] = {1, 3, 17, 40};
    Arrays inputs = random_inputs(seed, fast ? kExtents[seed % 4] : kExtents[seed % 2]);
    Arrays separate = RandomGraph(seed, true)(inputs);
    Arrays fused = RandomGraph(seed, false)(inputs);
    eval(fused);
    Arrays compiled = compile([&](const Arrays& a) { return RandomGraph(seed, false)(a); })(inputs);
    eval(compiled);
    ASSERT_EQ(separate.size(), fused.size());
    for (size_t i = 0; i < separate.size(); ++i) {
      auto expected = bytes_of(separate[i]);
      ASSERT_EQ(expected, bytes_of(fused[i])) << "fused, output " << i << " of " << fused.size();
      ASSERT_EQ(expected, bytes_of(compiled[i]))
          << "compiled, output " << i << " of " << fused.size();
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Devices, BitEquality, ::testing::Values(DeviceKind::Cpu, DeviceKind::Ref),
                         [](const auto& info) { return std::string(device_name({info.param})); });

}  // namespace
}  // namespace mica
