#include "tune/convert.h"

#include <gtest/gtest.h>

#include <cstring>
#include <fstream>

#include "base/file.h"
#include "core/counters.h"
#include "folder.h"
#include "models/load.h"
#include "ops/join.h"
#include "ops/quantized.h"
#include "ops/shape.h"
#include "tests/base/expect_error.h"
#include "tests/base/temporary_folder.h"
#include "tests/misaligned.h"

namespace mica::tune {
namespace {

namespace fs = std::filesystem;
using testing::config_of;
using testing::ModelFolder;

bool same_bits(const Array& a, const Array& b) {
  return a.dtype() == b.dtype() && a.shape() == b.shape() &&
         std::memcmp(a.host_bytes().get(), b.host_bytes().get(), static_cast<size_t>(a.nbytes())) ==
             0;
}

// The tensors of the result by name, checked one by one: each is expected once.
class Result {
 public:
  explicit Result(const std::string& folder) : checkpoint_(folder) {}
  ~Result() { EXPECT_EQ(seen_.size(), checkpoint_.tensors().size()); }

  void expect(const std::string& name, const Array& array) {
    seen_.insert(name);
    ASSERT_NE(checkpoint_.find(name), nullptr) << name;
    EXPECT_TRUE(same_bits(checkpoint_.array(name), array)) << name;
  }
  void expect_quantized(const std::string& module, const Array& dense, int group, int bits) {
    Arrays parts = quantize(dense, group, bits);
    const char* ends[] = {".weight", ".scales", ".biases"};
    for (size_t i = 0; i < 3; ++i) expect(module + ends[i], parts[i]);
  }

