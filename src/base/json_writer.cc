#include "base/json_writer.h"

#include <charconv>
#include <cmath>

#include "base/strings.h"

namespace mica {

// Writes what stands between the previous value and the next.
void JsonWriter::separate() {
  if (after_key_) {
    after_key_ = false;
    return;
  }
  if (!empty_) text_ += ',';
  if (depth_ > 0) new_line();
  empty_ = false;
}

void JsonWriter::new_line() {
  if (indent_ == 0) return;
  text_ += '\n';
  text_.append(static_cast<size_t>(indent_ * depth_), ' ');
}

JsonWriter& JsonWriter::open(char bracket) {
  separate();
  text_ += bracket;
  ++depth_;
  empty_ = true;
  return *this;
}

JsonWriter& JsonWriter::close(char bracket) {
  --depth_;
  if (!empty_) new_line();
  text_ += bracket;
  empty_ = false;
  return *this;
}

JsonWriter& JsonWriter::key(std::string_view name) {
  separate();
  quote(name);
  text_ += indent_ == 0 ? ":" : ": ";
  after_key_ = true;
  return *this;
}

JsonWriter& JsonWriter::null() {
  separate();
  text_ += "null";
  return *this;
}

JsonWriter& JsonWriter::boolean(bool truth) {
  separate();
  text_ += truth ? "true" : "false";
  return *this;
}

JsonWriter& JsonWriter::value(std::string_view text) {
  separate();
  quote(text);
  return *this;
}

template <class T>
JsonWriter& JsonWriter::number(T value) {
  separate();
  char digits[32];
  const auto end = std::to_chars(digits, digits + sizeof(digits), value).ptr;
  const std::string_view written(digits, static_cast<size_t>(end - digits));
  text_ += written;
  // 5.0 stays a fraction for those who read it.
  if (std::is_floating_point_v<T> && written.find_first_of(".e") == std::string_view::npos) {
    text_ += ".0";
  }
  return *this;
}

JsonWriter& JsonWriter::integer(int64_t value) { return number(value); }
JsonWriter& JsonWriter::natural(uint64_t value) { return number(value); }
JsonWriter& JsonWriter::value(double value) {
  return std::isfinite(value) ? number(value) : null();
}
JsonWriter& JsonWriter::value(float value) { return std::isfinite(value) ? number(value) : null(); }

void JsonWriter::quote(std::string_view text) {
  text_ += '"';
  for (size_t at = 0; at < text.size();) {
    const auto first = static_cast<uint8_t>(text[at]);
    if (first >= 0x80) {
      const Utf8Char c = decode_utf8(text, at);
      append_utf8(text_, c.code);
      at += c.length;
      continue;
    }
    ++at;
    switch (first) {
      case '"': text_ += "\\\""; break;
      case '\\': text_ += "\\\\"; break;
      case '\n': text_ += "\\n"; break;
      case '\r': text_ += "\\r"; break;
      case '\t': text_ += "\\t"; break;
      case '\b': text_ += "\\b"; break;
      case '\f': text_ += "\\f"; break;
      default:
        if (first < 0x20) {
          static constexpr char kHex[] = "0123456789abcdef";
          text_ += "\\u00";
          text_ += kHex[first >> 4];
          text_ += kHex[first & 15];
        } else {
          text_ += static_cast<char>(first);
        }
    }
  }
  text_ += '"';
}

}  // namespace mica
