// Derivatives of norms over many rows, on every instruction set, against float64.
#include <gtest/gtest.h>

#include <cmath>

#include "ops/create.h"
#include "ops/elementwise.h"
#include "ops/norm.h"
#include "ops/random.h"
#include "ops/reduce.h"
#include "ops/shape.h"
#include "tests/backends/targets.h"
#include "transforms/autograd.h"
#include "transforms/vmap.h"

namespace mica::cpu {
namespace {

class NormBackwardTest : public TargetTest {};

Arrays cotangents(bool centred, const Arrays& inputs, const Array& given) {
  auto f = [=](const Arrays& in) {
    return Arrays{centred ? layer_norm(in[0], in[1], in[2], 1e-5) : rms_norm(in[0], in[1], 1e-5)};
  };
  return vjp(f, inputs, {given}).derivatives;
}

double distance(const Array& a, const Array& b) {
  Array wide = astype(b, Dtype::F64);
  return max(abs(astype(a, Dtype::F64) - wide)).item<double>() /
         (max(abs(wide)).item<double>() + 1e-3);
}

// Rows that do not fill vectors, with means far from zero, in several blocks.
TEST_P(NormBackwardTest, ManyRows) {
  random::seed(7);
  for (bool centred : {true, false})
    for (int64_t width : {3, 15, 77, 256, 5000})
      for (Dtype dtype : {Dtype::F32, Dtype::BF16, Dtype::F16}) {
        SCOPED_TRACE(std::to_string(width) + (centred ? " layer" : " rms"));
        const int64_t rows = width > 1000 ? 9 : 700;
        Arrays in = {astype(random::normal({2, rows, width}) + 3.0, dtype).eval(),
                     astype(random::normal({width}), dtype).eval()};
        if (centred) in.push_back(astype(random::normal({width}), dtype).eval());
        Array given = astype(random::normal({2, rows, width}), dtype).eval();
        Arrays wide;
        for (const Array& a : in) wide.push_back(astype(a, Dtype::F64));
        Arrays found = cotangents(centred, in, given);
        Arrays expected = cotangents(centred, wide, astype(given, Dtype::F64));
        const double tolerance = dtype == Dtype::F32 ? 2e-5 : dtype == Dtype::F16 ? 2e-3 : 1e-2;
        for (size_t i = 0; i < in.size(); ++i)
          EXPECT_LT(distance(found[i], expected[i]), tolerance) << "input " << i;
      }
}

// Interleaved rows are read where they lie.
TEST_P(NormBackwardTest, RowsThatLieApart) {
  Array wide = random::normal({3, 20, 2, 48}).eval(), weight = random::normal({48}).eval();
  Array x = transpose(wide, {2, 0, 1, 3}), given = random::normal({2, 3, 20, 48}).eval();
  Arrays in = {x, weight, weight}, dense = {contiguous(x), weight, weight};
  Arrays found = cotangents(true, in, given), expected = cotangents(true, dense, given);
  for (size_t i = 0; i < 3; ++i)
    EXPECT_EQ(found[i].to_vector<float>(), expected[i].to_vector<float>());
}

TEST_P(NormBackwardTest, OfABatchOfWeights) {
  Array x = random::normal({4, 5, 12}).eval(), weights = random::normal({4, 12}).eval();
  auto loss = [](const Arrays& in) {
    return Arrays{sum(square(layer_norm(in[0], in[1], in[1], 1e-5)))};
  };
  Arrays all = vmap(grad(loss, {0, 1}), {0, 0})({x, weights});
  for (int64_t b = 0; b < 4; ++b) {
    auto part = [&](const Array& a) {
      return squeeze(slice_axis(a, 0, b, b + 1), std::vector<int>{0});
    };
    Arrays one = grad(loss, {0, 1})({part(x), part(weights)});
    for (size_t i = 0; i < 2; ++i) EXPECT_LT(distance(part(all[i]), one[i]), 1e-5);
  }
}

INSTANTIATE_TEST_SUITE_P(Targets, NormBackwardTest, all_targets(), target_name);

}  // namespace
}  // namespace mica::cpu
