#include "tokenizers/onig_syntax.h"

#include <fmt/format.h>

#include <array>
#include <optional>
#include <vector>

#include "base/error.h"
#include "base/strings.h"
#include "tokenizers/char_set.h"
#include "tokenizers/unicode.h"

namespace mica::tokenizers {

namespace {

constexpr int kMaxDepth = 200;           // PCRE2 allows 250 nested groups
constexpr size_t kMaxPattern = 1 << 16;  // bytes; the longest in use have about 1,000
constexpr size_t kMaxTranslation = 1 << 20;

int hex_value(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  const char lower = static_cast<char>(c | 0x20);
  return lower >= 'a' && lower <= 'f' ? lower - 'a' + 10 : -1;
}

bool is_digit(char c) { return c >= '0' && c <= '9'; }

// Reads the pattern from left to right and writes the translation to out_.
class Translator {
 public:
  Translator(std::string_view pattern, OnigOptions options) : in_(pattern), options_(options) {}

  std::string translate() {
    if (in_.size() > kMaxPattern) fail("has more than 65536 bytes");
    alternatives(false, 0);
    if (!at_end()) fail("unmatched close parenthesis");
    return std::move(out_);
  }

 private:
  // --- Input -----------------------------------------------------------------------------------

  bool at_end() const { return at_ >= in_.size(); }
  char peek(size_t ahead = 0) const { return at_ + ahead < in_.size() ? in_[at_ + ahead] : '\0'; }
  bool accept(std::string_view text) {
    if (!in_.substr(at_).starts_with(text)) return false;
    at_ += text.size();
    return true;
  }
  char32_t next() { return next_char(in_, at_); }

  [[noreturn]] void fail(std::string_view reason) const {
    throw_value("regular expression \"{}\": {}, at byte {}", excerpt(in_, 200), reason, at_);
  }
  [[noreturn]] void unsupported(std::string_view what) const {
    throw_unsupported("regular expression \"{}\": {} at byte {} are not supported",
                      excerpt(in_, 200), what, at_);
  }

  // --- Groups ----------------------------------------------------------------------------------

  // Up to the closing parenthesis or the end. `extended`: option x, which skips white space.
  void alternatives(bool extended, int depth) {
    if (depth > kMaxDepth) fail("groups are nested too deeply");
    // An option without a colon, (?i), makes a group up to the end of this one, whatever `|`
    // follow.
    int open_options = 0;
    while (!at_end() && peek() != ')') {
      if (out_.size() > kMaxTranslation) fail("too large");
      if (skip_space(extended)) continue;
      if (accept("|")) {
        out_ += '|';
        continue;
      }
      const size_t start = out_.size();
      if (accept("(")) {
        if (isolated_option(extended)) {
          ++open_options;
          continue;
        }
        group(extended, depth);
      } else {
        atom();
      }
      quantifiers(start, extended);
    }
    out_.append(static_cast<size_t>(open_options), ')');
  }

  // Comments, and in extended mode white space.
  bool skip_space(bool extended) {
    if (accept("(?#")) {
      while (!at_end() && !accept(")")) at_ += peek() == '\\' ? 2 : 1;
      return true;
    }
    if (!extended) return false;
    if (peek() == '#') {
      while (!at_end() && peek() != '\n') ++at_;
      return true;
    }
    const char c = peek();
    if (c != ' ' && (c < '\t' || c > '\r')) return false;
    ++at_;
    return true;
  }

  // After "(": an option that ends with ")". Writes the start of its group.
  bool isolated_option(bool& extended) {
    const size_t start = at_;
    if (accept("?")) {
      bool x = extended;
      const std::string flags = option_flags(x);
      if (accept(")")) {
        out_ += "(?" + flags + ":";
        extended = x;
        return true;
      }
    }
    at_ = start;
    return false;
  }

  // Letters of options, as PCRE2 calls them: Oniguruma's m is its s. Stops at anything else.
  std::string option_flags(bool& extended) {
    constexpr std::string_view kForeign = "WDSPyCIL";
    std::string flags;
    bool on = true;
    bool foreign = false;
    for (;; ++at_) {
      const char c = peek();
      if (c == '-') on = false;
      if (c == '-' || c == 'i') {
        flags += c;
      } else if (c == 'm') {
        flags += 's';
      } else if (c == 'x') {
        extended = on;
      } else if (!at_end() && kForeign.find(c) != std::string_view::npos) {
        foreign = true;
      } else {
        break;
      }
    }
    if (foreign && (peek() == ')' || peek() == ':')) unsupported("options other than i, m and x");
    return flags == "-" ? "" : flags;
  }

