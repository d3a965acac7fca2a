#include "ops/sweep_support.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <unordered_set>

#include "core/node.h"
#include "ops/shape.h"

namespace mica::sweep {

std::vector<Drawn> draw(const Sample& sample, std::mt19937_64& random) {
  std::vector<Drawn> drawn;
  for (const Sample::Input& input : sample.inputs) {
    Drawn one{input.shape, input.values};
    auto count = static_cast<size_t>(elements(input.shape));
    std::uniform_real_distribution<double> real(input.low, input.high);
    std::uniform_int_distribution<int64_t> integer(static_cast<int64_t>(std::ceil(input.low)),
                                                   static_cast<int64_t>(std::floor(input.high)));
    while (one.values.size() < count)
      one.values.push_back(is_floating(input.dtype) ? real(random)
                                                    : static_cast<double>(integer(random)));
    drawn.push_back(std::move(one));
  }
  return drawn;
}

std::vector<double> draw_normal(size_t count, std::mt19937_64& random) {
  std::normal_distribution<double> normal;
  std::vector<double> values(count);
  for (double& value : values) value = normal(random);
  return values;
}

Dtype dtype_of_input(const Sample::Input& input, Dtype dtype) {
  return is_floating(input.dtype) && !input.fixed_dtype ? dtype : input.dtype;
}

bool has_free_dtype(const Sample& sample) {
  for (const Sample::Input& input : sample.inputs) {
    if (is_floating(input.dtype) && !input.fixed_dtype) return true;
  }
  return false;
}

Array make_array(const Drawn& drawn, Dtype dtype, Dtype through) {
  return dispatch(dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    auto values = std::make_unique<T[]>(drawn.values.size() + 1);
    for (size_t i = 0; i < drawn.values.size(); ++i) {
      double rounded = dispatch(through, [&](auto other) {
        return static_cast<double>(static_cast<typename decltype(other)::type>(drawn.values[i]));
      });
      values[i] = static_cast<T>(is_floating(dtype) ? rounded : drawn.values[i]);
    }
    return Array::from_bytes(values.get(), drawn.values.size(), drawn.shape, dtype);
  });
}

Arrays make_inputs(const Sample& sample, const std::vector<Drawn>& drawn, Dtype dtype,
                   Dtype through) {
  Arrays inputs;
  for (size_t i = 0; i < drawn.size(); ++i) {
    Dtype own = dtype_of_input(sample.inputs[i], dtype);
    bool varies = is_floating(sample.inputs[i].dtype) && !sample.inputs[i].fixed_dtype;
    inputs.push_back(make_array(drawn[i], own, varies ? through : own));
  }
  return inputs;
}

namespace {

// Lays the bytes of `a` out with `strides` in a larger block and views them there.
Array scattered(const Array& a, const Shape& padded, const std::function<Array(const Array&)>& undo,
                const std::function<size_t(const Shape&)>& place) {
  auto item = static_cast<size_t>(size_of(a.dtype()));
  std::vector<std::byte> block(static_cast<size_t>(elements(padded)) * item, std::byte{0x7b});
  auto bytes = bytes_of(a);
  Shape index(a.rank(), 0);
  for (size_t i = 0; i * item < bytes.size(); ++i) {
    std::memcpy(block.data() + place(index) * item, bytes.data() + i * item, item);
    for (size_t axis = a.rank(); axis-- > 0;) {
      if (++index[axis] < a.shape()[axis]) break;
      index[axis] = 0;
    }
  }
  auto base = Array::from_bytes(block.data(), block.size() / item, padded, a.dtype());
  return undo(base).eval();
}

}  // namespace

