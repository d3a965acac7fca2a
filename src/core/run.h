// Running a plan on a segment: first bind (layouts, devices and all memory), then the kernels.
//
// Binding walks the steps once without running anything: views become strides and offsets, outputs
// take over the memory of dying inputs or of values that died earlier, layouts that a kernel does
// not accept get a copy. When binding throws (out of memory), nothing has happened. Then the calls
// run in order.
#pragma once

#include <memory>
#include <vector>

#include "base/error.h"
#include "core/buffer.h"
#include "core/plan.h"

namespace mica {

// Can a kernel read an operand that lies like this?
bool fits(Layout wanted, const Shape& shape, const Strides& strides);
// An error of a kernel, with the operation and what it was applied to.
Error in_operation(const Error& error, const Op& op, std::span<const Array> inputs);

class Runner {
 public:
  // Reserves everything. On an exception the segment is untouched.
  void bind(const Segment& segment, const Plan& plan);
  // True if the calls are sure to take some microseconds at most; after bind.
  bool is_brief() const;
  // Runs the calls. On an exception `completed_steps` says how many plan steps finished.
  void run();
  size_t completed_steps() const { return completed_; }
  // True if external e's memory is taken over once step `steps` has started.
  bool consumed(size_t external, size_t steps) const;
  // Where a computed, held value lies; after run.
  ArrayData* take_data(int32_t value);
  // Throws IoError if a mapped file that was read got truncated.
  void check_mapped_files() const;
  // Drops all references to buffers; keeps the capacity of the tables.
  void clear();

 private:
  struct Place {
    int32_t storage = -1;
    int64_t offset = 0;
    Strides strides;
  };
  struct Storage {
    Buffer* buffer = nullptr;
    std::shared_ptr<Buffer> own;                    // if it is ours
    const std::shared_ptr<Buffer>* lent = nullptr;  // else: that of the external, which lives on
    int32_t live = 0;
    DeviceKind device = DeviceKind::Cpu;
    bool ours = false;      // computed here, or an external that nobody else holds
    bool external = false;  // bytes are there before the plan runs
  };
  enum class CallKind : uint8_t { Kernel, Region, Copy };
  struct Call {
    CallKind kind = CallKind::Kernel;
    Device device;
    bool skip = false;  // nothing to compute: all outputs are empty
    uint32_t first_view = 0, input_count = 0, output_count = 0;
    uint32_t first_param = 0;  // of a region's nodes
    Backend* backend = nullptr;
    const SegmentNode* node = nullptr;
    const RegionStep* region = nullptr;
    const Shape* space = nullptr;
    std::span<std::byte> workspace;
  };
  struct Move {
    size_t call;
    Buffer* buffer;
    Device device;
  };

  Place& place(int32_t ref) {
    return ref >= 0 ? values_[static_cast<size_t>(ref)] : externals_[static_cast<size_t>(~ref)];
  }
  Storage& storage(const Place& at) { return storages_[static_cast<size_t>(at.storage)]; }
  const Shape& shape_of(int32_t ref) const { return segment_->slot_of(ref)->shape; }

  void bind_externals();
  void bind_view(const SegmentNode& node);
  void bind_alias(const SegmentNode& node);
  void bind_kernel(const PlanStep& step, const SegmentNode& node);
  void bind_region(const PlanStep& step);
  void bury(const PlanStep& step, size_t index);

  Call& open_call(CallKind kind, size_t first_view, size_t inputs, size_t outputs, Device device);
  void push_input(int32_t ref, Device device, std::byte* dense);
  void push_output(int32_t value);
  void copy_call(int32_t from, std::byte* to, Device device);
  std::byte* data_for_read(int32_t ref, Device device);
  std::span<std::byte> scratch(size_t bytes, Device device);

  void new_storage(int32_t value, size_t bytes, Device device);
  bool take_over(int32_t value, int32_t dying, const PlanStep& step, Device device);
  std::shared_ptr<Buffer> memory(size_t bytes, DeviceKind kind);
  size_t bytes_of(int32_t ref) const;

  void run_call(const Call& call);
  void run_recorded(const Call& call);
  void mark_written(size_t step);
  RegionCall region_call(const Call& call) const;

  const Segment* segment_ = nullptr;
  const Plan* plan_ = nullptr;
  std::vector<Place> values_, externals_;
  std::vector<Storage> storages_;
  std::vector<size_t> external_death_;  // step at which an external that is ours dies
  std::vector<std::pair<DeviceKind, std::shared_ptr<Buffer>>> free_;
  std::vector<std::pair<DeviceKind, std::shared_ptr<Buffer>>> scratch_;  // of the step being bound
  std::vector<Call> calls_;
  std::vector<size_t> step_end_;  // calls up to and including each step
  std::vector<View> views_;
  std::vector<std::byte*> dense_;  // of the kernel being bound: row-major copies of inputs
  std::vector<Move> moves_;
  std::vector<const void*> params_;
  size_t completed_ = 0;
};

}  // namespace mica
