// Lines: the elements along one axis, of an input with any strides and of an output.
//
//   LineWalk lines(a, out, axis);
//   for (int64_t l = begin; l < end; ++l) {
//     auto [from, to] = lines.at<float, uint32_t>(l);
//     for (int64_t i = 0; i < lines.length(); ++i) to[i * lines.step_out()] = f(from[i *
//     lines.step_in()]);
//   }
#pragma once

#include <algorithm>
#include <cstdint>
#include <utility>

#include "base/thread_pool.h"
#include "core/backend.h"

namespace mica::cpu {

class LineWalk {
 public:
  LineWalk(const View& a, const View& out, int axis)
      : a_(a),
        out_(out),
        length_(a.shape[axis]),
        step_in_(a.strides[axis]),
        step_out_(out.strides[axis]) {
    a_.shape[axis] = 1;
    count_ = a_.size();
  }
  int64_t length() const { return length_; }
  int64_t count() const { return count_; }  // lines
  int64_t step_in() const { return step_in_; }
  int64_t step_out() const { return step_out_; }

  template <class In, class Out>
  std::pair<const In*, Out*> at(int64_t line) const {
    int64_t from = 0, to = 0;
    for (size_t i = a_.shape.size(); i-- > 0;) {
      int64_t index = line % a_.shape[i];
      line /= a_.shape[i];
      from += index * a_.strides[i];
      to += index * out_.strides[i];
    }
    return {a_.as<In>() + from, out_.as<Out>() + to};
  }

 private:
  View a_, out_;
  int64_t length_, count_, step_in_, step_out_;
};

// A row-major array as [before, extent, after] around an axis.
struct Extents {
  Extents(const Shape& shape, int axis) : extent(shape[axis]) {
    for (int i = 0; i < axis; ++i) before *= shape[i];
    for (size_t i = axis + 1; i < shape.size(); ++i) after *= shape[i];
  }
  int64_t before = 1, extent, after = 1;
};

// Calls f(offset of the first element, number of neighbouring columns), in parallel, for tiles that
// cover all lines of such an array; columns are at most kColumns.
inline constexpr int64_t kColumns = 1024;
template <class F>
void for_each_tile(const Extents& e, F&& f) {
  int64_t width = std::min(kColumns, e.after), tiles = width ? (e.after + width - 1) / width : 0;
  int64_t grain = std::max<int64_t>(1, 16384 / std::max<int64_t>(e.extent * width, 1));
  ThreadPool::shared().parallel_for(e.before * tiles, grain, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      int64_t column = t % tiles * width;
      f(t / tiles * e.extent * e.after + column, std::min(width, e.after - column));
    }
  });
}

}  // namespace mica::cpu
