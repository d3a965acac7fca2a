// Writes JSON text piece by piece: for output whose size makes a tree of values wasteful.
//
//   JsonWriter json;
//   json.begin_object().key("ids").value(ids).key("logprob").value(-0.5).end_object();
//   std::fputs(json.text().c_str(), stdout);   // {"ids":[1,2],"logprob":-0.5}
//
// Numbers are as short as reading them back exactly allows; NaN and infinities, which JSON does not
// have, become null. Strings are UTF-8; ill-formed parts are replaced by U+FFFD. The writer does
// not check that calls form a document.
#pragma once

#include <concepts>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace mica {

class JsonWriter {
 public:
  // With an indent of 0 all is on one line.
  explicit JsonWriter(int indent = 0) : indent_(indent) {}

  JsonWriter& begin_object() { return open('{'); }
  JsonWriter& end_object() { return close('}'); }
  JsonWriter& begin_array() { return open('['); }
  JsonWriter& end_array() { return close(']'); }
  JsonWriter& key(std::string_view name);

  JsonWriter& null();
  JsonWriter& value(std::string_view text);
  JsonWriter& value(const char* text) { return value(std::string_view(text)); }
  JsonWriter& value(const std::string& text) { return value(std::string_view(text)); }
  JsonWriter& value(double number);
  JsonWriter& value(float number);  // shorter than as a double: exact to float precision
  template <class T>
    requires std::same_as<T, bool>
  JsonWriter& value(T truth) {
    return boolean(truth);
  }
  template <class T>
    requires(std::integral<T> && !std::same_as<T, bool>)
  JsonWriter& value(T number) {
    if constexpr (std::signed_integral<T>) {
      return integer(number);
    } else {
      return natural(number);
    }
  }
  template <class T>
  JsonWriter& value(const std::vector<T>& values) {
    begin_array();
    for (const T& element : values) value(element);
    return end_array();
  }

  const std::string& text() const { return text_; }
  // The text so far, leaving the writer to continue with an empty one: for streams.
  std::string take() { return std::exchange(text_, {}); }

 private:
  JsonWriter& open(char bracket);
  JsonWriter& close(char bracket);
  JsonWriter& boolean(bool truth);
  JsonWriter& integer(int64_t number);
  JsonWriter& natural(uint64_t number);
  template <class T>
  JsonWriter& number(T value);
  void separate();
  void new_line();
  void quote(std::string_view text);

  std::string text_;
  int indent_;
  int depth_ = 0;
  bool empty_ = true;  // nothing stands yet in the innermost bracket
  bool after_key_ = false;
};

}  // namespace mica
