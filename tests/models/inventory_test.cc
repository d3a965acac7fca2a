// What a folder holds for a model: from headers, and where tensors are not aligned.
#include <gtest/gtest.h>

#include "core/counters.h"
#include "io/safetensors_writer.h"
#include "models/load.h"
#include "ops/join.h"
#include "random_model.h"
#include "tests/base/expect_error.h"
#include "tests/base/temporary_folder.h"
#include "tests/misaligned.h"

namespace mica::models {
namespace {

const char* kConfig = R"({"model_type": "mixtral", "vocab_size": 32, "hidden_size": 16,
    "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2,
    "num_key_value_heads": 1, "max_position_embeddings": 64, "num_local_experts": 4,
    "num_experts_per_tok": 2})";

// A mixtral whose experts lie in stacks, as MLX-LM has them.
struct Folder {
  Folder() {
    auto model = make_model(Json::parse(kConfig));
    testing::RandomWeights weights;
    weights.module("", *model);
    dense = weights.arrays;
    auto arrays = weights.arrays;
    std::string moe = "model.layers.0.block_sparse_moe.";
    for (auto [own, stacked] :
         {std::pair("w1", "gate_proj"), std::pair("w2", "down_proj"), std::pair("w3", "up_proj")}) {
      Arrays all;
      for (std::string e : {"0", "1", "2", "3"})
        all.push_back(arrays.extract(moe + "experts." + e + '.' + own + ".weight").mapped());
      arrays.insert_or_assign(moe + "switch_mlp." + stacked + ".weight", stack(all, 0));
    }
    folder.write("config.json", kConfig);
    io::SafetensorsWriter writer(folder.path(), specs(arrays));
    for (const auto& [name, array] : arrays) {
      writer.write(name, {array.host_bytes().get(), static_cast<size_t>(array.nbytes())});
      bytes += array.nbytes();
    }
    writer.commit();
  }
  static std::vector<io::TensorSpec> specs(const std::map<std::string, Array>& arrays) {
    std::vector<io::TensorSpec> all;
    for (const auto& [name, array] : arrays)
      all.push_back({name, "F32", {array.shape().begin(), array.shape().end()}});
    return all;
  }
  std::string weights() const { return folder.path("model.safetensors"); }

  TemporaryFolder folder;
  std::map<std::string, Array> dense;
  int64_t bytes = 0;
};

TEST(InventoryTest, TellsWhereParametersLie) {
  Folder in;
  reset_counters();
  Inventory inventory = take_inventory(in.folder.path());
  EXPECT_EQ(inventory.parameters.size(), in.dense.size());
  EXPECT_EQ(inventory.config.get<std::string>("model_type"), "mixtral");
  for (const auto& [key, array] : in.dense) {
    const StoredParameter& stored = inventory.parameters.at(key);
    Array found = inventory.checkpoint->part(stored.tensor, stored.first, array.shape());
    EXPECT_EQ(found.to_vector<float>(), array.to_vector<float>()) << key;
  }
  const auto& third =
      inventory.parameters.at("model.layers.0.block_sparse_moe.experts.2.w1.weight");
  EXPECT_EQ(third.tensor, "model.layers.0.block_sparse_moe.switch_mlp.gate_proj.weight");
  EXPECT_EQ(third.first, 2 * 24 * 16);
  EXPECT_EQ(nn::count_parameters(*inventory.model).elements, 0);
}

TEST(InventoryTest, ChecksWhatLoadingChecks) {
  Folder in;
  std::string config = kConfig;
  config.replace(config.find("\"vocab_size\": 32"), 16, "\"vocab_size\": 33");
  in.folder.write("config.json", config);
  expect_error(ErrorKind::Value, "has shape (32, 16), the configuration asks for (33, 16)",
               [&] { take_inventory(in.folder.path()); });
}

// Each byte of a misaligned file is copied once, also of stacks that are read row by row.
TEST(InventoryTest, LoadingMisalignedFilesCopiesThemOnce) {
  Folder in;
  testing::misalign(in.weights());
  reset_counters();
  LoadedModel loaded = load_model(in.folder.path());
  EXPECT_EQ(counters().bytes_copied, in.bytes);
  EXPECT_EQ(loaded.parameters.bytes, in.bytes);
}

}  // namespace
}  // namespace mica::models
