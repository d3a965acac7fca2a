#include "tokenizers/char_set.h"

#include <fmt/format.h>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <algorithm>
#include <cstdlib>
#include <iterator>

#include "base/strings.h"
#include "tokenizers/unicode_tables.h"

namespace mica::tokenizers {

namespace {

// Lower case, without spaces, hyphens and underscores.
std::string loose(std::string_view name) {
  std::string out;
  for (const char c : name) {
    if (c == ' ' || c == '-' || c == '_') continue;
    out += c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c;
  }
  return out;
}

// General categories: the short name, and the long one loosely written.
constexpr const char* kCategories[][2] = {
    {"L", "letter"},
    {"Lu", "uppercaseletter"},
    {"Ll", "lowercaseletter"},
    {"Lt", "titlecaseletter"},
    {"Lm", "modifierletter"},
    {"Lo", "otherletter"},
    {"M", "mark"},
    {"M", "combiningmark"},
    {"Mn", "nonspacingmark"},
    {"Mc", "spacingmark"},
    {"Me", "enclosingmark"},
    {"N", "number"},
    {"Nd", "decimalnumber"},
    {"Nl", "letternumber"},
    {"No", "othernumber"},
    {"P", "punctuation"},
    {"Pc", "connectorpunctuation"},
    {"Pd", "dashpunctuation"},
    {"Ps", "openpunctuation"},
    {"Pe", "closepunctuation"},
    {"Pi", "initialpunctuation"},
    {"Pf", "finalpunctuation"},
    {"Po", "otherpunctuation"},
    {"S", "symbol"},
    {"Sm", "mathsymbol"},
    {"Sc", "currencysymbol"},
    {"Sk", "modifiersymbol"},
    {"So", "othersymbol"},
    {"Z", "separator"},
    {"Zs", "spaceseparator"},
    {"Zl", "lineseparator"},
    {"Zp", "paragraphseparator"},
    {"C", "other"},
    {"Cc", "control"},
    {"Cf", "format"},
    {"Cn", "unassigned"},
    {"Co", "privateuse"},
    {"Cs", "surrogate"},
};

// Binary properties that PCRE2 knows by the same name.
constexpr const char* kProperties[] = {
    "Alphabetic",     "Uppercase",
    "Lowercase",      "Cased",
    "Ideographic",    "Emoji",
    "Dash",           "Emoji_Presentation",
    "Diacritic",      "Emoji_Modifier",
    "Hex_Digit",      "Emoji_Modifier_Base",
    "Extender",       "Emoji_Component",
    "ID_Start",       "Extended_Pictographic",
    "Math",           "Regional_Indicator",
    "ID_Continue",    "Variation_Selector",
    "Radical",        "Unified_Ideograph",
    "Quotation_Mark", "Default_Ignorable_Code_Point",
};

constexpr const char* kSpace =
    "\\x{9}-\\x{d}\\x{20}\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}"
    "\\x{205f}\\x{3000}";
constexpr const char* kNotSpace =
    "\\x{0}-\\x{8}\\x{e}-\\x{1f}\\x{21}-\\x{84}\\x{86}-\\x{9f}\\x{a1}-\\x{167f}\\x{1681}-\\x{1fff}"
    "\\x{200b}-\\x{2027}\\x{202a}-\\x{202e}\\x{2030}-\\x{205e}\\x{2060}-\\x{2fff}"
    "\\x{3001}-\\x{10ffff}";
constexpr const char* kAny = "\\x{0}-\\x{10ffff}";

// PCRE2 10.40 brought binary properties and the difference of scripts and script extensions.
bool has_binary_properties() {
  static const bool value = [] {
    char version[64] = "";
    pcre2_config(PCRE2_CONFIG_VERSION, version);
    char* rest = nullptr;
    const long major = std::strtol(version, &rest, 10);
    const long minor = *rest == '.' ? std::strtol(rest + 1, nullptr, 10) : 0;
    return major > 10 || (major == 10 && minor >= 40);
  }();
  return value;
}

std::string ranges_text(char32_t first, char32_t last) {
  return first == last ? escaped(first) : escaped(first) + "-" + escaped(last);
}

// The characters of a property that PCRE2 may not know; "L" stands for all of "Lu", "Ll", ...
std::string newer_items(std::string_view property) {
  std::string out;
  for (const auto& range : tables::kNewerProperties) {
    const std::string_view name = range.property;
    const bool category = name.size() == 2 && property.size() == 1 && name[0] == property[0];
    if (category || name == property) out += ranges_text(range.first, range.last);
  }
  return out;
}

class Names {
 public:
  Names(NamePlace place, bool newer) : place_(place), newer_(newer) {}

  // The items of a name, empty if there is no such name.
  std::string items(const std::string& name) const {
    std::string out = type_items(name);
    if (out.empty()) out = category_items(name);
    if (out.empty()) out = property_items(name);
    return out;
  }

 private:
  std::string pcre2(const char* property) const {
    return fmt::format("\\p{{{}}}{}", property, newer_ ? newer_items(property) : "");
  }

