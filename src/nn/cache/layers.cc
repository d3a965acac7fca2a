// The kinds of LayerCache.
#include <algorithm>

#include "nn/cache/cache.h"
#include "ops/attention.h"
#include "ops/create.h"
#include "ops/index.h"
#include "ops/join.h"

namespace mica::nn {

namespace {

// Capacities are multiples of this many positions.
constexpr int64_t kStep = 256;

int64_t grown(int64_t capacity, int64_t needed) {
  int64_t wanted = std::max(needed, capacity + capacity / 4);
  return (wanted + kStep - 1) / kStep * kStep;
}

AttentionOptions causal(const Span& span, const AttendOptions& options, int64_t window) {
  AttentionOptions result;
  result.scale = options.scale;
  result.softcap = options.softcap;
  result.causal = true;
  result.window = window;
  result.offsets = span.offsets;
  result.lengths = span.lengths;
  return result;
}

Array rotate(const Array& x, const Array& offsets, const Span& span, const AttendOptions& options) {
  return options.rope ? (*options.rope)(x, offsets, span.rope_length()) : x;
}

bool keeps_unrotated(const AttendOptions& options) {
  return options.rope && options.rope->depends_on_length();
}

class NoCache : public LayerCache {
 public:
  explicit NoCache(int64_t window) : window_(window) {}

  Array attend(const Array& q, const Array& k, const Array& v, const Span& span,
               const AttendOptions& options) override {
    return attention(rotate(q, span.offsets, span, options), rotate(k, span.offsets, span, options),
                     v, causal(span, options, window_));
  }
  void trim(int64_t) override {}
  int64_t bytes() const override { return 0; }
  void collect(Arrays&) const override {}

 private:
  int64_t window_;
};

// Keys and values in [1, G, capacity, K]; position p lies in row p, or with a window in row p %
// capacity.
class StoredCache : public LayerCache {
 public:
  explicit StoredCache(int64_t window) : window_(window) {}

  Array attend(const Array& q, const Array& k, const Array& v, const Span& span,
               const AttendOptions& options) override {
    reserve(k, v, span);
    bool unrotated = keeps_unrotated(options);
    Array k_new = unrotated ? k : rotate(k, span.offsets, span, options);
    keys_ = ragged_slice_update(keys_, k_new, span.offsets, 2, window_ > 0);
    values_ = ragged_slice_update(values_, v, span.offsets, 2, window_ > 0);
    AttentionOptions mask = causal(span, options, window_);
    mask.ring = window_ > 0;
    Array keys = unrotated ? rotate(keys_, row_positions(span), span, options) : keys_;
    length_ = span.length();
    return attention(rotate(q, span.offsets, span, options), keys, values_, mask);
  }

  void trim(int64_t length) override {
    // Positions that the next token sees, or nothing at all, must still be there.
    if (window_ > 0 && length > 0 && length < length_ &&
        std::max<int64_t>(0, length - window_ + 1) < length_ - capacity())
      throw_value("a sliding cache of {} positions cannot be cut back from {} to {}", capacity(),
                  length_, length);
    length_ = std::min(length_, length);
  }
  int64_t bytes() const override { return keys_.defined() ? keys_.nbytes() + values_.nbytes() : 0; }
  void collect(Arrays& state) const override {
    if (!keys_.defined()) return;
    state.push_back(keys_);
    state.push_back(values_);
  }

 private:
  int64_t capacity() const { return keys_.defined() ? keys_.shape(2) : 0; }

  // Room for the new tokens: with a window, for all that the first of them still sees.
  void reserve(const Array& k, const Array& v, const Span& span) {
    int64_t needed = span.length();
    if (window_ > 0) needed = std::min(needed, window_ + span.tokens - 1);
    if (needed <= capacity()) return;
    int64_t next = grown(capacity(), needed);
    int64_t held = capacity();
    keys_ = resized(keys_, k, held, next);
    values_ = resized(values_, v, held, next);
  }

  Array resized(const Array& old, const Array& like, int64_t held, int64_t next) const {
    Shape shape = like.shape();
    if (!old.defined() || length_ <= held) {
      shape[2] = next - held;
      Array more = zeros(shape, like.dtype());
      return old.defined() ? concatenate({old, more}, 2) : more;
    }
    // The ring has wrapped: every position still there moves to its row in the larger ring.
    std::vector<int32_t> from(static_cast<size_t>(next), 0);
    for (int64_t p = length_ - held; p < length_; ++p)
      from[static_cast<size_t>(p % next)] = static_cast<int32_t>(p % held);
    return take(old, Array::from<int32_t>(from, {next}), 2);
  }

  // Which position each row holds once this pass is written: int32 [1, capacity].
  Array row_positions(const Span& span) const {
    int64_t rows = capacity();
    std::vector<int32_t> positions(static_cast<size_t>(rows), 0);
    for (int64_t p = std::max<int64_t>(0, span.length() - rows); p < span.length(); ++p)
      positions[static_cast<size_t>(p % rows)] = static_cast<int32_t>(p);
    return Array::from<int32_t>(positions, {1, rows});
  }

  int64_t window_;
  int64_t length_ = 0;
  Array keys_, values_;
};

}  // namespace

std::unique_ptr<LayerCache> full_cache() { return std::make_unique<StoredCache>(0); }
std::unique_ptr<LayerCache> sliding_cache(int64_t window) {
  return std::make_unique<StoredCache>(window);
}
std::unique_ptr<LayerCache> no_cache(int64_t window) { return std::make_unique<NoCache>(window); }

}  // namespace mica::nn
