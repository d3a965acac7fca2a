// Loading: what is used in place, and a clear error for every kind of folder that cannot be loaded.
#include "models/load.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <functional>
#include <numeric>

#include "base/file.h"
#include "base/memory_info.h"
#include "core/counters.h"
#include "io/checkpoint.h"
#include "io/safetensors_writer.h"
#include "models/registry.h"
#include "ops/elementwise.h"

namespace mica::models {
namespace {

namespace fs = std::filesystem;

constexpr const char* kConfig = R"({"model_type": "llama", "vocab_size": 16, "hidden_size": 8,
  "intermediate_size": 12, "num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": 32})";

struct Tensor {
  std::string name;
  std::string dtype = "F32";
  std::vector<int64_t> shape;
};

std::vector<Tensor> llama_tensors() {
  std::string layer = "model.layers.0.";
  return {{"model.embed_tokens.weight", "F32", {16, 8}},
          {"lm_head.weight", "F32", {16, 8}},
          {"model.norm.weight", "F32", {8}},
          {layer + "input_layernorm.weight", "F32", {8}},
          {layer + "post_attention_layernorm.weight", "F32", {8}},
          {layer + "self_attn.q_proj.weight", "F32", {8, 8}},
          {layer + "self_attn.k_proj.weight", "F32", {8, 8}},
          {layer + "self_attn.v_proj.weight", "F32", {8, 8}},
          {layer + "self_attn.o_proj.weight", "F32", {8, 8}},
          {layer + "mlp.gate_proj.weight", "F32", {12, 8}},
          {layer + "mlp.up_proj.weight", "F32", {12, 8}},
          {layer + "mlp.down_proj.weight", "F32", {8, 12}}};
}

class Folder {
 public:
  Folder() {
    char pattern[] = "/tmp/mica-load-XXXXXX";
    path = mkdtemp(pattern);
    write("config.json", kConfig);
    tensors("model.safetensors", llama_tensors());
  }
  ~Folder() { fs::remove_all(path); }

  void write(const std::string& name, const std::string& text) {
    std::ofstream(path + "/" + name) << text;
  }
  void remove(const std::string& name) { fs::remove(path + "/" + name); }
  void tensors(const std::string& name, const std::vector<Tensor>& list) {
    static const std::vector<std::byte> zeros(1 << 16);
    std::vector<io::TensorData> data;
    for (const Tensor& tensor : list) {
      size_t bytes = static_cast<size_t>(io::safetensors_dtype_size(tensor.dtype));
      for (int64_t extent : tensor.shape) bytes *= static_cast<size_t>(extent);
      data.push_back({tensor.name, tensor.dtype, tensor.shape, std::span(zeros).first(bytes)});
    }
    io::write_safetensors(path + "/" + name, data);
  }

  std::string path;
};

// The message of the error that loading throws; "" if it loads.
std::string error_of(const Folder& folder, const LoadOptions& options = {}) {
  try {
    load_model(folder.path, options);
    return "";
  } catch (const Error& error) {
    return error.what();
  }
}

void expect_error(const std::function<void(Folder&)>& change,
                  std::initializer_list<const char*> parts) {
  Folder folder;
  change(folder);
  std::string message = error_of(folder);
  for (const char* part : parts)
    EXPECT_NE(message.find(part), std::string::npos) << part << " in: " << message;
}

std::vector<Tensor> changed(const std::function<void(std::vector<Tensor>&)>& change) {
  auto list = llama_tensors();
  change(list);
  return list;
}

TEST(Load, UsesWeightsInPlace) {
  Folder folder;
  int64_t before = memory_use(DeviceKind::Cpu).active, mapped = mapped_bytes();
  reset_counters();
  LoadedModel loaded = load_model(folder.path);
  EXPECT_EQ(counters().bytes_copied, 0);
  EXPECT_GT(mapped_bytes(), mapped);
  EXPECT_LT(memory_use(DeviceKind::Cpu).active - before, 4096);
  EXPECT_EQ(loaded.parameters.elements, 16 * 8 * 2 + 3 * 8 + 4 * 64 + 3 * 96);
  EXPECT_EQ(loaded.parameters.bytes, loaded.weight_bytes);
}

