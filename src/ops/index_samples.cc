#include "ops/index_samples.h"

#include "ops/index.h"
#include "ops/shape.h"

namespace mica::ops {

namespace {

using Given = std::span<const Array>;

Sample::Input places(const Shape& shape, std::vector<double> values, Dtype dtype = Dtype::I32) {
  return {.shape = shape,
          .differentiable = false,
          .dtype = dtype,
          .fixed_dtype = true,
          .values = std::move(values)};
}

Sample::Input reals(const Shape& shape) { return {.shape = shape}; }

}  // namespace

std::vector<Sample> take_samples() {
  auto of = [](const char* label, const Shape& a, Sample::Input indices, int axis) {
    return Sample{label, {reals(a), std::move(indices)}, [axis](Given in) {
                    return Arrays{take(in[0], in[1], axis)};
                  }};
  };
  return {of("rows", {4, 3}, places({5}, {0, 3, 1, 3, -1}), 0),
          of("columns", {3, 4}, places({2, 2}, {3, 0, 0, -4}), 1),
          of("middle", {2, 5, 3}, places({3}, {4, 2, 2}, Dtype::U8), -2),
          of("one", {4, 3}, places({}, {2}, Dtype::I64), 0),
          of("none", {4, 3}, places({0}, {}), 0)};
}

std::vector<Sample> take_along_axis_samples() {
  auto of = [](const char* label, const Shape& a, Sample::Input indices, int axis) {
    return Sample{label, {reals(a), std::move(indices)}, [axis](Given in) {
                    return Arrays{take_along_axis(in[0], in[1], axis)};
                  }};
  };
  return {of("rows", {4, 3}, places({2, 3}, {0, 3, 1, 3, -1, 1}), 0),
          of("last", {2, 4}, places({2, 3}, {3, 0, 0, -4, 1, 2}), -1),
          of("broadcast", {2, 4}, places({1, 2}, {1, 3}, Dtype::U32), 1),
          of("middle", {2, 3, 2}, places({2, 1, 2}, {2, 0, 1, 2}), 1),
          of("none", {2, 4}, places({2, 0}, {}), 1)};
}

std::vector<Sample> gather_samples() {
  auto one = [](const char* label, const Shape& a, Sample::Input indices, int axis,
                const Shape& sizes) {
    return Sample{label, {reals(a), std::move(indices)}, [=](Given in) {
                    return Arrays{gather(in[0], {in[1]}, {axis}, sizes)};
                  }};
  };
  return {one("rows", {4, 3}, places({3}, {0, 3, 0}), 0, {1, 3}),
          one("blocks", {5, 4}, places({2, 2}, {0, 3, 1, 2}), 0, {2, 3}),
          one("last axis", {3, 4}, places({2}, {-1, 1}), 1, {2, 1}),
          one("none", {3, 4}, places({0}, {}), 1, {3, 1}),
          {"points",
           {reals({3, 4}), places({2, 1}, {2, 0}), places({3}, {1, 3, -2}, Dtype::I64)},
           [](Given in) { return Arrays{gather(in[0], {in[1], in[2]}, {0, 1}, {1, 1})}; }},
          {"swapped axes",
           {reals({3, 4, 2}), places({2}, {3, 0}), places({2}, {1, 1})},
           [](Given in) { return Arrays{gather(in[0], {in[1], in[2]}, {1, 0}, {1, 1, 2})}; }}};
}

std::vector<Sample> scatter_samples() {
  auto one = [](const char* label, const Shape& a, Sample::Input indices, const Shape& updates,
                int axis, ScatterMode mode) {
    return Sample{label, {reals(a), std::move(indices), reals(updates)}, [=](Given in) {
                    return Arrays{scatter(in[0], {in[1]}, in[2], {axis}, mode)};
                  }};
  };
  return {
      one("set rows", {4, 3}, places({2}, {3, 0}), {2, 1, 3}, 0, ScatterMode::Set),
      one("add rows", {4, 3}, places({3}, {1, 3, 1}), {3, 1, 3}, 0, ScatterMode::Add),
      one("add blocks", {5, 4}, places({2, 2}, {0, 3, 1, 1}), {2, 2, 2, 3}, 0, ScatterMode::Add),
      one("max", {4, 3}, places({2}, {1, -1}), {2, 1, 3}, 0, ScatterMode::Max),
      one("min columns", {3, 4}, places({2}, {1, 2}), {2, 3, 1}, 1, ScatterMode::Min),
      one("none", {4, 3}, places({0}, {}), {0, 1, 3}, 0, ScatterMode::Add),
      {"add points",
       {reals({3, 4}), places({2, 1}, {2, 0}), places({3}, {1, 3, 1}), reals({2, 3, 1, 1})},
       [](Given in) {
         return Arrays{scatter(in[0], {in[1], in[2]}, in[3], {0, 1}, ScatterMode::Add)};
       }},
      {"prod",
       {{.shape = {4, 2}, .differentiable = false},
        places({3}, {1, 3, 1}),
        {.shape = {3, 1, 2}, .differentiable = false}},
       [](Given in) { return Arrays{scatter(in[0], {in[1]}, in[2], {0}, ScatterMode::Prod)}; }}};
}

std::vector<Sample> scatter_axis_samples() {
  auto put = [](Given in) { return Arrays{put_along_axis(in[0], in[1], in[2], -1)}; };
  auto sum = [](Given in) { return Arrays{scatter_add_axis(in[0], in[1], in[2], 0)}; };
  return {{"put", {reals({2, 4}), places({2, 2}, {3, 0, -3, 2}), reals({2, 2})}, put},
          {"put broadcast", {reals({2, 4}), places({1, 2}, {3, 0}), reals({2, 1})}, put},
          {"put none", {reals({2, 4}), places({2, 0}, {}), reals({2, 0})}, put},
          {"add", {reals({3, 2}), places({4, 2}, {0, 1, 0, 2, 2, 2, -1, 0}), reals({4, 2})}, sum}};
}

std::vector<Sample> slice_update_samples() {
  auto of = [](const char* label, const Shape& a, const Shape& update, const Shape& start,
               const Shape& stop, const Shape& strides) {
    return Sample{label, {reals(a), reals(update)}, [=](Given in) {
                    return Arrays{slice_update(in[0], in[1], start, stop, strides)};
                  }};
  };
  return {of("inner", {4, 5}, {2, 3}, {1, 2}, {3, 5}, {}),
          of("steps", {7, 4}, {3, 2}, {0, 1}, {7, 4}, {3, 2}),
          of("backward", {5}, {3}, {4}, {-6}, {-2}),
          of("broadcast", {3, 4}, {4}, {1, 0}, {3, 4}, {}),
          of("whole", {2, 3}, {2, 3}, {0, 0}, {2, 3}, {})};
}

std::vector<Sample> dynamic_slice_samples() {
  auto of = [](const char* label, const Shape& a, Sample::Input start, std::vector<int> axes,
               const Shape& sizes) {
    return Sample{label, {reals(a), std::move(start)}, [=](Given in) {
                    return Arrays{slice(in[0], in[1], axes, sizes)};
                  }};
  };
  return {of("one axis", {5, 3}, places({1}, {2}), {0}, {2, 3}),
          of("two axes", {4, 5}, places({2}, {3, 1}, Dtype::I64), {1, 0}, {3, 2}),
          of("corner", {3, 4}, places({}, {0}), {1}, {2, 2}),
          of("none", {3, 4}, places({1}, {3}), {0}, {0, 4})};
}

std::vector<Sample> dynamic_slice_update_samples() {
  auto of = [](const char* label, const Shape& a, const Shape& update, Sample::Input start,
               std::vector<int> axes) {
    return Sample{label, {reals(a), reals(update), std::move(start)}, [=](Given in) {
                    return Arrays{slice_update(in[0], in[1], in[2], axes)};
                  }};
  };
  return {of("one axis", {5, 3}, {2, 3}, places({1}, {2}), {0}),
          of("two axes", {4, 5}, {3, 2}, places({2}, {3, 1}), {1, 0}),
          of("corner", {3, 4}, {2, 2}, places({}, {0}), {1}),
          of("none", {3, 4}, {0, 4}, places({1}, {3}, Dtype::I64), {0})};
}

std::vector<Sample> ragged_slice_update_samples() {
  auto of = [](const char* label, const Shape& target, const Shape& update, Sample::Input starts,
               int axis, bool ring) {
    return Sample{label, {reals(target), reals(update), std::move(starts)}, [=](Given in) {
                    return Arrays{ragged_slice_update(in[0], in[1], in[2], axis, ring)};
                  }};
  };
  return {of("rows", {2, 5, 3}, {2, 2, 3}, places({2}, {0, 3}), 1, false),
          of("heads", {2, 2, 4, 3}, {2, 2, 1, 3}, places({2}, {3, 1}), 2, false),
          of("ring", {2, 4, 2}, {2, 3, 2}, places({2}, {3, 9}), 1, true),
          of("long ring", {2, 3}, {2, 5}, places({2}, {0, 4}), 1, true),
          of("none", {2, 3, 2}, {2, 0, 2}, places({2}, {3, 0}), 1, false)};
}

}  // namespace mica::ops
