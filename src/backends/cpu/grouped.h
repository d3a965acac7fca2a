// Rows that share a matrix: what products of chosen matrices are grouped by.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace mica::cpu {

// Places 0 … n - 1 by the matrix that each chooses, in ascending order within a matrix.
class Groups {
 public:
  Groups(std::span<const int64_t> matrix_of_place, int64_t matrices)
      : begin_(static_cast<size_t>(matrices) + 1, 0), places_(matrix_of_place.size()) {
    for (int64_t matrix : matrix_of_place) ++begin_[static_cast<size_t>(matrix) + 1];
    for (size_t i = 1; i < begin_.size(); ++i) begin_[i] += begin_[i - 1];
    std::vector<size_t> next(begin_.begin(), begin_.end() - 1);
    for (size_t place = 0; place < places_.size(); ++place)
      places_[next[static_cast<size_t>(matrix_of_place[place])]++] = static_cast<int64_t>(place);
  }

  int64_t matrices() const { return static_cast<int64_t>(begin_.size()) - 1; }
  std::span<const int64_t> places(int64_t matrix) const {
    size_t first = begin_[static_cast<size_t>(matrix)];
    return {places_.data() + first, begin_[static_cast<size_t>(matrix) + 1] - first};
  }

 private:
  std::vector<size_t> begin_;
  std::vector<int64_t> places_;
};

}  // namespace mica::cpu
