#include "transforms/batching.h"

#include <algorithm>

#include "ops/create.h"
#include "ops/join.h"
#include "ops/shape.h"

namespace mica::transforms {

namespace {

// One element of the batch at a time.
Batched loop_and_stack(const Node& node, std::span<const Array> inputs, std::span<const int> axes,
                       int64_t extent) {
  std::vector<Arrays> parts(node.output_count);
  for (int64_t b = 0; b < extent; ++b) {
    Arrays element(inputs.begin(), inputs.end());
    for (size_t i = 0; i < element.size(); ++i) {
      if (axes[i] < 0) continue;
      Array one = slice_axis(element[i], axes[i], b, b + 1, node.stream);
      element[i] = squeeze(one, {axes[i]}, node.stream);
    }
    Arrays outputs = rebuild(node, element);
    for (size_t i = 0; i < parts.size(); ++i) parts[i].push_back(outputs[i]);
  }
  Batched result;
  for (const Arrays& part : parts) {
    result.outputs.push_back(stack(part, 0, node.stream));
    result.axes.push_back(0);
  }
  return result;
}

// Of an empty batch: no rule need think of it.
Batched empty_batch(const Node& node) {
  Batched result;
  for (uint32_t i = 0; i < node.output_count; ++i) {
    Shape shape = node.slots[i].shape;
    shape.insert(0, 0);
    result.outputs.push_back(zeros(shape, node.slots[i].dtype, node.stream));
    result.axes.push_back(0);
  }
  return result;
}

Batched batch_lowering(const Node& node, std::span<const Array> inputs, std::span<const int> axes,
                       int64_t extent) {
  TraceScope scope;
  Arrays single(inputs.begin(), inputs.end());
  Arrays sources;
  std::vector<BatchedArray> replacements;
  for (size_t i = 0; i < single.size(); ++i) {
    if (axes[i] < 0) continue;
    single[i] = placeholder(without_axis(inputs[i].shape(), axes[i]), inputs[i].dtype());
    sources.push_back(single[i]);
    replacements.push_back({inputs[i], axes[i]});
  }
  Arrays lowered = node.op->lower({single, {}, node.params, node.stream});
  Batched result;
  for (BatchedArray& output : batch(lowered, sources, replacements, extent)) {
    result.outputs.push_back(std::move(output.array));
    result.axes.push_back(output.axis);
  }
  return result;
}

Batched batch_node(const Node& node, std::span<const Array> inputs, std::span<const int> axes,
                   int64_t extent) {
  StreamScope on_its_stream(node.stream);
  if (extent == 0) return empty_batch(node);
  if (node.op->vmap) return node.op->vmap({inputs, {}, node.params, node.stream}, axes);
  if (node.op->lower) return batch_lowering(node, inputs, axes, extent);
  return loop_and_stack(node, inputs, axes, extent);
}

void check_batched(const Node& node, const Batched& batched, int64_t extent) {
  MICA_ASSERT(batched.outputs.size() == node.output_count &&
              batched.axes.size() == node.output_count);
  for (size_t i = 0; i < batched.outputs.size(); ++i) {
    const Array& output = batched.outputs[i];
    int axis = batched.axes[i];
    bool fits =
        axis < static_cast<int>(output.rank()) && (axis < 0 || output.shape(axis) == extent) &&
        (axis < 0 ? output.shape() : without_axis(output.shape(), axis)) == node.slots[i].shape &&
        output.dtype() == node.slots[i].dtype;
    if (!fits)
      throw_value(
          "[vmap] the rule of {} gave {} of shape {} with batch axis {} where {} of shape {} "
          "batched {} times belongs",
          node.op->name, output.dtype(), output.shape(), axis, node.slots[i].dtype,
          node.slots[i].shape, extent);
  }
}

}  // namespace

Shape without_axis(const Shape& shape, int axis) {
  Shape result = shape;
  result.erase(static_cast<size_t>(axis));
  return result;
}

std::vector<BatchedArray> batch(std::span<const Array> outputs, std::span<const Array> sources,
                                std::span<const BatchedArray> replacements, int64_t extent) {
  TracedGraph graph(outputs, sources, Follow::Everything);
  std::vector<BatchedArray> values(graph.values());
  std::copy(replacements.begin(), replacements.end(), values.begin());
  auto value_of = [&](const Array& array) {
    int64_t number = graph.number(array);
    return number < 0 ? BatchedArray{array, -1} : values[static_cast<size_t>(number)];
  };
  for (size_t k = 0; k < graph.nodes().size(); ++k) {
    const Node& node = *graph.nodes()[k];
    Arrays inputs;
    std::vector<int> axes;
    bool any = false;
    for (const Array& input : node.input_span()) {
      BatchedArray value = value_of(input);
      any |= value.axis >= 0;
      inputs.push_back(std::move(value.array));
      axes.push_back(value.axis);
    }
    Batched batched = any ? batch_node(node, inputs, axes, extent)
                          : Batched{rebuild(node, inputs), std::vector<int>(node.output_count, -1)};
    check_batched(node, batched, extent);
    for (uint32_t i = 0; i < node.output_count; ++i)
      values[graph.first_value(k) + i] = {std::move(batched.outputs[i]), batched.axes[i]};
  }
  std::vector<BatchedArray> result;
  for (const Array& output : outputs) result.push_back(value_of(output));
  return result;
}

}  // namespace mica::transforms
