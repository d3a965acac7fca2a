// One call of attention as the CPU's kernels see it: sizes, where rows lie, and which keys are
// seen.
//
// The query rows of one key head (all heads that share it, all positions) are numbered together:
// row r is head r % ratio of the group at query r / ratio. Blocks of such rows are the unit of
// work.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <type_traits>

#include "core/backend.h"
#include "ops/attention.h"

namespace mica::cpu {

// Slots begin … end - 1; slot s holds position s + shift.
struct KeyRun {
  int64_t begin = 0, end = 0, shift = 0;
};

// What one sequence of the batch knows.
struct Sequence {
  int64_t offset = 0;  // position of query 0
  KeyRun runs[2];      // written slots; empty where begin >= end
};

struct AttentionJob {
  const ops::AttentionParams* params;
  View q, k, v, out;
  View mask;              // data is null without one
  View offsets, lengths;  // the same
  int64_t batch, heads, kv_heads, ratio, queries, slots, k_size, v_size;

  // The first three inputs are q, k, v; the optional ones start at `extra`.
  AttentionJob(const KernelCall& call, const View& result, size_t extra)
      : params(&call.as<ops::AttentionParams>()),
        q(call.inputs[0]),
        k(call.inputs[1]),
        v(call.inputs[2]),
        out(result),
        batch(q.shape[0]),
        heads(q.shape[1]),
        kv_heads(k.shape[1]),
        ratio(kv_heads == 0 ? 0 : heads / kv_heads),
        queries(q.shape[2]),
        slots(k.shape[2]),
        k_size(q.shape[3]),
        v_size(v.shape[3]) {
    if (params->offsets) offsets = call.inputs[extra++];
    if (params->lengths) lengths = call.inputs[extra++];
    if (!params->mask) return;
    mask = call.inputs[extra];
    for (size_t i = 0; i < 4; ++i)
      if (mask.shape[i] == 1) mask.strides[i] = 0;
  }

  bool is_bfloat16() const {
    return q.dtype == Dtype::BF16 && k.dtype == Dtype::BF16 && v.dtype == Dtype::BF16;
  }
  int64_t rows() const { return queries * ratio; }
  int64_t head_of(int64_t g, int64_t row) const { return g * ratio + row % ratio; }

  // Elements from a view's first to the row of batch b, head h, place i.
  static int64_t offset_of(const View& view, int64_t b, int64_t h, int64_t i) {
    return b * view.strides[0] + h * view.strides[1] + i * view.strides[2];
  }

  Sequence sequence(int64_t b) const {
    Sequence result;
    int64_t length = params->lengths ? std::max<int64_t>(number_at(lengths, b), 0) : slots;
    result.offset = params->offsets ? number_at(offsets, b) : length - queries;
    if (!params->ring || length <= slots || slots == 0) {
      result.runs[0] = {0, std::min(length, slots), 0};
    } else {  // the oldest positions start at the slot that is written next
      int64_t next = length % slots;
      result.runs[0] = {next, slots, length - slots - next};
      result.runs[1] = {0, next, length - next};
    }
    return result;
  }

  // The part of a run that queries at positions first … last see: some of them, or all of them.
  KeyRun seen_by_any(KeyRun run, int64_t first, int64_t last) const {
    return seen(run, first, last);
  }
  KeyRun seen_by_all(KeyRun run, int64_t first, int64_t last) const {
    return seen(run, last, first);
  }

  // Of a mask in memory: what is added to the score, -infinity where the key is not seen.
  double mask_at(int64_t b, int64_t h, int64_t i, int64_t slot) const {
    const int64_t at = offset_of(mask, b, h, i) + slot * mask.strides[3];
    return dispatch(mask.dtype, [&](auto tag) -> double {
      using T = typename decltype(tag)::type;
      if constexpr (std::is_same_v<T, bool>)
        return mask.as<bool>()[at] ? 0 : -HUGE_VAL;
      else
        return static_cast<double>(mask.as<T>()[at]);
    });
  }

 private:
  static int32_t number_at(const View& view, int64_t b) {
    return view.as<int32_t>()[b * view.strides[0]];
  }
  KeyRun seen(KeyRun run, int64_t oldest, int64_t newest) const {
    if (params->causal) run.end = std::min(run.end, newest + 1 - run.shift);
    if (params->window > 0)
      run.begin = std::max(run.begin, oldest - params->window + 1 - run.shift);
    return run;
  }
};

}  // namespace mica::cpu
