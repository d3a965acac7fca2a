// Oniguruma's regular expressions, which tokenizer.json is written in, said in PCRE2's syntax.
//
//   const std::string pattern = onig_to_pcre2("(?m:\\s+)|\\h", {});  // "(?s:[...]+)|[0-9a-fA-F]"
//
// The two differ in what the same text means, silently: `\h` (a hexadecimal digit), `\v`, `\s` and
// `\w` (which characters), `^` and `$` (of any line), `(?m)` (dot matches
// newline), `(?i)` before `|`, `a{2}+` (greedy), `a{,2}`, `\p{Han}` (the script, without its
// extensions), `[a-z&&[^c]]`, `[[a]b]`, long names of properties. The translator reads the pattern
// whole and writes every element so that PCRE2 does what Oniguruma does.
//
// Errors: Value for what Oniguruma rejects too, Unsupported for what PCRE2 cannot say (absent
// functions, callouts, conditions, subexpression calls, text segments, \G, options W D S P y).
// Known differences: under (?i) one character never matches several ("ß" and "ss"); \X follows the
// version of Unicode that PCRE2 has.
// Source: Oniguruma 6.9.10, doc/RE and doc/SYNTAX.md.
#pragma once

#include <string>
#include <string_view>

namespace mica::tokenizers {

struct OnigOptions {
  // Classes also name the characters that PCRE2 may not know. Such patterns are slower.
  bool newer_unicode = false;
};

std::string onig_to_pcre2(std::string_view pattern, OnigOptions options);

}  // namespace mica::tokenizers