// A bfloat16 model of 134 MB, which takes no room on the disk: its weights are a hole in the file.
void make_large(Folder& folder) {
  folder.write("config.json", R"({"model_type": "llama", "vocab_size": 16384, "hidden_size": 1024,
      "intermediate_size": 4096, "num_hidden_layers": 2, "num_attention_heads": 16})");
  std::vector<Tensor> list{{"model.embed_tokens.weight", "BF16", {16384, 1024}},
                           {"lm_head.weight", "BF16", {16384, 1024}},
                           {"model.norm.weight", "BF16", {1024}}};
  for (const char* layer : {"model.layers.0.", "model.layers.1."}) {
    for (const char* norm : {"input_layernorm.weight", "post_attention_layernorm.weight"})
      list.push_back({std::string(layer) + norm, "BF16", {1024}});
    for (const char* name : {"q", "k", "v", "o"})
      list.push_back(
          {fmt::format("{}self_attn.{}_proj.weight", layer, name), "BF16", {1024, 1024}});
    for (const char* name : {"gate", "up"})
      list.push_back({fmt::format("{}mlp.{}_proj.weight", layer, name), "BF16", {4096, 1024}});
    list.push_back({std::string(layer) + "mlp.down_proj.weight", "BF16", {1024, 4096}});
  }
  std::string header;
  int64_t at = 0;
  for (const Tensor& tensor : list) {
    const int64_t begin = at;
    at +=
        std::accumulate(tensor.shape.begin(), tensor.shape.end(), int64_t{2}, std::multiplies<>());
    header += fmt::format(R"({}"{}":{{"dtype":"BF16","shape":[{}],"data_offsets":[{},{}]}})",
                          header.empty() ? '{' : ',', tensor.name, fmt::join(tensor.shape, ","),
                          begin, at);
  }
  header += std::string(8 - (header.size() + 1) % 8, ' ') + '}';
  const auto length = static_cast<uint64_t>(header.size());
  folder.write("model.safetensors",
               std::string(reinterpret_cast<const char*>(&length), 8) + header);
  fs::resize_file(folder.path + "/model.safetensors", 8 + length + static_cast<uint64_t>(at));
}

// The bookkeeping of sanitizers is anonymous too.
#if !defined(__SANITIZE_THREAD__) && !defined(__SANITIZE_ADDRESS__)
TEST(Load, AnonymousMemoryStaysBelowAFewPercent) {
  Folder folder;
  make_large(folder);
  auto anonymous = [] { return static_cast<int64_t>(memory_usage().anonymous); };
  const int64_t before = anonymous();
  LoadedModel loaded = load_model(folder.path);
  EXPECT_EQ(loaded.parameters.bytes, loaded.weight_bytes);
  EXPECT_GT(loaded.weight_bytes, 130'000'000);
  const int64_t allowed = loaded.weight_bytes / 20;
  EXPECT_LT(anonymous() - before, allowed / 5);
  // Nor are weights copied when they are used.
  nn::SequenceCache cache = loaded.model->make_cache(true);
  nn::Batch batch({&cache}, 1);
  loaded.model->forward(Array::from<int32_t>({5}, {1, 1}), batch, LogitsAt::Last).eval();
  EXPECT_LT(anonymous() - before, allowed);
}
#endif

TEST(Load, SeveralFilesOfAnIndex) {
  Folder folder;
  auto list = llama_tensors();
  std::string map;
  for (const Tensor& tensor : list)
    map += (map.empty() ? "\"" : ", \"") + tensor.name + "\": \"" +
           (tensor.name == "lm_head.weight" ? "b" : "a") + ".safetensors\"";
  folder.remove("model.safetensors");
  folder.tensors("a.safetensors", changed([](auto& l) { l.erase(l.begin() + 1); }));
  folder.tensors("b.safetensors", {list[1]});
  folder.tensors("stray.safetensors", {list[1]});
  folder.write("model.safetensors.index.json", "{\"weight_map\": {" + map + "}}");
  EXPECT_EQ(error_of(folder), "");
}

TEST(Load, PrefixesMayBeMissing) {
  Folder folder;
  folder.tensors("model.safetensors", changed([](auto& list) {
                   for (Tensor& tensor : list) {
                     if (tensor.name.starts_with("model.")) tensor.name = tensor.name.substr(6);
                   }
                 }));
  EXPECT_EQ(error_of(folder), "");
}

TEST(Load, IgnorableTensorsAreIgnored) {
  Folder folder;
  folder.tensors("model.safetensors", changed([](auto& list) {
                   list.push_back({"model.layers.0.self_attn.rotary_emb.inv_freq", "F32", {2}});
                 }));
  EXPECT_EQ(error_of(folder), "");
  Folder tied;
  tied.write("config.json", std::string(kConfig).insert(1, "\"tie_word_embeddings\": true, "));
  EXPECT_EQ(error_of(tied), "");
}

