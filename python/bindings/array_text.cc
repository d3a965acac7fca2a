#include <cmath>

#include "array.h"
#include "core/dtype.h"

namespace mica::python {

namespace {

constexpr int64_t kShown = 3;  // at each end of a long axis

class Writer {
 public:
  Writer(const Array& array, const std::byte* bytes) : array_(array), bytes_(bytes) {}

  std::string text() {
    out_ = "array(";
    if (array_.size() == 0 && (array_.rank() == 0 || array_.shape()[0] == 0)) {
      out_ += "[]";
    } else {
      axis(0, 0);
    }
    return out_ + ", dtype=" + dtype_name(array_.dtype()) + ")";
  }

 private:
  void axis(size_t at, int64_t first) {
    const Shape& shape = array_.shape();
    if (at == shape.size()) return element(first);
    int64_t inner = 1;
    for (size_t i = at + 1; i < shape.size(); ++i) inner *= shape[i];
    bool last = at + 1 == shape.size();
    std::string between = last ? ", " : ",\n" + std::string(7 + at, ' ');
    bool elided = shape[at] > 2 * kShown;
    out_ += '[';
    for (int64_t i = 0; i < shape[at]; ++i) {
      if (i > 0) out_ += between;
      if (elided && i == kShown) {
        out_ += "..." + between;
        i = shape[at] - kShown;
      }
      axis(at + 1, first + i * inner);
    }
    out_ += ']';
  }

  void element(int64_t place) {
    dispatch(array_.dtype(), [&](auto tag) {
      using T = typename decltype(tag)::type;
      T value = reinterpret_cast<const T*>(bytes_)[place];
      if constexpr (std::is_same_v<T, bool>) {
        out_ += value ? "True" : "False";
      } else if constexpr (std::is_integral_v<T>) {
        out_ += std::to_string(value);
      } else {
        auto number = static_cast<double>(value);
        out_ += std::isnan(number) ? "nan" : fmt::format("{:.6g}", number);
      }
    });
  }

  const Array& array_;
  const std::byte* bytes_;
  std::string out_;
};

}  // namespace

std::string array_text(Array array) {
  evaluate(array);
  auto bytes = array.host_bytes();
  return Writer(array, bytes.get()).text();
}

}  // namespace mica::python
