#include "io/block_writer.h"

#include <algorithm>
#include <string_view>

namespace mica::io {

namespace {
std::string_view text_of(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}
}  // namespace

void BlockWriter::write(uint64_t offset, std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const uint64_t number = offset / kBlock, begin = offset % kBlock;
    const uint64_t size = std::min(kBlock, size_ - number * kBlock);
    // Whole blocks go straight to the file, as many as there are.
    const uint64_t whole = begin == 0 ? bytes.size() / kBlock * kBlock : 0;
    const uint64_t count = whole > 0 ? whole : std::min<uint64_t>(bytes.size(), size - begin);
    if (whole > 0)
      file_.write_at(offset, text_of(bytes.first(count)));
    else
      add(number, begin, bytes.first(count));
    offset += count;
    bytes = bytes.subspan(count);
  }
}

void BlockWriter::add(uint64_t number, uint64_t begin, std::span<const std::byte> bytes) {
  auto [at, fresh] = blocks_.try_emplace(number);
  Block& block = at->second;
  if (fresh) {
    block.missing = std::min(kBlock, size_ - number * kBlock);
    block.bytes.resize(block.missing);
  }
  std::copy(bytes.begin(), bytes.end(), block.bytes.begin() + static_cast<ptrdiff_t>(begin));
  block.touched = ++clock_;
  block.missing -= bytes.size();
  if (block.missing == 0) {
    file_.write_at(number * kBlock, text_of(block.bytes));
    blocks_.erase(at);
    return;
  }
  // A run that goes on where one ends becomes part of it.
  const auto after = block.filled.upper_bound(begin);
  const auto before = after == block.filled.begin() ? block.filled.end() : std::prev(after);
  if (before != block.filled.end() && before->second == begin)
    before->second += bytes.size();
  else
    block.filled.emplace(begin, begin + bytes.size());
  if (blocks_.size() > kMostBlocks) drop_oldest();
}

void BlockWriter::write_out(uint64_t number, const Block& block) {
  for (auto [begin, end] : block.filled)
    file_.write_at(number * kBlock + begin,
                   text_of(std::span(block.bytes).subspan(begin, end - begin)));
}

// Its missing bytes will be written by themselves.
void BlockWriter::drop_oldest() {
  const auto oldest = std::min_element(
      blocks_.begin(), blocks_.end(),
      [](const auto& a, const auto& b) { return a.second.touched < b.second.touched; });
  write_out(oldest->first, oldest->second);
  blocks_.erase(oldest);
}

void BlockWriter::flush() {
  for (const auto& [number, block] : blocks_) write_out(number, block);
  blocks_.clear();
}

}  // namespace mica::io
