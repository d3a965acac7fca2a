// Mixture of experts: each token goes to the few experts that a router picks.
//
// Shazeer et al. 2017 (arXiv:1701.06538), as in Mixtral (arXiv:2401.04088): softmax over all
// experts, the best k, their probabilities scaled to sum 1.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "nn/activation.h"
#include "nn/linear.h"

namespace mica::nn {

// Keys relative to the layer. Experts are stored one by one, "<each>.<e>.<gate>", or all together,
// "<stack>.<stack_gate>" of shape [E, outputs, inputs] (MLX-LM).
struct ExpertNames {
  std::string router = "block_sparse_moe.gate";
  std::string each = "block_sparse_moe.experts";
  std::string gate = "w1", up = "w3", down = "w2";
  std::string stack = "block_sparse_moe.switch_mlp";
  std::string stack_gate = "gate_proj", stack_up = "up_proj", stack_down = "down_proj";
};

class Experts : public Module {
 public:
  Experts(int64_t experts, int64_t per_token, int64_t width, int64_t hidden,
          const std::string& activation, ExpertNames names);
  void visit(Visitor& visitor) override;
  // [B, L, D] -> [B, L, D]
  Array operator()(const Array& x) const;

 private:
  int64_t per_token_;
  Activation act_;
  ExpertNames names_;
  // The matrices of all experts: one by one, or one stack of them if they lie as one.
  struct Matrices {
    explicit Matrices(const std::vector<Linear>& experts);
    // [T, I] or [T, k, I], ids [T, k] -> [T, k, O]
    Array times(const Array& x, const Array& ids) const;

    Arrays weights, scales, biases;
    std::optional<Quantization> quantization;
    bool alike = true;  // in how they are quantized
  };

  Linear router_;
  std::vector<Linear> gate_, up_, down_;
  std::optional<Matrices> gates_, ups_, downs_;  // of the last visit, by which arrays change
};

}  // namespace mica::nn