  // After "(".
  void group(bool extended, int depth) {
    if (peek() == '*') unsupported("callouts");
    if (!accept("?")) {
      out_ += '(';
    } else if (accept("<=") || accept("<!") || accept("=") || accept("!") || accept(">")) {
      const size_t length = in_[at_ - 2] == '<' ? 2 : 1;
      out_ += "(?";
      out_ += in_.substr(at_ - length, length);
    } else if (accept("<") || accept("'")) {
      const char close = in_[at_ - 1] == '<' ? '>' : '\'';
      out_ += "(?<" + std::string(group_name(close)) + ">";
    } else if (peek() == '{') {
      unsupported("callouts");
    } else if (peek() == '~') {
      unsupported("absent functions");
    } else if (peek() == '(') {
      unsupported("conditions");
    } else {
      const std::string flags = option_flags(extended);
      if (!accept(":")) fail("undefined group option");
      out_ += "(?" + flags + ":";
    }
    alternatives(extended, depth + 1);
    if (!accept(")")) fail("unmatched open parenthesis");
    out_ += ')';
  }

  std::string_view group_name(char close) {
    const size_t end = in_.find(close, at_);
    if (end == std::string_view::npos) fail("group name without end");
    const std::string_view name = in_.substr(at_, end - at_);
    bool valid = !name.empty() && name.size() <= 32 && !is_digit(name[0]);
    for (const char c : name)
      valid = valid && (is_digit(c) || is_word(static_cast<unsigned char>(c)));
    if (!valid || !is_ascii(name)) fail("bad group name");
    at_ = end + 1;
    return name;
  }

  // --- Quantifiers -----------------------------------------------------------------------------

  // All quantifiers after the atom that starts at `start` of the output; each repeats what the ones
  // before it made, which PCRE2 takes in parentheses only.
  void quantifiers(size_t start, bool extended) {
    for (int count = 0;; ++count) {
      while (skip_space(extended)) continue;
      const std::optional<std::string> quantifier = next_quantifier();
      if (!quantifier) return;
      if (count > kMaxDepth) fail("too many quantifiers");
      if (count > 0) {
        out_.insert(start, "(?:");
        out_ += ')';
      }
      out_ += *quantifier;
    }
  }

  std::optional<std::string> next_quantifier() {
    const char c = peek();
    if (c == '*' || c == '+' || c == '?') {
      ++at_;
      std::string text(1, c);
      if (accept("?")) {
        text += '?';
      } else if (accept("+")) {
        text += '+';
      }
      return text;
    }
    return c == '{' ? interval() : std::nullopt;
  }

  // {n}, {n,}, {,m}, {n,m}; possessive if n > m; anything else is text.
  std::optional<std::string> interval() {
    const size_t start = at_++;
    const std::optional<int> low = number();
    const bool comma = accept(",");
    const std::optional<int> high = comma ? number() : low;
    if ((!low && !high) || !accept("}")) {
      at_ = start;
      return std::nullopt;
    }
    const int least = low.value_or(0);
    if (!high) return fmt::format("{{{},}}{}", least, accept("?") ? "?" : "");
    if (least > *high) return fmt::format("{{{},{}}}+", *high, least);
    // {n}? repeats {n} at most once; quantifiers() reads the `?` as one of its own.
    if (!comma) return fmt::format("{{{}}}", least);
    return fmt::format("{{{},{}}}{}", least, *high, accept("?") ? "?" : "");
  }

  std::optional<int> number() {
    if (!is_digit(peek())) return std::nullopt;
    int value = 0;
    while (is_digit(peek())) {
      value = value * 10 + (peek() - '0');
      if (value > 65535) fail("too big a number of repetitions");
      ++at_;
    }
    return value;
  }

  // --- Atoms -----------------------------------------------------------------------------------

  void atom() {
    switch (peek()) {
      case '[':
        ++at_;
        out_ += char_class(0).expression();
        return;
      case '\\': escape(); return;
      case '.':
        ++at_;
        out_ += '.';
        return;
      case '^':
        ++at_;
        out_ += '^';
        return;
      case '$':
        ++at_;
        out_ += '$';
        return;
      case '*':
      case '+':
      case '?': fail("target of repeat operator is not specified");
      default: out_ += escaped(next()); return;
    }
  }

