// What tests against recorded results of other frameworks share: the inputs they were computed
// from, and checksums.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "core/array.h"

namespace mica {

// Numbers that every float type up to 11 bits of precision holds: of a linear congruential
// generator.
inline std::vector<float> fixture_values(size_t count, uint32_t seed) {
  std::vector<float> values;
  for (uint32_t state = seed; values.size() < count;) {
    state = state * 1664525u + 1013904223u;
    values.push_back(static_cast<float>(static_cast<int>((state >> 8) % 2001) - 1000) / 256.0f);
  }
  return values;
}

// CRC-32 (IEEE 802.3) of an array's bytes in row-major order.
inline uint32_t checksum(const Array& a) {
  auto bytes = a.host_bytes();
  uint32_t crc = ~0u;
  for (int64_t i = 0; i < a.nbytes(); ++i) {
    crc ^= static_cast<uint8_t>(bytes.get()[i]);
    for (int bit = 0; bit < 8; ++bit) crc = crc >> 1 ^ (crc & 1 ? 0xedb88320u : 0);
  }
  return ~crc;
}

// The lines of tests/data/<name> that are not comments, each as a stream of words.
inline std::vector<std::istringstream> fixture_lines(const std::string& name) {
  std::ifstream file(std::string(MICA_TEST_DATA) + "/" + name);
  EXPECT_TRUE(file) << name;
  std::vector<std::istringstream> lines;
  for (std::string line; std::getline(file, line);)
    if (!line.empty() && line[0] != '#') lines.emplace_back(line);
  return lines;
}

}  // namespace mica
