// The second half of Runner: the calls.
#include "core/run.h"

#include "base/mapped_file.h"
#include "core/counters.h"
#include "core/profiler.h"

namespace mica {

Error in_operation(const Error& error, const Op& op, std::span<const Array> inputs) {
  std::string text;
  for (const Array& input : inputs)
    text += fmt::format("{}{} {}", text.empty() ? "" : ", ", input.shape(), input.dtype());
  return Error(error.kind(), fmt::format("{} (in {}({}))", error.what(), op.name, text));
}

void Runner::run() {
  const bool recorded = detail::is_profiling();
  size_t move = 0, call = 0;
  for (size_t step = 0; step < step_end_.size(); ++step) {
    for (; call < step_end_[step]; ++call) {
      for (; move < moves_.size() && moves_[move].call == call; ++move)
        moves_[move].buffer->read(moves_[move].device);
      if (calls_[call].skip) continue;
      if (recorded) [[unlikely]]
        run_recorded(calls_[call]);
      else
        run_call(calls_[call]);
    }
    mark_written(step);
    completed_ = step + 1;
  }
}

// Memory that served another value before may have had copies elsewhere.
void Runner::mark_written(size_t step) {
  const PlanStep& plan_step = plan_->steps[step];
  auto mark = [&](int32_t value) {
    const Storage& of = storage(values_[static_cast<size_t>(value)]);
    if (!of.external || of.ours) of.buffer->written({of.device});
  };
  if (plan_step.region) {
    for (int32_t value : plan_step.region->outputs) mark(value);
    return;
  }
  const SegmentNode& node = segment_->nodes[static_cast<size_t>(plan_step.node)];
  if (node.kind != StepKind::Kernel) return;
  for (uint32_t o = 0; o < node.node->output_count; ++o)
    mark(static_cast<int32_t>(node.first_value + o));
}

RegionCall Runner::region_call(const Call& call) const {
  const RegionStep& step = *call.region;
  std::span<const View> all(views_);
  return {step.program.get(),
          &step.region,
          *call.space,
          all.subspan(call.first_view, call.input_count),
          all.subspan(call.first_view + call.input_count, call.output_count),
          std::span(params_).subspan(call.first_param, step.param_nodes.size()),
          call.workspace};
}

void Runner::run_call(const Call& call) {
  std::span<const View> all(views_);
  auto inputs = all.subspan(call.first_view, call.input_count);
  auto outputs = all.subspan(call.first_view + call.input_count, call.output_count);
  auto& live = detail::live_counters;
  try {
    switch (call.kind) {
      case CallKind::Copy:
        call.backend->copy(inputs[0], outputs[0]);
        detail::count(live.bytes_copied, inputs[0].size() * size_of(inputs[0].dtype));
        return;
      case CallKind::Region: call.backend->run(region_call(call)); break;
      case CallKind::Kernel:
        call.node->kernel->run(
            {call.node->node->op, call.node->node->params, inputs, outputs, call.workspace});
        break;
    }
    detail::count(live.kernels);
  } catch (const Error& error) {
    if (!call.node) throw;
    throw in_operation(error, *call.node->node->op, {call.node->inputs, call.node->input_count});
  }
}

// What a call costs is asked before it runs: its outputs may take the memory of its inputs.
void Runner::run_recorded(const Call& call) {
  std::span<const View> all(views_);
  auto inputs = all.subspan(call.first_view, call.input_count);
  auto outputs = all.subspan(call.first_view + call.input_count, call.output_count);
  const bool kernel = call.kind == CallKind::Kernel;
  KernelCall asked{nullptr, nullptr, inputs, outputs, {}};
  // Rules may read operands, which only the host's memory allows.
  if (kernel && call.backend->shares_host_memory())
    asked = {call.node->node->op, call.node->node->params, inputs, outputs, {}};
  const Cost cost = cost_of(asked);
  const int64_t start = detail::profile_clock();
  run_call(call);
  detail::record_call(kernel ? call.node->node->op : nullptr,
                      call.kind == CallKind::Region ? &call.region->region : nullptr, inputs,
                      outputs, cost, start);
}

bool Runner::consumed(size_t external, size_t steps) const {
  return external < external_death_.size() && external_death_[external] < steps;
}

ArrayData* Runner::take_data(int32_t value) {
  Place& at = values_[static_cast<size_t>(value)];
  const Storage& of = storage(at);
  return new ArrayData{of.own ? of.own : *of.lent, at.offset, at.strides};
}

void Runner::check_mapped_files() const {
  for (const Storage& of : storages_) {
    if (!of.external) continue;
    const MappedFile* file = of.buffer->mapped_file();
    if (file && file->damaged()) {
      throw_io("{}: the file was truncated or became unreadable while it was in use; load it again",
               file->path());
    }
  }
}

}  // namespace mica
