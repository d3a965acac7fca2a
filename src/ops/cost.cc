// What the calls of some operations move and compute (core/profiler.h), where that is not simply
// their operands: operations that read or write a part of them, and those whose arithmetic counts.
#include <algorithm>
#include <array>
#include <set>

#include "core/profiler.h"
#include "ops/attention.h"
#include "ops/experts.h"
#include "ops/gather_mm.h"
#include "ops/index.h"
#include "ops/matmul.h"
#include "ops/quantized.h"
#include "ops/quantized_matmuls.h"
#include "ops/registry.h"

namespace mica::ops {

namespace {

using Views = std::span<const View>;

double bytes_of(Views views) {
  double bytes = 0;
  for (const View& view : views) bytes += view_bytes(view);
  return bytes;
}

double as_double(int64_t count) { return static_cast<double>(count); }

int64_t last(const View& view, size_t back = 1) { return view.shape[view.shape.size() - back]; }

// The elements of integers in any layout.
std::vector<int64_t> integers(const View& view) {
  std::vector<int64_t> values;
  std::vector<int64_t> place(view.shape.size(), 0);
  dispatch(view.dtype, [&](auto tag) {
    const auto* data = view.as<const typename decltype(tag)::type>();
    int64_t offset = 0;
    for (int64_t left = view.size(); left > 0; --left) {
      values.push_back(static_cast<int64_t>(data[offset]));
      for (size_t axis = view.shape.size(); axis-- > 0;) {
        offset += view.strides[axis];
        if (++place[axis] < view.shape[axis]) break;
        offset -= view.strides[axis] * view.shape[axis];
        place[axis] = 0;
      }
    }
  });
  return values;
}

double distinct(const View& indices) {
  const std::vector<int64_t> values = integers(indices);
  return as_double(std::ssize(std::set<int64_t>(values.begin(), values.end())));
}

// Of floats, by the type of the operands that are multiplied; integers of quantized matrices are
// numbers of bfloat16, too.
Arithmetic arithmetic_of(Views operands) {
  const auto is_bfloat16 = [](const View& view) { return view.dtype == Dtype::BF16; };
  return std::all_of(operands.begin(), operands.end(), is_bfloat16) ? Arithmetic::Bfloat16
                                                                    : Arithmetic::Float32;
}
Arithmetic arithmetic_of(const View& x, int activation_bits) {
  return activation_bits == 8 ? Arithmetic::Int8 : arithmetic_of({&x, 1});
}

Cost matmul_cost(const KernelCall& call) {
  const View& out = call.outputs[0];
  return {.bytes = bytes_of(call.inputs) + view_bytes(out),
          .flops = 2 * as_double(out.size()) * as_double(last(call.inputs[0])),
          .arithmetic = arithmetic_of(call.inputs.first(2))};
}

Cost quantized_matmul_cost(const KernelCall& call) {
  Cost cost = matmul_cost(call);
  cost.arithmetic = arithmetic_of(call.inputs[0], call.as<QuantizedMatmulParams>().activation_bits);
  return cost;
}

Cost quantized_matmuls_cost(const KernelCall& call) {
  Cost cost{.bytes = bytes_of(call.inputs) + bytes_of(call.outputs),
            .arithmetic = Arithmetic::Int8};
  for (const View& out : call.outputs)
    cost.flops += 2 * as_double(out.size()) * as_double(call.inputs[0].shape.back());
  return cost;
}

// Matrices of a stack [E…, N, K] that indices choose.
double chosen(const View& stack, double count) {
  double all = 1;
  for (size_t i = 0; i + 2 < stack.shape.size(); ++i) all *= as_double(stack.shape[i]);
  return all > 0 ? view_bytes(stack) * std::min(count / all, 1.0) : 0;
}

Cost gather_mm_cost(const KernelCall& call) {
  const View& out = call.outputs[0];
  const size_t stacks = call.inputs.size() - 3;  // of the right: one matrix, or three parts
  const double right = distinct(call.inputs.back());
  Cost cost{.bytes = chosen(call.inputs[0], distinct(call.inputs[call.inputs.size() - 2])) +
                     view_bytes(out) + bytes_of(call.inputs.last(2)),
            .flops = 2 * as_double(out.size()) * as_double(last(call.inputs[0])),
            .arithmetic = arithmetic_of(call.inputs.first(stacks == 1 ? 2 : 1))};
  for (size_t i = 1; i <= stacks; ++i) cost.bytes += chosen(call.inputs[i], right);
  return cost;
}

Cost expert_cost(const KernelCall& call) {
  const auto& p = call.as<ExpertParams>();
  const View &x = call.inputs[0], &ids = call.inputs[1], &out = call.outputs[0];
  // All experts have one shape.
  double matrix = 0;
  for (size_t part = 0; part < (p.group_size > 0 ? 3u : 1u); ++part)
    matrix += view_bytes(expert_part(call.inputs, p, 0, part));
  return {.bytes = bytes_of(call.inputs.first(2)) + view_bytes(out) + matrix * distinct(ids),
          .flops = 2 * as_double(out.size()) * as_double(last(x)),
          .arithmetic = p.group_size > 0
                            ? arithmetic_of(x, p.activation_bits)
                            : arithmetic_of(std::array{x, expert_part(call.inputs, p, 0, 0)})};
}

// Keys that the rows of a sequence see, all together and as a range.
struct Seen {
  double pairs = 0, keys = 0;
};

Seen seen_by(const AttentionParams& p, int64_t rows, int64_t slots, int64_t length,
             int64_t offset) {
  Seen seen;
  int64_t first = length, end = 0;
  for (int64_t row = 0; row < rows; ++row) {
    const int64_t position = offset + row;
    const int64_t to = p.causal ? std::min(position + 1, length) : length;
    int64_t from = p.ring ? std::max<int64_t>(length - slots, 0) : 0;
    if (p.window > 0) from = std::max(from, position - p.window + 1);
    if (from >= to) continue;
    seen.pairs += as_double(to - from);
    first = std::min(first, from);
    end = std::max(end, to);
  }
  seen.keys = as_double(std::max<int64_t>(end - first, 0));
  return seen;
}

Cost attention_cost(const KernelCall& call) {
  const auto& p = call.as<AttentionParams>();
  const View &q = call.inputs[0], &k = call.inputs[1], &v = call.inputs[2];
  const int64_t rows = q.shape[2], slots = k.shape[2], heads = q.shape[1];
  size_t next = 3;
  const auto offsets = p.offsets ? integers(call.inputs[next++]) : std::vector<int64_t>();
  const auto lengths = p.lengths ? integers(call.inputs[next]) : std::vector<int64_t>();
  Cost cost{.bytes = view_bytes(q) + view_bytes(call.outputs[0]) + bytes_of(call.inputs.subspan(3)),
            .arithmetic = arithmetic_of(call.inputs.first(3))};
  const double key_bytes = as_double(k.shape[1]) * (as_double(last(k)) * size_of(k.dtype) +
                                                    as_double(last(v)) * size_of(v.dtype));
  for (int64_t b = 0; b < q.shape[0]; ++b) {
    auto of = [&](const std::vector<int64_t>& values, int64_t otherwise) {
      return static_cast<size_t>(b) < values.size() ? values[static_cast<size_t>(b)] : otherwise;
    };
    const int64_t length = of(lengths, slots);
    const Seen seen = seen_by(p, rows, slots, length, of(offsets, length - rows));
    cost.bytes += key_bytes * seen.keys;
    cost.flops += 2 * as_double(heads) * seen.pairs * as_double(last(k) + last(v));
  }
  return cost;
}

// Reads as much of its first input as it gives.
Cost picking_cost(const KernelCall& call) {
  return {.bytes = 2 * view_bytes(call.outputs[0]) + bytes_of(call.inputs.subspan(1))};
}

// Writes an update into its first input, which is there already: input 1, or the last one.
Cost update_cost(const KernelCall& call) {
  return {.bytes = bytes_of(call.inputs.subspan(1)) + view_bytes(call.inputs[1])};
}
Cost scatter_cost(const KernelCall& call) {
  return {.bytes = bytes_of(call.inputs.subspan(1)) + view_bytes(call.inputs.back())};
}

}  // namespace

void cost_ops(Registry&) {
  set_cost_rule(matmul_op, &matmul_cost);
  set_cost_rule(quantized_matmul_op, &quantized_matmul_cost);
  set_cost_rule(quantized_matmuls_op, &quantized_matmuls_cost);
  set_cost_rule(gather_mm_op, &gather_mm_cost);
  set_cost_rule(gather_qmm_op, &gather_mm_cost);
  set_cost_rule(expert_matmul_op, &expert_cost);
  set_cost_rule(attention_op, &attention_cost);
  for (const Op* op : {&take_op, &take_along_axis_op, &gather_op, &dynamic_slice_op})
    set_cost_rule(*op, &picking_cost);
  for (const Op* op : {&slice_update_op, &dynamic_slice_update_op, &ragged_slice_update_op})
    set_cost_rule(*op, &update_cost);
  for (const Op* op : {&scatter_op, &scatter_axis_op}) set_cost_rule(*op, &scatter_cost);
}

}  // namespace mica::ops