TEST(Load, FoldersThatAreNotThere) {
  expect_error([](Folder& f) { fs::remove_all(f.path); }, {"config.json", "No such file"});
  expect_error([](Folder& f) { f.remove("config.json"); }, {"config.json"});
  expect_error([](Folder& f) { f.remove("model.safetensors"); }, {"neither", "model.safetensors"});
  expect_error([](Folder& f) { f.remove("model.safetensors"), f.write("pytorch_model.bin", "x"); },
               {"pickled", "safetensors"});
}

TEST(Load, BadConfigurations) {
  auto config = [](const std::string& text) {
    return [text](Folder& f) { f.write("config.json", text); };
  };
  expect_error(config(""), {"config.json"});
  expect_error(config("{\"model_type\": "), {"config.json"});
  expect_error(config("[1]"), {"config.json"});
  expect_error(config("{}"), {"config.json", "model_type"});
  expect_error(config(R"({"model_type": "frobnicator"})"), {"frobnicator", "llama", "qwen3"});
  auto with = [&](const std::string& member) {
    return config(std::string(kConfig).insert(1, member + ", "));
  };
  expect_error(config(R"({"model_type": "llama", "hidden_size": "8"})"), {"hidden_size", "string"});
  expect_error(config(R"({"model_type": "llama", "hidden_size": -8})"), {"hidden_size", "-8"});
  expect_error(config(R"({"model_type": "llama", "num_hidden_layers": 1e30})"),
               {"num_hidden_layers"});
  expect_error(with(R"("num_key_value_heads": 3)"), {"config.json", "heads"});
  expect_error(with(R"("hidden_act": "sparkle")"), {"config.json", "sparkle", "silu"});
  expect_error(with(R"("rope_scaling": {"rope_type": "spiral"})"), {"spiral", "yarn"});
  expect_error(with(R"("rope_scaling": {"rope_type": "linear"})"), {"factor"});
  expect_error(
      with(
          R"("rope_scaling": {"rope_type": "longrope", "short_factor": [1], "long_factor": [1, 1]})"),
      {"short_factor", "2"});
  expect_error(with(R"("quantization_config": {"quant_method": "gptq"})"), {"gptq"});
  expect_error(with(R"("quantization": {"group_size": 64, "bits": 7})"), {"bits", "7"});
  expect_error(with(R"("quantization": {"mode": "mxfp4"})"), {"mxfp4", "affine"});
}

void refused(const std::string& config, const char* says) {
  expect_error([&](Folder& f) { f.write("config.json", config); }, {"config.json", says});
}

// Sizes that no model has must not cost memory or time before they are refused.
TEST(Load, ConfigurationsOutOfProportion) {
  refused(R"({"model_type": "llama", "num_hidden_layers": 2147483648})", "num_hidden_layers");
  refused(R"({"model_type": "llama", "hidden_size": 2147483648})", "head_dim");
  refused(R"({"model_type": "llama", "head_dim": 2147483648})", "head_dim");
  refused(R"({"model_type": "mixtral", "num_local_experts": 2147483648})", "num_local_experts");
  refused(R"({"model_type": "mixtral", "num_hidden_layers": 16384})", "experts");
  for (const char* key : {"n_layer", "n_embd", "n_head", "n_inner", "vocab_size", "n_positions"})
    refused(fmt::format(R"({{"model_type": "gpt2", "{}": 4611686018427387904}})", key), key);
  refused(R"({"model_type": "gpt2", "n_embd": 2147483648, "n_head": 1})", "2147483648");
}

// Numbers that would make every logit NaN.
TEST(Load, NumbersThatMakeNoSense) {
  refused(R"({"model_type": "gemma2", "final_logit_softcapping": Infinity})", "final_logit");
  refused(R"({"model_type": "gemma2", "attn_logit_softcapping": 1e308})", "attn_logit");
  refused(R"({"model_type": "gemma2", "query_pre_attn_scalar": -1})", "query_pre_attn_scalar");
  refused(R"({"model_type": "llama", "rms_norm_eps": NaN})", "epsilon");
  refused(R"({"model_type": "llama", "rms_norm_eps": Infinity})", "epsilon");
  refused(R"({"model_type": "phi", "partial_rotary_factor": 1e300})", "partial_rotary_factor");
  std::string factors = "1";
  for (int i = 1; i < 48; ++i) factors += ",1";
  refused(fmt::format(R"({{"model_type": "phi3", "original_max_position_embeddings": 1,
                      "rope_scaling": {{"type": "longrope", "short_factor": [{0}],
                      "long_factor": [{0}]}}}})",
                      factors),
          "original_max_position_embeddings");
}

