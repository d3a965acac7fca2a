// Text helpers: UTF-8, text from strangers on terminals, lists, likely misspellings, sizes in
// bytes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace mica {

// --- UTF-8 (Unicode 15, section 3.9) -------------------------------------------------------------
//
//   for (size_t at = 0; at < text.size();) {
//     const Utf8Char c = decode_utf8(text, at);
//     at += c.length;
//   }

// `length` is the bytes taken, at least 1: of an ill-formed sequence its longest part that could
// start a character, so that replacing gives what Python's errors="replace" gives.
struct Utf8Char {
  char32_t code;  // U+FFFD if the bytes are no character
  uint32_t length;
  bool valid;
};

// The character that starts at byte `at`, which must lie within the text.
Utf8Char decode_utf8(std::string_view text, size_t at);

// Appends the encoding of a code point; U+FFFD for surrogates and numbers past U+10FFFF.
void append_utf8(std::string& out, char32_t code);

bool is_utf8(std::string_view text);

// A copy with ill-formed sequences replaced by U+FFFD.
std::string to_utf8(std::string_view text);

// The length of the text without a character that its end cuts: for output that arrives in pieces.
// Ill-formed bytes count as complete, since nothing that follows can mend them.
size_t complete_utf8(std::string_view text);

// --- Text for people -----------------------------------------------------------------------------

// Text from a file or the network, safe to print: control characters (also C1 and those that
// reorder text) become \n, \t, \x1b or \u202e, ill-formed bytes \xff.
std::string printable(std::string_view text);

// The same, with line breaks and tabs as they are.
std::string printable_lines(std::string_view text);

// printable(), cut to about `limit` characters with "..." at the end; for values in messages.
std::string excerpt(std::string_view text, size_t limit = 80);

// The candidate most like the word, if one is close enough to be meant: "did you mean 'llama'?".
std::optional<std::string> closest(std::string_view word, std::span<const std::string> candidates);

// Insertions, deletions, replacements and swaps of neighbouring bytes that turn one into the other.
size_t edit_distance(std::string_view a, std::string_view b);

// --- Sizes ---------------------------------------------------------------------------------------

// "0 B", "999 B", "1.2 GiB": units of 1024, one decimal.
std::string human_size(uint64_t bytes);

// "4096", "8G", "1.5 GiB", "200kB": K, M, G, T (also Ki, KiB, ...) are powers of 1024; KB, MB, GB,
// TB of 1000; case does not matter. Throws Value otherwise.
uint64_t parse_size(std::string_view text);

// --- Lists ---------------------------------------------------------------------------------------

// Parts between separators; n separators make n + 1 parts, also empty ones.
std::vector<std::string_view> split(std::string_view text, char separator);

// Without ASCII white space at both ends.
std::string_view trim(std::string_view text);

template <class Strings>
std::string join(const Strings& parts, std::string_view separator) {
  std::string out;
  bool first = true;
  for (const auto& part : parts) {
    if (!first) out += separator;
    first = false;
    out += part;
  }
  return out;
}

}  // namespace mica
