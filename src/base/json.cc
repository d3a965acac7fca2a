#include "base/json.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <unordered_map>
#include <variant>

#include "base/error.h"
#include "base/file.h"
#include "base/json_writer.h"
#include "base/strings.h"

namespace mica {

// --- The tree ------------------------------------------------------------------------------------

struct Json::Node {
  using Array = std::vector<Node>;

  // An integer is a uint64_t only when int64_t cannot hold it.
  std::variant<std::monostate, bool, int64_t, uint64_t, double, std::unique_ptr<std::string>,
               std::unique_ptr<Array>, std::unique_ptr<Object>>
      value;

  template <class T>
  const T* get() const {
    return std::get_if<T>(&value);
  }
  template <class T>
  T* box() const {
    const auto* pointer = std::get_if<std::unique_ptr<T>>(&value);
    return pointer ? pointer->get() : nullptr;
  }
  static Node string(std::string text) { return {std::make_unique<std::string>(std::move(text))}; }
  static Node array() { return {std::make_unique<Array>()}; }
  static Node object();

  Type type() const;
  Node clone() const;
  void write(JsonWriter& out) const;
  std::string describe() const;
  // Appends the way to `target` in this tree (".a[0].b"); false if it is not there.
  bool find_path(const Node* target, std::string& path) const;
};

struct Json::Object {
  struct Member {
    std::string key;
    Node value;
  };
  std::vector<Member> members;

  Node* find(std::string_view key) {
    if (members.size() <= kLinear) {
      for (Member& member : members) {
        if (member.key == key) return &member.value;
      }
      return nullptr;
    }
    const auto [first, last] = index_.equal_range(std::hash<std::string_view>()(key));
    for (auto at = first; at != last; ++at) {
      if (members[at->second].key == key) return &members[at->second].value;
    }
    return nullptr;
  }

  // The member's value, null if the member is new.
  Node& insert(std::string key) {
    if (Node* found = find(key)) return *found;
    members.push_back({std::move(key), {}});
    if (members.size() > kLinear) {
      while (index_.size() < members.size()) {
        const size_t at = index_.size();
        index_.emplace(std::hash<std::string_view>()(members[at].key), at);
      }
    }
    return members.back().value;
  }

