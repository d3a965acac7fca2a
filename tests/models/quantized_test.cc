// Quantized checkpoints: written from random models, loaded, run as stored, compared with the same
// models of dequantized weights.
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <functional>

#include "core/counters.h"
#include "io/safetensors_writer.h"
#include "models/load.h"
#include "ops/elementwise.h"
#include "ops/join.h"
#include "ops/quantized.h"
#include "random_model.h"

namespace mica::models {
namespace {

namespace fs = std::filesystem;
using Weights = std::map<std::string, Array>;

std::string config_of(const std::string& type, bool tied, const std::string& more = "") {
  return R"({"model_type": ")" + type + R"(", "vocab_size": 512, "hidden_size": 256,
    "intermediate_size": 512, "num_hidden_layers": 2, "num_attention_heads": 8, "head_dim": 32,
    "num_key_value_heads": 1, "max_position_embeddings": 64, "num_local_experts": 3,
    "num_experts_per_tok": 2, "tie_word_embeddings": )" +
         (tied ? "true" : "false") + more + "}";
}

// How a matrix is stored; none: dense.
using Rule = std::function<std::optional<nn::Quantization>(const std::string& module)>;

// A model of dequantized weights, and the tensors of its quantized checkpoint.
struct QuantizedPair {
  std::shared_ptr<Model> dense;
  Weights stored;
};

class Quantizer : public nn::Visitor {
 public:
  Quantizer(Rule rule, Weights& stored) : rule_(std::move(rule)), stored_(stored) {}

 protected:
  void on_parameter(const std::string& key, Array& array, const Shape& shape) override {
    auto q = shape.size() == 2 ? rule_(path()) : std::nullopt;
    if (!q) {
      stored_.insert_or_assign(key, array);
      return;
    }
    Arrays parts = quantize(astype(array, Dtype::BF16), q->group_size, q->bits);
    const char* ends[] = {".weight", ".scales", ".biases"};
    for (size_t i = 0; i < 3; ++i) stored_.insert_or_assign(path() + ends[i], parts[i]);
    array = dequantize(parts[0], astype(parts[1], Dtype::F32), astype(parts[2], Dtype::F32),
                       q->group_size, q->bits);
  }

