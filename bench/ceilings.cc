// What the machine can do at most, as a worker of bench/run: streaming reads and copies of
// gigabytes, and arithmetic that never leaves registers. Parameters: {"ceiling": "read" | "copy" |
// "f32" | "bf16" | "f16" | "int8", "threads": n, "pages": "ordinary" | "huge", "isa": "native" |
// "avx2"}. Work is counted in bytes (a copy reads and writes) or in operations (a multiply-add is
// two).
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <cstring>
#include <map>
#include <memory>
#include <thread>
#include <vector>

#include "bench/arithmetic.h"
#include "bench/worker.h"

#if defined(__x86_64__)
#include <immintrin.h>
#define MICA_CLONES [[gnu::target_clones("avx512f", "avx2", "default")]]
#else
#define MICA_CLONES
#endif

namespace mica::bench {
namespace {

// Runs f(thread) on n threads that start together.
template <class F>
void together(int n, const F& f) {
  std::atomic<int> waiting{n};
  const auto body = [&](int thread) {
    for (waiting.fetch_sub(1); waiting.load(std::memory_order_acquire) > 0;)
      std::this_thread::yield();
    f(thread);
  };
  std::vector<std::thread> others;
  others.reserve(static_cast<size_t>(n));
  for (int i = 1; i < n; ++i) others.emplace_back(body, i);
  body(0);
  for (std::thread& other : others) other.join();
}

// An anonymous mapping of which every page has been touched.
class Block {
 public:
  Block(size_t size, bool huge) : size_(size) {
    data_ = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (data_ == MAP_FAILED) throw std::runtime_error("no memory for the ceilings");
    madvise(data_, size, huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
    std::memset(data_, 1, size);
  }
  ~Block() { munmap(data_, size_); }
  Block(const Block&) = delete;
  Block& operator=(const Block&) = delete;

  char* data() const { return static_cast<char*>(data_); }
  size_t size() const { return size_; }

 private:
  void* data_;
  size_t size_;
};

// Two gigabytes, less where a quarter of the memory is less: far above any cache.
size_t block_size() {
  const auto memory =
      static_cast<size_t>(sysconf(_SC_PHYS_PAGES)) * static_cast<size_t>(sysconf(_SC_PAGESIZE));
  return std::min(size_t{2} << 30, memory / 4) >> 22 << 22;
}

// One block at a time: the next kind of pages replaces it.
std::shared_ptr<Block> block(bool huge) {
  static std::shared_ptr<Block> last;
  static bool last_huge = false;
  if (!last || last_huge != huge) {
    last.reset();
    last = std::make_shared<Block>(block_size(), huge);
    last_huge = huge;
  }
  return last;
}

// Sums with prefetches two kilobytes ahead, `size` a multiple of 256.
MICA_CLONES uint64_t read_all(const char* from, size_t size) {
  uint64_t sums[32] = {};
  const auto* words = reinterpret_cast<const uint64_t*>(from);
  for (size_t i = 0; i < size / 8; i += 32) {
    for (int line = 0; line < 4; ++line) __builtin_prefetch(words + i + 256 + line * 8);
    for (int j = 0; j < 32; ++j) sums[j] += words[i + static_cast<size_t>(j)];
  }
  uint64_t total = 0;
  for (uint64_t sum : sums) total += sum;
  return total;
}

// Past the caches where the processor has such stores.
void copy_all(char* to, const char* from, size_t size) {
#if defined(__x86_64__)
  for (size_t i = 0; i < size; i += 64) {
    _mm_prefetch(from + i + 2048, _MM_HINT_T0);
    for (size_t j = 0; j < 64; j += 16)
      _mm_stream_si128(reinterpret_cast<__m128i*>(to + i + j),
                       _mm_load_si128(reinterpret_cast<const __m128i*>(from + i + j)));
  }
  _mm_sfence();
#else
  std::memcpy(to, from, size);
#endif
}

Prepared memory_ceiling(const std::string& what, int threads, bool huge) {
  const std::shared_ptr<Block> memory = block(huge);
  const size_t half = memory->size() / 2;
  const size_t whole = what == "read" ? memory->size() : half;
  const size_t piece = whole / static_cast<size_t>(threads) / 4096 * 4096;
  auto sink = std::make_shared<std::atomic<uint64_t>>(0);
  Prepared prepared;
  // A round of the driver is short: an eighth of the block at a time, still above the caches.
  auto next = std::make_shared<size_t>(0);
  const size_t slice = piece / 8 / 4096 * 4096;
  prepared.run = [=] {
    const size_t offset = (*next)++ % 8 * slice;
    together(threads, [&](int thread) {
      char* from = memory->data() + static_cast<size_t>(thread) * piece + offset;
      if (what == "read")
        *sink += read_all(from, slice);
      else
        copy_all(from + half, from, slice);
    });
  };
  prepared.work = static_cast<double>(slice) * threads * (what == "read" ? 1 : 2);
  prepared.info = {{"way", what == "read" ? "streaming sums" : "stores past the caches"},
                   {"block_mb", memory->size() >> 20}};
  return prepared;
}

Prepared arithmetic_ceiling(const std::string& what, int threads, bool avx2) {
  constexpr int64_t kSteps = 400'000;
  // Of several ways the processor has, the fastest on one thread.
  const ArithmeticWay* best = nullptr;
  double fastest = 0;
  for (const ArithmeticWay& way : arithmetic_ways()) {
    if (way.ceiling != what || (avx2 && way.beyond_avx2) || !way.supported()) continue;
    way.run(kSteps);
    const double rate = way.work_per_step / seconds_of([&] { way.run(kSteps); }, 2);
    if (rate > fastest) {
      fastest = rate;
      best = &way;
    }
  }
  if (best == nullptr) throw Absent("this processor has no " + what + " instructions");
  Prepared prepared;
  prepared.run = [=] { together(threads, [&](int) { best->run(kSteps); }); };
  prepared.work = best->work_per_step * kSteps * threads;
  prepared.info = {{"way", best->name}};
  return prepared;
}

Prepared prepare(const json& params) {
  const auto what = params.at("ceiling").get<std::string>();
  const int threads = params.at("threads").get<int>();
  if (threads < 1 || threads > 4096) throw std::invalid_argument("threads must be 1 to 4096");
  if (what == "read" || what == "copy")
    return memory_ceiling(what, threads, params.at("pages").get<std::string>() == "huge");
  return arithmetic_ceiling(what, threads, params.value("isa", "native") == "avx2");
}

}  // namespace
}  // namespace mica::bench

int main() { return mica::bench::serve(mica::bench::prepare); }
