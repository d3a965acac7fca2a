// Writes a file whose bytes come in pieces of any place and size as whole, aligned blocks.
//
//   BlockWriter out(file, size);             // an AtomicFile that was reserved
//   out.write(offset, bytes);                // any order
//   out.flush();                             // now all is in the file
//
// Why: Linux keeps a block of 2 MiB that is written at once as one huge page of its cache. Reading
// the file as memory right after is then mapped 512 pages at a time: the first touch of a model of
// 0.7 GB takes 3 ms instead of 50, and the processor's address tables hold it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <vector>

#include "base/file.h"

namespace mica::io {

class BlockWriter {
 public:
  static constexpr uint64_t kBlock = uint64_t{2} << 20;
  static constexpr size_t kMostBlocks = 16;  // that wait for their missing bytes

  BlockWriter(AtomicFile& file, uint64_t size) : file_(file), size_(size) {}

  // Each byte of the file at most once, none past its size.
  void write(uint64_t offset, std::span<const std::byte> bytes);
  // Also what is not whole.
  void flush();

 private:
  struct Block {
    std::vector<std::byte> bytes;
    std::map<uint64_t, uint64_t> filled;  // begin -> end, within the block
    uint64_t missing = 0;
    uint64_t touched = 0;  // when it last grew
  };

  void add(uint64_t number, uint64_t begin, std::span<const std::byte> bytes);
  void write_out(uint64_t number, const Block& block);
  void drop_oldest();

  AtomicFile& file_;
  uint64_t size_, clock_ = 0;
  std::map<uint64_t, Block> blocks_;  // by number
};

}  // namespace mica::io