 private:
  Rule rule_;
  Weights& stored_;
};

QuantizedPair quantized_pair(const std::string& config, const Rule& rule) {
  QuantizedPair pair{testing::random_model(config), {}};
  Quantizer quantizer(rule, pair.stored);
  quantizer.module("", *pair.dense);
  return pair;
}

// Experts as MLX-LM has them: one stack for all of a layer.
void stack_experts(Weights& weights) {
  for (std::string layer : {"0", "1"}) {
    std::string moe = "model.layers." + layer + ".block_sparse_moe.";
    for (auto [own, stacked] :
         {std::pair("w1", "gate_proj"), std::pair("w2", "down_proj"), std::pair("w3", "up_proj")}) {
      for (std::string part : {".weight", ".scales", ".biases"}) {
        Arrays all;
        for (std::string e : {"0", "1", "2"}) {
          auto node = weights.extract(moe + "experts." + e + '.' + own + part);
          if (node) all.push_back(node.mapped());
        }
        if (!all.empty())
          weights.insert_or_assign(moe + "switch_mlp." + stacked + part, stack(all, 0));
      }
    }
  }
}

class Folder {
 public:
  Folder(const std::string& config, const Weights& weights) {
    char pattern[] = "/tmp/mica-quantized-XXXXXX";
    path = mkdtemp(pattern);
    std::ofstream(path + "/config.json") << config;
    std::vector<std::shared_ptr<const std::byte>> alive;
    std::vector<io::TensorData> data;
    for (const auto& [name, array] : weights) {
      alive.push_back(array.host_bytes());
      const char* dtype = array.dtype() == Dtype::U32    ? "U32"
                          : array.dtype() == Dtype::BF16 ? "BF16"
                                                         : "F32";
      data.push_back({name,
                      dtype,
                      {array.shape().begin(), array.shape().end()},
                      {alive.back().get(), static_cast<size_t>(array.nbytes())}});
    }
    io::write_safetensors(path + "/model.safetensors", data);
  }
  ~Folder() { fs::remove_all(path); }
  std::string path;
};

std::vector<float> logits_of(Model& model, const std::vector<int32_t>& ids) {
  nn::SequenceCache cache = model.make_cache(true);
  auto count = static_cast<int64_t>(ids.size());
  nn::Batch batch({&cache}, count);
  return model.forward(Array::from<int32_t>(ids, {1, count}), batch, LogitsAt::All)
      .to_vector<float>();
}

// Loads the folder, runs it beside the dense model, and looks at the memory that this takes.
void expect_runs_as_stored(const Folder& folder, Model& dense) {
  std::vector<int32_t> ids{5, 80, 411, 3, 3, 511, 0, 42, 7};
  auto expected = logits_of(dense, ids);
  int64_t before = memory_use(DeviceKind::Cpu).active;
  reset_counters();
  LoadedModel loaded = load_model(folder.path, {.activations = Dtype::F32, .exact = true});
  int64_t weights = loaded.weight_bytes, dense_bytes = 4 * loaded.parameters.elements;
  EXPECT_EQ(loaded.parameters.bytes, weights);
  EXPECT_LT(memory_use(DeviceKind::Cpu).active - before, weights / 20);
  EXPECT_EQ(counters().bytes_copied, 0);
  reset_peak_memory();
  auto got = logits_of(*loaded.model, ids);
  // A copy of the dequantized weights, in halves at least, would show.
  EXPECT_LT(memory_use(DeviceKind::Cpu).peak - before, dense_bytes / 4);
  ASSERT_EQ(got.size(), expected.size());
  double worst = 0, largest = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    worst = std::max(worst, std::abs(double(got[i]) - double(expected[i])));
    largest = std::max(largest, std::abs(double(expected[i])));
  }
  EXPECT_LT(worst, 1e-4 * largest);
}

// Unless it is to be exact, a model rounds activations where that is served.
void expect_rounds_activations(const Folder& folder, bool served) {
  std::vector<int32_t> ids{5, 80, 411, 3, 3, 511, 0, 42, 7};
  auto logits = [&](bool exact) {
    return logits_of(*load_model(folder.path, {.activations = Dtype::F32, .exact = exact}).model,
                     ids);
  };
  std::vector<float> exact = logits(true), rounded = logits(false);
  EXPECT_EQ(exact != rounded, served);
  double error = 0, norm = 0;
  for (size_t i = 0; i < exact.size(); ++i) {
    error += std::pow(double(rounded[i]) - double(exact[i]), 2);
    norm += std::pow(double(exact[i]), 2);
  }
  EXPECT_LT(std::sqrt(error / norm), 0.15);  // of random weights, through every layer
}

struct Case {
  std::string type;
  bool tied;
  nn::Quantization all;
};

void PrintTo(const Case& one, std::ostream* out) {
  *out << one.type << (one.tied ? "Tied" : "") << one.all.bits << "bits" << one.all.group_size;
}

class Quantized : public ::testing::TestWithParam<Case> {};

TEST_P(Quantized, IsTheModelOfDequantizedWeights) {
  auto [type, tied, all] = GetParam();
  QuantizedPair pair =
      quantized_pair(config_of(type, tied), [&](const std::string&) { return all; });
  std::string config =
      config_of(type, tied,
                R"(, "quantization": {"group_size": )" + std::to_string(all.group_size) +
                    R"(, "bits": )" + std::to_string(all.bits) + R"(, "mode": "affine"})");
  Folder folder(config, pair.stored);
  expect_runs_as_stored(folder, *pair.dense);
  expect_rounds_activations(folder, all.bits == 4 || all.bits == 8);
  if (type != "mixtral") return;
  stack_experts(pair.stored);
  expect_runs_as_stored(Folder(config, pair.stored), *pair.dense);
}

