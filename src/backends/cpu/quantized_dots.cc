#include "backends/cpu/quantized_dots.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#if defined(__x86_64__) && defined(__GNUC__)
#define MICA_HAVE_VNNI_CODE 1
#include <immintrin.h>
#else
#define MICA_HAVE_VNNI_CODE 0
#endif

namespace mica::cpu {

namespace {

bool disabled_for_test = false;

bool processor_has_vnni() {
#if MICA_HAVE_VNNI_CODE
  static const bool has = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                          __builtin_cpu_supports("avx512vl") &&
                          __builtin_cpu_supports("avx512dq") &&
                          __builtin_cpu_supports("avx512vnni");
  return has;
#else
  return false;
#endif
}

// Largest magnitude of the integers: the highest byte is then at most 127.
constexpr float kLargest = 127 * 65536.0f;
// A step of a smaller largest value might not be a normal number.
constexpr float kSmallest = 1e-30f;

}  // namespace

bool has_quantized_dots(const QuantizedMatrix& matrix) {
  return (matrix.bits == 4 || matrix.bits == 8) && matrix.group_size >= 32 &&
         matrix.scales_dtype == matrix.biases_dtype && matrix.scales_dtype != Dtype::F64 &&
         processor_has_vnni() && !disabled_for_test;
}
void disable_quantized_dots(bool disabled) { disabled_for_test = disabled; }

QuantizedDots::QuantizedDots(const QuantizedMatrix& matrix, int64_t k) : matrix(matrix), k(k) {
  int64_t block = 512 / matrix.bits;
  groups = k / matrix.group_size;
  padded_groups = (groups + 15) / 16 * 16;
  blocks = (k + block - 1) / block;
  // A prepared row: step and sum of each group, then three times 64 signed bytes per 64 elements.
  row_bytes = padded_groups * 8 + blocks * block * 3;
}

#if MICA_HAVE_VNNI_CODE
#if defined(__clang__)
#pragma clang attribute push(                                                     \
    __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,fma"))), \
    apply_to = function)
#else
// GCC 12 takes the undefined vectors inside its own intrinsics for mistakes of the caller.
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,fma")
#endif

namespace {

float* steps_of(std::byte* row) { return reinterpret_cast<float*>(row); }

// Bytes 0, 1, 2 of integers in signed digits: x = d0 + 256 * d1 + 65536 * d2.
struct Digits {
  explicit Digits(__m512i x) {
    const __m512i half = _mm512_set1_epi32(128);
    __m512i x1 = _mm512_srai_epi32(_mm512_add_epi32(x, half), 8);
    __m512i x2 = _mm512_srai_epi32(_mm512_add_epi32(x1, half), 8);
    d[0] = _mm512_cvtepi32_epi8(x2);
    d[1] = _mm512_cvtepi32_epi8(x1);
    d[2] = _mm512_cvtepi32_epi8(x);
  }
  __m128i d[3];  // highest first
};

// 32 integers whose even and odd elements go to different halves (4 bits), or that stay in order.
void store_digits(const float* x, float inverse, int bits, int8_t* block, int64_t place) {
  const __m512 factor = _mm512_set1_ps(inverse);
  __m512i a = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(x), factor));
  __m512i b = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(x + 16), factor));
  if (bits == 4) {
    const __m512i even =
        _mm512_set_epi32(30, 28, 26, 24, 22, 20, 18, 16, 14, 12, 10, 8, 6, 4, 2, 0);
    __m512i evens = _mm512_permutex2var_epi32(a, even, b);
    b = _mm512_permutex2var_epi32(a, _mm512_add_epi32(even, _mm512_set1_epi32(1)), b);
    a = evens;
  }
  Digits first(a), second(b);
  // 4 bits: a block of 128 elements is 64 even ones, 64 odd ones, for each digit in turn.
  int64_t step = bits == 4 ? 128 : 64, gap = bits == 4 ? 64 : 16;
  int8_t* to = block + (bits == 4 ? place / 2 : place);
  for (int i = 0; i < 3; ++i) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to + i * step), first.d[i]);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to + i * step + gap), second.d[i]);
  }
}

