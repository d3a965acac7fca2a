// A subcommand of `mica`. The file `x.cc` of this folder that defines, at the start of a line,
//
//   std::unique_ptr<Subcommand> x_command() { return std::make_unique<X>(); }
//
// adds `mica x`: the build makes the table from the file names.
#pragma once

#include <memory>
#include <span>

#include "options.h"

namespace mica::cli {

class Subcommand {
 public:
  virtual ~Subcommand() = default;
  // One line in lower case, for `mica --help` too.
  virtual const char* summary() const = 0;
  virtual void declare(Options& options) = 0;
  // Runs after the options were parsed; the exit code.
  virtual int run() = 0;
};

struct SubcommandRow {
  const char* name;
  std::unique_ptr<Subcommand> (*make)();
};
std::span<const SubcommandRow> subcommands();

}  // namespace mica::cli
