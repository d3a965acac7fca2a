// Tiles of memory that is read once, dealt out to threads so that each knows its next tile while it
// works on one and can fetch it meanwhile.
//
//   for_each_tile(tiles, threads, [&](const StreamTile& tile) {
//     if (tile.first) fetch(tile.index);    // nothing has been fetched yet
//     work(tile.index, tile.next);          // next: -1 if there is none
//   });
//
// A thread takes a run of neighbouring tiles, a share of what is left, and the next run before the
// last tile of one: memory is read in long pieces, nothing is fetched in vain, and the last run to
// be worked on is one tile.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <tuple>
#include <utility>

#include "base/thread_pool.h"

namespace mica::cpu {

struct StreamTile {
  int64_t index, next;
  bool first;  // of its thread
};

// Hands out runs of the tiles 0 … count - 1.
class TileRuns {
 public:
  TileRuns(int64_t count, int64_t threads) : count_(count), shares_(kRunsPerThread * threads) {}
  // begin == end if none is left.
  std::pair<int64_t, int64_t> take() {
    int64_t begin = taken_.load(std::memory_order_relaxed), end;
    do {
      end = std::min(count_, begin + std::max<int64_t>(1, (count_ - begin) / shares_));
    } while (!taken_.compare_exchange_weak(begin, end, std::memory_order_relaxed));
    return {begin, end};
  }

 private:
  static constexpr int64_t kRunsPerThread = 4;
  int64_t count_, shares_;
  std::atomic<int64_t> taken_{0};
};

template <class F>
void for_each_tile(int64_t tiles, int64_t threads, F&& f) {
  ThreadPool& pool = ThreadPool::shared();
  threads = std::clamp<int64_t>(std::min<int64_t>(threads, pool.threads()), 1, tiles);
  TileRuns runs(tiles, threads);
  pool.parallel_for(threads, 1, [&](int64_t, int64_t) {
    bool first = true;
    for (auto [begin, end] = runs.take(); begin < end;) {
      std::pair<int64_t, int64_t> following;
      for (int64_t i = begin; i < end; ++i, first = false) {
        bool last = i + 1 == end;
        if (last) following = runs.take();
        int64_t next = !last ? i + 1 : following.first < following.second ? following.first : -1;
        f(StreamTile{i, next, first});
      }
      std::tie(begin, end) = following;
    }
  });
}

}  // namespace mica::cpu
