// Shared by the tests of the transforms.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "base/error.h"
#include "core/counters.h"
#include "core/trace.h"
#include "ops/elementwise.h"
#include "ops/reduce.h"
#include "ops/shape.h"
#include "transforms/autograd.h"

namespace mica {

inline Array vector_of(std::vector<double> values, Dtype dtype = Dtype::F64) {
  return astype(Array::from<double>(values), dtype).eval();
}

inline void expect_values(const Array& a, std::vector<double> expected, double tolerance = 1e-9) {
  auto values = a.to_vector<double>();
  ASSERT_EQ(values.size(), expected.size());
  for (size_t i = 0; i < values.size(); ++i)
    EXPECT_NEAR(values[i], expected[i], tolerance) << "at " << i;
}

// The error that `body` throws, as "ValueError: text"; empty if none.
template <class Body>
std::string error_of(Body body) {
  try {
    body();
  } catch (const Error& error) {
    return std::string(error_kind_name(error.kind())) + ": " + error.what();
  }
  return "";
}

// One array in, one out.
inline ArraysFunction lift(std::function<Array(const Array&)> f) {
  return [f](const Arrays& a) { return Arrays{f(a[0])}; };
}

// Operations for the fallbacks: `cube` as written by `lower`, with or without rules of its own.
namespace test_ops {
inline void infer_same(const Application& app, std::span<OutputSpec> outputs) {
  outputs[0] = {app.inputs[0].shape(), app.inputs[0].dtype()};
}
inline Arrays lower_cube(const Application& app) {
  return {multiply(multiply(app.inputs[0], app.inputs[0]), app.inputs[0])};
}
inline Arrays vjp_cube(const Application& app, std::span<const Array> cotangents,
                       const std::vector<bool>&) {
  return {cotangents[0] * 3.0 * square(app.inputs[0])};
}
// Nothing but the lowering.
inline const Op lowered_cube{.name = "lowered_cube", .infer = &infer_same, .lower = &lower_cube};
// A vjp but no jvp and no vmap.
inline const Op vjp_only_cube{
    .name = "vjp_only_cube", .infer = &infer_same, .vjp = &vjp_cube, .lower = &lower_cube};
// The same, times a factor that is a parameter; nothing to batch it by but a loop.
struct ScaledParams {
  double factor;
  std::string name;
  static constexpr auto fields() {
    return std::tuple(argument("factor", &ScaledParams::factor),
                      field("name", &ScaledParams::name));
  }
};
inline Arrays lower_scaled(const Application& app) {
  return {multiply(lower_cube(app)[0], app.as<ScaledParams>().factor)};
}
inline const Op scaled_cube{.name = "scaled_cube",
                            .params = &params_type<ScaledParams>,
                            .infer = &infer_same,
                            .lower = &lower_scaled};
// Batched, it is what it was: the rule says that its output does not depend on the batch.
inline Batched vmap_constant(const Application&, std::span<const int>) {
  return {{vector_of({1, 2})}, {-1}};
}
inline const Op unbatching{
    .name = "unbatching", .infer = &infer_same, .vmap = &vmap_constant, .lower = &lower_cube};
// Neither rules nor a lowering.
inline const Op opaque{.name = "opaque", .infer = &infer_same};
}  // namespace test_ops

}  // namespace mica