bool prepare_row(const QuantizedDots& q, const float* x, std::byte* row) {
  float* steps = steps_of(row);
  float* sums = steps + q.padded_groups;
  int8_t* digits = reinterpret_cast<int8_t*>(sums + q.padded_groups);
  std::memset(row, 0, static_cast<size_t>(q.row_bytes));
  int bits = q.matrix.bits;
  int64_t size = q.matrix.group_size, block = 512 / bits;
  for (int64_t g = 0; g < q.groups; ++g) {
    const float* from = x + g * size;
    __m512 largest = _mm512_setzero_ps();
    __m512d sum = _mm512_setzero_pd();
    for (int64_t i = 0; i < size; i += 16) {
      __m512 v = _mm512_loadu_ps(from + i);
      // May lose a NaN, which the sum keeps.
      largest = _mm512_max_ps(largest, _mm512_abs_ps(v));
      sum = _mm512_add_pd(sum, _mm512_cvtps_pd(_mm512_castps512_ps256(v)));
      sum = _mm512_add_pd(sum, _mm512_cvtps_pd(_mm512_extractf32x8_ps(v, 1)));
    }
    double total = _mm512_reduce_add_pd(sum);
    float most = _mm512_reduce_max_ps(largest);
    if (!std::isfinite(total) || !std::isfinite(most)) return false;
    if (most == 0) continue;
    if (most < kSmallest) return false;
    steps[g] = most / kLargest;
    sums[g] = static_cast<float>(total);
    for (int64_t i = 0; i < size; i += 32) {
      int64_t element = g * size + i;
      store_digits(from + i, kLargest / most, bits, digits + element / block * block * 3,
                   element % block);
    }
  }
  return true;
}

__m512 load_scales(const std::byte* row, Dtype dtype, int64_t i, __mmask16 mask) {
  if (dtype == Dtype::F32)
    return _mm512_maskz_loadu_ps(mask, reinterpret_cast<const float*>(row) + i);
  __m256i half = _mm256_maskz_loadu_epi16(mask, reinterpret_cast<const uint16_t*>(row) + i);
  if (dtype == Dtype::F16) return _mm512_cvtph_ps(half);
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
}

// Sums of a block of one matrix row times one row of x, scaled; `digits` are those of the block.
template <int kBits>
__m512 block_sums(__m512i low, __m512i high, const int8_t* digits) {
  const __m512i zero = _mm512_setzero_si512();
  auto digit = [digits](int i) { return _mm512_loadu_si512(digits + i * 64); };
  if constexpr (kBits == 4) {
    // At most 8 * 15 * 2^23 in all: the digits may be added up as integers.
    __m512i sum = _mm512_dpbusd_epi32(zero, low, digit(0));
    sum = _mm512_slli_epi32(_mm512_dpbusd_epi32(sum, high, digit(1)), 8);
    sum = _mm512_dpbusd_epi32(sum, low, digit(2));
    sum = _mm512_slli_epi32(_mm512_dpbusd_epi32(sum, high, digit(3)), 8);
    sum = _mm512_dpbusd_epi32(sum, low, digit(4));
    return _mm512_cvtepi32_ps(_mm512_dpbusd_epi32(sum, high, digit(5)));
  } else {
    __m512i upper = _mm512_dpbusd_epi32(zero, low, digit(0));
    __m512i lower = _mm512_slli_epi32(_mm512_dpbusd_epi32(zero, low, digit(1)), 8);
    lower = _mm512_dpbusd_epi32(lower, low, digit(2));
    return _mm512_fmadd_ps(_mm512_cvtepi32_ps(upper), _mm512_set1_ps(65536),
                           _mm512_cvtepi32_ps(lower));
  }
}

