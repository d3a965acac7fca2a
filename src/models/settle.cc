#include "models/settle.h"

#include <algorithm>
#include <map>

#include "base/mapped_file.h"
#include "base/memory_info.h"
#include "core/buffer.h"
#include "core/node.h"

namespace mica::models {

namespace {

// Copying costs about three passes, and each later pass gains a tenth to a quarter of its time.
constexpr int64_t kPassesBefore = 8;
// Rounds over all weights, each after eight times as many passes.
constexpr int kRounds = 4;
// A pass is not held up by more than some milliseconds. A multiple of all huge pages.
constexpr size_t kBytesAtOnce = 64 << 20;
// Weights that are nearer than this move together with what lies between.
constexpr size_t kGap = 1 << 20;
// What is left to others.
constexpr uint64_t kReserve = 512 << 20;

}  // namespace

// Where in mapped files the weights lie.
class Settler::Census : public nn::Visitor {
 public:
  explicit Census(const ModelInfo& info) : info_(info) {}

  std::map<const std::byte*, Range> found;  // by their first byte

 protected:
  void on_parameter(const std::string& key, Array& array, const Shape&) override {
    if (!array.defined() || !array.evaluated() || info_.is_table(key)) return;
    const ArrayData* data = array.slot()->data;
    if (data == nullptr || data->buffer->mapped_file() == nullptr) return;
    const auto begin = static_cast<size_t>(data->offset * size_of(array.dtype()));
    const auto end = begin + static_cast<size_t>(array.nbytes());
    found.try_emplace(data->buffer->mapped_file()->bytes().data() + begin,
                      Range{data->buffer, begin, end});
  }

 private:
  const ModelInfo& info_;
};

Settler::Settler(Model& model) : pause_(kPassesBefore), passes_left_(kPassesBefore) {
  Census census(model.info());
  census.module("", model);
  for (const auto& [first, range] : census.found) {
    if (!ranges_.empty() && ranges_.back().buffer == range.buffer &&
        range.begin <= ranges_.back().end + kGap)
      ranges_.back().end = std::max(ranges_.back().end, range.end);
    else
      ranges_.push_back(range);
  }
  for (const Range& range : ranges_) left_ += static_cast<int64_t>(range.end - range.begin);
  rounds_left_ = ranges_.empty() ? 0 : kRounds;
}

void Settler::after_pass() {
  if (finished() || --passes_left_ >= 0) return;
  if (available_memory() < static_cast<uint64_t>(left_) + kReserve) {
    rounds_left_ = 0;
    return;
  }
  const Range& range = ranges_[next_];
  const size_t begin = std::max(at_, range.begin);
  const size_t end = std::min(range.end, (begin / kBytesAtOnce + 1) * kBytesAtOnce);
  const auto moved = static_cast<int64_t>(range.buffer->mapped_file()->settle(begin, end));
  moved_ += moved;
  left_ -= moved;
  at_ = end;
  if (end < range.end) return;
  at_ = 0;
  if (++next_ < ranges_.size()) return;
  next_ = 0;
  passes_left_ = pause_ *= 8;
  --rounds_left_;
}

}  // namespace mica::models