Array placed(const Array& a, Placement placement) {
  if (a.rank() == 0 || a.size() == 0) return a;
  Shape shape = a.shape();
  auto row_major_place = [](const Shape& extents, const Shape& index) {
    Strides strides = row_major(extents);
    return static_cast<size_t>(
        std::inner_product(index.begin(), index.end(), strides.begin(), int64_t{0}));
  };
  if (placement == Placement::Transposed) {
    Shape turned(std::vector<int64_t>(std::reverse_iterator(shape.end()),
                                      std::reverse_iterator(shape.begin())));
    return scattered(
        a, turned, [](const Array& base) { return transpose(base); },
        [&](const Shape& index) {
          Shape back(std::vector<int64_t>(std::reverse_iterator(index.end()),
                                          std::reverse_iterator(index.begin())));
          return row_major_place(turned, back);
        });
  }
  if (placement == Placement::Strided) {
    Shape padded = shape;
    for (int64_t& extent : padded) extent = 2 * extent + 1;
    Shape ones(shape.size(), 1), twos(shape.size(), 2), stop = padded;
    return scattered(
        a, padded, [&](const Array& base) { return slice(base, ones, stop, twos); },
        [&](const Shape& index) {
          Shape at = index;
          for (int64_t& i : at) i = 2 * i + 1;
          return row_major_place(padded, at);
        });
  }
  Shape start = shape, stop = shape, backwards(shape.size(), -1);
  for (size_t i = 0; i < shape.size(); ++i) {
    start[i] = shape[i] - 1;
    stop[i] = -shape[i] - 1;
  }
  return scattered(
      a, shape, [&](const Array& base) { return slice(base, start, stop, backwards); },
      [&](const Shape& index) {
        Shape at = index;
        for (size_t i = 0; i < at.size(); ++i) at[i] = shape[i] - 1 - at[i];
        return row_major_place(shape, at);
      });
}

std::vector<double> values_of(const Array& a) { return a.to_vector<double>(); }

std::vector<std::byte> bytes_of(const Array& a) {
  auto host = a.host_bytes();
  return {host.get(), host.get() + a.nbytes()};
}

double tolerance_of(Dtype dtype) {
  switch (dtype) {
    case Dtype::F64: return 1e-12;
    case Dtype::F32: return 4e-6;
    case Dtype::F16: return 2e-3;
    default: return 1.6e-2;
  }
}

::testing::AssertionResult close(const Array& actual, const Array& expected, double tolerance) {
  if (actual.shape() != expected.shape())
    return ::testing::AssertionFailure()
           << "shape " << to_string(actual.shape()) << ", expected " << to_string(expected.shape());
  auto got = values_of(actual), wanted = values_of(expected);
  bool exact = !is_floating(actual.dtype());
  double square = 0, count = 0;
  for (double& value : wanted) {
    if (!exact)
      value = dispatch(actual.dtype(), [&](auto tag) {
        return static_cast<double>(static_cast<typename decltype(tag)::type>(value));
      });
    if (!std::isfinite(value)) continue;
    square += value * value;
    ++count;
  }
  double typical = count > 0 ? std::sqrt(square / count) : 0;
  for (size_t i = 0; i < got.size(); ++i) {
    if (got[i] == wanted[i] || (std::isnan(got[i]) && std::isnan(wanted[i]))) continue;
    double allowed = exact ? 0 : tolerance * (std::fabs(wanted[i]) + typical);
    if (std::fabs(got[i] - wanted[i]) <= allowed) continue;
    return ::testing::AssertionFailure()
           << "element " << i << " of " << to_string(actual.shape()) << " "
           << dtype_name(actual.dtype()) << " is " << got[i] << ", expected " << wanted[i]
           << " (allowed difference " << allowed << ")";
  }
  return ::testing::AssertionSuccess();
}

bool applies(const Arrays& outputs, const Op& op) {
  std::vector<const Node*> stack;
  std::unordered_set<const Node*> seen;
  for (const Array& output : outputs) stack.push_back(output.node());
  while (!stack.empty()) {
    const Node* node = stack.back();
    stack.pop_back();
    if (!seen.insert(node).second) continue;
    if (node->op == &op) return true;
    for (const Array& input : node->input_span()) stack.push_back(input.node());
  }
  return false;
}

}  // namespace mica::sweep
