#include "nn/moe.h"

#include "ops/elementwise.h"
#include "ops/experts.h"
#include "ops/index.h"
#include "ops/reduce.h"
#include "ops/shape.h"
#include "ops/softmax.h"
#include "ops/sort.h"

namespace mica::nn {

Experts::Experts(int64_t experts, int64_t per_token, int64_t width, int64_t hidden,
                 const std::string& activation, ExpertNames names)
    : per_token_(per_token),
      act_(activation_from_name(activation)),
      names_(std::move(names)),
      router_(width, experts) {
  for (int64_t e = 0; e < experts; ++e) {
    gate_.emplace_back(width, hidden);
    up_.emplace_back(width, hidden);
    down_.emplace_back(hidden, width);
  }
}

void Experts::visit(Visitor& v) {
  v.module(names_.router, router_);
  auto count = static_cast<int64_t>(gate_.size());
  for (int64_t e = 0; e < count; ++e) {
    auto part = [&](const std::string& own, const std::string& stacked, std::vector<Linear>& all) {
      v.module(names_.each + '.' + std::to_string(e) + '.' + own, all[static_cast<size_t>(e)],
               {names_.stack + '.' + stacked, e, count});
    };
    part(names_.gate, names_.stack_gate, gate_);
    part(names_.up, names_.stack_up, up_);
    part(names_.down, names_.stack_down, down_);
  }
  gates_.emplace(gate_);
  ups_.emplace(up_);
  downs_.emplace(down_);
}

Experts::Matrices::Matrices(const std::vector<Linear>& experts)
    : quantization(experts[0].matrix().quantization()) {
  for (const Linear& expert : experts) {
    const Matrix& matrix = expert.matrix();
    alike = alike && matrix.quantization() == quantization;
    weights.push_back(matrix.weight());
    if (!quantization) continue;
    scales.push_back(matrix.scales());
    biases.push_back(matrix.biases());
  }
  const auto stack = joined(weights);
  const auto scale_stack = joined(scales), bias_stack = joined(biases);
  if (!stack || (quantization && !(scale_stack && bias_stack))) return;
  weights = {*stack};
  if (!quantization) return;
  scales = {*scale_stack};
  biases = {*bias_stack};
}

Array Experts::Matrices::times(const Array& x, const Array& ids) const {
  if (!alike)
    throw_unsupported(
        "experts of one layer are quantized differently: they must share bits and group size");
  return quantization
             ? expert_quantized_matmul(x, ids, weights, scales, biases, quantization->group_size,
                                       quantization->bits, {}, quantization->activation_bits)
             : expert_matmul(x, ids, weights);
}

Array Experts::operator()(const Array& x_BLD) const {
  int64_t width = x_BLD.shape(2);
  Array x_TD = reshape(x_BLD, {-1, width});
  Array p_TE = softmax(astype(router_(x_TD), Dtype::F32), std::vector<int>{-1});
  Array order_TE = argsort(-p_TE, -1);
  Array ids_Tk = slice_axis(order_TE, 1, 0, per_token_);
  Array p_Tk = take_along_axis(p_TE, ids_Tk, 1);
  p_Tk = astype(p_Tk / sum(p_Tk, std::vector<int>{-1}, true), x_BLD.dtype());
  Array h_TkF = act_(gates_->times(x_TD, ids_Tk)) * ups_->times(x_TD, ids_Tk);
  Array y_TkD = downs_->times(h_TkF, ids_Tk);
  Array y_TD = sum(y_TkD * expand_dims(p_Tk, {-1}), std::vector<int>{1}, false);
  return reshape(y_TD, x_BLD.shape());
}

}  // namespace mica::nn
