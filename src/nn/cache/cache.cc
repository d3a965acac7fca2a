#include "nn/cache/cache.h"

#include <algorithm>

#include "ops/create.h"
#include "ops/index.h"
#include "ops/join.h"
#include "ops/shape.h"

namespace mica::nn {

int64_t SequenceCache::bytes() const {
  int64_t total = 0;
  for (const auto& layer : layers_) total += layer->bytes();
  return total;
}

void SequenceCache::trim(int64_t length) {
  for (auto& layer : layers_) layer->trim(length);
  length_ = std::min(length_, length);
  expected_ = std::min(expected_, length);
}

void SequenceCache::advance(int64_t tokens) {
  length_ += tokens;
  rope_length_ = std::max(length_, expected_);
}

bool SequenceCache::outgrown(int64_t length) const {
  return rope_ && length_ > 0 &&
         rope_->length_class(std::max(length, expected_)) != rope_->length_class(rope_length_);
}

void SequenceCache::restart(int64_t length) {
  trim(0);
  expect(length);
}

Arrays SequenceCache::state() const {
  Arrays arrays;
  for (const auto& layer : layers_) layer->collect(arrays);
  return arrays;
}

Batch::Batch(std::vector<SequenceCache*> sequences, int64_t tokens)
    : sequences_(std::move(sequences)), tokens_(tokens) {
  for (const SequenceCache* sequence : sequences_) {
    auto start = static_cast<int32_t>(sequence->length());
    auto length = static_cast<int32_t>(start + tokens);
    spans_.push_back({start, tokens, Array::from<int32_t>({start}, {1}),
                      Array::from<int32_t>({length}, {1}), sequence->expected()});
  }
}

int64_t Batch::longest() const {
  int64_t longest = 0;
  for (const Span& span : spans_) longest = std::max(longest, span.length());
  return longest;
}

Array Batch::positions() const {
  std::vector<int32_t> values;
  for (const Span& span : spans_) {
    for (int64_t i = 0; i < tokens_; ++i) values.push_back(static_cast<int32_t>(span.start + i));
  }
  return Array::from<int32_t>(values, {static_cast<int64_t>(spans_.size()), tokens_});
}

Array Batch::attend(size_t layer, const Array& q, const Array& k, const Array& v,
                    const AttendOptions& options) {
  if (sequences_.size() == 1)
    return sequences_[0]->layer(layer).attend(q, k, v, spans_[0], options);
  Arrays results;
  for (size_t b = 0; b < sequences_.size(); ++b) {
    auto at = static_cast<int64_t>(b);
    auto own = [&](const Array& x) { return slice_axis(x, 0, at, at + 1); };
    results.push_back(
        sequences_[b]->layer(layer).attend(own(q), own(k), own(v), spans_[b], options));
  }
  return concatenate(results, 0);
}

void Batch::advance() {
  for (SequenceCache* sequence : sequences_) sequence->advance(tokens_);
}

}  // namespace mica::nn
