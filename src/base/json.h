// JSON values: configuration files that strangers wrote, and small documents to write.
//
//   const Json config = Json::load("config.json");
//   const int64_t hidden = config.get<int64_t>("hidden_size");            // must be there
//   const double theta = config.get<double>("rope_theta", 10000.0);       // absent or null: the
//   default if (const auto scaling = config.find("rope_scaling")) {               // absent or
//   null: nothing
//     const auto factor = scaling->get<float>("factor");
//     if (factor < 1) scaling->fail_at("factor", "must be at least 1, not {}", factor);
//   }
//   for (const auto& [name, value] : config.members()) ...
//
// Every complaint is a Value error that names the file and the key:
//   config.json: 'rope_scaling.factor' must be a number, not a string ("8x")
//
// Reading: numbers are never bent. An integer may be written 1.0 or 1e3 but must be whole and
// within the range of the type asked for; a float must fit it. Python's NaN, Infinity and -Infinity
// are understood. Of equal keys the last wins. Members keep their order.
//
// Writing:
//   Json reply = Json::object();
//   reply.set("ids", ids).set("text", nullptr).set("timing", Json::object().set("load_s", 0.25));
//   std::puts(reply.dump().c_str());
//
// A Json is a value: copies are cheap (they share what they hold until one is changed), and
// changing a copy, or what at() returned, leaves the original alone. Large output is for
// JsonWriter.
#pragma once

#include <fmt/format.h>

#include <concepts>
#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

namespace mica {

class Json {
 public:
  enum class Type { Null, Bool, Integer, Number, String, Array, Object };

  struct Limits {
    size_t bytes = 64 << 20;
    int depth = 128;
  };

  // --- Making ------------------------------------------------------------------------------------

  // Throws Value, with line and column, if the text is malformed, too large or too deep. `name`
  // stands for the file in messages.
  static Json parse(std::string_view text, std::string_view name, Limits limits);
  static Json parse(std::string_view text, std::string_view name = "JSON") {
    return parse(text, name, Limits());
  }
  // Throws Io if the file cannot be read.
  static Json load(const std::string& path, Limits limits);
  static Json load(const std::string& path) { return load(path, Limits()); }

  Json() = default;  // null
  Json(std::nullptr_t) {}
  Json(double number);
  Json(float number) : Json(static_cast<double>(number)) {}
  Json(std::string_view text);
  Json(const char* text) : Json(std::string_view(text)) {}
  Json(const std::string& text) : Json(std::string_view(text)) {}
  template <class T>
    requires std::same_as<T, bool>
  Json(T truth) : Json(Truth{truth}) {}
  template <class T>
    requires(std::integral<T> && !std::same_as<T, bool>)
  Json(T number) : Json(Integer{static_cast<uint64_t>(number), number < 0}) {}
  template <class T>
  Json(const std::vector<T>& values) : Json(array()) {
    for (const T& value : values) push(value);
  }
  static Json object();
  static Json array();

  // Adds or replaces a member. Only of an object or null, which becomes an object; else throws
  // Value.
  Json& set(std::string_view key, Json value) &;
  Json set(std::string_view key, Json value) && { return std::move(set(key, std::move(value))); }
  // Appends. Only to an array or null, which becomes an array; else throws Value.
  Json& push(Json value) &;
  Json push(Json value) && { return std::move(push(std::move(value))); }

  // --- Looking -----------------------------------------------------------------------------------

  Type type() const;
  bool is_null() const { return type() == Type::Null; }
  bool is_object() const { return type() == Type::Object; }
  bool is_array() const { return type() == Type::Array; }
  bool is_string() const { return type() == Type::String; }
  bool is_bool() const { return type() == Type::Bool; }
  bool is_number() const { return type() == Type::Integer || type() == Type::Number; }

  // Elements or members; 0 for everything else.
  size_t size() const;

  // Member or element; throws Value if there is none. A member that is null is there.
  Json at(std::string_view key) const;
  Json at(size_t index) const;
  // The member, unless absent or null. Throws Value if this is not an object.
  std::optional<Json> find(std::string_view key) const;
  bool has(std::string_view key) const { return find(key).has_value(); }

  // The elements of an array, the members of an object in their order; throws Value for anything
  // else. Keys live as long as the values beside them.
  std::vector<Json> elements() const;
  std::vector<std::pair<std::string_view, Json>> members() const;

  // The value as bool, an integer type, float, double, std::string, or a std::vector of those.
  template <class T>
  T as() const {
    if constexpr (std::same_as<T, Json>) {
      return *this;
    } else if constexpr (std::same_as<T, bool>) {
      return as_bool();
    } else if constexpr (std::signed_integral<T>) {
      return static_cast<T>(
          as_signed(std::numeric_limits<T>::min(), std::numeric_limits<T>::max()));
    } else if constexpr (std::unsigned_integral<T>) {
      return static_cast<T>(as_unsigned(std::numeric_limits<T>::max()));
    } else if constexpr (std::floating_point<T>) {
      return static_cast<T>(as_number(std::numeric_limits<T>::max()));
    } else if constexpr (std::same_as<T, std::string>) {
      return as_string();
    } else {
      T values;
      for (const Json& element : elements()) {
        values.push_back(element.as<typename T::value_type>());
      }
      return values;
    }
  }

  template <class T>
  T get(std::string_view key) const {
    return at(key).as<T>();
  }
  // The default if the member is absent or null.
  template <class T>
  T get(std::string_view key, std::type_identity_t<T> otherwise) const {
    const auto member = find(key);
    return member ? member->as<T>() : std::move(otherwise);
  }

  // --- Telling -----------------------------------------------------------------------------------

  // On one line, or indented by so many spaces a level. NaN and infinities become null.
  std::string dump(int indent = 0) const;

  // "config.json: 'rope_scaling.factor'", or "config.json" for the whole document.
  std::string where() const;

  // Throws Value: where() and the reason. The second form is about a member, present or not.
  template <class... Args>
  [[noreturn]] void fail(fmt::format_string<Args...> reason, Args&&... args) const {
    complain(std::nullopt, fmt::format(reason, std::forward<Args>(args)...));
  }
  template <class... Args>
  [[noreturn]] void fail_at(std::string_view key, fmt::format_string<Args...> reason,
                            Args&&... args) const {
    complain(key, fmt::format(reason, std::forward<Args>(args)...));
  }

 private:
  struct Node;
  struct Object;
  struct Document;
  class Builder;
  struct Truth {
    bool value;
  };
  struct Integer {
    uint64_t bits;
    bool negative;
  };

  Json(std::shared_ptr<Document> document, Node* node)
      : document_(std::move(document)), node_(node) {}
  explicit Json(Node&& root);
  explicit Json(Truth truth);
  explicit Json(Integer number);

  const Node& node() const;
  Node& own_node();
  Node release() &&;
  Json child(const Node& node) const;

  bool as_bool() const;
  int64_t as_signed(int64_t least, int64_t most) const;
  uint64_t as_unsigned(uint64_t most) const;
  double as_number(double most) const;
  std::string as_string() const;

  const Node* lookup(std::string_view key) const;
  std::string name() const;
  std::string path_of(std::optional<std::string_view> key) const;
  [[noreturn]] void complain(std::optional<std::string_view> key, const std::string& reason) const;
  [[noreturn]] void complain_type(std::string_view wanted) const;

  std::shared_ptr<Document> document_;  // none: null
  Node* node_ = nullptr;                // in the document
};

}  // namespace mica
