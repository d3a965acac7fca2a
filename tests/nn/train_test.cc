// A small decoder learns from a text: losses fall, are the same with checkpointing, and need less
// memory with it.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdio>
#include <random>

#include "core/counters.h"
#include "nn/activation.h"
#include "ops/attention.h"
#include "ops/create.h"
#include "ops/elementwise.h"
#include "ops/index.h"
#include "ops/matmul.h"
#include "ops/norm.h"
#include "ops/reduce.h"
#include "ops/rope.h"
#include "ops/shape.h"
#include "ops/softmax.h"
#include "transforms/autograd.h"
#include "transforms/checkpoint.h"

namespace mica {
namespace {

constexpr int64_t kLayers = 4, kWidth = 64, kHeads = 4, kHidden = 256, kVocabulary = 128,
                  kBatch = 4, kLength = 64;
constexpr size_t kPerLayer = 6;

std::string text() {
  std::FILE* pipe = popen("xz -dc '" MICA_TEST_DATA "/tinyshakespeare.txt.xz'", "r");
  std::string all;
  char chunk[65536];
  while (size_t got = std::fread(chunk, 1, sizeof(chunk), pipe)) all.append(chunk, got);
  pclose(pipe);
  return all;
}

// [embedding, head, (q, k, v, o, up, down) per layer]
Arrays initial_parameters() {
  std::mt19937 random(1);
  auto matrix = [&](int64_t rows, int64_t columns) {
    std::normal_distribution<float> normal(0, 1 / std::sqrt(static_cast<float>(rows)));
    std::vector<float> values(static_cast<size_t>(rows * columns));
    for (float& value : values) value = normal(random);
    return Array::from<float>(values, {rows, columns});
  };
  Arrays parameters{matrix(kVocabulary, kWidth), matrix(kWidth, kVocabulary)};
  for (int64_t i = 0; i < kLayers; ++i) {
    for (int j = 0; j < 4; ++j) parameters.push_back(matrix(kWidth, kWidth));
    parameters.push_back(matrix(kWidth, kHidden));
    parameters.push_back(matrix(kHidden, kWidth));
  }
  return parameters;
}

// x_BLD and the layer's matrices -> x_BLD
Arrays layer(const Arrays& in) {
  const Array& x = in[0];
  auto heads = [&](const Array& y) {
    return transpose(reshape(y, {kBatch, kLength, kHeads, kWidth / kHeads}), {0, 2, 1, 3});
  };
  Array zero = Array::from<int32_t>({0}, {});
  RopeOptions turn{.dims = kWidth / kHeads};
  Array h = rms_norm(x, {}, 1e-5);
  Array q = rope(heads(matmul(h, in[1])), zero, turn),
        k = rope(heads(matmul(h, in[2])), zero, turn);
  Array y = attention(q, k, heads(matmul(h, in[3])), {.scale = 0.25, .causal = true});
  Array a = x + matmul(reshape(transpose(y, {0, 2, 1, 3}), {kBatch, kLength, kWidth}), in[4]);
  return {a + matmul(nn::gelu_tanh(matmul(rms_norm(a, {}, 1e-5), in[5])), in[6])};
}

// Mean cross-entropy of the next character.
Array loss_of(const Arrays& p, const Array& ids, const Array& next, bool checkpointed) {
  ArraysFunction run = checkpointed ? checkpoint(layer) : ArraysFunction(layer);
  Array x = take(p[0], ids, 0);
  for (size_t i = 0; i < kLayers; ++i) {
    Arrays in{x};
    for (size_t j = 0; j < kPerLayer; ++j) in.push_back(p[2 + i * kPerLayer + j]);
    x = run(in)[0];
  }
  Array logits = matmul(rms_norm(x, {}, 1e-5), p[1]);
  Array chosen = take_along_axis(logits, expand_dims(next, {2}), 2);
  return mean(logsumexp(logits, std::vector<int>{2}, true) - chosen);
}

struct Trained {
  std::vector<float> losses;
  int64_t activations = 0;  // peak memory beyond parameters and moments, in bytes
};

Trained train(bool checkpointed, int steps) {
  std::string all = text();
  std::mt19937 random(7);
  Arrays p = initial_parameters(), m, v;
  for (const Array& a : p) {
    m.push_back(zeros_like(a));
    v.push_back(zeros_like(a));
  }
  Trained run;
  reset_peak_memory();
  for (int step = 1; step <= steps; ++step) {
    std::vector<int32_t> ids, next;
    for (int64_t b = 0; b < kBatch; ++b) {
      size_t at = random() % (all.size() - kLength - 1);
      for (size_t i = 0; i < static_cast<size_t>(kLength); ++i) {
        ids.push_back(all[at + i] & 127);
        next.push_back(all[at + i + 1] & 127);
      }
    }
    Array ids_BL = Array::from<int32_t>(ids, {kBatch, kLength}),
          next_BL = Array::from<int32_t>(next, {kBatch, kLength});
    std::vector<int> all_parameters(p.size());
    for (size_t i = 0; i < p.size(); ++i) all_parameters[i] = static_cast<int>(i);
    auto f = value_and_grad(
        [&](const Arrays& q) { return Arrays{loss_of(q, ids_BL, next_BL, checkpointed)}; },
        all_parameters);
    auto [values, grads] = f(p);
    // Adam (Kingma and Ba 2014, arXiv:1412.6980).
    float rate = 3e-3f * std::sqrt(1 - std::pow(0.99f, static_cast<float>(step))) /
                 (1 - std::pow(0.9f, static_cast<float>(step)));
    Arrays all_state{values[0]};
    for (size_t i = 0; i < p.size(); ++i) {
      m[i] = m[i] * 0.9f + grads[i] * 0.1f;
      v[i] = v[i] * 0.99f + square(grads[i]) * 0.01f;
      p[i] = p[i] - m[i] * rate / (sqrt(v[i]) + 1e-8f);
      for (const Array& a : {m[i], v[i], p[i]}) all_state.push_back(a);
    }
    grads.clear();
    eval(all_state);
    run.losses.push_back(values[0].item<float>());
  }
  int64_t state = 0;
  for (const Array& a : p) state += 3 * a.nbytes();  // parameters and moments
  run.activations = memory_use(DeviceKind::Cpu).peak - state;
  return run;
}

TEST(Training, ADecoderLearnsWithAndWithoutCheckpoints) {
  Trained plain = train(false, 120), saved = train(true, 12);
  EXPECT_TRUE(std::equal(saved.losses.begin(), saved.losses.end(), plain.losses.begin()));
  EXPECT_GT(saved.activations, 0);
  EXPECT_LT(saved.activations, plain.activations / 2)
      << plain.activations << " bytes without checkpoints";
  float last = 0;
  for (size_t i = 100; i < 120; ++i) last += plain.losses[i] / 20;
  EXPECT_NEAR(plain.losses[0], std::log(128.0f), 1.0f);
  EXPECT_LT(last, 2.7f);
}

// One plan serves all steps once their shapes are known.
TEST(Training, StepsShareTheirPlan) {
  train(false, 2);
  reset_counters();
  train(false, 3);
  EXPECT_EQ(counters().plan_misses, 0);
}

}  // namespace
}  // namespace mica
