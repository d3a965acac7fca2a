#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backends/cpu/random.cc"
#include "backends/cpu/highway_targets.h"
//
#include <hwy/foreach_target.h>  // IWYU pragma: keep
//
#include "ops/random.h"

#include <hwy/highway.h>

#include <cstring>

#include "base/thread_pool.h"
#include "core/backend.h"

HWY_BEFORE_NAMESPACE();
namespace mica::cpu {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using D = hn::ScalableTag<uint32_t>;
using V = hn::Vec<D>;

template <int kBits>
HWY_INLINE void mix(V& x, V& y) {
  x = hn::Add(x, y);
  y = hn::Xor(hn::Or(hn::ShiftLeft<kBits>(y), hn::ShiftRight<32 - kBits>(y)), x);
}

// Blocks begin … end of a stream: one word each to `first` and `second`.
void blocks(ops::Words key, int64_t begin, int64_t end, int64_t offset, uint32_t* first,
            uint32_t* second) {
  const D d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  const uint32_t keys[3] = {key.first, key.second, key.first ^ key.second ^ 0x1BD11BDAu};
  int64_t i = begin;
  for (; i + lanes <= end; i += lanes) {
    V x = hn::Iota(d, static_cast<uint32_t>(i) + keys[0]);
    V y = hn::Iota(d, static_cast<uint32_t>(i + offset) + keys[1]);
    for (uint32_t round = 0; round < 5; ++round) {
      if (round % 2 == 0) {
        mix<13>(x, y), mix<15>(x, y), mix<26>(x, y), mix<6>(x, y);
      } else {
        mix<17>(x, y), mix<29>(x, y), mix<16>(x, y), mix<24>(x, y);
      }
      x = hn::Add(x, hn::Set(d, keys[(round + 1) % 3]));
      y = hn::Add(y, hn::Set(d, keys[(round + 2) % 3] + round + 1));
    }
    hn::StoreU(x, d, first + i);
    hn::StoreU(y, d, second + i);
  }
  for (; i < end; ++i) {
    auto [x, y] =
        ops::threefry2x32(key, {static_cast<uint32_t>(i), static_cast<uint32_t>(i + offset)});
    first[i] = x;
    second[i] = y;
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace mica::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace mica::cpu {

HWY_EXPORT(blocks);

namespace {

// The words of one key's stream of `bytes` bytes. The last word may be cut short, and words may lie
// at any address if they are cut for several keys: those streams go through words of their own.
void stream(ops::Words key, uint8_t* to, int64_t bytes) {
  int64_t count = (bytes + 3) / 4;
  bool direct = bytes % 4 == 0 && reinterpret_cast<uintptr_t>(to) % 4 == 0;
  std::vector<uint32_t> own(direct ? 0 : static_cast<size_t>(count));
  uint32_t* words = direct ? reinterpret_cast<uint32_t*>(to) : own.data();
  ops::RandomWords layout(count);
  ThreadPool::shared().parallel_for(layout.half, 16384, [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(blocks)(key, begin, end, layout.second(), words, words + layout.second());
  });
  if (layout.odd)
    words[layout.half] = ops::threefry2x32(key, {static_cast<uint32_t>(layout.half), 0}).first;
  if (!direct) std::memcpy(to, words, static_cast<size_t>(bytes));
}

void random_bits(const KernelCall& call) {
  const View &keys = call.inputs[0], &out = call.outputs[0];
  if (out.size() == 0) return;
  int64_t key_count = keys.size() / 2;
  int64_t bytes = out.size() / key_count * size_of(out.dtype);
  const uint32_t* from = keys.as<uint32_t>();
  auto one = [&](int64_t k) {
    stream({from[2 * k], from[2 * k + 1]}, out.as<uint8_t>() + k * bytes, bytes);
  };
  // Many keys share the threads, few leave them to the streams.
  if (key_count < 8)
    for (int64_t k = 0; k < key_count; ++k) one(k);
  else
    ThreadPool::shared().parallel_for(key_count, 1 + 65536 / bytes,
                                      [&](int64_t begin, int64_t end) {
                                        for (int64_t k = begin; k < end; ++k) one(k);
                                      });
}

}  // namespace

void random_kernels(KernelTable& registry) {
  registry.add(ops::random_bits_op, {.run = &random_bits});
}

}  // namespace mica::cpu
#endif
