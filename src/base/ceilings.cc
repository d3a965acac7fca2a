#include "base/ceilings.h"

#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>

#include "base/error.h"
#include "base/thread_pool.h"

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace mica {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

constexpr int64_t kPiece = 1 << 20;  // bytes that a thread reads at a time

std::atomic<uint64_t> sink{0};  // keeps what the loops compute from being left out

[[gnu::always_inline]] inline uint64_t sum_up(const uint64_t* from, int64_t count) {
  uint64_t sums[32] = {};
  for (int64_t i = 0; i < count; i += 32)
    for (int j = 0; j < 32; ++j) sums[j] += from[i + j];
  uint64_t total = 0;
  for (uint64_t sum : sums) total += sum;
  return total;
}

// Not the compiler's function clones: those are chosen before a sanitizer is ready.
#if defined(__x86_64__)
[[gnu::target("avx512f")]] uint64_t sum_512(const uint64_t* from, int64_t count) {
  return sum_up(from, count);
}
[[gnu::target("avx2")]] uint64_t sum_256(const uint64_t* from, int64_t count) {
  return sum_up(from, count);
}
#endif

uint64_t sum_of(const uint64_t* from, int64_t count) {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512f")) return sum_512(from, count);
  if (__builtin_cpu_supports("avx2")) return sum_256(from, count);
#endif
  return sum_up(from, count);
}

// --- Arithmetic ----------------------------------------------------------------------------------

// A loop runs `rounds` times over its accumulators, enough of them to hide the latency, and
// returns the operations that it did.
using Loop = double (*)(int64_t rounds);
constexpr int kAccumulators = 12;

// The empty assembly statement makes each accumulator's value matter after each step; `registers`
// names the class of registers that the compiler may keep it in.
#define MICA_LOOP(registers, step, ops)              \
  for (int64_t round = 0; round < rounds; ++round) { \
    _Pragma("GCC unroll 12") for (auto& a : all) {   \
      step;                                          \
      asm volatile("" : "+" registers(a));           \
    }                                                \
  }                                                  \
  return static_cast<double>(rounds) * kAccumulators * (ops)

#if defined(__x86_64__)

[[gnu::target("avx512f")]] double float32_avx512(int64_t rounds) {
  __m512 all[kAccumulators] = {}, x = _mm512_set1_ps(0.5f);
  MICA_LOOP("v", a = _mm512_fmadd_ps(a, x, x), 32);
}

[[gnu::target("avx2,fma")]] double float32_fma(int64_t rounds) {
  __m256 all[kAccumulators] = {}, x = _mm256_set1_ps(0.5f);
  MICA_LOOP("x", a = _mm256_fmadd_ps(a, x, x), 16);
}

double float32_any(int64_t rounds) {
  __m128 all[kAccumulators] = {}, x = _mm_set1_ps(0.5f);
  MICA_LOOP("x", a = _mm_add_ps(_mm_mul_ps(a, x), x), 8);
}

[[gnu::target("avx512f,avx512bf16")]] double bfloat16_pairs(int64_t rounds) {
  __m512 all[kAccumulators] = {};
  const auto x = (__m512bh)_mm512_set1_epi16(0x3f00);
  MICA_LOOP("v", a = _mm512_dpbf16_ps(a, x, x), 64);
}

[[gnu::target("avx512f,avx512vnni")]] double int8_vnni(int64_t rounds) {
  __m512i all[kAccumulators] = {}, x = _mm512_set1_epi8(3);
  MICA_LOOP("v", a = _mm512_dpbusd_epi32(a, x, x), 128);
}

[[gnu::target("avx2")]] double int8_avx2(int64_t rounds) {
  __m256i all[kAccumulators] = {}, x = _mm256_set1_epi8(3), ones = _mm256_set1_epi16(1);
  for (auto& a : all) a = x;
  // The product is taken of the accumulator, so that it cannot be computed once for all rounds.
  MICA_LOOP("x", a = _mm256_add_epi32(a, _mm256_madd_epi16(_mm256_maddubs_epi16(x, a), ones)), 64);
}

double int8_any(int64_t rounds) {
  __m128i all[kAccumulators] = {};
  MICA_LOOP("x", a = _mm_add_epi32(a, _mm_madd_epi16(a, a)), 16);
}

Loop float32_loop() {
  if (__builtin_cpu_supports("avx512f")) return float32_avx512;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return float32_fma;
  return float32_any;
}

Loop bfloat16_loop() { return __builtin_cpu_supports("avx512bf16") ? bfloat16_pairs : nullptr; }

Loop int8_loop() {
  if (__builtin_cpu_supports("avx512vnni")) return int8_vnni;
  return __builtin_cpu_supports("avx2") ? int8_avx2 : int8_any;
}

#elif defined(__aarch64__)

double float32_neon(int64_t rounds) {
  float32x4_t all[kAccumulators] = {}, x = vdupq_n_f32(0.5f);
  MICA_LOOP("w", a = vfmaq_f32(x, a, x), 8);
}

double int8_neon(int64_t rounds) {
  int32x4_t all[kAccumulators] = {};
  const int8x16_t x = vdupq_n_s8(3);
#if defined(__ARM_FEATURE_DOTPROD)
  MICA_LOOP("w", a = vdotq_s32(a, x, x), 32);
#else
  MICA_LOOP(
      "w", a = vpadalq_s16(a, vmull_s8(vget_low_s8(x), vget_high_s8(vreinterpretq_s8_s32(a)))), 16);
#endif
}

Loop float32_loop() { return float32_neon; }
Loop bfloat16_loop() { return nullptr; }
Loop int8_loop() { return int8_neon; }

#else

template <class T>
double any_loop(int64_t rounds) {
  T all[kAccumulators] = {};
  for (int64_t round = 0; round < rounds; ++round)
    for (T& a : all) a = a * T(3) + T(1);
  sink += static_cast<uint64_t>(all[0]);
  return static_cast<double>(rounds) * kAccumulators * 2;
}

Loop float32_loop() { return any_loop<float>; }
Loop bfloat16_loop() { return nullptr; }
Loop int8_loop() { return any_loop<uint32_t>; }

#endif

double measure(Loop loop) {
  constexpr int64_t kRounds = 20'000;  // some 100 µs
  loop(kRounds);                       // wide vector units may need waking
  ThreadPool& pool = ThreadPool::shared();
  const int64_t turns = int64_t{100} * pool.threads();
  std::atomic<double> operations{0};
  const auto start = Clock::now();
  pool.parallel_for(
      turns, 1, [&](int64_t begin, int64_t end) { operations += loop((end - begin) * kRounds); });
  return operations / seconds_since(start);
}

}  // namespace

