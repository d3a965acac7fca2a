#include "options.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>

#include "base/strings.h"

namespace mica::cli {

namespace {

template <class T>
std::optional<T> parse_whole(std::string_view text) {
  T value{};
  const char* end = text.data() + text.size();
  if (text.starts_with('+')) text.remove_prefix(1);
  const auto result = std::from_chars(text.data(), end, value);
  if (result.ec != std::errc() || result.ptr != end) return std::nullopt;
  return value;
}

}  // namespace

std::optional<int64_t> parse_integer(std::string_view text) { return parse_whole<int64_t>(text); }
std::optional<double> parse_number(std::string_view text) { return parse_whole<double>(text); }

std::string wrap(std::string_view text, size_t indent) {
  const std::string margin(indent, ' ');
  std::string out, line;
  for (std::string_view word : split(text, ' ')) {
    if (!line.empty() && indent + line.size() + 1 + word.size() > kHelpWidth) {
      out += margin + line + '\n';
      line.clear();
    }
    if (!line.empty()) line += ' ';
    line += word;
  }
  return out + margin + line + '\n';
}

Options::Options(std::string command, std::string summary)
    : command_(std::move(command)), summary_(std::move(summary)) {}

Options& Options::about(std::string paragraph) {
  about_.push_back(std::move(paragraph));
  return *this;
}

Options& Options::example(std::string line, std::string what) {
  examples_.emplace_back(std::move(line), std::move(what));
  return *this;
}

Options& Options::group(std::string title) {
  group_ = std::move(title);
  return *this;
}

std::string Options::Entry::name() const {
  const size_t dashes = names.find("--");
  return dashes == names.npos ? names : names.substr(dashes, names.find(',', dashes) - dashes);
}

Options& Options::add(std::string names, std::string value, std::string help, Store store) {
  entries_.push_back({.group = group_,
                      .names = std::move(names),
                      .value = std::move(value),
                      .help = std::move(help),
                      .store = std::move(store)});
  return *this;
}

Options& Options::flag(std::string names, bool& target, std::string help) {
  add(std::move(names), "", std::move(help), [&target](const auto&) { target = true; });
  entries_.back().is_flag = true;
  return *this;
}

Options& Options::text(std::string names, std::string value, std::optional<std::string>& target,
                       std::string help) {
  return add(std::move(names), std::move(value), std::move(help),
             [&target](const auto& given) { target = given.back(); });
}

Options& Options::texts(std::string names, std::string value, std::vector<std::string>& target,
                        std::string help) {
  return add(std::move(names), std::move(value), std::move(help) + " (repeatable)",
             [&target](const auto& given) { target = given; });
}

Options& Options::integer(std::string names, std::string value, std::optional<int64_t>& target,
                          std::string help, int64_t low, int64_t high) {
  add(std::move(names), std::move(value), std::move(help), {});
  const std::string name = entries_.back().name();
  entries_.back().store = [&target, name, low, high](const auto& given) {
    target = parse_integer(given.back());
    if (!target) throw_usage("{} needs a whole number, not '{}'", name, excerpt(given.back()));
    if (*target >= low && *target <= high) return;
    if (high == std::numeric_limits<int64_t>::max())
      throw_usage("{} must be at least {}, not {}", name, low, *target);
    throw_usage("{} must be between {} and {}, not {}", name, low, high, *target);
  };
  return *this;
}

Options& Options::number(std::string names, std::string value, std::optional<double>& target,
                         std::string help, double low, double high) {
  add(std::move(names), std::move(value), std::move(help), {});
  const std::string name = entries_.back().name();
  entries_.back().store = [&target, name, low, high](const auto& given) {
    target = parse_number(given.back());
    if (!target) throw_usage("{} needs a number, not '{}'", name, excerpt(given.back()));
    if (!(*target >= low && *target <= high))
      throw_usage("{} must be between {} and {}, not {}", name, low, high, *target);
  };
  return *this;
}

Options& Options::choice(std::string names, std::vector<std::string> values,
                         std::optional<std::string>& target, std::string help) {
  add(std::move(names), join(values, "|"), std::move(help), {});
  const std::string name = entries_.back().name();
  entries_.back().store = [&target, name, values](const auto& given) {
    target = given.back();
    if (std::find(values.begin(), values.end(), *target) == values.end())
      throw_usage("{} must be one of {}, not '{}'", name, join(values, ", "), excerpt(*target));
  };
  return *this;
}

Options& Options::argument(std::string name, std::optional<std::string>& target, std::string help) {
  text(std::move(name), "", target, std::move(help));
  entries_.back().is_argument = true;
  return *this;
}

bool Options::parse(std::span<const std::string> arguments) {
  CLI::App app;
  app.set_help_flag();
  app.allow_extras();
  CLI::Option* asked = app.add_flag("-h,--help");
  std::vector<CLI::Option*> options;
  for (const Entry& entry : entries_) {
    // CLI11 collects the words; what they mean is decided below, from the words as they were given.
    CLI::Option* option =
        entry.is_flag ? app.add_flag(entry.names)
                      : app.add_option(entry.names, [](const CLI::results_t&) { return true; });
    if (!entry.is_flag) option->expected(1)->allow_extra_args(false);
    options.push_back(option->multi_option_policy(CLI::MultiOptionPolicy::TakeAll));
  }
  try {
    app.parse(std::vector<std::string>(arguments.rbegin(), arguments.rend()));
  } catch (const CLI::ParseError& error) {
    throw UsageError(error.what());
  }
  if (asked->count() > 0) return false;
  if (auto unknown = app.remaining(); !unknown.empty()) fail_unknown(unknown);
  for (size_t i = 0; i < entries_.size(); ++i) {
    if (options[i]->count() > 0) entries_[i].store(options[i]->results());
  }
  return true;
}

void Options::fail_unknown(const std::vector<std::string>& unknown) const {
  auto option = std::find_if(unknown.begin(), unknown.end(),
                             [](const std::string& word) { return word.starts_with('-'); });
  if (option == unknown.end()) throw_usage("unexpected argument '{}'", excerpt(unknown.front()));
  const std::string word = option->substr(0, option->find('='));
  std::vector<std::string> known{"--help"};
  for (const Entry& entry : entries_) {
    if (!entry.is_argument) known.push_back(entry.name());
  }
  const auto meant = closest(word, known);
  throw_usage("unknown option '{}'{}", excerpt(word),
              meant ? fmt::format("; did you mean '{}'?", *meant) : "");
}

std::string Options::usage() const {
  std::string text = command_;
  for (const Entry& entry : entries_) {
    if (entry.is_argument) text += " [" + entry.names + ']';
  }
  return text + " [options]";
}

std::string Options::help() const {
  constexpr size_t kColumn = 30;
  std::string out = command_ + ": " + summary_ + "\n\nUsage: " + usage() + '\n';
  for (const std::string& paragraph : about_) out += '\n' + wrap(paragraph, 0);
  if (!examples_.empty()) out += "\nExamples:\n";
  for (const auto& [line, what] : examples_) out += "  " + line + '\n' + wrap(what, 6);
  std::vector<std::string> groups;
  for (const Entry& entry : entries_) {
    if (std::find(groups.begin(), groups.end(), entry.group) == groups.end())
      groups.push_back(entry.group);
  }
  for (const std::string& group : groups) {
    out += '\n' + group + ":\n";
    for (const Entry& entry : entries_) {
      if (entry.group != group) continue;
      std::string head = entry.names;
      if (size_t comma = head.find(','); comma != std::string::npos) head.insert(comma + 1, " ");
      head = "  " + head + (entry.value.empty() ? "" : " " + entry.value);
      std::string text = wrap(entry.help, kColumn);
      if (head.size() + 2 <= kColumn)
        text.replace(0, head.size(), head);
      else
        text = head + '\n' + text;
      out += text;
    }
  }
  return out + "\nOther:\n" + fmt::format("{:<{}}this text\n", "  -h, --help", kColumn);
}

}  // namespace mica::cli
