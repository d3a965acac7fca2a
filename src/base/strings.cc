#include "base/strings.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstring>

#include "base/error.h"

namespace mica {
namespace {

constexpr char32_t kReplacement = 0xFFFD;

uint8_t byte_at(std::string_view text, size_t at) { return static_cast<uint8_t>(text[at]); }

bool is_continuation(uint8_t byte) { return (byte & 0xC0) == 0x80; }

// Bytes from `at` on that are ASCII, eight at a time.
size_t skip_ascii(std::string_view text, size_t at) {
  for (uint64_t word; at + sizeof(word) <= text.size(); at += sizeof(word)) {
    std::memcpy(&word, text.data() + at, sizeof(word));
    if (word & 0x8080808080808080u) break;
  }
  while (at < text.size() && byte_at(text, at) < 0x80) ++at;
  return at;
}

// What a lead byte promises: the length, and the range of the second byte (Unicode table 3-7).
struct Lead {
  uint32_t length;
  uint8_t low = 0x80, high = 0xBF;
};

Lead lead_of(uint8_t byte) {
  if (byte < 0x80) return {1};
  if (byte < 0xC2) return {0};
  if (byte < 0xE0) return {2};
  if (byte < 0xF0) {
    return {3, static_cast<uint8_t>(byte == 0xE0 ? 0xA0 : 0x80),
            static_cast<uint8_t>(byte == 0xED ? 0x9F : 0xBF)};
  }
  if (byte > 0xF4) return {0};
  return {4, static_cast<uint8_t>(byte == 0xF0 ? 0x90 : 0x80),
          static_cast<uint8_t>(byte == 0xF4 ? 0x8F : 0xBF)};
}

// The bytes from `at` that fit the lead byte there: all of them in a whole character.
uint32_t fitting_bytes(std::string_view text, size_t at, const Lead& lead) {
  uint32_t count = 1;
  while (count < lead.length && at + count < text.size()) {
    const uint8_t byte = byte_at(text, at + count);
    const bool fits = count == 1 ? lead.low <= byte && byte <= lead.high : is_continuation(byte);
    if (!fits) break;
    ++count;
  }
  return count;
}

// Characters that move the cursor, colour, or show the rest in another order.
bool is_unsafe(char32_t code) {
  return code < 0x20 || (code >= 0x7F && code < 0xA0) || code == 0x061C ||
         (code >= 0x200E && code <= 0x200F) || (code >= 0x2028 && code <= 0x202E) ||
         (code >= 0x2066 && code <= 0x2069);
}

void append_escaped(std::string& out, const Utf8Char& c, std::string_view bytes) {
  if (!c.valid) {
    for (const char byte : bytes) out += fmt::format("\\x{:02x}", static_cast<uint8_t>(byte));
  } else if (c.code == '\n') {
    out += "\\n";
  } else if (c.code == '\t') {
    out += "\\t";
  } else if (c.code == '\r') {
    out += "\\r";
  } else if (c.code < 0x100) {
    out += fmt::format("\\x{:02x}", static_cast<uint32_t>(c.code));
  } else {
    out += fmt::format("\\u{:04x}", static_cast<uint32_t>(c.code));
  }
}

std::string escape(std::string_view text, bool keep_lines, size_t limit) {
  std::string out;
  size_t characters = 0;
  for (size_t at = 0; at < text.size(); ++characters) {
    if (characters == limit) return out + "...";
    const Utf8Char c = decode_utf8(text, at);
    const std::string_view bytes = text.substr(at, c.length);
    const bool keep = keep_lines && (c.code == '\n' || c.code == '\t');
    if (c.valid && (keep || !is_unsafe(c.code))) {
      out += bytes;
    } else {
      append_escaped(out, c, bytes);
    }
    at += c.length;
  }
  return out;
}

bool is_space(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

}  // namespace

Utf8Char decode_utf8(std::string_view text, size_t at) {
  const uint8_t first = byte_at(text, at);
  if (first < 0x80) return {first, 1, true};
  const Lead lead = lead_of(first);
  const uint32_t count = fitting_bytes(text, at, lead);
  if (count != lead.length) return {kReplacement, count, false};
  char32_t code = first & (0x7Fu >> count);
  for (uint32_t i = 1; i < count; ++i) code = code << 6 | (byte_at(text, at + i) & 0x3Fu);
  return {code, count, true};
}

void append_utf8(std::string& out, char32_t code) {
  if ((code >= 0xD800 && code < 0xE000) || code > 0x10FFFF) code = kReplacement;
  const auto tail = [&](int shift) { out += static_cast<char>(0x80 | ((code >> shift) & 0x3F)); };
  if (code < 0x80) {
    out += static_cast<char>(code);
  } else if (code < 0x800) {
    out += static_cast<char>(0xC0 | code >> 6);
    tail(0);
  } else if (code < 0x10000) {
    out += static_cast<char>(0xE0 | code >> 12);
    tail(6);
    tail(0);
  } else {
    out += static_cast<char>(0xF0 | code >> 18);
    tail(12);
    tail(6);
    tail(0);
  }
}

bool is_utf8(std::string_view text) {
  for (size_t at = skip_ascii(text, 0); at < text.size(); at = skip_ascii(text, at)) {
    const Utf8Char c = decode_utf8(text, at);
    if (!c.valid) return false;
    at += c.length;
  }
  return true;
}

std::string to_utf8(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t at = 0; at < text.size();) {
    const size_t ascii = skip_ascii(text, at);
    out += text.substr(at, ascii - at);
    if ((at = ascii) == text.size()) break;
    const Utf8Char c = decode_utf8(text, at);
    append_utf8(out, c.code);
    at += c.length;
  }
  return out;
}

size_t complete_utf8(std::string_view text) {
  for (size_t back = 1; back <= 3 && back <= text.size(); ++back) {
    const size_t at = text.size() - back;
    const uint8_t byte = byte_at(text, at);
    if (is_continuation(byte)) continue;
    const Lead lead = lead_of(byte);
    const bool cut = lead.length > back && fitting_bytes(text, at, lead) == back;
    return cut ? at : text.size();
  }
  return text.size();
}

std::string printable(std::string_view text) { return escape(text, false, text.size()); }

std::string printable_lines(std::string_view text) { return escape(text, true, text.size()); }

std::string excerpt(std::string_view text, size_t limit) { return escape(text, false, limit); }

size_t edit_distance(std::string_view a, std::string_view b) {
  // Rows of the table of prefixes: the row of a[..i], and the two before it (swaps look back two).
  std::vector<size_t> row(b.size() + 1), previous(b.size() + 1), before(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) previous[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const bool same = a[i - 1] == b[j - 1];
      row[j] = std::min({previous[j] + 1, row[j - 1] + 1, previous[j - 1] + (same ? 0 : 1)});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) {
        row[j] = std::min(row[j], before[j - 2] + 1);
      }
    }
    std::swap(before, previous);
    std::swap(previous, row);
  }
  return previous[b.size()];
}

