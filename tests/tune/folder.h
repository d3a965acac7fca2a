// Folders of random models, for tests that read and write checkpoints.
#pragma once

#include <string>

#include "io/checkpoint.h"
#include "io/safetensors_writer.h"
#include "ops/elementwise.h"
#include "random_model.h"
#include "tests/base/temporary_folder.h"

namespace mica::testing {

// Small sizes for the families that read them; `more` are further members.
inline std::string config_of(const std::string& type, const std::string& more = "") {
  return R"({"model_type": ")" + type + R"(", "vocab_size": 96, "hidden_size": 64,
    "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 64, "num_local_experts": 3,
    "n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 64, "head_dim": 16)" +
         more + "}";
}

// The random model's weights, and a folder that holds them in `dtype`.
struct ModelFolder {
  explicit ModelFolder(const std::string& config, Dtype dtype = Dtype::BF16) {
    std::shared_ptr<models::Model> model = models::make_model(Json::parse(config));
    RandomWeights weights;
    weights.module("", *model);
    std::vector<std::shared_ptr<const std::byte>> alive;
    std::vector<io::TensorData> data;
    for (auto& [name, array] : weights.arrays) {
      Array stored = astype(array, dtype);
      arrays.insert_or_assign(name, stored);
      alive.push_back(stored.host_bytes());
      data.push_back({name,
                      io::safetensors_dtype(dtype),
                      {stored.shape().begin(), stored.shape().end()},
                      {alive.back().get(), static_cast<size_t>(stored.nbytes())}});
    }
    folder.write("source/config.json", config);
    io::write_safetensors(folder.path("source/model.safetensors"), data);
  }

  std::string source() const { return folder.path("source"); }
  std::string target() const { return folder.path("target"); }

  TemporaryFolder folder;
  std::map<std::string, Array> arrays;
};

}  // namespace mica::testing
