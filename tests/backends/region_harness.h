// Runs regions made by hand on a backend: host arrays in, host arrays out.
#pragma once

#include <algorithm>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "core/backend.h"
#include "ops/elementwise.h"
#include "ops/reduce.h"

namespace mica::test {

// Row-major values of a dtype in host memory.
struct HostArray {
  Dtype dtype = Dtype::F32;
  Shape shape;
  std::vector<std::byte> bytes;

  HostArray() = default;
  HostArray(Dtype d, const Shape& s)
      : dtype(d), shape(s), bytes(static_cast<size_t>(elements(s) * size_of(d))) {}
  int64_t size() const { return elements(shape); }
  double get(int64_t i) const {
    return dispatch(dtype, [&](auto tag) {
      using T = typename decltype(tag)::type;
      return static_cast<double>(reinterpret_cast<const T*>(bytes.data())[i]);
    });
  }
  void set(int64_t i, double value) {
    dispatch(dtype, [&](auto tag) {
      using T = typename decltype(tag)::type;
      auto* to = reinterpret_cast<T*>(bytes.data());
      if constexpr (std::is_same_v<T, float16_t> || std::is_same_v<T, bfloat16_t>)
        to[i] = T(static_cast<float>(value));
      else if constexpr (std::is_same_v<T, bool>)
        to[i] = value != 0;
      else if constexpr (std::is_integral_v<T>)
        to[i] = static_cast<T>(static_cast<int64_t>(value));
      else
        to[i] = static_cast<T>(value);
    });
  }
};

inline HostArray random_array(Dtype dtype, const Shape& shape, double low, double high,
                              std::mt19937& random) {
  HostArray array(dtype, shape);
  std::uniform_real_distribution<double> uniform(low, high);
  for (int64_t i = 0; i < array.size(); ++i)
    array.set(i, dtype == Dtype::Bool ? uniform(random) > (low + high) / 2 : uniform(random));
  return array;
}

// Distance in units of the last place of the dtype; 0 for equal values and two NaNs.
inline double ulps(const HostArray& a, const HostArray& b, int64_t i) {
  double x = a.get(i), y = b.get(i);
  if (x == y || (std::isnan(x) && std::isnan(y))) return 0;
  if (!is_floating(a.dtype) || std::isnan(x) || std::isnan(y)) return 1e9;
  struct Format {
    int digits, smallest;
    double largest;
  };
  Format format = a.dtype == Dtype::F16    ? Format{11, -14, 65504}
                  : a.dtype == Dtype::BF16 ? Format{8, -126, 0x1.fep127}
                  : a.dtype == Dtype::F32  ? Format{24, -126, 0x1.fffffep127}
                                           : Format{53, -1022, 0x1.fffffffffffffp1023};
  // An infinity lies one unit past the largest number.
  auto bounded = [&](double v) {
    return std::isinf(v) ? std::copysign(format.largest * (1 + std::ldexp(1.0, -format.digits)), v)
                         : v;
  };
  x = bounded(x);
  y = bounded(y);
  int exponent = std::max({std::ilogb(x), std::ilogb(y), format.smallest});
  return std::ldexp(std::fabs(x - y), format.digits - 1 - exponent);
}

// A region, its inputs as views of host arrays (strides in elements), and parameters of its nodes.
struct RegionCase {
  Region region;
  Shape space;
  std::vector<HostArray> inputs;
  std::vector<Strides> strides;
  std::vector<int64_t> offsets;
  std::vector<const void*> params;

  int16_t input(HostArray array, Strides strides_over_space, int64_t offset = 0) {
    region.inputs.push_back(array.dtype);
    inputs.push_back(std::move(array));
    strides.push_back(std::move(strides_over_space));
    offsets.push_back(offset);
    return static_cast<int16_t>(inputs.size() - 1);
  }
  // Call after all inputs.
  int16_t add(const Op& op, Dtype result, std::vector<int16_t> arguments, const void* p = nullptr) {
    RegionInstruction in{&op,          result,
                         result,       static_cast<uint8_t>(arguments.size()),
                         {-1, -1, -1}, static_cast<int32_t>(params.size())};
    std::copy(arguments.begin(), arguments.end(), in.arguments);
    if (!arguments.empty()) in.argument_dtype = dtype_of_value(arguments.back());
    params.push_back(p);
    region.instructions.push_back(in);
    return static_cast<int16_t>(region.inputs.size() + region.instructions.size() - 1);
  }
  Dtype dtype_of_value(int16_t v) const {
    auto i = static_cast<size_t>(v);
    return i < region.inputs.size() ? region.inputs[i]
                                    : region.instructions[i - region.inputs.size()].dtype;
  }
  void output(int16_t value) { region.outputs.push_back({value, dtype_of_value(value)}); }
  void reduce(const Op& op, int16_t value, std::vector<int> axes) {
    region.reduction = &op;
    region.reduced_value = value;
    region.axes = std::move(axes);
    bool sums = op.reduce == Reduce::Sum || op.reduce == Reduce::Prod;
    region.reduction_dtype = sums ? ops::sum_dtype(dtype_of_value(value)) : dtype_of_value(value);
  }
};

// Device memory for the life of one run.
class DeviceMemory {
 public:
  DeviceMemory(Backend& backend, size_t bytes, size_t offset = 0)
      : backend_(backend),
        bytes_(bytes + offset),
        base_(static_cast<std::byte*>(backend.allocate(bytes_))),
        data_(base_ + offset) {}
  ~DeviceMemory() { backend_.release(base_, bytes_); }
  DeviceMemory(const DeviceMemory&) = delete;
  std::byte* data() const { return data_; }

 private:
  Backend& backend_;
  size_t bytes_;
  std::byte *base_, *data_;
};

inline std::vector<HostArray> run_region_on(DeviceKind kind, const RegionCase& c,
                                            size_t misalign = 0) {
  Backend& backend = *backend_of(kind);
  std::vector<std::unique_ptr<DeviceMemory>> memory;
  auto place = [&](size_t bytes, int item) {
    memory.push_back(
        std::make_unique<DeviceMemory>(backend, bytes, misalign * static_cast<size_t>(item)));
    return memory.back()->data();
  };
  std::vector<View> inputs, outputs;
  for (size_t i = 0; i < c.inputs.size(); ++i) {
    const HostArray& array = c.inputs[i];
    int item = size_of(array.dtype);
    std::byte* data = place(array.bytes.size(), item);
    backend.copy_from_host(data, array.bytes.data(), array.bytes.size());
    inputs.push_back({data + c.offsets[i] * item, array.dtype, c.space, c.strides[i]});
  }
  std::vector<HostArray> results;
  for (const RegionOutput& output : c.region.outputs) results.emplace_back(output.dtype, c.space);
  if (c.region.reduction) {
    Shape kept = c.space;
    for (int axis : c.region.axes) kept[static_cast<size_t>(axis)] = 1;
    results.emplace_back(c.region.reduction_dtype, kept);
  }
  for (const HostArray& result : results) {
    std::byte* data = place(result.bytes.size(), size_of(result.dtype));
    outputs.push_back({data, result.dtype, result.shape, row_major(result.shape)});
  }
  auto program = backend.prepare(c.region);
  RegionCall call{program.get(), &c.region, c.space, inputs, outputs, c.params, {}};
  size_t workspace = backend.region_workspace(call);
  if (workspace) call.workspace = {place(workspace, 0), workspace};
  backend.run(call);
  for (size_t o = 0; o < results.size(); ++o)
    backend.copy_to_host(results[o].bytes.data(), outputs[o].data, results[o].bytes.size());
  return results;
}

}  // namespace mica::test
