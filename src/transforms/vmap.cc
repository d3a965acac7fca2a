#include "transforms/vmap.h"

#include "ops/shape.h"
#include "transforms/batching.h"

namespace mica {

namespace {

std::optional<int> axis_at(const BatchAxes& axes, size_t place) {
  return axes.empty() ? 0 : axes[place];
}

void need_count(const BatchAxes& axes, size_t count, const char* what) {
  if (!axes.empty() && axes.size() != count)
    throw_value("[vmap] {} axes for {} {}s", axes.size(), count, what);
}

Array with_batch_axis(const transforms::BatchedArray& value, std::optional<int> wanted,
                      int64_t extent) {
  if (!wanted) {
    if (value.axis >= 0)
      throw_value("[vmap] an output depends on a batched argument, but its output axis is none");
    return value.array;
  }
  size_t rank = value.array.rank() + (value.axis < 0 ? 1 : 0);
  int axis = normalize_axis(*wanted, rank, "vmap");
  if (value.axis >= 0)
    return axis == value.axis ? value.array : moveaxis(value.array, value.axis, axis);
  Shape shape = value.array.shape();
  shape.insert(static_cast<size_t>(axis), extent);
  return broadcast_to(expand_dims(value.array, {axis}), shape);
}

}  // namespace

VmapTrace::VmapTrace(const ArraysFunction& f, const Arrays& inputs, const BatchAxes& in_axes)
    : batched_inputs_(inputs) {
  need_count(in_axes, inputs.size(), "argument");
  Arrays arguments = inputs;
  for (size_t i = 0; i < inputs.size(); ++i) {
    std::optional<int> wanted = axis_at(in_axes, i);
    axes_.push_back(wanted ? normalize_axis(*wanted, inputs[i].rank(), "vmap") : -1);
    if (!wanted) continue;
    int64_t extent = inputs[i].shape(axes_[i]);
    if (extent_ >= 0 && extent != extent_)
      throw_value("[vmap] batch extents differ: {} and {}", extent_, extent);
    extent_ = extent;
    arguments[i] =
        placeholder(transforms::without_axis(inputs[i].shape(), axes_[i]), inputs[i].dtype());
    sources_.push_back(arguments[i]);
  }
  if (extent_ < 0) throw_value("[vmap] none of the {} arguments is batched", inputs.size());
  outputs_ = f(arguments);
}

Arrays VmapTrace::batched(const BatchAxes& out_axes) const {
  need_count(out_axes, outputs_.size(), "output");
  std::vector<transforms::BatchedArray> replacements;
  for (size_t i = 0; i < axes_.size(); ++i) {
    if (axes_[i] >= 0) replacements.push_back({batched_inputs_[i], axes_[i]});
  }
  Arrays result;
  auto values = transforms::batch(outputs_, sources_, replacements, extent_);
  for (size_t i = 0; i < values.size(); ++i)
    result.push_back(with_batch_axis(values[i], axis_at(out_axes, i), extent_));
  return result;
}

ArraysFunction vmap(ArraysFunction f, BatchAxes in_axes, BatchAxes out_axes) {
  return [f = std::move(f), in_axes = std::move(in_axes), out_axes = std::move(out_axes)](
             const Arrays& inputs) { return VmapTrace(f, inputs, in_axes).batched(out_axes); };
}

}  // namespace mica