TEST(Load, BadTensors) {
  auto list = [](const std::function<void(std::vector<Tensor>&)>& change) {
    return [change](Folder& f) { f.tensors("model.safetensors", changed(change)); };
  };
  expect_error(list([](auto& l) { l.pop_back(); }), {"missing", "down_proj.weight"});
  expect_error(list([](auto& l) { l.push_back({"extra.weight", "F32", {2}}); }), {"extra.weight"});
  expect_error(list([](auto& l) { l[5].shape = {4, 8}; }), {"q_proj", "(4, 8)", "(8, 8)"});
  expect_error(list([](auto& l) { l[5].dtype = "I32"; }), {"q_proj", "int32"});
  expect_error(list([](auto& l) { l[5].dtype = "F64"; }), {"q_proj", "float64"});
  expect_error(list([](auto& l) { l[5].dtype = "F8_E4M3"; }), {"q_proj", "F8_E4M3"});
  expect_error(
      list([](auto& l) { l.push_back({"model.layers.0.self_attn.q_proj.scales", "F32", {8, 1}}); }),
      {"quantized", "quantization"});
}

TEST(Load, BadQuantizedTensors) {
  constexpr const char* kQuantized = R"({"model_type": "llama", "vocab_size": 16, "hidden_size": 64,
      "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2, "KEY": {"bits": 4}})";
  auto list = [&](const std::function<void(std::vector<Tensor>&)>& change, const char* key) {
    std::vector<Tensor> tensors;
    for (Tensor& tensor : llama_tensors()) {
      for (int64_t& extent : tensor.shape) extent = extent == 16 ? 16 : 64;
      tensors.push_back(tensor);
      if (tensor.shape.size() == 1) continue;
      const std::string stem = tensor.name.substr(0, tensor.name.rfind('.'));
      tensors.back() = {tensor.name, "U32", {tensor.shape[0], 8}};
      tensors.push_back({stem + ".scales", "F16", {tensor.shape[0], 1}});
      tensors.push_back({stem + ".biases", "F16", {tensor.shape[0], 1}});
    }
    change(tensors);
    std::string config = kQuantized;
    config.replace(config.find("KEY"), 3, key);
    return [tensors, config](Folder& f) {
      f.tensors("model.safetensors", tensors);
      f.write("config.json", config);
    };
  };
  auto find = [](std::vector<Tensor>& l, std::string_view name) {
    return std::find_if(l.begin(), l.end(), [&](const Tensor& t) { return t.name == name; });
  };
  for (const char* key : {"quantization", "quantization_config"}) {
    Folder folder;
    list([](auto&) {}, key)(folder);
    EXPECT_EQ(error_of(folder), "") << key;
  }
  auto refused = [&](const std::function<void(std::vector<Tensor>&)>& change,
                     std::initializer_list<const char*> says) {
    expect_error(list(change, "quantization"), says);
  };
  refused([&](auto& l) { find(l, "lm_head.weight")->dtype = "F32"; },
          {"lm_head.weight", "float32", "uint32"});
  refused([&](auto& l) { find(l, "lm_head.weight")->dtype = "I32"; }, {"lm_head.weight", "int32"});
  refused([&](auto& l) { find(l, "model.norm.weight")->dtype = "U32"; },
          {"model.norm.weight", "uint32"});
  refused([&](auto& l) { find(l, "lm_head.scales")->dtype = "I16"; }, {"lm_head.scales", "int16"});
  refused([&](auto& l) { find(l, "lm_head.biases")->shape = {16, 2}; }, {"lm_head.biases"});
  refused([&](auto& l) { l.erase(find(l, "lm_head.scales")); }, {"lm_head.weight", "uint32"});
  refused([&](auto& l) { l.erase(find(l, "lm_head.biases")); }, {"missing", "lm_head.biases"});
  // A layer that cannot be packed so names its place.
  auto config = [](Folder& f) {
    f.tensors("model.safetensors",
              changed([](auto& l) { l.push_back({"lm_head.scales", "F32", {16, 1}}); }));
    f.write("config.json", std::string(kConfig).insert(1, R"("quantization": {"bits": 4}, )"));
  };
  expect_error(config, {"/tmp/mica-load", "'lm_head'", "8 columns", "group size 64"});
}

TEST(Load, BadFiles) {
  auto cut = [](size_t bytes) {
    return [bytes](Folder& f) { fs::resize_file(f.path + "/model.safetensors", bytes); };
  };
  expect_error(cut(0), {"model.safetensors"});
  expect_error(cut(5), {"model.safetensors"});
  expect_error(cut(300), {"model.safetensors"});
  Folder whole;
  auto size = fs::file_size(whole.path + "/model.safetensors");
  expect_error(cut(size - 1), {"model.safetensors"});
}

