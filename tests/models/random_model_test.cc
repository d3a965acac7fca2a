// Named shapes and random models: real sizes, every storage, equal seeds give equal files.
#include "models/random_model.h"

#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>

#include "base/file.h"
#include "io/checkpoint.h"
#include "models/load.h"
#include "models/registry.h"
#include "models/shapes.h"
#include "ops/elementwise.h"
#include "ops/quantized.h"
#include "ops/reduce.h"

namespace mica::models {
namespace {

namespace fs = std::filesystem;

class Folder {
 public:
  Folder() {
    char pattern[] = "/tmp/mica-random-XXXXXX";
    path = mkdtemp(pattern);
  }
  ~Folder() { fs::remove_all(path); }
  std::string path;
};

// Elements that a configuration asks for.
class Elements : public nn::Visitor {
 public:
  int64_t count = 0;

 protected:
  void on_parameter(const std::string&, Array&, const Shape& shape) override {
    int64_t size = 1;
    for (int64_t extent : shape) size *= extent;
    count += size;
  }
};

double millions_of(const std::string& shape) {
  Elements elements;
  elements.module("", *make_model(shape_config(find_shape(shape))));
  return static_cast<double>(elements.count) / 1e6;
}

TEST(Shapes, HaveTheirModelsSizes) {
  EXPECT_NEAR(millions_of("llama-1b"), 1235.8, 0.1);
  EXPECT_NEAR(millions_of("llama-8b"), 8030.3, 0.1);
  EXPECT_NEAR(millions_of("qwen3-0.6b"), 596.0, 0.1);
  EXPECT_NEAR(millions_of("gpt2-124m"), 124.4, 0.1);
  EXPECT_NEAR(millions_of("moe-7b-a1b"), 6919.1, 0.1);
}

TEST(Shapes, MayBeCutInDepth) {
  for (const NamedShape& shape : named_shapes())
    EXPECT_EQ(make_model(shape_config(shape, {.layers = 1}))->info().layers, 1) << shape.name;
  EXPECT_THROW(shape_config(find_shape("tiny-llama"), {.layers = 3}), Error);
  EXPECT_THROW(shape_config(find_shape("tiny-llama"), {.layers = -1}), Error);
}

TEST(Shapes, AnUnknownNameIsAnErrorThatKnowsBetter) {
  try {
    find_shape("lama-1b");
    FAIL();
  } catch (const Error& error) {
    const std::string text = error.what();
    EXPECT_NE(text.find("did you mean 'llama-1b'"), std::string::npos) << text;
    EXPECT_NE(text.find("moe-7b-a1b"), std::string::npos) << text;
  }
}

struct Storage {
  std::optional<nn::Quantization> quantization;
  Dtype dtype;
};

const Storage kStorages[] = {
    {{}, Dtype::F32},         {{}, Dtype::F16},        {{}, Dtype::BF16},
    {{{32, 2}}, Dtype::F32},  {{{64, 3}}, Dtype::F16}, {{{64, 4}}, Dtype::BF16},
    {{{128, 5}}, Dtype::F32}, {{{16, 6}}, Dtype::F32}, {{{32, 8}}, Dtype::F16}};

struct Moments {
  double mean, deviation;
};
Moments moments_of(const Array& values) {
  Array wide = astype(values, Dtype::F32);
  const double mean = mica::mean(wide).item<float>();
  const double square = mica::mean(wide * wide).item<float>();
  return {mean, std::sqrt(square - mean * mean)};
}

Array dense_matrix(const io::Checkpoint& checkpoint, const std::string& stem, const Json& config) {
  Array weight = checkpoint.array(stem + ".weight");
  if (weight.dtype() != Dtype::U32) return weight;
  const nn::Quantization q = read_quantization(config.at("quantization"));
  auto terms = [&](const char* end) { return astype(checkpoint.array(stem + end), Dtype::F32); };
  return dequantize(weight, terms(".scales"), terms(".biases"), q.group_size, q.bits);
}

TEST(RandomModel, RunsInEveryStorage) {
  for (const char* name : {"tiny-llama", "tiny-moe"}) {
    for (const auto& [quantization, dtype] : kStorages) {
      Folder folder;
      write_random_model(shape_config(find_shape(name), {.quantization = quantization}),
                         folder.path, {.dtype = dtype});
      LoadedModel loaded = load_model(folder.path);
      EXPECT_EQ(loaded.model->info().activations, dtype);
      nn::SequenceCache cache = loaded.model->make_cache(true);
      nn::Batch batch({&cache}, 3);
      Array ids = Array::from<int32_t>({1, 2, 3}, {1, 3});
      Array logits = astype(loaded.model->forward(ids, batch, LogitsAt::All), Dtype::F32);
      for (float logit : logits.to_vector<float>()) ASSERT_TRUE(std::isfinite(logit));
      EXPECT_GT(moments_of(logits).deviation, 0.01);
    }
  }
}

TEST(RandomModel, WeightsLookNormal) {
  for (const auto& [quantization, dtype] : kStorages) {
    Folder folder;
    write_random_model(shape_config(find_shape("tiny-llama"), {.quantization = quantization}),
                       folder.path, {.dtype = dtype});
    const io::Checkpoint checkpoint(folder.path);
    const Json config = Json::load(folder.path + "/config.json");
    for (const char* stem : {"model.embed_tokens", "model.layers.1.mlp.down_proj"}) {
      const auto [mean, deviation] = moments_of(dense_matrix(checkpoint, stem, config));
      EXPECT_NEAR(mean, 0, 5e-4) << stem;
      EXPECT_NEAR(deviation, 0.02, 1e-3) << stem;
    }
    const auto norm = moments_of(checkpoint.array("model.norm.weight"));
    EXPECT_NEAR(norm.mean, 1, 0.01);
    EXPECT_NEAR(norm.deviation, 0.02, 0.01);
  }
}

TEST(RandomModel, PackedIntegersTakeEveryLevel) {
  Folder folder;
  write_random_model(shape_config(find_shape("tiny-llama"), {.quantization = {{64, 4}}}),
                     folder.path);
  const io::Checkpoint checkpoint(folder.path);
  std::array<int64_t, 16> counts{};
  for (uint32_t word : checkpoint.array("lm_head.weight").to_vector<uint32_t>())
    for (int i = 0; i < 8; ++i) ++counts[word >> (4 * i) & 15];
  for (int64_t count : counts) EXPECT_GT(count, 0);
  EXPECT_GT(counts[7], 5 * counts[0]);  // a bell
}

std::string weights_of(const RandomModelOptions& options) {
  Folder folder;
  write_random_model(shape_config(find_shape("tiny-moe"), {.quantization = {{64, 4}}}), folder.path,
                     options);
  return read_file(folder.path + "/model.safetensors", 1 << 30);
}

TEST(RandomModel, ASeedSaysAll) {
  const std::string first = weights_of({.seed = 7});
  EXPECT_TRUE(first == weights_of({.seed = 7}));
  EXPECT_FALSE(first == weights_of({.seed = 8}));
}

TEST(RandomModel, ExpertsLieInStacks) {
  Folder folder;
  write_random_model(shape_config(find_shape("tiny-moe")), folder.path);
  const io::Checkpoint checkpoint(folder.path);
  const auto* stack =
      checkpoint.find("model.layers.0.block_sparse_moe.switch_mlp.down_proj.weight");
  ASSERT_NE(stack, nullptr);
  EXPECT_EQ(stack->shape, (std::vector<int64_t>{8, 128, 128}));
}

TEST(RandomModel, WhatCannotBeIsAnErrorAndLeavesNothing) {
  Folder folder;
  const NamedShape& shape = find_shape("tiny-llama");
  auto refuses = [&](Json config, const RandomModelOptions& options) {
    EXPECT_THROW(write_random_model(std::move(config), folder.path, options), Error);
    EXPECT_TRUE(fs::is_empty(folder.path));
  };
  refuses(shape_config(shape, {.quantization = {{64, 7}}}), {});
  refuses(shape_config(shape, {.quantization = {{48, 4}}}), {});
  refuses(shape_config(shape), {.dtype = Dtype::I32});
  refuses(shape_config(shape).set("model_type", "none"), {});
  refuses(shape_config(shape), {.between_pieces = [] { throw_value("enough"); }});
  EXPECT_THROW(write_random_model(shape_config(shape), folder.path + "/none"), Error);
}

}  // namespace
}  // namespace mica::models
