#include "core/params.h"

#include <algorithm>
#include <cstring>

namespace mica::detail {

void append_bytes(const void* bytes, size_t count, KeyWords& words) {
  words.push_back(count);
  auto* from = static_cast<const std::byte*>(bytes);
  for (size_t i = 0; i < count; i += sizeof(uint64_t)) {
    uint64_t word = 0;
    std::memcpy(&word, from + i, std::min(sizeof word, count - i));
    words.push_back(word);
  }
}

}  // namespace mica::detail
