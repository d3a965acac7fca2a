#include "models/traffic.h"

#include <algorithm>
#include <cmath>

namespace mica::models {

namespace {

// Sums up what is loaded, by how a pass uses it.
class Census : public nn::Visitor {
 public:
  explicit Census(const ModelInfo& info) : info_(info) {}

  double table_row_bytes = 0;  // one row of each table
  double expert_bytes = 0, other_bytes = 0;
  // Of matrices, unpacked. Last ones: what only tokens with logits pass.
  double expert_elements = 0, matrix_elements = 0, last_expert_elements = 0, last_elements = 0;
  double rounded_elements = 0;  // of those whose products round activations

  std::optional<nn::Quantization> quantization(
      const std::optional<nn::Quantization>& current) override {
    matrix_ = path();
    packed_ = current;
    return current;
  }

 protected:
  void on_parameter(const std::string& key, Array& array, const Shape&) override {
    if (!array.defined()) return;
    const std::string_view module = std::string_view(key).substr(0, key.rfind('.'));
    const auto bytes = static_cast<double>(array.nbytes());
    if (info_.is_table(key)) {
      table_row_bytes += bytes / static_cast<double>(array.shape(0));
      return;
    }
    (stack_row() ? expert_bytes : other_bytes) += bytes;
    if (array.shape().size() != 2 || !key.ends_with(".weight")) return;
    auto elements = static_cast<double>(array.size());
    if (packed_ && module == matrix_) {
      elements = elements * 32 / packed_->bits;
      if (is_rounded(*packed_)) rounded_elements += elements;
    }
    const bool last = module == info_.head || info_.is_above(key);
    if (stack_row())
      (last ? last_expert_elements : expert_elements) += elements;
    else
      (last ? last_elements : matrix_elements) += elements;
  }

 private:
  static bool is_rounded(const nn::Quantization& q) {
    return q.activation_bits == 8 && (q.bits == 4 || q.bits == 8) && q.group_size >= 32;
  }

  const ModelInfo& info_;
  std::string matrix_;
  std::optional<nn::Quantization> packed_;  // of matrix_
};

Census census_of(Model& model) {
  Census census(model.info());
  census.module("", model);
  return census;
}

double share_of_experts(const ModelInfo& info) {
  return info.experts > 0
             ? static_cast<double>(info.experts_per_token) / static_cast<double>(info.experts)
             : 0;
}

}  // namespace

double decode_bytes(Model& model, int64_t sequences, int64_t context) {
  const Census census = census_of(model);
  const auto count = static_cast<double>(sequences);
  const double picked = 1 - std::pow(1 - share_of_experts(model.info()), count);
  const double state = count * static_cast<double>(model.info().cache_bytes(context));
  return census.other_bytes + picked * census.expert_bytes + count * census.table_row_bytes + state;
}

double prompt_operations(Model& model, int64_t tokens, int64_t passes) {
  const Census census = census_of(model);
  const ModelInfo& info = model.info();
  const auto length = static_cast<double>(tokens);
  double pairs = 0;  // of queries and the positions that they see, over all layers
  for (int64_t window : info.windows) {
    const auto seen = window > 0 ? static_cast<double>(std::min(window, tokens)) : length;
    pairs += seen * (seen + 1) / 2 + (length - seen) * seen;
  }
  const double experts = share_of_experts(info);
  const double products =
      (census.matrix_elements + experts * census.expert_elements) * length +
      (census.last_elements + experts * census.last_expert_elements) * static_cast<double>(passes);
  return 2 * products + 4 * pairs * static_cast<double>(info.query_elements);
}

Arithmetic arithmetic_of(Model& model) {
  const Census census = census_of(model);
  const double all = census.last_elements + census.last_expert_elements + census.expert_elements +
                     census.matrix_elements;
  if (census.rounded_elements > all / 2) return Arithmetic::Int8;
  return model.info().activations == Dtype::BF16 ? Arithmetic::Bfloat16 : Arithmetic::Float32;
}

}  // namespace mica::models