INSTANTIATE_TEST_SUITE_P(
    Models, Quantized,
    ::testing::Values(Case{"llama", false, {64, 4}}, Case{"llama", true, {64, 8}},
                      Case{"llama", false, {64, 6}}, Case{"qwen2", true, {32, 4}},
                      Case{"phi3", false, {128, 4}}, Case{"gemma2", true, {64, 4}},
                      Case{"mixtral", false, {64, 4}}, Case{"mixtral", true, {32, 8}}),
    ::testing::PrintToStringParamName());

TEST(QuantizedLayers, HaveTheirOwnBitsOrNone) {
  auto rule = [](const std::string& module) -> std::optional<nn::Quantization> {
    if (module == "model.layers.0.self_attn.q_proj") return nn::Quantization{32, 8};
    if (module == "lm_head") return nn::Quantization{64, 6};
    if (module == "model.embed_tokens") return std::nullopt;
    return nn::Quantization{64, 4};
  };
  QuantizedPair pair = quantized_pair(config_of("llama", false), rule);
  std::string quantization = R"(, "quantization": {"group_size": 64, "bits": 4,
      "model.embed_tokens": false, "lm_head": {"bits": 6},
      "model.layers.0.self_attn.q_proj": {"group_size": 32, "bits": 8}})";
  Folder folder(config_of("llama", false, quantization), pair.stored);
  auto expected = logits_of(*pair.dense, {1, 2, 3});
  auto got = logits_of(*load_model(folder.path, {.activations = Dtype::F32, .exact = true}).model,
                       {1, 2, 3});
  ASSERT_EQ(got.size(), expected.size());
  for (size_t i = 0; i < got.size(); i += 37) EXPECT_NEAR(got[i], expected[i], 1e-2) << i;
}

TEST(QuantizedLayers, OfOtherModesAreRefused) {
  QuantizedPair pair = quantized_pair(config_of("llama", true),
                                      [](const std::string&) { return nn::Quantization{64, 4}; });
  Folder folder(config_of("llama", true, R"(, "quantization": {"group_size": 64, "bits": 4,
      "model.embed_tokens": {"group_size": 32, "bits": 4, "mode": "mxfp4"}})"),
                pair.stored);
  try {
    load_model(folder.path);
    FAIL() << "loaded";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("mxfp4"), std::string::npos) << error.what();
  }
}

// MLX-LM: keys under "model.", every matrix as [outputs, inputs].
TEST(QuantizedLayers, OfGpt2HaveMlxKeysAndShapes) {
  std::string sizes = R"({"model_type": "gpt2", "vocab_size": 512, "n_embd": 64, "n_layer": 2,
      "n_head": 2, "n_positions": 32)";
  std::string config = sizes + R"(, "quantization": {"group_size": 64, "bits": 8}})";
  QuantizedPair pair =
      quantized_pair(config, [](const std::string& module) -> std::optional<nn::Quantization> {
        return module.ends_with("wpe") ? std::nullopt : std::optional(nn::Quantization{64, 8});
      });
  for (const auto& [name, array] : pair.stored) EXPECT_TRUE(name.starts_with("model.")) << name;
  Folder folder(config, pair.stored);
  auto expected = logits_of(*pair.dense, {1, 2, 3});
  auto got = logits_of(*load_model(folder.path, {.activations = Dtype::F32, .exact = true}).model,
                       {1, 2, 3});
  ASSERT_EQ(got.size(), expected.size());
  for (size_t i = 0; i < got.size(); i += 37) EXPECT_NEAR(got[i], expected[i], 1e-2) << i;
}

TEST(QuantizedExperts, StacksOfAnotherSizeAreErrors) {
  QuantizedPair pair = quantized_pair(config_of("mixtral", false),
                                      [](const std::string&) { return nn::Quantization{64, 4}; });
  stack_experts(pair.stored);
  std::string config = config_of("mixtral", false, R"(, "quantization": {"bits": 4})");
  config.replace(config.find("\"num_local_experts\": 3"), 22, "\"num_local_experts\": 2");
  Folder folder(config, pair.stored);
  try {
    load_model(folder.path);
    FAIL() << "loaded";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("block_sparse_moe"), std::string::npos)
        << error.what();
  }
}

}  // namespace
}  // namespace mica::models
