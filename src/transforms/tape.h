// Tape: the graph that a function built, copied out of its nodes so that it can be built again from
// other inputs. For src/transforms: compile replays it instead of calling the function, checkpoint
// recomputes with it.
//
// Arrays that the function captured from outside stay inputs of the tape. Only what the outputs
// need is on it. Applications without inputs (fill, arange) are on it too, so that they fuse with
// their users.
#pragma once

#include <memory>

#include "transforms/traced_graph.h"

namespace mica::transforms {

struct DestroyParams {
  const ParamsType* type = nullptr;
  void operator()(void* params) const;
};

class Tape {
 public:
  // `simplify`: equal applications become one. It never merges across a checkpoint, whose
  // recomputation reads its inputs through `depends`.
  Tape(std::span<const Array> outputs, std::span<const Array> sources, bool simplify);

  size_t size() const { return steps_.size(); }
  const Arrays& captured() const { return captured_; }
  // Hands over the captured arrays: replay then needs them.
  Arrays take_captured() { return std::move(captured_); }

  Arrays replay(std::span<const Array> inputs) const { return replay(inputs, captured_); }
  Arrays replay(std::span<const Array> inputs, std::span<const Array> captured) const;

 private:
  // References count the sources, then the captured arrays as negative numbers from -1 down, and
  // after the sources the outputs of the steps in order.
  struct Step {
    const Op* op = nullptr;
    Stream stream;
    std::unique_ptr<void, DestroyParams> params;
    uint32_t first_reference = 0;
    uint32_t reference_count = 0;
    uint32_t output_count = 0;
    int32_t first_value = 0;
  };
  class Recorder;

  std::span<const int32_t> references_of(const Step& step) const {
    return {references_.data() + step.first_reference, step.reference_count};
  }

  std::vector<Step> steps_;
  std::vector<int32_t> references_;
  std::vector<int32_t> outputs_;
  Arrays captured_;
  int32_t value_count_ = 0;
};

}  // namespace mica::transforms
