#include "ops/experts.h"

#include "core/buffer.h"
#include "core/node.h"
#include "ops/elementwise.h"
#include "ops/index.h"
#include "ops/join.h"
#include "ops/matmul.h"
#include "ops/quantized.h"
#include "ops/registry.h"
#include "ops/shape.h"

namespace mica {

namespace ops {
namespace {

size_t arrays_each(const ExpertParams& p) { return p.group_size > 0 ? 3 : 1; }

void infer(const Application& app, std::span<OutputSpec> outputs) {
  const auto& ids = app.inputs[1].shape();
  outputs[0] = {{ids[0], ids[1], app.inputs[2].shape(-2)}, app.inputs[0].dtype()};
}

// All matrices as one array [E, O, I], widened: what derivatives are taken through.
Array stacked(const Application& app) {
  const auto& p = app.as<ExpertParams>();
  if (app.inputs[2].rank() == 3)
    return p.group_size > 0
               ? dequantize(app.inputs[2], app.inputs[3], app.inputs[4], p.group_size, p.bits)
               : app.inputs[2];
  Arrays dense;
  for (size_t e = 0, at = 2; e < static_cast<size_t>(p.experts); ++e, at += arrays_each(p)) {
    const Array& w = app.inputs[at];
    dense.push_back(p.group_size > 0 ? dequantize(w, app.inputs[at + 1], app.inputs[at + 2],
                                                  p.group_size, p.bits)
                                     : w);
  }
  return stack(dense, 0);
}

Arrays lower(const Application& app) {
  const auto& p = app.as<ExpertParams>();
  const Array& ids = app.inputs[1];
  Array x = p.activation_bits > 0 ? rounded_activation(app.inputs[0], p.group_size, app.stream)
                                  : app.inputs[0];
  Array w_TkIO = swapaxes(take(stacked(app), ids, 0), -1, -2);
  Array y_Tk1O = matmul(expand_dims(x, {2}), w_TkIO);
  return {astype(squeeze(y_Tk1O, std::vector<int>{2}), x.dtype())};
}

std::vector<Sample> samples() {
  std::vector<Sample> list;
  for (int64_t per_token : {1, 2}) {
    Sample sample;
    sample.label = per_token == 1 ? "shared row" : "row per choice";
    Sample::Input ids{
        .shape = {3, 2}, .differentiable = false, .dtype = Dtype::I32, .fixed_dtype = true};
    ids.values = {0, 2, 1, 0, 2, 2};
    sample.inputs = {
        {.shape = {3, per_token, 5}}, ids, {.shape = {4, 5}}, {.shape = {4, 5}}, {.shape = {4, 5}}};
    sample.apply = [](std::span<const Array> in) {
      return Arrays{expert_matmul(in[0], in[1], {in[2], in[3], in[4]})};
    };
    list.push_back(sample);
  }
  return list;
}

}  // namespace

const Op expert_matmul_op{.name = "expert_matmul",
                          .params = &params_type<ExpertParams>,
                          .infer = &infer,
                          .lower = &lower,
                          .samples = &samples};

void experts_ops(Registry& registry) { registry.ops.add(expert_matmul_op); }

View expert_part(std::span<const View> inputs, const ExpertParams& p, int64_t e, size_t part) {
  const bool stacked = inputs[2].shape.size() == 3;
  const size_t first = stacked ? 2 : 2 + static_cast<size_t>(e) * arrays_each(p);
  View view = inputs[first + part];
  if (!stacked) return view;
  view.data += e * view.strides[0] * size_of(view.dtype);
  view.shape.erase(0);
  view.strides.erase(0);
  return view;
}

}  // namespace ops

namespace {

void check(const Array& x, const Array& ids, const Arrays& matrices, int64_t inputs) {
  const char* name = "expert_matmul";
  if (matrices.empty()) throw_value("[{}] there are no experts", name);
  if (ids.rank() != 2 || !is_integer(ids.dtype()))
    throw_value("[{}] ids must be integers of shape (T, k), got {} of {}", name, ids.shape(),
                ids.dtype());
  if (!is_floating(x.dtype())) throw_value("[{}] x must be floating, got {}", name, x.dtype());
  bool shared = x.rank() == 2,
       own = x.rank() == 3 && (x.shape(1) == ids.shape(1) || x.shape(1) == 1);
  if (!(shared || own) || x.shape(0) != ids.shape(0) || x.shape(-1) != inputs)
    throw_value("[{}] x {} does not fit ids {} and matrices of {} columns", name, x.shape(),
                ids.shape(), inputs);
  const size_t rank = matrices.size() == 1 && matrices[0].rank() == 3 ? 3 : 2;
  for (const Array& matrix : matrices) {
    if (matrix.rank() != rank || !(matrix.shape() == matrices[0].shape()) ||
        matrix.dtype() != matrices[0].dtype())
      throw_value("[{}] all matrices must have one shape and dtype: {} {} and {} {}", name,
                  matrices[0].shape(), matrices[0].dtype(), matrix.shape(), matrix.dtype());
  }
}

int count_experts(const Arrays& matrices) {
  return matrices[0].rank() == 3 ? static_cast<int>(matrices[0].shape(0))
                                 : static_cast<int>(matrices.size());
}

Array rows_of(const Array& x) { return x.rank() == 2 ? expand_dims(x, {1}) : x; }

}  // namespace

Array expert_matmul(const Array& x, const Array& ids, const Arrays& matrices, Stream s) {
  check(x, ids, matrices, matrices.empty() ? 0 : matrices[0].shape(-1));
  if (!is_floating(matrices[0].dtype()))
    throw_value("[expert_matmul] matrices must be floating, got {}", matrices[0].dtype());
  Arrays inputs{rows_of(x), ids};
  inputs.insert(inputs.end(), matrices.begin(), matrices.end());
  return apply(ops::expert_matmul_op, std::span<const Array>(inputs),
               ops::ExpertParams{count_experts(matrices), 0, 0}, s);
}

Array expert_quantized_matmul(const Array& x, const Array& ids, const Arrays& packed,
                              const Arrays& scales, const Arrays& biases, int group_size, int bits,
                              Stream s, int activation_bits) {
  check(x, ids, packed, packed.empty() ? 0 : packed[0].shape(-1) * 32 / bits);
  if (scales.size() != packed.size() || biases.size() != packed.size())
    throw_value("[expert_matmul] {} matrices, {} scales, {} biases", packed.size(), scales.size(),
                biases.size());
  int rounded =
      ops::rounded_activations("expert_matmul", activation_bits, {group_size, bits}, x.dtype());
  Arrays inputs{rows_of(x), ids};
  for (size_t e = 0; e < packed.size(); ++e) {
    inputs.push_back(packed[e]);
    inputs.push_back(scales[e]);
    inputs.push_back(biases[e]);
  }
  return apply(ops::expert_matmul_op, std::span<const Array>(inputs),
               ops::ExpertParams{count_experts(packed), group_size, bits, rounded}, s);
}

std::optional<Array> joined(const Arrays& parts) {
  std::shared_ptr<Buffer> buffer;
  int64_t begin = 0;
  for (size_t i = 0; i < parts.size(); ++i) {
    const Array& part = parts[i];
    if (!part.defined() || !part.evaluated() || part.slot()->data == nullptr) return std::nullopt;
    const ArrayData& data = *part.slot()->data;
    if (i == 0) {
      buffer = data.buffer;
      begin = data.offset;
    }
    if (data.buffer != buffer || !(part.shape() == parts[0].shape()) ||
        part.dtype() != parts[0].dtype() || !is_row_major(part.shape(), data.strides) ||
        data.offset != begin + static_cast<int64_t>(i) * part.size())
      return std::nullopt;
  }
  if (parts.empty()) return std::nullopt;
  Shape shape = parts[0].shape();
  shape.insert(0, static_cast<int64_t>(parts.size()));
  return Array::from_buffer(buffer, shape, parts[0].dtype(), begin);
}

}  // namespace mica
