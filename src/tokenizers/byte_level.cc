#include "tokenizers/byte_level.h"

#include <array>
#include <cstddef>
#include <cstdint>

#include "tokenizers/unicode.h"

namespace mica::tokenizers {

namespace {

constexpr bool stands_for_itself(int byte) {
  return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xFF && byte != 0xAD);
}

constexpr char32_t kFirstOther = 0x100;
constexpr char32_t kEnd = 0x100 + 68;  // 68 bytes do not stand for themselves

struct Alphabet {
  std::array<char[2], 256> text{};  // UTF-8
  std::array<uint8_t, 256> length{};
  std::array<int16_t, kEnd> byte{};  // of a character, or -1
};

constexpr Alphabet make_alphabet() {
  Alphabet out;
  out.byte.fill(-1);
  char32_t other = kFirstOther;
  for (int byte = 0; byte < 256; ++byte) {
    const char32_t c = stands_for_itself(byte) ? static_cast<char32_t>(byte) : other++;
    out.byte[c] = static_cast<int16_t>(byte);
    const auto i = static_cast<size_t>(byte);
    out.length[i] = c < 0x80 ? 1 : 2;
    out.text[i][0] = static_cast<char>(c < 0x80 ? c : 0xC0 | c >> 6);
    out.text[i][1] = static_cast<char>(c < 0x80 ? 0 : 0x80 | (c & 0x3F));
  }
  return out;
}

constexpr Alphabet kAlphabet = make_alphabet();

}  // namespace

void append_byte_level(std::string& out, std::string_view bytes) {
  const size_t start = out.size();
  out.resize(start + 2 * bytes.size());
  char* to = out.data() + start;
  for (const char c : bytes) {
    const auto byte = static_cast<unsigned char>(c);
    // Always writes both bytes: the second is overwritten where it does not count.
    to[0] = kAlphabet.text[byte][0];
    to[1] = kAlphabet.text[byte][1];
    to += kAlphabet.length[byte];
  }
  out.resize(static_cast<size_t>(to - out.data()));
}

bool append_bytes_of_level(std::string& out, std::string_view text) {
  const size_t start = out.size();
  for (size_t at = 0; at < text.size();) {
    const char32_t c = next_char(text, at);
    if (c >= kEnd || kAlphabet.byte[c] < 0) {
      out.resize(start);
      return false;
    }
    out += static_cast<char>(kAlphabet.byte[c]);
  }
  return true;
}

}  // namespace mica::tokenizers