 private:
  io::Checkpoint checkpoint_;
  std::set<std::string> seen_;
};

ConvertOptions quantizing(const ModelFolder& model, int group, int bits) {
  return {.source = model.source(),
          .target = model.target(),
          .recipe = QuantizationRecipe{.standard = {group, bits}}};
}

bool is_matrix(const Array& array) { return array.rank() == 2; }

std::string module_of(const std::string& key) { return key.substr(0, key.rfind('.')); }

class Families : public ::testing::TestWithParam<const char*> {};

TEST_P(Families, AreQuantizedAsTheirOwnModulesSay) {
  ModelFolder model(config_of(GetParam()));
  Conversion conversion(quantizing(model, 32, 4));
  conversion.run();
  models::LoadedModel loaded = models::load_model(model.target());
  EXPECT_EQ(loaded.parameters.elements, conversion.plan().parameters);
  EXPECT_EQ(loaded.weight_bytes, conversion.plan().bytes);
  Result result(model.target());
  for (const auto& [key, array] : model.arrays) {
    if (is_matrix(array))
      result.expect_quantized(module_of(key), array, 32, 4);
    else
      result.expect(key, array);
  }
}

INSTANTIATE_TEST_SUITE_P(Convert, Families,
                         ::testing::Values("llama", "gemma2", "phi", "phi3", "qwen2", "qwen3",
                                           "stablelm", "starcoder2", "mistral"));

TEST(ConvertTest, ExpertsAreStacked) {
  ModelFolder model(config_of("mixtral"));
  ConvertOptions options = quantizing(model, 64, 3);
  options.recipe->layers.push_back(parse_layer_rule("switch_mlp.down_proj=8:32"));
  Conversion(options).run();
  models::load_model(model.target());
  Result result(model.target());
  for (const auto& [key, array] : model.arrays) {
    if (key.find(".experts.") != key.npos) continue;
    if (is_matrix(array))
      result.expect_quantized(module_of(key), array, 64, 3);
    else
      result.expect(key, array);
  }
  for (std::string layer : {"0", "1"}) {
    std::string moe = "model.layers." + layer + ".block_sparse_moe.";
    for (auto [own, stacked] :
         {std::pair("w1", "gate_proj"), std::pair("w2", "down_proj"), std::pair("w3", "up_proj")}) {
      Arrays all;
      for (std::string e : {"0", "1", "2"})
        all.push_back(model.arrays.at(moe + "experts." + e + '.' + own + ".weight"));
      bool down = stacked == std::string("down_proj");
      result.expect_quantized(moe + "switch_mlp." + stacked, stack(all, 0), down ? 32 : 64,
                              down ? 8 : 3);
    }
  }
}

TEST(ConvertTest, Gpt2GetsMlxKeysAndOrientation) {
  ModelFolder model(config_of("gpt2"));
  Conversion(quantizing(model, 64, 8)).run();
  Result result(model.target());
  for (const auto& [key, array] : model.arrays) {
    std::string name = "model." + key.substr(std::string("transformer.").size());
    bool table = key.find(".wte.") != key.npos || key.find(".wpe.") != key.npos;
    if (is_matrix(array))
      result.expect_quantized(module_of(name), table ? array : transpose(array), 64, 8);
    else
      result.expect(name, array);
  }
  // And back, to Hugging Face's.
  ConvertOptions back{
      .source = model.target(), .target = model.folder.path("back"), .dequantize = true};
  Conversion(back).run();
  io::Checkpoint dense(model.folder.path("back"));
  for (const auto& [key, array] : model.arrays) {
    ASSERT_NE(dense.find(key), nullptr) << key;
    EXPECT_EQ(dense.array(key).shape(), array.shape()) << key;
  }
  models::load_model(model.folder.path("back"));
}

TEST(ConvertTest, ConfigSaysHowEachLayerIsStored) {
  ModelFolder model(config_of("llama", R"(, "_name_or_path": "x", "torch_dtype": "bfloat16")"));
  ConvertOptions options = quantizing(model, 64, 4);
  for (const char* rule : {"lm_head=8", "layers.0.mlp.down_proj=6:32", "embed_tokens=none"})
    options.recipe->layers.push_back(parse_layer_rule(rule));
  Conversion(options).run();
  Json config = Json::load(model.target() + "/config.json");
  std::string expected =
      R"({"group_size":64,"bits":4,"mode":"affine",)"
      R"("model.layers.0.mlp.down_proj":{"group_size":32,"bits":6,"mode":"affine"},)"
      R"("lm_head":{"group_size":64,"bits":8,"mode":"affine"}})";
  EXPECT_EQ(config.at("quantization").dump(), expected);
  EXPECT_EQ(config.at("quantization_config").dump(), expected);
  EXPECT_FALSE(config.has("_name_or_path"));
  EXPECT_EQ(config.get<std::string>("torch_dtype"), "bfloat16");
  std::vector<std::string> keys;
  for (const auto& [key, value] : config.members()) keys.emplace_back(key);
  EXPECT_TRUE(std::is_sorted(keys.begin(), keys.end()));
  io::Checkpoint checkpoint(model.target());
  EXPECT_EQ(checkpoint.find("model.embed_tokens.scales"), nullptr);
  EXPECT_EQ(checkpoint.find("model.layers.0.mlp.down_proj.scales")->shape,
            (std::vector<int64_t>{64, 4}));
  models::load_model(model.target());
}

TEST(ConvertTest, MixedRecipesNameEveryLayer) {
  ModelFolder model(config_of("llama"));
  ConvertOptions options = quantizing(model, 64, 4);
  options.recipe->mixed = "mixed_3_6";
  Conversion(options).run();
  Json quantization = Json::load(model.target() + "/config.json").at("quantization");
  EXPECT_EQ(quantization.size(), 3u + 2 + 2 * 7);
  EXPECT_EQ(quantization.at("lm_head").get<int>("bits"), 6);
  EXPECT_EQ(quantization.at("model.embed_tokens").get<int>("bits"), 3);
  EXPECT_EQ(quantization.get<int>("bits"), 4);
  models::load_model(model.target());
}

TEST(ConvertTest, CastsBeforeItQuantizes) {
  ModelFolder model(config_of("llama", R"(, "torch_dtype": "float32")"), Dtype::F32);
  ConvertOptions options = quantizing(model, 64, 4);
  options.dtype = Dtype::F16;
  Conversion(options).run();
  Result result(model.target());
  for (const auto& [key, array] : model.arrays) {
    Array cast = astype(array, Dtype::F16);
    if (is_matrix(array))
      result.expect_quantized(module_of(key), cast, 64, 4);
    else
      result.expect(key, cast);
  }
  EXPECT_EQ(Json::load(model.target() + "/config.json").get<std::string>("torch_dtype"), "float16");
}

TEST(ConvertTest, CastsOnlyAndKeepsTheLayout) {
  ModelFolder model(config_of("mixtral"));
  Conversion({.source = model.source(), .target = model.target(), .dtype = Dtype::F32}).run();
  Result result(model.target());
  for (const auto& [key, array] : model.arrays) result.expect(key, astype(array, Dtype::F32));
}

TEST(ConvertTest, DequantizesAndCastsQuantized) {
  ModelFolder model(config_of("mixtral"));
  ConvertOptions options = quantizing(model, 32, 4);
  options.recipe->layers.push_back(parse_layer_rule("lm_head=8:64"));
  Conversion(options).run();
  std::string dense = model.folder.path("dense"), cast = model.folder.path("cast");
  Conversion({.source = model.target(), .target = dense, .dequantize = true}).run();
  {
    Result result(dense);
    for (const auto& [key, array] : model.arrays) {
      bool head = key == "lm_head.weight";
      int group = head ? 64 : 32, bits = head ? 8 : 4;
      Arrays q = is_matrix(array) ? quantize(array, group, bits) : Arrays{};
      result.expect(key, q.empty() ? array : dequantize(q[0], q[1], q[2], group, bits));
    }
  }
  Json config = Json::load(dense + "/config.json");
  EXPECT_FALSE(config.has("quantization") || config.has("quantization_config"));
  Conversion({.source = model.target(), .target = cast, .dtype = Dtype::F16}).run();
  io::Checkpoint before(model.target()), after(cast);
  EXPECT_EQ(before.tensors().size(), after.tensors().size());
  for (const auto& [name, tensor] : before.tensors()) {
    Array expected = before.array(name);
    if (is_floating(expected.dtype())) expected = astype(expected, Dtype::F16);
    EXPECT_TRUE(same_bits(after.array(name), expected)) << name;
  }
  EXPECT_EQ(Json::load(cast + "/config.json").at("quantization").dump(),
            Json::load(model.target() + "/config.json").at("quantization").dump());
  models::load_model(cast);
}

TEST(ConvertTest, CopiesWhatBelongsToTheModel) {
  ModelFolder model(config_of("llama"));
  for (const char* name : {"tokenizer.json", "generation_config.json", "chat_template.jinja",
                           "merges.txt", "tokenizer.model", "LICENSE", "README.md"})
    model.folder.write(std::string("source/") + name, name);
  for (const char* name : {"pytorch_model.bin", "model.gguf", "pytorch_model.bin.index.json",
                           ".gitattributes", "onnx/model.onnx", "other.safetensors"})
    model.folder.write(std::string("source/") + name, name);
  Conversion(quantizing(model, 64, 4)).run();
  EXPECT_EQ(names_in(model.target()),
            (std::vector<std::string>{"LICENSE", "README.md", "chat_template.jinja", "config.json",
                                      "generation_config.json", "merges.txt", "model.safetensors",
                                      "tokenizer.json", "tokenizer.model"}));
  EXPECT_EQ(read_file(model.target() + "/merges.txt", 100), "merges.txt");
}

TEST(ConvertTest, PlansWithoutWriting) {
  ModelFolder model(config_of("llama"));
  ConvertOptions options = quantizing(model, 64, 4);
  options.shard_bytes = 10000;
  Conversion conversion(options);
  EXPECT_FALSE(fs::exists(model.target()));
  ConversionPlan plan = conversion.plan();
  conversion.run();
  int64_t total = 0;
  for (const auto& file : plan.files) {
    EXPECT_EQ(fs::file_size(model.target() + '/' + file.name), file.bytes) << file.name;
    ++total;
  }
  EXPECT_GT(total, 3);
  io::Checkpoint checkpoint(model.target());
  EXPECT_EQ(plan.bytes, checkpoint.bytes());
  EXPECT_DOUBLE_EQ(plan.bits_per_weight(), 8.0 * double(plan.bytes) / double(plan.parameters));
  ASSERT_EQ(plan.matrices.size(), 1u);
  EXPECT_EQ(plan.matrices[0].matrices, 2 + 2 * 7);
  models::load_model(model.target());
}

TEST(ConvertTest, LeavesDenseWhatFillsNoGroup) {
  ModelFolder model(config_of("llama", R"(, "intermediate_size": 96)"));
  Conversion conversion(quantizing(model, 64, 4));
  EXPECT_EQ(
      conversion.plan().left_dense,
      (std::vector<std::string>{"model.layers.0.mlp.down_proj", "model.layers.1.mlp.down_proj"}));
  conversion.run();
  models::load_model(model.target());
}

// 64 MB of float32 in two matrices; files of 3 MB, memory of less than two of them: one quantized
// matrix takes nearly as much.
class Memory : public ::testing::TestWithParam<bool> {};

TEST_P(Memory, DoesNotGrowWithTheModel) {
  ModelFolder model(R"({"model_type": "llama", "vocab_size": 65536, "hidden_size": 128,
      "intermediate_size": 128, "num_hidden_layers": 1, "num_attention_heads": 2,
      "max_position_embeddings": 64})",
                    Dtype::F32);
  model.arrays.clear();
  bool aligned = GetParam();
  if (!aligned) testing::misalign(model.source() + "/model.safetensors");
  ConvertOptions options = quantizing(model, 64, 4);
  options.shard_bytes = 3 << 20;
  int64_t before = memory_use(DeviceKind::Cpu).active;
  reset_peak_memory();
  reset_counters();
  Conversion(options).run();
  int64_t pieces = aligned ? 0 : 2 * (8 << 20);  // of the source that are copied
  EXPECT_LT(memory_use(DeviceKind::Cpu).peak - before, 2 * (3 << 20) + pieces);
  if (aligned) {
    EXPECT_EQ(counters().bytes_copied, 0);
  }
}

