// Files written in blocks are the files that were meant, whatever the order and size of the pieces.
#include "io/block_writer.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <algorithm>
#include <filesystem>
#include <random>
#include <string>

namespace mica::io {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kBlock = BlockWriter::kBlock;

struct Piece {
  uint64_t begin, end;
};

// Writes random bytes in these pieces, and reads the file back.
void expect_written(uint64_t size, const std::vector<Piece>& pieces) {
  char pattern[] = "/tmp/mica-blocks-XXXXXX";
  const std::string folder = mkdtemp(pattern);
  std::mt19937_64 random(size);
  std::string bytes(size, '\0');
  for (char& byte : bytes) byte = static_cast<char>(random());
  AtomicFile file(folder + "/file");
  file.reserve(size);
  BlockWriter out(file, size);
  for (auto [begin, end] : pieces)
    out.write(begin, std::as_bytes(std::span(bytes).subspan(begin, end - begin)));
  out.flush();
  file.commit();
  EXPECT_TRUE(read_file(folder + "/file", size + 1) == bytes);
  fs::remove_all(folder);
}

std::vector<Piece> cut(uint64_t size, uint64_t step) {
  std::vector<Piece> pieces;
  for (uint64_t at = 0; at < size; at += step) pieces.push_back({at, std::min(at + step, size)});
  return pieces;
}

TEST(BlockWriter, WritesInOrder) {
  for (uint64_t step : {uint64_t{700'001}, kBlock, 3 * kBlock + 5, uint64_t{100} * kBlock})
    expect_written(5 * kBlock + 123, cut(5 * kBlock + 123, step));
  expect_written(1, {{0, 1}});
  expect_written(0, {});
}

TEST(BlockWriter, WritesInAnyOrder) {
  for (unsigned seed = 0; seed < 5; ++seed) {
    // More blocks than may wait, each of several pieces.
    std::vector<Piece> pieces = cut(40 * kBlock + 77, 500'009);
    std::shuffle(pieces.begin(), pieces.end(), std::mt19937(seed));
    expect_written(40 * kBlock + 77, pieces);
  }
}

TEST(BlockWriter, WholeBlocksInsideAPieceAndItsEnds) {
  expect_written(4 * kBlock,
                 {{kBlock - 3, 3 * kBlock + 9}, {0, kBlock - 3}, {3 * kBlock + 9, 4 * kBlock}});
}

}  // namespace
}  // namespace mica::io
