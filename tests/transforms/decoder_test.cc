// The transforms together, on what they are for: one block of a decoder and its loss.
#include <random>

#include "ops/attention.h"
#include "ops/create.h"
#include "ops/index.h"
#include "ops/join.h"
#include "ops/matmul.h"
#include "ops/norm.h"
#include "ops/rope.h"
#include "ops/softmax.h"
#include "transforms/checkpoint.h"
#include "transforms/compile.h"
#include "transforms/support.h"
#include "transforms/vmap.h"

namespace mica {
namespace {

// B batch, L length, D width, H heads, G heads of keys and values, K head size, V vocabulary.
constexpr int64_t L = 6, D = 8, H = 4, G = 2, K = 4, V = 11, F = 12;

struct Decoder {
  Arrays parameters;  // embedding, norms, projections, head
  Array tokens_BL, targets_BL;

  explicit Decoder(Dtype dtype, int64_t batch = 3) {
    std::mt19937 random(7);
    std::normal_distribution<double> normal(0, 0.4);
    for (const Shape& shape : {Shape{V, D}, Shape{D}, Shape{D, (H + 2 * G) * K}, Shape{H * K, D},
                               Shape{D}, Shape{D, 2 * F}, Shape{F, D}, Shape{D, V}}) {
      std::vector<double> values(static_cast<size_t>(elements(shape)));
      for (double& value : values) value = normal(random) + (shape.size() == 1);
      parameters.push_back(astype(Array::from<double>(values, shape), dtype).eval());
    }
    auto draw = [&] {
      std::vector<int32_t> ids(static_cast<size_t>(batch * L));
      for (int32_t& id : ids) id = static_cast<int32_t>(random() % V);
      return Array::from<int32_t>(ids, {batch, L});
    };
    tokens_BL = draw();
    targets_BL = draw();
  }
};

Array heads(const Array& x_BLN, int64_t first, int64_t count) {
  Array part = slice_axis(x_BLN, 2, first * K, (first + count) * K);
  return transpose(reshape(part, {part.shape(0), L, count, K}), {0, 2, 1, 3});
}

// p: norm, qkv, out, norm, gate and up, down.
Array block(const Array& x_BLD, std::span<const Array> p) {
  Array qkv = matmul(rms_norm(x_BLD, p[0], 1e-5), p[1]);
  RopeOptions turned;
  turned.dims = K;
  Array positions = zeros({}, Dtype::I32);  // of the first row
  Array q = rope(heads(qkv, 0, H), positions, turned);
  Array k = rope(heads(qkv, H, G), positions, turned);
  AttentionOptions options;
  options.scale = 0.5;
  options.causal = true;
  Array o = attention(q, k, heads(qkv, H + G, G), options);
  Array y = x_BLD + matmul(reshape(transpose(o, {0, 2, 1, 3}), {x_BLD.shape(0), L, H * K}), p[2]);
  Arrays gate_up = split(matmul(rms_norm(y, p[3], 1e-5), p[4]), 2, -1);
  return y + matmul(gate_up[0] * sigmoid(gate_up[0]) * gate_up[1], p[5]);
}

// The mean negative log-likelihood of the targets. a: parameters, tokens, targets.
Arrays loss(const Arrays& a, bool save_memory) {
  Array x_BLD = take(a[0], a[8], 0);
  ArraysFunction layer = [](const Arrays& in) {
    return Arrays{block(in[0], std::span(in).subspan(1))};
  };
  Arrays inputs{x_BLD};
  inputs.insert(inputs.end(), a.begin() + 1, a.begin() + 7);
  Array y_BLD = (save_memory ? checkpoint(layer) : layer)(inputs)[0];
  Array scores = log_softmax(matmul(y_BLD, a[7]));
  return {negative(mean(take_along_axis(scores, expand_dims(a[9], {-1}), -1)))};
}

std::vector<int> parameter_numbers() { return {0, 1, 2, 3, 4, 5, 6, 7}; }

Arrays with_data(const Decoder& decoder) {
  Arrays all = decoder.parameters;
  all.push_back(decoder.tokens_BL);
  all.push_back(decoder.targets_BL);
  return all;
}

ArraysFunction gradient(bool save_memory) {
  return grad([=](const Arrays& a) { return loss(a, save_memory); }, parameter_numbers());
}

void expect_equal(const Arrays& actual, const Arrays& expected) {
  ASSERT_EQ(actual.size(), expected.size());
  for (size_t i = 0; i < actual.size(); ++i)
    EXPECT_EQ(actual[i].to_vector<double>(), expected[i].to_vector<double>()) << "parameter " << i;
}

void expect_close(const Arrays& actual, const Arrays& expected, double tolerance) {
  ASSERT_EQ(actual.size(), expected.size());
  for (size_t i = 0; i < actual.size(); ++i) {
    SCOPED_TRACE("parameter " + std::to_string(i));
    expect_values(actual[i], expected[i].to_vector<double>(), tolerance);
  }
}

TEST(Decoder, GradientsAreThoseOfDifferences) {
  Decoder decoder(Dtype::F64);
  Arrays all = with_data(decoder);
  Arrays grads = gradient(false)(all);
  std::mt19937 random(3);
  std::normal_distribution<double> normal;
  for (size_t i = 0; i < grads.size(); ++i) {
    std::vector<double> direction(static_cast<size_t>(grads[i].size()));
    for (double& d : direction) d = normal(random);
    Array step = Array::from<double>(direction, grads[i].shape());
    auto at = [&](double h) {
      Arrays moved = all;
      moved[i] = all[i] + step * h;
      return loss(moved, false)[0].item<double>();
    };
    double difference = (at(1e-5) - at(-1e-5)) / 2e-5;
    EXPECT_NEAR(sum(grads[i] * step).item<double>(), difference, 1e-7) << "parameter " << i;
  }
}

TEST(Decoder, CheckpointAndCompileKeepTheBits) {
  for (Dtype dtype : {Dtype::F32, Dtype::BF16}) {
    Arrays all = with_data(Decoder(dtype));
    Arrays expected = gradient(false)(all);
    eval(expected);
    expect_equal(gradient(true)(all), expected);
    expect_equal(compile(gradient(false))(all), expected);
    expect_equal(compile(gradient(true))(all), expected);
    expect_equal(
        grad(compile([](const Arrays& a) { return loss(a, true); }), parameter_numbers())(all),
        expected);
  }
}

TEST(Decoder, GradientsPerExampleAddUpToThatOfTheBatch) {
  Decoder decoder(Dtype::F64);
  Arrays all = with_data(decoder);
  Arrays expected = gradient(false)(all);
  for (bool save_memory : {false, true}) {
    auto of_one = [=](const Arrays& a) {
      Arrays one = a;
      one[8] = expand_dims(a[8], {0});
      one[9] = expand_dims(a[9], {0});
      return gradient(save_memory)(one);
    };
    BatchAxes axes(8, std::nullopt);
    axes.resize(10, 0);
    Arrays each = vmap(of_one, axes)(all);
    for (Array& g : each) g = mean(g, {{0}});
    expect_close(each, expected, 1e-12);
  }
}

TEST(Decoder, JvpAndHessianProducts) {
  Decoder decoder(Dtype::F64);
  Arrays all = with_data(decoder);
  auto f = [&](const Arrays& p) {
    Arrays inputs = p;
    inputs.push_back(decoder.tokens_BL);
    inputs.push_back(decoder.targets_BL);
    return loss(inputs, true);
  };
  auto g = grad(f, parameter_numbers());
  Arrays tangents;
  for (const Array& p : decoder.parameters) tangents.push_back(cos(p * 3.0));
  double expected = 0;
  Arrays grads = g(decoder.parameters);
  for (size_t i = 0; i < grads.size(); ++i) expected += sum(grads[i] * tangents[i]).item<double>();
  EXPECT_NEAR(jvp(f, decoder.parameters, tangents).derivatives[0].item<double>(), expected, 1e-12);
  // Forward over reverse against reverse over reverse.
  auto along = [&](const Arrays& p) {
    Arrays gs = g(p);
    Array total = zeros({}, Dtype::F64);
    for (size_t i = 0; i < gs.size(); ++i) total = total + sum(gs[i] * tangents[i]);
    return Arrays{total};
  };
  expect_close(jvp(g, decoder.parameters, tangents).derivatives,
               grad(along, parameter_numbers())(decoder.parameters), 1e-9);
}

}  // namespace
}  // namespace mica
