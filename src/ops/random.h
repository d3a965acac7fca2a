// Random numbers, MLX's for the same key: bits, uniform numbers, integers, choices and permutations
// equal bit for bit; those made of logarithms and erf to the last digits, as on MLX's own devices.
//
//   random::seed(7);
//   Array noise = random::normal({64, 128});
//   Array keys = random::split(random::key(0), 2);
//   Array same = random::uniform({3}, Dtype::F32, take(keys, 0, 0));
//
// The generator is threefry2x32 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3",
// 2011): a key and the position of a number give the number, whatever else runs. A key is a uint32
// array of shape (2,). Where none is given (an undefined Array) the calling thread's default key is
// split and its second half used.
//
// Shapes must not be negative, distributions that are real must have a floating dtype: ValueErrors.
// Bounds are arrays that broadcast to the shape (ValueError). Random numbers have no derivative
// with respect to the key; they have with respect to bounds, location and scale.
#pragma once

#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "core/op.h"
#include "core/params.h"

namespace mica::random {

// Of the default key of this thread, which starts from the time.
void seed(uint64_t value);
// The default key itself, for saving, restoring and compiling.
Array state();
void set_state(const Array& key);

Array key(uint64_t seed);
// `count` new keys, (count, 2).
Array split(const Array& key, int count = 2, Stream s = {});

// Uniform integers of `width` bytes (1, 2, 4): uint8, uint16, uint32.
Array bits(const Shape& shape, int width = 4, const Array& key = {}, Stream s = {});

// In [low, high), made of 32 random bits.
Array uniform(const Array& low, const Array& high, const Shape& shape, Dtype dtype = Dtype::F32,
              const Array& key = {}, Stream s = {});
// In [0, 1).
Array uniform(const Shape& shape, Dtype dtype = Dtype::F32, const Array& key = {}, Stream s = {});
// Standard normal, times `scale`, plus `loc`, where given.
Array normal(const Shape& shape, Dtype dtype = Dtype::F32, const Array& loc = {},
             const Array& scale = {}, const Array& key = {}, Stream s = {});
// Standard normal, between lower and upper.
Array truncated_normal(const Array& lower, const Array& upper, const Shape& shape,
                       Dtype dtype = Dtype::F32, const Array& key = {}, Stream s = {});
Array gumbel(const Shape& shape, Dtype dtype = Dtype::F32, const Array& key = {}, Stream s = {});
Array laplace(const Shape& shape, Dtype dtype = Dtype::F32, double loc = 0, double scale = 1,
              const Array& key = {}, Stream s = {});
// Integers (or bool) in [low, high), made of a float32: not every integer is reachable beyond 2^24.
Array randint(const Array& low, const Array& high, const Shape& shape, Dtype dtype = Dtype::I32,
              const Array& key = {}, Stream s = {});
// True with probability p (floating), which broadcasts to the shape.
Array bernoulli(const Array& p, const Shape& shape, const Array& key = {}, Stream s = {});

// Indices (uint32) drawn with probabilities softmax(logits) along an axis: one for each of the
// other axes' places, `shape` of them (to which those places broadcast), or `samples` for each
// place, along a new last axis.
Array categorical(const Array& logits, int axis = -1, const Array& key = {}, Stream s = {});
Array categorical(const Array& logits, int axis, const Shape& shape, const Array& key = {},
                  Stream s = {});
Array categorical_samples(const Array& logits, int axis, int64_t samples, const Array& key = {},
                          Stream s = {});

// A permutation of 0 … count - 1 (uint32), or of the slices along an axis.
Array permutation(int64_t count, const Array& key = {}, Stream s = {});
Array permutation(const Array& a, int axis = 0, const Array& key = {}, Stream s = {});

}  // namespace mica::random

namespace mica::ops {

// Keys [..., 2] give [...] + shape.
struct RandomBitsParams {
  Shape shape;
  int width;
  static constexpr auto fields() {
    return std::tuple(argument("shape", &RandomBitsParams::shape),
                      field("width", &RandomBitsParams::width));
  }
};
extern const Op random_bits_op;

using Words = std::pair<uint32_t, uint32_t>;

// One block of the generator: 20 rounds.
inline Words threefry2x32(Words key, Words count) {
  constexpr int kRotations[2][4] = {{13, 15, 26, 6}, {17, 29, 16, 24}};
  const uint32_t keys[3] = {key.first, key.second, key.first ^ key.second ^ 0x1BD11BDAu};
  auto [x, y] = count;
  x += keys[0];
  y += keys[1];
  for (uint32_t i = 0; i < 5; ++i) {
    for (int rotation : kRotations[i % 2]) {
      x += y;
      y = (y << rotation | y >> (32 - rotation)) ^ x;
    }
    x += keys[(i + 1) % 3];
    y += keys[(i + 2) % 3] + i + 1;
  }
  return {x, y};
}

// Where the words of a stream of `count` words come from: block i gives word i and word
// i + second(count); if count is odd the word in the middle comes alone, from block (middle, 0).
struct RandomWords {
  explicit RandomWords(int64_t count) : half(count / 2), odd(count % 2 != 0) {}
  int64_t second() const { return half + odd; }
  int64_t half;
  bool odd;
};

}  // namespace mica::ops
