// What the sweep over all operations needs beside the samples: drawn inputs, layouts, comparisons.
#pragma once

#include <gtest/gtest.h>

#include <random>
#include <string>
#include <vector>

#include "core/op.h"

namespace mica::sweep {

// Operations of this thread go to `device` while it lives.
class OnDevice {
 public:
  explicit OnDevice(DeviceKind kind) : scope_(default_stream({kind})) {}

 private:
  StreamScope scope_;
};

// The inputs of one sample as host numbers, so that every device and layout gets the same values.
struct Drawn {
  Shape shape;
  std::vector<double> values;
};

std::vector<Drawn> draw(const Sample& sample, std::mt19937_64& random);
std::vector<double> draw_normal(size_t count, std::mt19937_64& random);

// The type that an input has when the sweep runs a sample in `dtype`.
Dtype dtype_of_input(const Sample::Input& input, Dtype dtype);
// True if the sample has an input whose type may vary.
bool has_free_dtype(const Sample& sample);

// An evaluated array of the values, rounded first to `through` (what a half-precision run would
// see).
Array make_array(const Drawn& drawn, Dtype dtype, Dtype through);
Arrays make_inputs(const Sample& sample, const std::vector<Drawn>& drawn, Dtype dtype,
                   Dtype through);

// The same values in another layout.
enum class Placement { Transposed, Strided, Reversed };
Array placed(const Array& a, Placement placement);

std::vector<double> values_of(const Array& a);
std::vector<std::byte> bytes_of(const Array& a);

// Relative error that one operation may have in a type.
double tolerance_of(Dtype dtype);
// `actual` against `expected` (of the same shape, any type): integers and bool exactly, floating
// values within the tolerance of their magnitude, after rounding the expected ones to `actual`'s
// type.
::testing::AssertionResult close(const Array& actual, const Array& expected, double tolerance);

// True if the graph of `outputs` applies the op.
bool applies(const Arrays& outputs, const Op& op);

}  // namespace mica::sweep
