// What this machine can do at most, measured in moments: the ceilings that speeds are put beside.
//
//   MemoryReader reader;                                   // holds a block that no cache holds
//   const double share = bytes / seconds / reader.read();  // of what streaming reads reach now
//
// All measurements run on the shared pool's threads, as the work that is compared does. Other
// programs and other guests of a host take their part, so measure in the same run and moment, more
// than once.
#pragma once

#include <cstddef>
#include <cstdint>

namespace mica {

// Reads memory from end to end, with huge pages where the system gives them.
class MemoryReader {
 public:
  // `bytes` is taken from the system until destruction. OutOfMemory if there are not so many.
  explicit MemoryReader(int64_t bytes = int64_t{512} << 20);
  ~MemoryReader();
  MemoryReader(const MemoryReader&) = delete;
  MemoryReader& operator=(const MemoryReader&) = delete;

  // Bytes per second of one pass over the block.
  double read() const;
  int64_t bytes() const;

 private:
  std::byte* data_;
  int64_t pieces_;
};

// What is multiplied and added.
//
//   Float32   fused multiply-adds
//   Bfloat16  products of bfloat16 numbers, sums in float32: by the instruction for pairs of them,
//             where it is faster than the above
//   Int8      products of 8-bit integers, sums in 32 bits: by the widest dot-product instruction,
//   or
//             by several instructions where there is none
enum class Arithmetic : uint8_t { Float32, Bfloat16, Int8 };
// "float32", "bfloat16", "int8"
const char* arithmetic_name(Arithmetic kind);

// Operations per second of register-resident loops of about 10 ms; a multiplication and an addition
// count as two.
double arithmetic_ceiling(Arithmetic kind);

}  // namespace mica