 private:
  static constexpr size_t kLinear = 16;
  std::unordered_multimap<size_t, size_t> index_;  // hash to place, once there are many members
};

struct Json::Document {
  std::string name = "JSON";
  Node root;
};

Json::Node Json::Node::object() { return {std::make_unique<Object>()}; }

Json::Type Json::Node::type() const {
  static constexpr Type kTypes[] = {Type::Null,   Type::Bool,   Type::Integer, Type::Integer,
                                    Type::Number, Type::String, Type::Array,   Type::Object};
  return kTypes[value.index()];
}

Json::Node Json::Node::clone() const {
  if (const auto* text = box<std::string>()) return string(*text);
  if (const auto* elements = box<Array>()) {
    Node copy = array();
    for (const Node& element : *elements) copy.box<Array>()->push_back(element.clone());
    return copy;
  }
  if (const auto* object = box<Object>()) {
    Node copy = Node::object();
    for (const auto& member : object->members) {
      copy.box<Object>()->insert(member.key) = member.value.clone();
    }
    return copy;
  }
  if (const auto* truth = get<bool>()) return {*truth};
  if (const auto* number = get<int64_t>()) return {*number};
  if (const auto* number = get<uint64_t>()) return {*number};
  if (const auto* number = get<double>()) return {*number};
  return {};
}

void Json::Node::write(JsonWriter& out) const {
  if (const auto* text = box<std::string>()) {
    out.value(*text);
  } else if (const auto* elements = box<Array>()) {
    out.begin_array();
    for (const Node& element : *elements) element.write(out);
    out.end_array();
  } else if (const auto* object = box<Object>()) {
    out.begin_object();
    for (const auto& member : object->members) member.value.write(out.key(member.key));
    out.end_object();
  } else if (const auto* truth = get<bool>()) {
    out.value(*truth);
  } else if (const auto* integer = get<int64_t>()) {
    out.value(*integer);
  } else if (const auto* natural = get<uint64_t>()) {
    out.value(*natural);
  } else if (const auto* number = get<double>()) {
    out.value(*number);
  } else {
    out.null();
  }
}

std::string Json::Node::describe() const {
  switch (type()) {
    case Type::String: return fmt::format("a string (\"{}\")", excerpt(*box<std::string>(), 40));
    case Type::Array: return "an array";
    case Type::Object: return "an object";
    case Type::Number: return fmt::format("{}", *get<double>());
    default: break;
  }
  JsonWriter out;
  write(out);
  return out.take();
}

bool Json::Node::find_path(const Node* target, std::string& path) const {
  if (this == target) return true;
  const size_t length = path.size();
  if (const auto* elements = box<Array>()) {
    for (size_t i = 0; i < elements->size(); ++i) {
      path += fmt::format("[{}]", i);
      if ((*elements)[i].find_path(target, path)) return true;
      path.resize(length);
    }
  } else if (const auto* object = box<Object>()) {
    for (const auto& member : object->members) {
      path += (path.empty() ? "" : ".") + excerpt(member.key);
      if (member.value.find_path(target, path)) return true;
      path.resize(length);
    }
  }
  return false;
}

// --- Parsing -------------------------------------------------------------------------------------

namespace {

// Python writes NaN, Infinity and -Infinity, which the parser refuses. Each is replaced by a string
// of the same length, so that positions stay right; `order` counts the strings before it.
struct NonFinite {
  size_t order;
  double value;
};

std::vector<NonFinite> replace_non_finite(std::string& text) {
  struct Constant {
    std::string_view name, substitute;
    double value;
  };
  static constexpr double kInfinity = std::numeric_limits<double>::infinity();
  static constexpr Constant kConstants[] = {
      {"NaN", "\"N\"", std::numeric_limits<double>::quiet_NaN()},
      {"Infinity", "\"Infini\"", kInfinity},
      {"-Infinity", "\"-Infini\"", -kInfinity}};
  std::vector<NonFinite> found;
  size_t strings = 0;
  for (size_t at = 0; at < text.size(); ++at) {
    if (text[at] == '"') {
      ++strings;
      for (++at; at < text.size() && text[at] != '"'; ++at) at += text[at] == '\\' ? 1 : 0;
      continue;
    }
    for (const Constant& constant : kConstants) {
      if (!std::string_view(text).substr(at).starts_with(constant.name)) continue;
      text.replace(at, constant.name.size(), constant.substitute);
      found.push_back({strings++, constant.value});
      at += constant.name.size() - 1;
      break;
    }
  }
  return found;
}

[[noreturn]] void throw_malformed(std::string_view name, std::string_view text, size_t position,
                                  std::string_view reason) {
  const std::string_view before = text.substr(0, position);
  const auto line = std::count(before.begin(), before.end(), '\n') + 1;
  const size_t column = before.size() - (before.rfind('\n') + 1) + 1;
  throw_value("{}: line {}, column {}: {}", name, line, column, excerpt(reason, 200));
}

}  // namespace

// Receives the parser's events and builds the tree.
class Json::Builder {
 public:
  Builder(std::string_view text, std::string_view name, int depth, std::vector<NonFinite> constants)
      : text_(text),
        name_(name),
        depth_(static_cast<size_t>(depth)),
        constants_(std::move(constants)) {}

  Node take() { return std::move(root_); }

  bool null() { return put({}); }
  bool boolean(bool truth) { return put({truth}); }
  bool number_integer(int64_t number) { return put({number}); }
  bool number_unsigned(uint64_t number) {
    if (number > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) return put({number});
    return put({static_cast<int64_t>(number)});
  }
  bool number_float(double number, const std::string&) { return put({number}); }
  bool binary(std::vector<uint8_t>&) { return false; }  // not in JSON text

  bool string(std::string& text) {
    if (const auto* constant = next_constant()) return put({constant->value});
    return put(Node::string(std::move(text)));
  }
  bool key(std::string& text) {
    if (next_constant()) throw_value("{}: a key must be a string, not NaN or Infinity", name_);
    member_ = &open_.back()->box<Object>()->insert(std::move(text));
    return true;
  }
  bool start_object(size_t) { return begin(Node::object()); }
  bool start_array(size_t) { return begin(Node::array()); }
  bool end_object() { return end(); }
  bool end_array() { return end(); }

  bool parse_error(size_t position, const std::string&, const nlohmann::json::exception& error) {
    // "[json.exception.parse_error.101] parse error at line 1, column 2: syntax error ..."
    std::string_view reason = error.what();
    reason.remove_prefix(std::min(reason.find("] ") + 2, reason.size()));
    if (reason.starts_with("parse error at")) {
      reason.remove_prefix(std::min(reason.find(": ") + 2, reason.size()));
    }
    throw_malformed(name_, text_, position == 0 ? 0 : position - 1, reason);
  }