  void escape() {
    if (at_ + 1 >= in_.size()) fail("end of pattern at escape");
    if (const auto set = escaped_set(NamePlace::Bare)) {
      out_ += set->expression();
      return;
    }
    ++at_;
    const char c = peek();
    switch (c) {
      case 'A':
      case 'Z':
      case 'z':
      case 'K':
      case 'X':
        ++at_;
        out_ += std::string{'\\', c};
        return;
      case 'R':
        ++at_;
        out_ += "(?>\\r\\n|[\\n-\\r\\x{85}\\x{2028}\\x{2029}])";
        return;
      case 'N':
        ++at_;
        out_ += "[^\\n]";
        return;
      case 'O':
        ++at_;
        out_ += "(?s:.)";
        return;
      case 'b':
      case 'B':
        ++at_;
        word_boundary(c == 'b');
        return;
      case 'y':
      case 'Y': unsupported("text segment boundaries");
      case 'g': unsupported("subexpression calls");
      case 'G': unsupported("starts of a search");
      case 'k': back_reference(); return;
      default: break;
    }
    if (c >= '1' && c <= '9' && !is_digit(peek(1))) {
      ++at_;
      out_ += fmt::format("\\g{{{}}}", c - '0');
      return;
    }
    out_ += escaped(escaped_char(false));
  }

  void word_boundary(bool boundary) {
    const std::string word = named_set(kWordName, false, NamePlace::Bare, newer())->expression();
    constexpr std::string_view kAt = "(?:(?<={0})(?!{0})|(?<!{0})(?={0}))";
    constexpr std::string_view kNotAt = "(?:(?<={0})(?={0})|(?<!{0})(?!{0}))";
    out_ += fmt::format(fmt::runtime(boundary ? kAt : kNotAt), word);
  }

  // At the k of \k<name> or \k<n>.
  void back_reference() {
    ++at_;
    const char open = peek();
    if (open != '<' && open != '\'') fail("bad back reference");
    ++at_;
    const char close = open == '<' ? '>' : '\'';
    const bool negative = accept("-");
    if (const auto n = number()) {
      if (*n == 0 || *n > 999 || !accept(std::string_view(&close, 1))) fail("bad back reference");
      out_ += fmt::format("\\g{{{}{}}}", negative ? "-" : "", *n);
    } else {
      if (negative) fail("bad back reference");
      out_ += "\\k<" + std::string(group_name(close)) + ">";
    }
  }

  // --- Escapes ---------------------------------------------------------------------------------

  bool newer() const { return options_.newer_unicode; }

  // At a backslash: the set of \w, \D, \p{...} and their like. Otherwise nothing is read.
  std::optional<CharSet> escaped_set(NamePlace place) {
    const char c = peek(1);
    const char* name = nullptr;
    switch (c | 0x20) {
      case 'w': name = kWordName; break;
      case 'd': name = kDigitName; break;
      case 's': name = kSpaceName; break;
      case 'h': name = kHexName; break;
      case 'p': break;
      default: return std::nullopt;
    }
    bool negated = c >= 'A' && c <= 'Z';
    if (name) {
      at_ += 2;
      return named_set(name, negated, place, newer());
    }
    if (peek(2) != '{') return std::nullopt;  // \pL is a "p" and an "L"
    at_ += 3;
    if (accept("^")) negated = !negated;
    return property(negated, "}", place);
  }

  CharSet property(bool negated, std::string_view close, NamePlace place) {
    const size_t end = in_.find(close, at_);
    if (end == std::string_view::npos) fail("property name without end");
    const std::string_view name = in_.substr(at_, end - at_);
    auto set = named_set(name, negated, place, newer());
    if (!set) fail(fmt::format("invalid character property name \"{}\"", excerpt(name, 40)));
    at_ = end + close.size();
    return std::move(*set);
  }

  // After a backslash: one character.
  char32_t escaped_char(bool in_class) {
    const char c = peek();
    switch (c) {
      case 't': ++at_; return '\t';
      case 'n': ++at_; return '\n';
      case 'v': ++at_; return '\v';
      case 'r': ++at_; return '\r';
      case 'f': ++at_; return '\f';
      case 'a': ++at_; return '\a';
      case 'e': ++at_; return 0x1B;
      case 'b':
        if (!in_class) break;
        ++at_;
        return '\b';
      case 'c':
      case 'C': return control_char();
      case 'M': unsupported("meta characters");
      case 'u':
        if (hex_value(peek(1)) < 0) break;
        ++at_;
        return code_point(digits(16, 4, 4));
      case 'x': return hex_char();
      case 'o':
        if (peek(1) != '{') break;
        at_ += 2;
        return braced(8);
      case '0':
      case '1':
      case '2':
      case '3':
      case '4':
      case '5':
      case '6':
      case '7': return code_point(digits(8, 1, 3));
      default: break;
    }
    return next();
  }

