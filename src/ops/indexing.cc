#include "ops/indexing.h"

#include <algorithm>
#include <numeric>

#include "base/error.h"
#include "ops/create.h"
#include "ops/elementwise.h"
#include "ops/shape.h"

namespace mica {

namespace {

// What happens to one axis of the array, or (NewAxis) what is added to the result.
struct Selector {
  enum Kind : uint8_t { Place, Range, New, Gathered } kind;
  int axis = -1;                            // of the array; -1 for New
  int64_t start = 0, step = 1, extent = 1;  // Place, Range
  Array places;                             // Gathered
};

// The indices of one access, resolved: one selector per axis of the array, and the new axes
// between.
struct Selection {
  std::vector<Selector> selectors;
  bool gathers = false;
  Shape gathered;          // the common shape of the index arrays
  size_t gathered_at = 0;  // place of its axes in the result

  Shape kept() const {  // the result without the gathered axes
    Shape shape;
    for (const Selector& s : selectors) {
      if (s.kind == Selector::Range) shape.push_back(s.extent);
      if (s.kind == Selector::New) shape.push_back(1);
    }
    return shape;
  }
  Shape result() const {
    Shape shape = kept();
    if (!gathers) return shape;
    for (size_t i = 0; i < gathered.size(); ++i) shape.insert(gathered_at + i, gathered[i]);
    return shape;
  }
};

bool is_mask(const Index& index) {
  const Array* array = std::get_if<Array>(&index);
  return array && array->dtype() == Dtype::Bool;
}

size_t axes_taken(const Index& index) {
  if (std::holds_alternative<NewAxis>(index) || std::holds_alternative<Ellipsis>(index)) return 0;
  return is_mask(index) ? std::get<Array>(index).rank() : 1;
}

Selector resolve_range(const Slice& slice, int axis, int64_t extent) {
  int64_t step = slice.step.value_or(1);
  if (step == 0) throw_value("[index] the step of a slice is 0");
  int64_t start = slice.start.value_or(step > 0 ? 0 : extent - 1);
  int64_t stop = slice.stop.value_or(step > 0 ? extent : -extent - 1);
  auto range = ops::resolve_slice({extent}, {start}, {stop}, {step}, "index");
  return {Selector::Range, axis, range.start[0], step, range.shape[0], {}};
}

class Resolver {
 public:
  Resolver(const Array& a, std::span<const Index> indices) : a_(a) {
    size_t taken = 0, ellipses = 0;
    for (const Index& index : indices) {
      taken += axes_taken(index);
      ellipses += std::holds_alternative<Ellipsis>(index);
    }
    if (taken > a.rank())
      throw_value("[index] {} indices given for an array of {} axes", taken, a.rank());
    if (ellipses > 1) throw_value("[index] more than one ellipsis");
    size_t missing = a.rank() - taken;
    selection_.selectors.reserve(indices.size() + a.rank());
    for (const Index& index : indices) add(index, missing);
    if (ellipses == 0) add_full(missing);
    place_gathered();
  }
  Selection take() { return std::move(selection_); }

 private:
  void add(const Index& index, size_t missing) {
    auto& selectors = selection_.selectors;
    if (const auto* place = std::get_if<int64_t>(&index)) {
      int64_t at = ops::resolve_index(*place, a_.shape()[axis_], axis_, "index");
      selectors.push_back({Selector::Place, axis_, at, 1, 1, {}});
      ++axis_;
    } else if (const auto* slice = std::get_if<Slice>(&index)) {
      selectors.push_back(resolve_range(*slice, axis_, a_.shape()[axis_]));
      ++axis_;
    } else if (std::holds_alternative<NewAxis>(index)) {
      selectors.push_back({Selector::New, -1, 0, 1, 1, {}});
    } else if (std::holds_alternative<Ellipsis>(index)) {
      add_full(missing);
    } else {
      add_array(std::get<Array>(index));
    }
  }
  void add_full(size_t count) {
    for (size_t i = 0; i < count; ++i, ++axis_) {
      selection_.selectors.push_back({Selector::Range, axis_, 0, 1, a_.shape()[axis_], {}});
    }
  }
  void add_array(const Array& array) {
    selection_.gathers = true;
    if (array.dtype() != Dtype::Bool) {
      if (!is_integer(array.dtype()))
        throw_value("[index] arrays of {} are no indices", array.dtype());
      return add_places(array);
    }
    for (size_t i = 0; i < array.rank(); ++i) {
      if (array.shape()[i] == a_.shape()[axis_ + i]) continue;
      throw_index("[index] a mask of shape {} does not fit an array of shape {} from axis {} on",
                  array.shape(), a_.shape(), axis_);
    }
    if (array.rank() == 0) throw_index("[index] a mask needs at least one axis");
    for (const Array& places : nonzero(array)) add_places(places);
  }
  void add_places(const Array& places) {
    selection_.gathered = broadcast_shapes(selection_.gathered, places.shape(), "index");
    selection_.selectors.push_back({Selector::Gathered, axis_++, 0, 1, 1, places});
  }
  // Where the gathered axes stand: with the first of the arrays and integers, unless something else
  // lies between those.
  void place_gathered() {
    size_t kept = 0, first = 0;
    enum { Before, Inside, After, Apart } state = Before;
    for (const Selector& s : selection_.selectors) {
      bool joins = s.kind == Selector::Gathered || s.kind == Selector::Place;
      if (joins && state == Before) first = kept;
      if (joins)
        state = state == After || state == Apart ? Apart : Inside;
      else if (state == Inside)
        state = After;
      kept += !joins;
    }
    selection_.gathered_at = state == Apart ? 0 : first;
  }

