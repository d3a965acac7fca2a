// Sets of characters in PCRE2's syntax, for the translation of Oniguruma's classes and properties.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace mica::tokenizers {

// A union: what may stand between brackets, and whole expressions that match one character.
struct CharSet {
  std::string items;
  std::vector<std::string> expressions;

  void unite(CharSet other);
  // An expression that matches one character of the set, or one outside it.
  std::string expression(bool negated = false) const;
};

// One code point as an item, escaped so that it means itself inside and outside of brackets.
std::string escaped(char32_t c);

// Where a name stands decides what it means: "Punct" has symbols between [: and :] only, and word
// characters outside of brackets include ² ³ ¹ ¼ ½ ¾.
enum class NamePlace { PosixBracket, Class, Bare };

// The set that a property's or POSIX bracket's name means ("L", "Letter", "han", "Word"), in any
// case and with spaces, hyphens and underscores ignored; nothing if there is no such name.
// `newer`: also the characters that PCRE2 may not know.
std::optional<CharSet> named_set(std::string_view name, bool negated, NamePlace place, bool newer);

// The names that also have an escape of one letter.
inline constexpr const char* kWordName = "Word";
inline constexpr const char* kDigitName = "Digit";
inline constexpr const char* kSpaceName = "Space";
inline constexpr const char* kHexName = "XDigit";

}  // namespace mica::tokenizers
