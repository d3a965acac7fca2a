// Key-value caches. A cache owns masks and positions: models call `attend` and do not know how
// their state is kept.
//
//   SequenceCache sequence = make_cache(layers);          // one per request
//   Batch batch({&sequence}, tokens);
//   Array logits = model.forward(ids_BL, batch);           // calls batch.attend(layer, q, k, v,
//   options) eval({logits}); batch.advance();
//
// Shapes: B sequences, L new tokens each, H query heads, G key heads, K head size. Keys and values
// live in arrays [1, G, capacity, K] that grow in steps and are written in place; positions and
// lengths are int32 arrays, so that a decode loop keeps its plan. Each sequence has its own state:
// it joins, leaves and is cut back without a copy, and its attention does not depend on its
// neighbours in the batch.
#pragma once

#include <algorithm>
#include <memory>
#include <span>
#include <vector>

#include "nn/rope.h"

namespace mica::nn {

struct AttendOptions {
  float scale = 1;
  float softcap = 0;           // tanh cap of the scores; 0: none
  const Rope* rope = nullptr;  // rotates queries and keys; null: no rotation
};

// What a layer needs of its sequence in one pass.
struct Span {
  int64_t start = 0;   // position of the first new token
  int64_t tokens = 0;  // new tokens
  Array offsets;       // int32 [1]: start
  Array lengths;       // int32 [1]: start + tokens
  int64_t expected =
      0;  // length that the sequence is known to reach: a prompt that comes in chunks
  int64_t length() const { return start + tokens; }
  // Length whose rotary frequencies apply: all chunks of a prompt use those of the whole prompt.
  int64_t rope_length() const { return std::max(length(), expected); }
};

// One layer of one sequence.
class LayerCache {
 public:
  virtual ~LayerCache() = default;
  // q [1, H, L, K], k and v [1, G, L, K] without rotation -> [1, H, L, K].
  virtual Array attend(const Array& q, const Array& k, const Array& v, const Span& span,
                       const AttendOptions& options) = 0;
  // Forgets everything from position `length` on; ValueError if the layer no longer has what is
  // before.
  virtual void trim(int64_t length) = 0;
  virtual int64_t bytes() const = 0;
  virtual void collect(Arrays& state) const = 0;
};

// All positions, or with a window the last ones, in a ring.
std::unique_ptr<LayerCache> full_cache();
std::unique_ptr<LayerCache> sliding_cache(int64_t window);
// No state: a pass sees its own tokens only (window 0: all of them).
std::unique_ptr<LayerCache> no_cache(int64_t window);

// The state of one sequence through all layers.
//
// Where rotary frequencies depend on the length (dynamic, longrope), keys are cached unrotated, so
// that a longer sequence rotates them anew. What lies above the first layer still comes from hidden
// states with the older frequencies; whoever wants the answer of an uncached run asks
//
//   if (cache.outgrown(length)) cache.restart(length);   // then all tokens again, in any chunks
class SequenceCache {
 public:
  SequenceCache() = default;
  // `rope`, null if there is none, must outlive the cache: the model's.
  SequenceCache(std::vector<std::unique_ptr<LayerCache>> layers, const Rope* rope)
      : layers_(std::move(layers)), rope_(rope) {}

  int64_t length() const { return length_; }
  int64_t bytes() const;
  LayerCache& layer(size_t index) { return *layers_.at(index); }
  void advance(int64_t tokens);
  // Says how long the prompt is that will come in chunks.
  void expect(int64_t length) { expected_ = length; }
  int64_t expected() const { return expected_; }
  // Forgets everything from position `length` on; ValueError if a layer no longer has what is
  // before.
  void trim(int64_t length);
  // Whether a sequence of `length` positions has other rotary frequencies than those that the state
  // was computed with.
  bool outgrown(int64_t length) const;
  // Forgets everything, to take the tokens of a sequence of `length` positions from its first.
  void restart(int64_t length);
  // The arrays that hold the state, so that they are evaluated with the results.
  Arrays state() const;

 private:
  std::vector<std::unique_ptr<LayerCache>> layers_;
  const Rope* rope_ = nullptr;
  int64_t length_ = 0;
  int64_t expected_ = 0;
  int64_t rope_length_ = 0;  // whose frequencies the state was computed with
};

// The sequences of one forward pass, with the same number of new tokens each.
class Batch {
 public:
  Batch(std::vector<SequenceCache*> sequences, int64_t tokens);

  size_t size() const { return sequences_.size(); }
  int64_t tokens() const { return tokens_; }
  // Longest sequence after this pass.
  int64_t longest() const;
  // int32 [B, L]
  Array positions() const;
  // q [B, H, L, K], k and v [B, G, L, K] -> [B, H, L, K].
  Array attend(size_t layer, const Array& q, const Array& k, const Array& v,
               const AttendOptions& options);
  // After the pass was evaluated: the new tokens count as seen.
  void advance();

 private:
  std::vector<SequenceCache*> sequences_;
  std::vector<Span> spans_;
  int64_t tokens_;
};

}  // namespace mica::nn