 private:
  // Where the next value goes.
  Node& place() {
    if (open_.empty()) return root_;
    auto* elements = open_.back()->box<Node::Array>();
    return elements ? elements->emplace_back() : *member_;
  }

  bool put(Node node) {
    place() = std::move(node);
    return true;
  }

  bool begin(Node node) {
    if (open_.size() >= depth_) throw_value("{}: nested deeper than {} levels", name_, depth_);
    Node& opened = place();
    opened = std::move(node);
    open_.push_back(&opened);
    return true;
  }

  bool end() {
    open_.pop_back();
    return true;
  }

  const NonFinite* next_constant() {
    if (used_ == constants_.size() || constants_[used_].order != strings_++) return nullptr;
    return &constants_[used_++];
  }

  std::string_view text_;
  std::string name_;
  size_t depth_;
  std::vector<NonFinite> constants_;
  size_t used_ = 0;
  size_t strings_ = 0;
  Node root_;
  std::vector<Node*> open_;  // what surrounds the next value
  Node* member_ = nullptr;   // the value of the key just read
};

Json Json::parse(std::string_view text, std::string_view name, Limits limits) {
  const std::string source = printable(name);
  if (text.size() > limits.bytes) {
    throw_value("{}: larger than the {} allowed for it", source, human_size(limits.bytes));
  }
  // The parser would take a zero byte for the end.
  if (const size_t zero = text.find('\0'); zero != text.npos) {
    throw_malformed(source, text, zero, "a zero byte");
  }
  std::string replaced;
  std::vector<NonFinite> constants;
  if (text.find("NaN") != text.npos || text.find("Infinity") != text.npos) {
    replaced = text;
    constants = replace_non_finite(replaced);
    text = replaced;
  }
  Builder builder(text, source, limits.depth, std::move(constants));
  nlohmann::json::sax_parse(text.begin(), text.end(), &builder);
  auto document = std::make_shared<Document>();
  document->name = source;
  document->root = builder.take();
  Node* root = &document->root;
  return Json(std::move(document), root);
}

Json Json::load(const std::string& path, Limits limits) {
  // A pipe without a writer would be waited for.
  std::error_code error;
  const auto type = std::filesystem::status(path, error).type();
  using enum std::filesystem::file_type;
  if (type == fifo || type == character || type == block || type == socket)
    throw_io("cannot read {}: not a regular file", printable(path));
  return parse(read_file(path, limits.bytes), path, limits);
}

// --- Making --------------------------------------------------------------------------------------

Json::Json(Node&& root) : document_(std::make_shared<Document>()), node_(&document_->root) {
  document_->root = std::move(root);
}
Json::Json(Truth truth) : Json(Node{truth.value}) {}
Json::Json(double number) : Json(Node{number}) {}
Json::Json(std::string_view text) : Json(Node::string(std::string(text))) {}
Json::Json(Integer number)
    : Json(number.negative ||
                   number.bits <= static_cast<uint64_t>(std::numeric_limits<int64_t>::max())
               ? Node{static_cast<int64_t>(number.bits)}
               : Node{number.bits}) {}
Json Json::object() { return Json(Node::object()); }
Json Json::array() { return Json(Node::array()); }

const Json::Node& Json::node() const {
  static const Node null;
  return document_ ? *node_ : null;
}

// This value's node as the root of a document that nothing else refers to.
Json::Node& Json::own_node() {
  if (!document_ || document_.use_count() != 1 || node_ != &document_->root) {
    *this = Json(node().clone());
  }
  return *node_;
}

Json::Node Json::release() && { return document_ ? std::move(own_node()) : Node{}; }

Json Json::child(const Node& node) const { return Json(document_, const_cast<Node*>(&node)); }

Json& Json::set(std::string_view key, Json value) & {
  Node& self = own_node();
  if (self.type() == Type::Null) self = Node::object();
  Object* object = self.box<Object>();
  if (!object) complain_type("an object");
  object->insert(std::string(key)) = std::move(value).release();
  return *this;
}

Json& Json::push(Json value) & {
  Node& self = own_node();
  if (self.type() == Type::Null) self = Node::array();
  auto* elements = self.box<Node::Array>();
  if (!elements) complain_type("an array");
  elements->push_back(std::move(value).release());
  return *this;
}

// --- Looking -------------------------------------------------------------------------------------

Json::Type Json::type() const { return node().type(); }

size_t Json::size() const {
  if (const auto* elements = node().box<Node::Array>()) return elements->size();
  const auto* object = node().box<Object>();
  return object ? object->members.size() : 0;
}

const Json::Node* Json::lookup(std::string_view key) const {
  Object* object = node().box<Object>();
  if (!object) complain_type("an object");
  return object->find(key);
}

Json Json::at(std::string_view key) const {
  const Node* found = lookup(key);
  if (!found) complain(key, "is missing");
  return child(*found);
}

std::optional<Json> Json::find(std::string_view key) const {
  const Node* found = lookup(key);
  if (!found || found->type() == Type::Null) return std::nullopt;
  return child(*found);
}

Json Json::at(size_t index) const {
  const auto* elements = node().box<Node::Array>();
  if (!elements) complain_type("an array");
  if (index >= elements->size()) fail("has {} elements, no element {}", elements->size(), index);
  return child((*elements)[index]);
}

std::vector<Json> Json::elements() const {
  const auto* elements = node().box<Node::Array>();
  if (!elements) complain_type("an array");
  std::vector<Json> found;
  found.reserve(elements->size());
  for (const Node& element : *elements) found.push_back(child(element));
  return found;
}

std::vector<std::pair<std::string_view, Json>> Json::members() const {
  const auto* object = node().box<Object>();
  if (!object) complain_type("an object");
  std::vector<std::pair<std::string_view, Json>> found;
  found.reserve(object->members.size());
  for (const auto& member : object->members) found.emplace_back(member.key, child(member.value));
  return found;
}

bool Json::as_bool() const {
  const auto* truth = node().get<bool>();
  if (!truth) complain_type("true or false");
  return *truth;
}

int64_t Json::as_signed(int64_t least, int64_t most) const {
  const Node& self = node();
  std::optional<int64_t> found;
  if (const auto* integer = self.get<int64_t>()) {
    found = *integer;
  } else if (const auto* number = self.get<double>()) {
    if (*number != std::trunc(*number)) complain_type("an integer");
    if (*number >= -0x1p63 && *number < 0x1p63) found = static_cast<int64_t>(*number);
  } else if (!self.get<uint64_t>()) {
    complain_type("an integer");
  }
  if (!found || *found < least || *found > most) {
    complain_type(fmt::format("an integer from {} to {}", least, most));
  }
  return *found;
}

uint64_t Json::as_unsigned(uint64_t most) const {
  const Node& self = node();
  std::optional<uint64_t> found;
  if (const auto* integer = self.get<int64_t>()) {
    if (*integer >= 0) found = static_cast<uint64_t>(*integer);
  } else if (const auto* natural = self.get<uint64_t>()) {
    found = *natural;
  } else if (const auto* number = self.get<double>()) {
    if (*number != std::trunc(*number)) complain_type("an integer");
    if (*number >= 0 && *number < 0x1p64) found = static_cast<uint64_t>(*number);
  } else {
    complain_type("an integer");
  }
  if (!found || *found > most) complain_type(fmt::format("an integer from 0 to {}", most));
  return *found;
}

double Json::as_number(double most) const {
  const Node& self = node();
  double number = 0;
  if (const auto* integer = self.get<int64_t>()) {
    number = static_cast<double>(*integer);
  } else if (const auto* natural = self.get<uint64_t>()) {
    number = static_cast<double>(*natural);
  } else if (const auto* fraction = self.get<double>()) {
    number = *fraction;
  } else {
    complain_type("a number");
  }
  if (std::isfinite(number) && std::abs(number) > most) {
    complain_type(fmt::format("a number of at most {}", most));
  }
  return number;
}

std::string Json::as_string() const {
  const auto* text = node().box<std::string>();
  if (!text) complain_type("a string");
  return *text;
}

// --- Telling -------------------------------------------------------------------------------------

std::string Json::dump(int indent) const {
  JsonWriter out(indent);
  node().write(out);
  return out.take();
}

std::string Json::where() const {
  const std::string path = path_of(std::nullopt);
  return path.empty() ? name() : fmt::format("{}: '{}'", name(), path);
}

std::string Json::name() const { return document_ ? document_->name : "JSON"; }

// The keys and indices that lead here, and on to a member.
std::string Json::path_of(std::optional<std::string_view> key) const {
  std::string path;
  if (document_) document_->root.find_path(node_, path);
  if (key) path += (path.empty() ? "" : ".") + excerpt(*key);
  return path;
}

void Json::complain(std::optional<std::string_view> key, const std::string& reason) const {
  const std::string path = path_of(key);
  if (path.empty()) throw_value("{}: {}", name(), reason);
  throw_value("{}: '{}' {}", name(), path, reason);
}

void Json::complain_type(std::string_view wanted) const {
  complain(std::nullopt, fmt::format("must be {}, not {}", wanted, node().describe()));
}

}  // namespace mica
