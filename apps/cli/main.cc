// The command `mica`: finds the subcommand, and turns what it throws into messages and exit codes.
#include <signal.h>

#include <algorithm>
#include <new>

#include "base/strings.h"
#include "common.h"
#include "subcommand.h"

namespace mica::cli {
namespace {

std::string version() {
  std::string text = "mica " MICA_VERSION "\n";
  text += "built with    " MICA_COMPILER ", " MICA_BUILD_TYPE;
  if (std::string_view(MICA_SANITIZE) != "") text += ", sanitizers " MICA_SANITIZE;
  text += "\ndevices       cpu, ref\nlibraries     " MICA_LIBRARIES "\n";
  return text;
}

std::string help() {
  std::string text =
      "mica: runs language models on your own machine\n\n"
      "Usage: mica <command> [options]\n\nCommands:\n";
  for (const SubcommandRow& row : subcommands())
    text += fmt::format("  {:<14}{}\n", row.name, row.make()->summary());
  return text +
         "\nExamples:\n"
         "  mica generate -p \"ROMEO:\"              the small default model continues a text\n"
         "  mica generate -m path/to/model -p \"Tell me a story\" -n 200 --temp 0.7\n"
         "  mica inspect path/to/model             what a model is and how much memory it needs\n"
         "  mica convert -m path/to/model --to small -q   the same model with 4 bits a weight\n"
         "\nOther:\n"
         "  mica <command> --help                  options and examples of a command\n"
         "  mica --version                         version and what was built in\n"
         "\nExit codes: 0 success, 1 failure, 2 wrong usage, 130 interrupted by Ctrl-C.\n";
}

const SubcommandRow& find_subcommand(const std::string& name) {
  std::vector<std::string> known{"--help", "--version"};
  for (const SubcommandRow& row : subcommands()) {
    if (name == row.name) return row;
    known.push_back(row.name);
  }
  const auto meant = closest(name, known);
  throw_usage("unknown {} '{}'; {}", name.starts_with('-') ? "option" : "command", excerpt(name),
              meant ? fmt::format("did you mean '{}'?", *meant) : "known: " + join(known, ", "));
}

int run_subcommand(const SubcommandRow& row, std::span<const std::string> arguments) {
  const auto command = row.make();
  Options options(std::string("mica ") + row.name, command->summary());
  command->declare(options);
  try {
    if (!options.parse(arguments)) {
      write_output(options.help());
      return kSuccess;
    }
    return command->run();
  } catch (const UsageError& error) {
    print_message(
        fmt::format("{}\nmica: `mica {} --help` shows the options", error.what(), row.name));
    return kWrongUsage;
  }
}

int run(std::span<const std::string> arguments) {
  if (arguments.empty()) {
    print_message("a command is needed\n" + help());
    return kWrongUsage;
  }
  const std::string& first = arguments.front();
  if (first == "--version" || first == "-V") {
    write_output(version());
  } else if (first == "--help" || first == "-h" || first == "help") {
    if (first == "help" && arguments.size() > 1) {
      const std::string asked = "--help";
      return run_subcommand(find_subcommand(arguments[1]), {&asked, 1});
    }
    write_output(help());
  } else {
    return run_subcommand(find_subcommand(first), arguments.subspan(1));
  }
  return kSuccess;
}

constexpr const char* kLessMemory =
    "; a smaller model, context (--max-context) or --prefill-chunk needs less";

int guarded(std::span<const std::string> arguments) {
  try {
    return run(arguments);
  } catch (const ClosedPipe&) {
    return 128 + SIGPIPE;  // what a shell reports of a program that the signal ended
  } catch (const Interrupted&) {
    return kInterrupted;
  } catch (const UsageError& error) {
    print_message(error.what());
    return kWrongUsage;
  } catch (const Error& error) {
    const std::string_view text = error.what();
    const bool advise = text.starts_with("out of memory");  // what was refused before says more
    print_message(fmt::format("error: {}{}", text, advise ? kLessMemory : ""));
  } catch (const std::bad_alloc&) {
    print_message(fmt::format("error: out of memory{}", kLessMemory));
  } catch (const std::exception& error) {
    print_message(fmt::format("error: {}", error.what()));
  }
  return kFailure;
}

}  // namespace
}  // namespace mica::cli

int main(int count, char** words) {
  // A closed pipe is told by the write that meets it.
  signal(SIGPIPE, SIG_IGN);
  const std::vector<std::string> arguments(words + std::min(count, 1), words + count);
  return mica::cli::guarded(arguments);
}