INSTANTIATE_TEST_SUITE_P(Convert, Memory, ::testing::Bool());

TEST(ConvertTest, AnInterruptionLeavesNothing) {
  ModelFolder model(config_of("llama"));
  for (int steps : {0, 5}) {
    ConvertOptions options = quantizing(model, 64, 4);
    options.between = [steps]() mutable {
      if (steps-- == 0) throw_value("enough");
    };
    Conversion conversion(options);
    expect_error(ErrorKind::Value, "enough", [&] { conversion.run(); });
    EXPECT_EQ(names_in(model.folder.path()), std::vector<std::string>{"source"});
  }
}

TEST(ConvertTest, ASourceThatChangesIsAnError) {
  ModelFolder model(config_of("llama"));
  ConvertOptions options = quantizing(model, 64, 4);
  options.between = [&, first = true]() mutable {
    if (!std::exchange(first, false)) return;
    std::ofstream(model.source() + "/model.safetensors", std::ios::app) << "more";
  };
  Conversion conversion(options);
  expect_error(ErrorKind::Io, "was changed while it was in use", [&] { conversion.run(); });
  EXPECT_FALSE(fs::exists(model.target()));
}

TEST(ConvertTest, ReplacesOnlyModelsAndOnlyIfAsked) {
  ModelFolder model(config_of("llama"));
  model.folder.write("target/notes", "");
  ConvertOptions options = quantizing(model, 64, 4);
  expect_error(ErrorKind::Io, "target exists and is not empty", [&] { Conversion{options}; });
  options.replace = true;
  expect_error(ErrorKind::Io, "something that is no model", [&] { Conversion{options}; });
  model.folder.write("target/config.json", "");
  Conversion(options).run();
  EXPECT_EQ(names_in(model.target()),
            (std::vector<std::string>{"config.json", "model.safetensors"}));
  EXPECT_EQ(names_in(model.folder.path()), (std::vector<std::string>{"source", "target"}));
}