  const Array& a_;
  Selection selection_;
  int axis_ = 0;
};

std::vector<int> iota(size_t count) {
  std::vector<int> axes(count);
  std::iota(axes.begin(), axes.end(), 0);
  return axes;
}

// The block of the places and ranges; gathered axes in full. Of the rank of `a`.
ops::SliceParams block_of(const Array& a, const Selection& selection) {
  ops::SliceParams block{Shape(a.rank(), 0), Shape(a.rank(), 1), a.shape()};
  for (const Selector& sel : selection.selectors) {
    if (sel.kind != Selector::Place && sel.kind != Selector::Range) continue;
    block.start[sel.axis] = sel.extent > 0 ? sel.start : 0;
    block.stride[sel.axis] = sel.step;
    block.shape[sel.axis] = sel.extent;
  }
  return block;
}

// `a` cut to that block.
Array cut(const Array& a, const Selection& selection, Stream s) {
  ops::SliceParams block = block_of(a, selection);
  bool forward =
      std::all_of(block.stride.begin(), block.stride.end(), [](int64_t step) { return step == 1; });
  return forward && block.shape == a.shape() ? a : apply(ops::slice_op, {a}, std::move(block), s);
}

// Reads at index arrays: [gathered axes, kept axes in order].
Array gather_selected(const Array& part, const Selection& selection, Stream s) {
  Shape sizes = part.shape();
  std::vector<int> axes;
  Arrays indices;
  for (const Selector& sel : selection.selectors) {
    if (sel.kind != Selector::Gathered) continue;
    sizes[sel.axis] = 1;
    axes.push_back(sel.axis);
    indices.push_back(sel.places);
  }
  Array blocks = axes.size() == 1 ? Array() : gather(part, indices, axes, sizes, s);
  Shape shape = selection.gathered;
  for (int64_t extent : selection.kept()) shape.push_back(extent);
  if (blocks.defined()) return reshape(blocks, shape, s);
  // One array: take, whose kernel moves whole rows.
  Array taken = take(part, indices[0], axes[0], s);
  int rank = static_cast<int>(indices[0].rank());
  std::vector<int> order = iota(taken.rank());
  std::rotate(order.begin(), order.begin() + axes[0], order.begin() + axes[0] + rank);
  return reshape(transpose(taken, order, s), shape, s);
}

// The order of axes that puts the first `count` at `place`.
std::vector<int> front_to(size_t rank, size_t count, size_t place) {
  std::vector<int> order = iota(rank);
  std::rotate(order.begin(), order.begin() + count, order.begin() + count + place);
  return order;
}

// The value as the updates of a scatter: [gathered axes, cut ranges, block of the rank of `a`].
Array scatter_updates(const Array& a, const Selection& selection, const Array& value,
                      const std::vector<bool>& cuts, Stream s) {
  Array full_value = broadcast_to(value, selection.result(), s);
  size_t lead = selection.gathered.size();
  // Bring the gathered axes to the front, then the ranges that are scattered along.
  std::vector<int> front, cut_axes, rest;
  for (size_t i = 0; i < lead; ++i) front.push_back(static_cast<int>(selection.gathered_at + i));
  Shape shape = selection.gathered, block(a.rank(), 1);
  int kept = 0;
  for (const Selector& sel : selection.selectors) {
    if (sel.kind != Selector::Range && sel.kind != Selector::New) continue;
    int axis =
        kept + (kept >= static_cast<int>(selection.gathered_at) ? static_cast<int>(lead) : 0);
    ++kept;
    bool scattered = sel.kind == Selector::Range && cuts[sel.axis];
    (scattered ? cut_axes : rest).push_back(axis);
    if (scattered)
      shape.push_back(sel.extent);
    else if (sel.kind == Selector::Range)
      block[sel.axis] = sel.extent;
  }
  front.insert(front.end(), cut_axes.begin(), cut_axes.end());
  front.insert(front.end(), rest.begin(), rest.end());
  for (int64_t extent : block) shape.push_back(extent);
  return reshape(transpose(full_value, front, s), shape, s);
}

Array scatter_selected(const Array& a, const Selection& selection, const Array& value,
                       ScatterMode mode, Stream s) {
  // Axes that are not whole are written through index arrays of their own.
  std::vector<bool> cuts(a.rank(), false);
  size_t cut_count = 0;
  for (const Selector& sel : selection.selectors) {
    if (sel.kind != Selector::Range) continue;
    cuts[sel.axis] = sel.step != 1 || sel.extent != a.shape()[sel.axis];
    cut_count += cuts[sel.axis];
  }
  size_t rank = selection.gathered.size() + cut_count, cut = selection.gathered.size();
  std::vector<int> axes;
  Arrays indices;
  for (const Selector& sel : selection.selectors) {
    if (sel.kind == Selector::New || (sel.kind == Selector::Range && !cuts[sel.axis])) continue;
    axes.push_back(sel.axis);
    if (sel.kind == Selector::Place) {
      indices.push_back(full({}, sel.start, Dtype::I64, s));
    } else if (sel.kind == Selector::Range) {
      Shape along(rank, 1);
      along[cut++] = sel.extent;
      Array places = add(multiply(arange(sel.extent, Dtype::I64, s), sel.step, s), sel.start, s);
      indices.push_back(reshape(places, along, s));
    } else {
      Shape shape = sel.places.shape();
      for (size_t i = 0; i < cut_count; ++i) shape.push_back(1);
      indices.push_back(reshape(sel.places, shape, s));
    }
  }
  return scatter(a, indices, scatter_updates(a, selection, value, cuts, s), axes, mode, s);
}

Array combine(const Array& old, const Array& value, ScatterMode mode, Stream s) {
  switch (mode) {
    case ScatterMode::Add: return add(old, value, s);
    case ScatterMode::Prod: return multiply(old, value, s);
    case ScatterMode::Max: return maximum(old, value, s);
    case ScatterMode::Min: return minimum(old, value, s);
    default: return value;
  }
}

// A value may have more axes than the place it goes to, if they are leading ones of extent 1.
Array without_leading_units(const Array& value, size_t rank, Stream s) {
  if (value.rank() <= rank) return value;
  Shape shape = value.shape();
  while (shape.size() > rank && shape[0] == 1) shape.erase(0);
  return reshape(value, shape, s);
}

Array update_cut(const Array& a, const Selection& selection, const Array& value, ScatterMode mode,
                 Stream s) {
  Shape shape = selection.result();
  ops::SliceParams block = block_of(a, selection);
  Array update = without_leading_units(value, shape.size(), s);
  update = broadcast_to(update, shape, s);  // says what does not fit
  if (elements(block.shape) == 0) return a;
  if (!(block.shape == shape)) update = reshape(update, block.shape, s);
  if (mode != ScatterMode::Set) update = combine(cut(a, selection, s), update, mode, s);
  return apply(ops::slice_update_op, {a, std::move(update)},
               ops::SliceUpdateParams{std::move(block.start), std::move(block.stride)}, s);
}

}  // namespace

Arrays nonzero(const Array& a) {
  Array flat = not_equal(a, 0);
  std::shared_ptr<const std::byte> bytes = flat.host_bytes();
  std::vector<std::vector<int64_t>> places(a.rank());
  Strides strides = row_major(a.shape());
  for (int64_t i = 0; i < a.size(); ++i) {
    if (bytes.get()[i] == std::byte{0}) continue;
    for (size_t axis = 0; axis < a.rank(); ++axis)
      places[axis].push_back(i / strides[axis] % a.shape()[axis]);
  }
  Arrays result;
  for (const auto& along : places) result.push_back(Array::from(along));
  return result;
}

Array index(const Array& a, std::span<const Index> indices, Stream s) {
  Selection selection = Resolver(a, indices).take();
  Array part = cut(a, selection, s);
  if (!selection.gathers) return reshape(part, selection.result(), s);
  Array rows = gather_selected(part, selection, s);
  return transpose(rows, front_to(rows.rank(), selection.gathered.size(), selection.gathered_at),
                   s);
}

Array index(const Array& a, std::initializer_list<Index> indices, Stream s) {
  return index(a, std::span<const Index>(indices.begin(), indices.size()), s);
}

Array index_update(const Array& a, std::span<const Index> indices, const Array& value,
                   ScatterMode mode, Stream s) {
  Array given = astype(value, a.dtype(), s);
  if (indices.size() == 1 && is_mask(indices[0]) && given.size() == 1) {
    const Array& mask = std::get<Array>(indices[0]);
    Shape shape = mask.shape();
    if (mask.rank() > a.rank() || !std::equal(shape.begin(), shape.end(), a.shape().begin())) {
      throw_index("[index] a mask of shape {} does not fit an array of shape {}", shape, a.shape());
    }
    shape.resize(a.rank());
    for (size_t i = mask.rank(); i < a.rank(); ++i) shape[i] = 1;
    Array scalar = reshape(given, {}, s);
    return where(reshape(mask, shape, s), combine(a, scalar, mode, s), a, s);
  }
  Selection selection = Resolver(a, indices).take();
  if (!selection.gathers) return update_cut(a, selection, given, mode, s);
  given = without_leading_units(given, selection.result().size(), s);
  return scatter_selected(a, selection, given, mode, s);
}

Array index_update(const Array& a, std::initializer_list<Index> indices, const Array& value,
                   ScatterMode mode, Stream s) {
  return index_update(a, std::span<const Index>(indices.begin(), indices.size()), value, mode, s);
}

}  // namespace mica
