// How far regions reach.
#include <gtest/gtest.h>

#include <cmath>

#include "core/counters.h"
#include "ops/create.h"
#include "ops/elementwise.h"

namespace mica {
namespace {

int64_t kernels_of(const Arrays& arrays) {
  reset_counters();
  eval(arrays);
  return counters().kernels;
}

Array filled(float value) { return Array::from<float>(std::vector<float>(1000, value), {1000}); }

// Numbers and values that are computed on the way are no inputs: an optimizer's step reads four
// arrays.
TEST(Fuse, AStepOfAdamIsOneKernel) {
  Array p = filled(1), g = filled(0.5), m = filled(0.25), v = filled(0.125);
  m = 0.9 * m + 0.1 * g;
  v = 0.99 * v + 0.01 * g * g;
  Array step = 0.001 * (m / 0.271) / (sqrt(v / 0.029701) + 1e-8);
  p = p * (1 - 1e-5) - step;
  EXPECT_EQ(kernels_of({p, m, v}), 1);
  const double mean = 0.9 * 0.25 + 0.05, square = 0.99 * 0.125 + 0.0025;
  const double expected = 1 - 1e-5 - 0.001 * (mean / 0.271) / std::sqrt(square / 0.029701);
  EXPECT_NEAR(p.to_vector<float>()[999], expected, 1e-6);
}

TEST(Fuse, RegionsReadAFewArraysOnly) {
  Arrays terms;
  for (int i = 0; i < 40; ++i) terms.push_back(filled(static_cast<float>(i)));
  Array sum = terms[0];
  for (int i = 1; i < 40; ++i) sum = sum + terms[static_cast<size_t>(i)];
  EXPECT_GT(kernels_of({sum}), 1);
  EXPECT_EQ(sum.to_vector<float>()[0], 780);
}

}  // namespace
}  // namespace mica
