// Runs a test's body once per device, and reads arrays as doubles.
#pragma once

#include <gtest/gtest.h>

#include <numeric>
#include <vector>

#include "core/array.h"
#include "ops/elementwise.h"
#include "ops/shape.h"
#include "ops/sweep_support.h"

namespace mica {

template <class F>
void on_devices(F&& body) {
  for (DeviceKind kind : {DeviceKind::Ref, DeviceKind::Cpu}) {
    SCOPED_TRACE(device_name({kind}));
    sweep::OnDevice on(kind);
    body();
  }
}

// 0, 1, 2 … in row-major order, as an evaluated array.
inline Array counting(const Shape& shape, Dtype dtype = Dtype::F32) {
  std::vector<double> values(static_cast<size_t>(elements(shape)));
  std::iota(values.begin(), values.end(), 0);
  return astype(Array::from<double>(values, shape), dtype).eval();
}

inline Array ints(std::vector<int32_t> values) { return Array::from<int32_t>(values); }
inline Array reals(std::vector<float> values) { return Array::from<float>(values); }

inline void expect_array(const Array& a, const Shape& shape, const std::vector<double>& values) {
  EXPECT_EQ(a.shape(), shape) << a.shape() << " against " << shape;
  EXPECT_EQ(a.to_vector<double>(), values);
}

}  // namespace mica

namespace mica {
inline std::ostream& operator<<(std::ostream& out, const Dims& dims) {
  return out << to_string(dims);
}
}  // namespace mica