  std::string alphabetic() const {
    return has_binary_properties() ? pcre2("Alphabetic") : pcre2("L") + pcre2("Nl");
  }

  std::string type_items(const std::string& name) const {
    if (name == "alpha") return alphabetic();
    if (name == "alnum") return alphabetic() + pcre2("Nd");
    if (name == "word") {
      return alphabetic() + pcre2("M") + pcre2("Nd") + "\\p{Pc}" +
             (place_ == NamePlace::Bare ? "\\x{b2}\\x{b3}\\x{b9}\\x{bc}-\\x{be}" : "");
    }
    if (name == "digit") return pcre2("Nd");
    if (name == "xdigit") return "0-9a-fA-F";
    if (name == "space" || name == "whitespace") return kSpace;
    if (name == "blank") return "\\x{9}\\p{Zs}";
    if (name == "cntrl") return "\\p{Cc}";
    if (name == "ascii") return "\\x{0}-\\x{7f}";
    if (name == "any") return kAny;
    if (name == "lower") return property_items("lowercase");
    if (name == "upper") return property_items("uppercase");
    if (name == "lc" || name == "casedletter") return pcre2("Lu") + pcre2("Ll") + pcre2("Lt");
    if (name == "punct") {
      return pcre2("P") + (place_ == NamePlace::PosixBracket ? pcre2("S") : "");
    }
    return "";
  }

  std::string category_items(const std::string& name) const {
    for (const auto& [short_name, long_name] : kCategories) {
      if (name == long_name || name == loose(short_name)) return pcre2(short_name);
    }
    return "";
  }

  std::string property_items(const std::string& name) const {
    for (const char* property : kProperties) {
      if (name == loose(property)) return has_binary_properties() ? pcre2(property) : "";
    }
    // Everything else is taken for a script; PCRE2 judges whether it is one.
    const auto letter = [](char c) { return c >= 'a' && c <= 'z'; };
    if (name.size() < 3 || !std::all_of(name.begin(), name.end(), letter)) return "";
    std::string newer;
    for (const char* script : {"Han", "Latin", "Cyrillic", "Arabic"}) {
      if (newer_ && name == loose(script)) newer = newer_items(script);
    }
    return fmt::format("\\p{{{}{}}}{}", has_binary_properties() ? "sc:" : "", name, newer);
  }

  NamePlace place_;
  bool newer_;
};

// Characters with a shape: neither white space nor control nor unassigned nor surrogate.
CharSet graph(bool with_spaces, bool newer) {
  CharSet out;
  out.expressions.push_back(fmt::format("[^{}\\p{{Cc}}\\p{{Cn}}\\p{{Cs}}]", kSpace));
  if (with_spaces) out.items += "\\p{Zs}";
  if (newer) {
    for (const auto& range : tables::kNewer) out.items += ranges_text(range.first, range.last);
  }
  return out;
}

}  // namespace

std::string escaped(char32_t c) {
  const bool alphanumeric = (c >= '0' && c <= '9') || ((c | 0x20) >= 'a' && (c | 0x20) <= 'z');
  if (c < 0x80 && alphanumeric) return std::string(1, static_cast<char>(c));
  if (c > 0x20 && c < 0x7F) return std::string{'\\', static_cast<char>(c)};
  return fmt::format("\\x{{{:x}}}", static_cast<uint32_t>(c));
}

void CharSet::unite(CharSet other) {
  items += other.items;
  std::move(other.expressions.begin(), other.expressions.end(), std::back_inserter(expressions));
}

std::string CharSet::expression(bool negated) const {
  if (expressions.empty()) {
    if (items.empty()) return negated ? "(?s:.)" : "(?!)";
    return fmt::format("[{}{}]", negated ? "^" : "", items);
  }
  if (items.empty() && expressions.size() == 1 && !negated) return expressions.front();
  const std::string all = (items.empty() ? "" : "[" + items + "]|") + join(expressions, "|");
  return negated ? fmt::format("(?:(?!{})(?s:.))", all) : fmt::format("(?:{})", all);
}

std::optional<CharSet> named_set(std::string_view name, bool negated, NamePlace place, bool newer) {
  const std::string key = loose(name);
  CharSet set;
  if (key == "space" && negated) return CharSet{kNotSpace, {}};
  if (key == "graph" || key == "print") {
    set = graph(key == "print", newer);
  } else if (key == "assigned") {
    set.items = newer ? "\\P{Cn}" + graph(false, newer).items : "\\P{Cn}";
  } else {
    set.items = Names(place, newer).items(key);
    if (set.items.empty()) return std::nullopt;
  }
  if (!negated) return set;
  // \p{...} alone turns into \P{...}, which stays between the brackets it stands in.
  if (set.expressions.empty() && set.items.starts_with("\\p") &&
      set.items.find('}') + 1 == set.items.size()) {
    set.items[1] = 'P';
    return set;
  }
  return CharSet{"", {set.expression(true)}};
}

}  // namespace mica::tokenizers