std::optional<std::string> closest(std::string_view word, std::span<const std::string> candidates) {
  // A third of the word may be wrong; past some length no typing error is meant.
  constexpr size_t kLongest = 100;
  if (word.size() > kLongest) return std::nullopt;
  size_t best = std::max<size_t>(word.size() / 3, 1) + 1;
  std::optional<std::string> found;
  for (const std::string& candidate : candidates) {
    if (candidate.size() > kLongest) continue;
    const size_t distance = edit_distance(word, candidate);
    if (distance < best) {
      best = distance;
      found = candidate;
    }
  }
  return found;
}

std::string human_size(uint64_t bytes) {
  if (bytes < 1024) return fmt::format("{} B", bytes);
  static constexpr const char* kUnits[] = {"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
  double value = static_cast<double>(bytes) / 1024;
  size_t unit = 0;
  // 1023.95 would print as 1024.0.
  for (; value >= 1023.95 && unit + 1 < std::size(kUnits); ++unit) value /= 1024;
  return fmt::format("{:.1f} {}", value, kUnits[unit]);
}

uint64_t parse_size(std::string_view text) {
  const std::string_view trimmed = trim(text);
  double value = 0;
  const char* end = trimmed.data() + trimmed.size();
  const auto parsed = std::from_chars(trimmed.data(), end, value, std::chars_format::fixed);
  std::string unit;
  for (const char c : trim({parsed.ptr, static_cast<size_t>(end - parsed.ptr)})) {
    unit += static_cast<char>(c >= 'a' && c <= 'z' ? c - 'a' + 'A' : c);
  }
  double scale = 1;
  if (const size_t power = std::string_view("KMGT").find(unit.empty() ? ' ' : unit[0]);
      power != std::string_view::npos) {
    const std::string_view rest = std::string_view(unit).substr(1);
    scale = std::pow(rest == "B" ? 1000 : 1024, power + 1);
    unit = rest == "" || rest == "B" || rest == "I" || rest == "IB" ? "" : "?";
  }
  const double bytes = std::round(value * scale);
  if (parsed.ec != std::errc() || !(unit.empty() || unit == "B") ||
      !(bytes >= 0 && bytes < 0x1p63)) {
    throw_value("'{}' is not a size in bytes; write for example 4096, 500M or 1.5G", excerpt(text));
  }
  return static_cast<uint64_t>(bytes);
}

std::vector<std::string_view> split(std::string_view text, char separator) {
  std::vector<std::string_view> parts;
  for (size_t at; (at = text.find(separator)) != std::string_view::npos;
       text.remove_prefix(at + 1)) {
    parts.push_back(text.substr(0, at));
  }
  parts.push_back(text);
  return parts;
}

std::string_view trim(std::string_view text) {
  while (!text.empty() && is_space(text.front())) text.remove_prefix(1);
  while (!text.empty() && is_space(text.back())) text.remove_suffix(1);
  return text;
}

}  // namespace mica
