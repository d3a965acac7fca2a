// Options of one subcommand: each is declared once, and from that are parsed, checked and shown by
// --help.
//
//   Options options("mica generate", "writes text with a language model");
//   std::optional<int64_t> max_tokens;
//   options.group("Length").integer("-n,--max-tokens", "N", max_tokens, "at most N tokens", 0);
//   if (!options.parse(arguments)) std::fputs(options.help().c_str(), stdout);
//
// What the user got wrong is a UsageError, which ends the program with code 2: unknown options
// (with the likely one), missing values, values that are no number or out of range.
#pragma once

#include <cstdint>
#include <functional>
#include <limits>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace mica::cli {

class UsageError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};
template <class... Args>
[[noreturn]] void throw_usage(fmt::format_string<Args...> format, Args&&... args) {
  throw UsageError(fmt::format(format, std::forward<Args>(args)...));
}

class Options {
 public:
  // `command` as it is typed; `summary` is one line in lower case.
  Options(std::string command, std::string summary);

  // Text of the help: paragraphs after the summary, examples, and the title of the options that
  // follow.
  Options& about(std::string paragraph);
  Options& example(std::string line, std::string what);
  Options& group(std::string title);

  // `names` are "-s,--long"; `value` stands for the value in the help. What is not given leaves its
  // target alone; of an option given twice the last counts, lists take all.
  Options& flag(std::string names, bool& target, std::string help);
  Options& text(std::string names, std::string value, std::optional<std::string>& target,
                std::string help);
  Options& texts(std::string names, std::string value, std::vector<std::string>& target,
                 std::string help);
  Options& integer(std::string names, std::string value, std::optional<int64_t>& target,
                   std::string help, int64_t low = std::numeric_limits<int64_t>::min(),
                   int64_t high = std::numeric_limits<int64_t>::max());
  Options& number(std::string names, std::string value, std::optional<double>& target,
                  std::string help, double low, double high);
  Options& choice(std::string names, std::vector<std::string> values,
                  std::optional<std::string>& target, std::string help);
  // An argument without a name: `mica inspect DIR`.
  Options& argument(std::string name, std::optional<std::string>& target, std::string help);

  // False if --help was asked for.
  bool parse(std::span<const std::string> arguments);
  std::string help() const;

 private:
  using Store = std::function<void(const std::vector<std::string>&)>;
  struct Entry {
    std::string group, names, value, help;
    bool is_flag = false, is_argument = false;
    Store store;
    // The name that messages use: the long one.
    std::string name() const;
  };

  Options& add(std::string names, std::string value, std::string help, Store store);
  [[noreturn]] void fail_unknown(const std::vector<std::string>& unknown) const;
  std::string usage() const;

  std::string command_, summary_, group_ = "Options";
  std::vector<std::string> about_;
  std::vector<std::pair<std::string, std::string>> examples_;
  std::vector<Entry> entries_;
};

// The whole text as a number; nothing if it is none or does not fit.
std::optional<int64_t> parse_integer(std::string_view text);
std::optional<double> parse_number(std::string_view text);

// `text` broken into lines of at most kHelpWidth characters, each after `indent` spaces.
inline constexpr size_t kHelpWidth = 92;
std::string wrap(std::string_view text, size_t indent);

}  // namespace mica::cli