MemoryReader::MemoryReader(int64_t bytes) : pieces_((bytes + kPiece - 1) / kPiece) {
  const auto size = static_cast<size_t>(pieces_ * kPiece);
  void* data = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (data == MAP_FAILED)
    throw Error(ErrorKind::OutOfMemory, fmt::format("no {} bytes to measure reading with", size));
  madvise(data, size, MADV_HUGEPAGE);
  data_ = static_cast<std::byte*>(data);
  ThreadPool::shared().parallel_for(pieces_, 4, [&](int64_t begin, int64_t end) {
    std::memset(data_ + begin * kPiece, 1, static_cast<size_t>((end - begin) * kPiece));
  });
}

MemoryReader::~MemoryReader() { munmap(data_, static_cast<size_t>(bytes())); }

int64_t MemoryReader::bytes() const { return pieces_ * kPiece; }

double MemoryReader::read() const {
  const auto start = Clock::now();
  ThreadPool::shared().parallel_for(pieces_, 1, [&](int64_t begin, int64_t end) {
    const auto* from = reinterpret_cast<const uint64_t*>(data_ + begin * kPiece);
    sink += sum_of(from, (end - begin) * kPiece / 8);
  });
  return static_cast<double>(pieces_ * kPiece) / seconds_since(start);
}

const char* arithmetic_name(Arithmetic kind) {
  switch (kind) {
    case Arithmetic::Float32: return "float32";
    case Arithmetic::Bfloat16: return "bfloat16";
    default: return "int8";
  }
}

double arithmetic_ceiling(Arithmetic kind) {
  if (kind == Arithmetic::Int8) return measure(int8_loop());
  const double floats = measure(float32_loop());
  const Loop pairs = kind == Arithmetic::Bfloat16 ? bfloat16_loop() : nullptr;
  return pairs ? std::max(floats, measure(pairs)) : floats;
}

}  // namespace mica
