#include "ops/random.h"

#include <algorithm>
#include <cstring>

#include "backends/ref/ref.h"

namespace mica::ref {

namespace {

// Word i of a stream of `count` words.
uint32_t word_of(ops::Words key, int64_t i, int64_t count) {
  ops::RandomWords words(count);
  auto block = [&](int64_t first, int64_t second) {
    return ops::threefry2x32(key, {static_cast<uint32_t>(first), static_cast<uint32_t>(second)});
  };
  if (words.odd && i == words.half) return block(i, 0).first;
  if (i < words.half) return block(i, i + words.second()).first;
  return block(i - words.second(), i).second;
}

void random_bits(const KernelCall& call) {
  const View &keys = call.inputs[0], &out = call.outputs[0];
  int64_t key_count = keys.size() / 2;
  if (out.size() == 0) return;
  int64_t bytes = out.size() / key_count * size_of(out.dtype), words = (bytes + 3) / 4;
  auto* to = at<uint8_t>(out);
  auto* from = at<uint32_t>(keys);
  for (int64_t k = 0; k < key_count; ++k, to += bytes)
    for (int64_t i = 0; i < words; ++i) {
      uint32_t word = word_of({from[2 * k], from[2 * k + 1]}, i, words);
      std::memcpy(to + 4 * i, &word, static_cast<size_t>(std::min<int64_t>(4, bytes - 4 * i)));
    }
}

}  // namespace

void random_kernels(KernelTable& registry) {
  registry.add(ops::random_bits_op, {.run = &random_bits});
}

}  // namespace mica::ref