template <int kBits, int R, int M>
void multiply_rows(const QuantizedDots& q, int64_t first, const std::byte* prepared, float* out) {
  constexpr int64_t kBlock = 512 / kBits;  // elements in 64 bytes
  const QuantizedMatrix& w = q.matrix;
  const int shift = __builtin_ctz(static_cast<unsigned>(w.group_size));
  const int64_t chunk_blocks = 16 * w.group_size / kBlock;  // that 16 groups span
  const __m512i nibble = _mm512_set1_epi8(15);
  const __m512i lane =
      _mm512_mullo_epi32(_mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0),
                         _mm512_set1_epi32(kBlock / 16));
  const uint8_t* packed[R];
  for (int r = 0; r < R; ++r) packed[r] = reinterpret_cast<const uint8_t*>(w.packed_row(first + r));
  __m512 sum[R][M], biased[R][M];
  for (int r = 0; r < R; ++r)
    for (int m = 0; m < M; ++m) sum[r][m] = biased[r][m] = _mm512_setzero_ps();

  for (int64_t chunk = 0; chunk * 16 < q.groups; ++chunk) {
    int64_t g = chunk * 16;
    __mmask16 present =
        q.groups - g >= 16 ? __mmask16(0xffff) : __mmask16((1u << (q.groups - g)) - 1);
    __m512 scale[R][M];
    for (int r = 0; r < R; ++r) {
      __m512 own = load_scales(w.scales_row(first + r), w.scales_dtype, g, present);
      __m512 bias = load_scales(w.biases_row(first + r), w.biases_dtype, g, present);
      for (int m = 0; m < M; ++m) {
        const float* steps = reinterpret_cast<const float*>(prepared + m * q.row_bytes) + g;
        scale[r][m] = _mm512_mul_ps(own, _mm512_loadu_ps(steps));
        biased[r][m] =
            _mm512_fmadd_ps(bias, _mm512_loadu_ps(steps + q.padded_groups), biased[r][m]);
      }
    }
    const std::byte* digits = prepared + q.padded_groups * 8;
    int64_t last = std::min(q.blocks, (chunk + 1) * chunk_blocks);
    for (int64_t b = chunk * chunk_blocks; b < last; ++b) {
      int64_t inside = (b - chunk * chunk_blocks) * kBlock;
      __m512i group =
          _mm512_srl_epi32(_mm512_add_epi32(lane, _mm512_set1_epi32(static_cast<int>(inside))),
                           _mm_cvtsi32_si128(shift));
      int64_t left = (q.k - b * kBlock) * kBits / 8;
      __mmask64 bytes = left >= 64 ? ~__mmask64(0) : (__mmask64(1) << left) - 1;
      for (int r = 0; r < R; ++r) {
        __m512i low = _mm512_maskz_loadu_epi8(bytes, packed[r] + b * 64), high = low;
        if constexpr (kBits == 4) {
          high = _mm512_and_si512(_mm512_srli_epi16(low, 4), nibble);
          low = _mm512_and_si512(low, nibble);
        }
        for (int m = 0; m < M; ++m) {
          auto* own = reinterpret_cast<const int8_t*>(digits + m * q.row_bytes + b * kBlock * 3);
          sum[r][m] = _mm512_fmadd_ps(block_sums<kBits>(low, high, own),
                                      _mm512_permutexvar_ps(group, scale[r][m]), sum[r][m]);
        }
      }
    }
  }
  for (int r = 0; r < R; ++r)
    for (int m = 0; m < M; ++m)
      out[r * 4 + m] = _mm512_reduce_add_ps(_mm512_add_ps(sum[r][m], biased[r][m]));
}

template <int kBits, int R>
void multiply_count(const QuantizedDots& q, int64_t first, const std::byte* prepared, int count,
                    float* out) {
  switch (count) {
    case 1: return multiply_rows<kBits, R, 1>(q, first, prepared, out);
    case 2: return multiply_rows<kBits, R, 2>(q, first, prepared, out);
    case 3: return multiply_rows<kBits, R, 3>(q, first, prepared, out);
    default: return multiply_rows<kBits, R, 4>(q, first, prepared, out);
  }
}

// Four rows with one of x, else two: what the registers hold.
template <int kBits>
void multiply_any(const QuantizedDots& q, int64_t first, int rows, const std::byte* prepared,
                  int count, float* out) {
  if (rows == 4 && count == 1) return multiply_rows<kBits, 4, 1>(q, first, prepared, out);
  int r = 0;
  for (; r + 2 <= rows; r += 2)
    multiply_count<kBits, 2>(q, first + r, prepared, count, out + r * 4);
  if (r < rows) multiply_count<kBits, 1>(q, first + r, prepared, count, out + r * 4);
}

}  // namespace

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif

bool QuantizedDots::prepare([[maybe_unused]] const float* x,
                            [[maybe_unused]] std::byte* row) const {
#if MICA_HAVE_VNNI_CODE
  return prepare_row(*this, x, row);
#else
  return false;
#endif
}

void QuantizedDots::multiply([[maybe_unused]] int64_t first, [[maybe_unused]] int rows,
                             [[maybe_unused]] const std::byte* prepared, [[maybe_unused]] int count,
                             [[maybe_unused]] float* out) const {
#if MICA_HAVE_VNNI_CODE
  if (matrix.bits == 4)
    multiply_any<4>(*this, first, rows, prepared, count, out);
  else
    multiply_any<8>(*this, first, rows, prepared, count, out);
#endif
}

}  // namespace mica::cpu