TEST(ConvertTest, NumbersThatJsonLacksAreNotBent) {
  ModelFolder model(config_of("llama", R"(, "limits": {"time": [0.5, Infinity]})"));
  expect_error(ErrorKind::Value, "'limits.time[1]' is not finite",
               [&] { Conversion{quantizing(model, 64, 4)}; });
}

TEST(ConvertTest, RefusesWhatCannotBe) {
  ModelFolder model(config_of("llama"));
  auto refused = [](ErrorKind kind, std::string_view part, const ConvertOptions& options) {
    expect_error(kind, part, [&] { Conversion{options}; });
  };
  ConvertOptions options = quantizing(model, 64, 4);
  options.target = model.source();
  refused(ErrorKind::Io, "is the source or holds it", options);
  options.replace = true;
  options.target = model.folder.path();
  refused(ErrorKind::Io, "is the source or holds it", options);
  refused(ErrorKind::Value, "7 bits in groups of 64", quantizing(model, 64, 7));
  refused(ErrorKind::Value, "4 bits in groups of 48", quantizing(model, 48, 4));
  refused(ErrorKind::Value, "is not quantized",
          {.source = model.source(), .target = model.target(), .dequantize = true});
  Conversion(quantizing(model, 64, 4)).run();
  options = quantizing(model, 64, 4);
  options.source = model.target();
  options.target = model.folder.path("again");
  refused(ErrorKind::Value, "is quantized already", options);
}

}  // namespace
}  // namespace mica::tune
