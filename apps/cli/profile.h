// --profile and --trace of commands that compute.
//
//   ProfileOptions profile_;   // declare() among the options, start() before the work, then
//   finish()
#pragma once

#include <optional>
#include <string>

#include "options.h"

namespace mica::cli {

class ProfileOptions {
 public:
  void declare(Options& options);
  // Begins to record if one of the options was given.
  void start() const;
  // Writes the trace's file, and the table to standard error.
  void finish() const;

 private:
  bool wanted() const { return table_ || trace_; }

  bool table_ = false;
  std::optional<std::string> trace_;
};

}  // namespace mica::cli
