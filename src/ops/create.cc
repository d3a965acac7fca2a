#include "ops/create.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/error.h"
#include "ops/index.h"
#include "ops/reduce.h"
#include "ops/registry.h"
#include "ops/shape.h"

namespace mica {

using namespace ops;

namespace {

void check_extents(const Shape& shape, const char* op) {
  for (int64_t extent : shape) {
    if (extent < 0) throw_value("[{}] negative extent in {}", op, shape);
  }
}

// i - j over an n x m matrix, as booleans of a comparison with k.
Array compare_diagonal(Array (*compare)(const Array&, const Array&, Stream), int64_t n, int64_t m,
                       int k, const char* op, Stream s) {
  check_extents({n, m}, op);
  Array row = reshape(arange(n, Dtype::I64, s), {n, 1}, s);
  Array column = subtract(arange(m, Dtype::I64, s), k, s);
  return compare(row, column, s);
}

}  // namespace

Array full(const Shape& shape, Scalar value, Dtype dtype, Stream s) {
  check_extents(shape, "full");
  return fill(shape, value, dtype, s);
}
Array full(const Shape& shape, const Array& value, Stream s) {
  check_extents(shape, "full");
  return broadcast_to(value, shape, s);
}
Array zeros(const Shape& shape, Dtype dtype, Stream s) { return full(shape, 0, dtype, s); }
Array ones(const Shape& shape, Dtype dtype, Stream s) { return full(shape, 1, dtype, s); }
Array full_like(const Array& a, Scalar value, Stream s) {
  return full(a.shape(), value, a.dtype(), s);
}
Array zeros_like(const Array& a, Stream s) { return full_like(a, 0, s); }
Array ones_like(const Array& a, Stream s) { return full_like(a, 1, s); }

Array arange(double start, double stop, double step, Dtype dtype, Stream s) {
  if (std::isnan(start) || std::isnan(stop) || std::isnan(step))
    throw_value("[arange] a bound is NaN");
  if (dtype == Dtype::Bool) throw_value("[arange] bool is no type for a range");
  if (step == 0) throw_value("[arange] the step is 0");
  bool forward = step > 0 ? start < stop : start > stop;
  double count = !forward ? 0 : std::isinf(step) ? 1 : std::ceil((stop - start) / step);
  if (count > 0x1p62)
    throw_value("[arange] from {} to {} by {} has too many elements", start, stop, step);
  if (std::isinf(step)) step = 0;
  if (!is_floating(dtype)) {  // the step between the integers that start and start + step become
    step = std::trunc(start + step) - std::trunc(start);
    start = std::trunc(start);
  }
  return apply(arange_op, {}, ArangeParams{start, step, {static_cast<int64_t>(count)}, dtype}, s);
}

Array arange(int64_t count, Dtype dtype, Stream s) {
  return arange(0, static_cast<double>(count), 1, dtype, s);
}

Array linspace(double start, double stop, int64_t count, Dtype dtype, bool endpoint, Stream s) {
  if (count < 0) throw_value("[linspace] negative number of samples {}", count);
  int64_t steps = endpoint ? count - 1 : count;
  if (count == 0 || steps == 0) return full({count}, start, dtype, s);
  // Weights of the two ends, so that both are met exactly.
  Dtype wide = dtype == Dtype::F64 ? Dtype::F64 : Dtype::F32;
  Array t = divide(arange(count, wide, s), steps, s);
  Array from = multiply(subtract(1, t, s), start, s);
  Array to = multiply(t, stop, s);
  return astype(add(from, to, s), dtype, s);
}

Array eye(int64_t n, int64_t m, int k, Dtype dtype, Stream s) {
  return astype(compare_diagonal(&equal, n, m, k, "eye", s), dtype, s);
}

Array tri(int64_t n, int64_t m, int k, Dtype dtype, Stream s) {
  return astype(compare_diagonal(&greater_equal, n, m, k, "tri", s), dtype, s);
}

namespace {
Array keep_triangle(const Array& a, bool lower, int k, const char* op, Stream s) {
  if (a.rank() < 2) throw_value("[{}] needs at least two axes, got {}", op, a.shape());
  Array mask = lower ? compare_diagonal(&greater_equal, a.shape(-2), a.shape(-1), k, op, s)
                     : compare_diagonal(&less_equal, a.shape(-2), a.shape(-1), k, op, s);
  return where(mask, a, 0, s);
}
}  // namespace

Array tril(const Array& a, int k, Stream s) { return keep_triangle(a, true, k, "tril", s); }
Array triu(const Array& a, int k, Stream s) { return keep_triangle(a, false, k, "triu", s); }

Array diagonal(const Array& a, int offset, int axis1, int axis2, Stream s) {
  if (a.rank() < 2) throw_value("[diagonal] needs at least two axes, got {}", a.shape());
  int first = normalize_axis(axis1, a.rank(), "diagonal"),
      second = normalize_axis(axis2, a.rank(), "diagonal");
  if (first == second) throw_value("[diagonal] the axes are the same: {} and {}", axis1, axis2);
  std::vector<int> order;
  for (int i = 0; i < static_cast<int>(a.rank()); ++i) {
    if (i != first && i != second) order.push_back(i);
  }
  order.push_back(first);
  order.push_back(second);
  Array last = transpose(a, order, s);
  int64_t rows = last.shape(-2), columns = last.shape(-1);
  int64_t skip_rows = std::max<int64_t>(-int64_t{offset}, 0),
          skip_columns = std::max<int64_t>(offset, 0);
  Shape shape(last.shape());
  shape.erase(shape.size() - 1);
  shape.back() = std::max<int64_t>(0, std::min(rows - skip_rows, columns - skip_columns));
  if (elements(shape) == 0) return zeros(shape, a.dtype(), s);
  Strides strides = row_major(last.shape());
  int64_t step = columns + 1;
  strides.erase(strides.size() - 1);
  strides.back() = step;
  return as_strided(last, shape, strides, skip_rows * columns + skip_columns, s);
}

Array diag(const Array& a, int k, Stream s) {
  if (a.rank() == 2) return diagonal(a, k, 0, 1, s);
  if (a.rank() != 1) throw_value("[diag] needs a vector or a matrix, got {}", a.shape());
  // A matrix in row-major order, of which every (n + 1)-th element lies on the diagonal.
  int64_t count = a.shape(0), n = count + std::abs(int64_t{k});
  int64_t first = k >= 0 ? k : -int64_t{k} * n;
  Array flat = zeros({n * n}, a.dtype(), s);
  if (count == 0) return reshape(flat, {n, n}, s);
  flat = slice_update(flat, a, {first}, {first + (count - 1) * (n + 1) + 1}, {n + 1}, s);
  return reshape(flat, {n, n}, s);
}

Array trace(const Array& a, int offset, int axis1, int axis2, Stream s) {
  return sum(diagonal(a, offset, axis1, axis2, s), {{-1}}, false, s);
}

Arrays meshgrid(const Arrays& arrays, bool sparse, std::string_view indexing, Stream s) {
  if (indexing != "xy" && indexing != "ij") {
    throw_value("[meshgrid] indexing must be 'xy' or 'ij', got '{}'", indexing);
  }
  size_t rank = arrays.size();
  bool swapped = indexing == "xy" && rank > 1;
  Arrays result;
  for (size_t i = 0; i < rank; ++i) {
    if (arrays[i].rank() > 1) throw_value("[meshgrid] needs vectors, got {}", arrays[i].shape());
    Shape shape(rank, 1);
    shape[swapped && i < 2 ? 1 - i : i] = arrays[i].size();
    result.push_back(reshape(arrays[i], shape, s));
  }
  return sparse ? result : broadcast_arrays(result, s);
}

namespace ops {

namespace {

void arange_infer(const Application& app, std::span<OutputSpec> outputs) {
  outputs[0] = {app.as<ArangeParams>().shape, app.as<ArangeParams>().dtype};
}

std::vector<Sample> arange_samples() {
  auto of = [](const char* label, double start, double stop, double step, Dtype dtype) {
    return Sample{label, {}, [=](std::span<const Array>) {
                    return Arrays{arange(start, stop, step, dtype)};
                  }};
  };
  return {of("ints", 0, 7, 1, Dtype::I32),          of("backward", 5, -5, -3, Dtype::I64),
          of("fractions", 0.5, 3, 0.4, Dtype::F32), of("half", 0, 3, 0.25, Dtype::BF16),
          of("wide", -1, 1, 0.1, Dtype::F64),       of("none", 3, 3, 1, Dtype::F32)};
}

std::optional<double> number(const Value& value, const char* name) {
  if (std::holds_alternative<std::monostate>(value)) return {};
  if (const auto* held = std::get_if<int64_t>(&value)) return static_cast<double>(*held);
  if (const auto* held = std::get_if<double>(&value)) return *held;
  if (const auto* held = std::get_if<bool>(&value)) return *held;
  throw_type("arange() argument '{}' must be a number, got {}", name, value_kind(value));
}

Array arange_of_values(const Value& start, const Value& stop, const Value& step,
                       const std::optional<Dtype>& dtype, Stream s) {
  bool real = false, wide = false;
  for (const Value* value : {&start, &stop, &step}) {
    real = real || std::holds_alternative<double>(*value);
    const int64_t* integer = std::get_if<int64_t>(value);
    wide = wide || (integer && *integer != static_cast<int32_t>(*integer));
  }
  std::optional<double> first = number(start, "start"), last = number(stop, "stop");
  if (!first && !last) throw_type("arange() missing required argument 'stop'");
  // One bound alone is the stop.
  double from = first && last ? *first : 0, to = last ? *last : *first;
  return arange(from, to, number(step, "step").value_or(1),
                dtype.value_or(real   ? Dtype::F32
                               : wide ? Dtype::I64
                                      : Dtype::I32),
                s);
}

void add_constants(FunctionRegistry& functions) {
  functions.add("full",
                "shape: int | Sequence[int], vals: scalar | array, dtype: Dtype | None = None",
                "An array of `shape` filled with `vals`, which broadcasts to it. The dtype is that "
                "of `vals`\n"
                "unless given.",
                [](const Shape& shape, const Array& value, const std::optional<Dtype>& dtype,
                   Stream s) { return full(shape, dtype ? astype(value, *dtype, s) : value, s); });
  functions.add("zeros|empty", "shape: int | Sequence[int], dtype: Dtype | None = float32",
                "Zeros.", [](const Shape& shape, const std::optional<Dtype>& dtype, Stream s) {
                  return zeros(shape, dtype.value_or(Dtype::F32), s);
                });
  functions.add("ones", "shape: int | Sequence[int], dtype: Dtype | None = float32", "Ones.",
                [](const Shape& shape, const std::optional<Dtype>& dtype, Stream s) {
                  return ones(shape, dtype.value_or(Dtype::F32), s);
                });
  functions.add("zeros_like|empty_like", "a: array, /, dtype: Dtype | None = None",
                "Zeros of the shape of `a`, and of its dtype unless given.",
                [](const Array& a, const std::optional<Dtype>& dtype, Stream s) {
                  return zeros(a.shape(), dtype.value_or(a.dtype()), s);
                });
  functions.add("ones_like", "a: array, /, dtype: Dtype | None = None",
                "Ones of the shape of `a`, and of its dtype unless given.",
                [](const Array& a, const std::optional<Dtype>& dtype, Stream s) {
                  return ones(a.shape(), dtype.value_or(a.dtype()), s);
                });
  functions.add(
      "full_like", "a: array, /, vals: scalar | array, dtype: Dtype | None = None",
      "An array of the shape of `a` filled with `vals`, of the dtype of `a` unless given.",
      [](const Array& a, const Array& value, const std::optional<Dtype>& dtype, Stream s) {
        return full(a.shape(), astype(value, dtype.value_or(a.dtype()), s), s);
      });
}

void add_ranges(FunctionRegistry& functions) {
  functions.add("arange",
                "start: int | float | None = None, stop: int | float | None = None, "
                "step: int | float | None = None, dtype: Dtype | None = None",
                "Numbers start, start + step, … before stop. With one bound only it is the stop, "
                "and the start\n"
                "is 0. int32 (int64 where needed) if all are ints, else "
                "float32, unless given.",
                [](const Value& start, const Value& stop, const Value& step,
                   const std::optional<Dtype>& dtype,
                   Stream s) { return arange_of_values(start, stop, step, dtype, s); });
  functions.add(
      "linspace",
      "start: float, stop: float, num: int | None = 50, endpoint: bool = True, "
      "dtype: Dtype | None = float32",
      "`num` numbers at equal distances from `start` to `stop`, which is left out without\n"
      "`endpoint`.",
      [](double start, double stop, const std::optional<int64_t>& count, bool endpoint,
         const std::optional<Dtype>& dtype, Stream s) {
        return linspace(start, stop, count.value_or(50), dtype.value_or(Dtype::F32), endpoint, s);
      });
  functions.add(
      "meshgrid", "*arrays: array, sparse: bool = False, indexing: str = 'xy'",
      "Coordinate arrays of a grid over vectors, in 'xy' (the first two axes swapped) or 'ij' "
      "order;\n"
      "with `sparse` each has extent 1 along the axes of the others.",
      [](const Arrays& arrays, bool sparse, const std::string& indexing, Stream s) {
        return meshgrid(arrays, sparse, indexing, s);
      },
      "tuple[array, ...]");
}

void add_triangles(FunctionRegistry& functions) {
  functions.add(
      "eye", "n: int, m: int | None = None, k: int = 0, dtype: Dtype | None = float32",
      "An n x m matrix (m defaults to n) with ones on its k-th diagonal, counted upwards.",
      [](int64_t n, const std::optional<int64_t>& m, int k, const std::optional<Dtype>& dtype,
         Stream s) { return eye(n, m.value_or(n), k, dtype.value_or(Dtype::F32), s); });
  functions.add("identity", "n: int, dtype: Dtype | None = float32", "The n x n identity matrix.",
                [](int64_t n, const std::optional<Dtype>& dtype, Stream s) {
                  return eye(n, n, 0, dtype.value_or(Dtype::F32), s);
                });
  functions.add(
      "tri", "n: int, m: int | None = None, k: int = 0, dtype: Dtype | None = float32",
      "An n x m matrix with ones at and below its k-th diagonal.",
      [](int64_t n, const std::optional<int64_t>& m, int k, const std::optional<Dtype>& dtype,
         Stream s) { return tri(n, m.value_or(n), k, dtype.value_or(Dtype::F32), s); });
  functions.add("tril", "x: array, k: int = 0",
                "`x` with zeros above the k-th diagonal of its last two axes.",
                [](const Array& a, int k, Stream s) { return tril(a, k, s); });
  functions.add("triu", "x: array, k: int = 0",
                "`x` with zeros below the k-th diagonal of its last two axes.",
                [](const Array& a, int k, Stream s) { return triu(a, k, s); });
  functions.add(
      "diag", "a: array, /, k: int = 0",
      "A matrix with the vector `a` on its k-th diagonal, or the k-th diagonal of the matrix `a`.",
      [](const Array& a, int k, Stream s) { return diag(a, k, s); });
  functions.add(
      "diagonal", "a: array, offset: int = 0, axis1: int = 0, axis2: int = 1",
      "The diagonals over two axes, as the last axis of the result. A view of row-major input.",
      [](const Array& a, int offset, int axis1, int axis2, Stream s) {
        return diagonal(a, offset, axis1, axis2, s);
      });
  functions.add(
      "trace",
      "a: array, /, offset: int = 0, axis1: int = 0, axis2: int = 1, "
      "dtype: Dtype | None = None",
      "The sum of the diagonal over two axes, in the given dtype if there is one.",
      [](const Array& a, int offset, int axis1, int axis2, const std::optional<Dtype>& dtype,
         Stream s) { return trace(dtype ? astype(a, *dtype, s) : a, offset, axis1, axis2, s); });
}

}  // namespace

const Op arange_op{.name = "arange",
                   .params = &params_type<ArangeParams>,
                   .infer = &arange_infer,
                   .samples = &arange_samples};

void create_ops(Registry& registry) {
  registry.ops.add(arange_op);
  add_constants(registry.functions);
  add_ranges(registry.functions);
  add_triangles(registry.functions);
}

}  // namespace ops
}  // namespace mica
