// Regular expressions as tokenizer.json means them: Oniguruma's syntax, run by PCRE2 with its
// just-in-time compiler.
//
//   const Regex words("\\p{L}+|\\s+");
//   words.for_each_match("to be", [](size_t begin, size_t end) { ... });  // 0-2, 2-3, 3-5
//
// Patterns and texts come from strangers. A pattern that cannot be compiled throws Value (or
// Unsupported, see onig_syntax.h); a search that takes too many steps, too much memory or too long
// throws Value. Text must be well-formed UTF-8. A Regex may be used by several threads at once.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>

#include "base/function_ref.h"

namespace mica::tokenizers {

class Regex {
 public:
  explicit Regex(std::string_view pattern);
  ~Regex();
  Regex(Regex&&) noexcept;
  Regex& operator=(Regex&&) noexcept;

  // The matches from left to right. They do not overlap; an empty one never follows right after
  // another match.
  void for_each_match(std::string_view text, FunctionRef<void(size_t, size_t)> found) const;

 private:
  struct Code;

  std::unique_ptr<Code> code_;
};

}  // namespace mica::tokenizers
