#include "backends/cpu/attention.h"

#include "backends/cpu/gemm_kernels.h"
#include "core/backend.h"

namespace mica::cpu {

namespace {

// k and v may have other types than q, but for float64.
bool is_wide(const AttentionJob& job) { return job.q.dtype == Dtype::F64; }

size_t workspace(const KernelCall& call) {
  AttentionJob job(call, call.outputs[0], 3);
  bool decode = !is_wide(job) && job.rows() <= kDecodeRows;
  return decode ? attention_decode_workspace(job) : 0;
}

void attention(const KernelCall& call) {
  AttentionJob job(call, call.outputs[0], 3);
  if (job.out.size() == 0) return;
  if (is_wide(job))
    attention_doubles(job);
  else if (job.rows() <= kDecodeRows)
    attention_decode(job, call.workspace);
  else
    attention_prefill(job);
}

size_t vjp_workspace(const KernelCall& call) {
  AttentionJob job(call, call.inputs[3], 4);
  return is_wide(job) ? 0 : attention_backward_workspace(job);
}

void attention_vjp(const KernelCall& call) {
  AttentionJob job(call, call.inputs[3], 4);
  AttentionCotangents cotangents{call.inputs[3], call.outputs[0], call.outputs[1], call.outputs[2]};
  if (is_wide(job))
    attention_backward_doubles(job, cotangents);
  else
    attention_backward(job, cotangents, call.workspace);
}

}  // namespace

bool multiplies_pairs(const AttentionJob& job) {
  return job.is_bfloat16() && bfloat16_pair_kernels() != nullptr;
}

void attention_kernels(KernelTable& registry) {
  constexpr Layout rows = Layout::Rows, any = Layout::Any;
  registry.add(
      ops::attention_op,
      {.run = &attention, .layouts = {rows, rows, rows, any, any, any}, .workspace = &workspace});
  registry.add(ops::attention_vjp_op, {.run = &attention_vjp,
                                       .layouts = {rows, rows, rows, rows, any, any},
                                       .workspace = &vjp_workspace});
}

}  // namespace mica::cpu
