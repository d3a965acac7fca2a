#include "ops/rope.h"

#include <cmath>

#include "backends/ref/ref.h"

namespace mica::ref {

namespace {

// Angles are float32 by definition; their cosines and sines are not.
void rope(const KernelCall& call) {
  const auto& params = call.as<ops::RopeParams>();
  const View &x = call.inputs[0], &positions = call.inputs[1], &y = call.outputs[0];
  const size_t rank = x.shape.size();
  const int64_t half = params.dims / 2;
  for_each(x.shape, [&](const Dims& index) {
    const int64_t feature = index.back(), from = offset(x, index), to = offset(y, index);
    if (feature >= params.dims) return store(y, to, load(x, from));
    const bool first = params.traditional ? feature % 2 == 0 : feature < half;
    const int64_t pair = params.traditional ? feature / 2 : feature % half;
    const int64_t partner = (params.traditional ? 1 : half) * (first ? 1 : -1);

    Dims place;  // of the position: (), (b) or (b, l)
    if (positions.shape.size() > 0) place.push_back(index[0]);
    if (positions.shape.size() > 1) place.push_back(index[rank - 2]);
    int64_t position = load<int64_t>(positions, offset(positions, place));
    if (positions.shape.size() < 2) position += index[rank - 2];

    const bool given = call.inputs.size() > 2;
    const float element =
        given ? static_cast<float>(load(call.inputs[2], pair * call.inputs[2].strides[0])) : 0;
    const float angle =
        static_cast<float>(position) * ops::rope_frequency(params, static_cast<int>(pair), element);
    const double sine = std::sin(static_cast<double>(params.backward ? -angle : angle));
    const double turned = load(x, from) * std::cos(static_cast<double>(angle)) +
                          load(x, from + partner * x.strides.back()) * (first ? -sine : sine);
    store(y, to, turned * params.magnitude);
  });
}

}  // namespace

void rope_kernels(KernelTable& registry) {
  registry.add(ops::rope_op, {.run = &rope, .layouts = {Layout::Any, Layout::Any, Layout::Any}});
}

}  // namespace mica::ref