TEST(Load, BadIndexes) {
  auto index = [](const std::string& text) {
    return [text](Folder& f) { f.write("model.safetensors.index.json", text); };
  };
  expect_error(index("{}"), {"index.json", "weight_map"});
  expect_error(index(R"({"weight_map": {}})"), {"index.json"});
  expect_error(index(R"({"weight_map": {"a": "../model.safetensors"}})"),
               {"index.json", "../model.safetensors"});
  expect_error(index(R"({"weight_map": {"a": "gone.safetensors"}})"), {"gone.safetensors"});
  expect_error(index(R"({"weight_map": {"nothing.weight": "model.safetensors"}})"),
               {"nothing.weight"});
}

TEST(Load, MoreMemoryThanThereIs) {
  Folder folder;
  std::string message = error_of(folder, {.memory_limit = 1 << 20});
  EXPECT_NE(message.find("1.0 MiB"), std::string::npos) << message;
}

// What a pass takes besides the weights and the cache is estimated from above, not by much.
TEST(Load, EstimatesTheMemoryOfAPass) {
  Folder folder;
  make_large(folder);
  auto model = load_model(folder.path).model;
  for (int64_t tokens : {1, 64, 256}) {
    for (LogitsAt at : {LogitsAt::Last, LogitsAt::All}) {
      nn::SequenceCache cache = model->make_cache(true);
      nn::Batch batch({&cache}, tokens);
      const Array ids =
          Array::from<int32_t>(std::vector<int32_t>(static_cast<size_t>(tokens), 5), {1, tokens});
      reset_peak_memory();
      const int64_t before = memory_use(DeviceKind::Cpu).active;
      astype(model->forward(ids, batch, at), Dtype::F32).eval();
      const int64_t took = memory_use(DeviceKind::Cpu).peak - before - cache.bytes();
      const MemoryEstimate estimate = estimate_memory(
          model->info(), 0,
          {.context = 4096, .pass_tokens = tokens, .all_logits = at == LogitsAt::All});
      EXPECT_LE(took, estimate.workspace) << tokens;
      EXPECT_LE(estimate.workspace, 3 * took + (24 << 20)) << tokens;
    }
  }
  const int64_t huge = std::numeric_limits<int64_t>::max();
  const MemoryEstimate most = estimate_memory(
      model->info(), huge / 4, {.context = huge, .pass_tokens = huge, .answer_bytes = huge / 8});
  EXPECT_GE(most.cache, int64_t{1} << 59);
  EXPECT_GE(most.total(), huge / 4 + most.cache);
}

TEST(Load, ATruncatedFileIsAnErrorNotACrash) {
  Folder folder;
  // Large enough that the cut leaves whole pages behind.
  folder.write(
      "config.json",
      R"({"model_type": "llama", "vocab_size": 4096, "hidden_size": 8, "intermediate_size": 12,
    "num_hidden_layers": 1, "num_attention_heads": 2, "tie_word_embeddings": true})");
  static const std::vector<std::byte> zeros(4096 * 8 * 4);
  std::vector<io::TensorData> data;
  for (const Tensor& tensor : llama_tensors()) {
    if (tensor.name == "lm_head.weight") continue;
    std::vector<int64_t> shape = tensor.shape;
    if (tensor.name == "model.embed_tokens.weight") shape[0] = 4096;
    size_t bytes = 4;
    for (int64_t extent : shape) bytes *= static_cast<size_t>(extent);
    data.push_back({tensor.name, "F32", shape, std::span(zeros).first(bytes)});
  }
  io::write_safetensors(folder.path + "/model.safetensors", data);
  LoadedModel loaded = load_model(folder.path);
  fs::resize_file(folder.path + "/model.safetensors", 4096);
  nn::SequenceCache cache = loaded.model->make_cache(true);
  nn::Batch batch({&cache}, 1);
  Array logits = loaded.model->forward(Array::from<int32_t>({4000}, {1, 1}), batch, LogitsAt::Last);
  EXPECT_THROW(logits.eval(), Error);
}

TEST(Registry, ListsWhatItKnows) {
  auto known = known_model_types();
  EXPECT_TRUE(std::find(known.begin(), known.end(), "llama") != known.end());
  EXPECT_TRUE(std::is_sorted(known.begin(), known.end()));
}

}  // namespace
}  // namespace mica::models
