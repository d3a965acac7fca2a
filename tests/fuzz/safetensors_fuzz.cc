// parse_safetensors: either a mica::Error, or an index whose tensors lie within the bytes, have the
// sizes that their shapes say and tile the data.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>

#include "base/error.h"
#include "io/safetensors.h"

namespace {

void check(bool condition) {
  if (!condition) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::span<const std::byte> file(reinterpret_cast<const std::byte*>(data), size);
  mica::io::SafetensorsIndex index;
  try {
    index = mica::io::parse_safetensors(file, "fuzz.safetensors");
  } catch (const mica::Error&) {
    return 0;
  }
  uint64_t first = size, total = 0;
  for (const auto& entry : index.tensors) {
    check(entry.begin <= entry.end && entry.end <= size);
    uint64_t bytes = mica::io::safetensors_dtype_size(entry.dtype);
    check(bytes != 0);
    for (const int64_t extent : entry.shape) bytes *= static_cast<uint64_t>(extent);
    check(entry.end - entry.begin == bytes);
    check(index.find(entry.name) == &entry);
    first = std::min(first, entry.begin);
    total += bytes;
  }
  check(first + total == size);
  return 0;
}