  char32_t control_char() {
    if (peek() == 'C' && peek(1) != '-') fail("invalid control-code syntax");
    at_ += peek() == 'C' ? 2 : 1;
    if (at_end()) fail("end of pattern at control");
    return next() & 0x1F;
  }

  // At the x of \x{...} or \xHH; bytes from 0x80 on must together make a character.
  char32_t hex_char() {
    ++at_;
    if (accept("{")) return braced(16);
    const auto byte = [&] {
      return static_cast<char>(hex_value(peek()) < 0 ? 0 : digits(16, 1, 2));
    };
    std::string bytes(1, byte());
    const size_t length = char_length(bytes[0]);
    while (bytes.size() < length && accept("\\x")) bytes += byte();
    const Utf8Char c = decode_utf8(bytes, 0);
    if (!c.valid || c.length != bytes.size()) fail("invalid code point value");
    return c.code;
  }

  // After \x{ or \o{.
  char32_t braced(int base) {
    const char32_t c = code_point(digits(base, 1, 11));
    if (peek() == ' ') unsupported("sequences of code points");
    if (!accept("}")) fail("invalid code point value");
    return c;
  }

  uint64_t digits(int base, int least, int most) {
    uint64_t value = 0;
    int count = 0;
    for (; count < most; ++count, ++at_) {
      const int digit = hex_value(peek());
      if (digit < 0 || digit >= base) break;
      value = value * static_cast<uint64_t>(base) + static_cast<uint64_t>(digit);
    }
    if (count < least) fail("too short a number");
    return value;
  }

  char32_t code_point(uint64_t value) const {
    if (value > 0x10FFFF || (value >= 0xD800 && value < 0xE000)) fail("invalid code point value");
    return static_cast<char32_t>(value);
  }

  // --- Classes ---------------------------------------------------------------------------------

  // After "[".
  CharSet char_class(int depth) {
    if (depth > kMaxDepth) fail("classes are nested too deeply");
    const bool negated = accept("^");
    std::vector<CharSet> operands(1);  // of &&
    if (peek() == ']') {
      if (in_.find(']', at_ + 1) == std::string_view::npos) fail("empty char-class");
      ++at_;
      operands.back().items += escaped(']');
    }
    while (!accept("]")) {
      if (at_end()) fail("premature end of char-class");
      if (accept("&&")) {
        operands.emplace_back();
      } else if (peek() == '[') {
        operands.back().unite(bracket(depth));
      } else {
        operands.back().unite(class_item());
      }
    }
    CharSet set = std::move(operands.back());
    operands.pop_back();
    if (!operands.empty()) {
      std::string all = "(?:";
      for (const CharSet& operand : operands) all += "(?=" + operand.expression() + ")";
      set = CharSet{"", {all + set.expression() + ")"}};
    }
    return negated ? CharSet{"", {set.expression(true)}} : set;
  }

  // At a "[" inside of a class: a POSIX bracket or a nested class.
  CharSet bracket(int depth) {
    if (peek(1) == ':') {
      const size_t end = in_.find(":]", at_ + 2);
      const size_t name = at_ + (peek(2) == '^' ? 3 : 2);
      if (end != std::string_view::npos && end - at_ < 20) {
        const bool negated = name == at_ + 3;
        at_ = name;
        return property(negated, ":]", NamePlace::PosixBracket);
      }
    }
    ++at_;
    return char_class(depth + 1);
  }

  CharSet class_item() {
    if (peek() == '\\') {
      if (at_ + 1 >= in_.size()) fail("end of pattern at escape");
      if (auto set = escaped_set(NamePlace::Class)) return std::move(*set);
    }
    const char32_t first = class_char();
    const bool range = peek() == '-' && at_ + 1 < in_.size() && peek(1) != ']' && peek(1) != '[' &&
                       in_.substr(at_ + 1, 2) != "&&";
    if (!range) return CharSet{escaped(first), {}};
    ++at_;
    if (peek() == '\\' && at_ + 1 < in_.size() && escaped_set(NamePlace::Class)) {
      fail("char-class value at end of range");
    }
    const char32_t last = class_char();
    if (first > last) fail("empty range in char-class");
    return CharSet{escaped(first) + "-" + escaped(last), {}};
  }

  char32_t class_char() {
    if (!accept("\\")) return next();
    if (at_end()) fail("end of pattern at escape");
    return escaped_char(true);
  }

  std::string_view in_;
  OnigOptions options_;
  size_t at_ = 0;
  std::string out_;
};

}  // namespace

std::string onig_to_pcre2(std::string_view pattern, OnigOptions options) {
  return Translator(pattern, options).translate();
}

}  // namespace mica::tokenizers
