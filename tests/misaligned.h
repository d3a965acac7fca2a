// Safetensors files whose tensors are not aligned, as MLX writes them.
#pragma once

#include <string>

#include "base/file.h"

namespace mica::testing {

// Lengthens the header by a space.
inline void misalign(const std::string& path) {
  std::string file = read_file(path, size_t{1} << 32);
  ++file[0];  // headers are padded to multiples of 8 bytes
  const auto length = static_cast<size_t>(static_cast<unsigned char>(file[0])) +
                      (static_cast<size_t>(static_cast<unsigned char>(file[1])) << 8) +
                      (static_cast<size_t>(static_cast<unsigned char>(file[2])) << 16);
  file.insert(8 + length - 1, 1, ' ');
  write_file(path, file);
}

}  // namespace mica::testing
