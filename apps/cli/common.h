// What subcommands share: options with one meaning everywhere, the model's folder, input by lines,
// and output that programs can rely on.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "models/load.h"
#include "options.h"
#include "tokenizers/tokenizer.h"

namespace mica::cli {

inline constexpr int kSuccess = 0, kFailure = 1, kWrongUsage = 2, kInterrupted = 130;

// What --dtype may be.
inline const std::vector<std::string> kActivationTypes{"float32", "float16", "bfloat16"};

// --dtype and --exact: what a model computes in.
struct PrecisionOptions {
  std::optional<std::string> name;  // of the dtype
  bool exact = false;

  void declare(Options& options,
               std::string dtype_help = "type of activations (default: the checkpoint's)");
  std::optional<Dtype> dtype() const;
  void apply(models::LoadOptions& options) const;
};

// -m, -t, --format and --quiet.
struct CommonOptions {
  std::optional<std::string> model, format;
  std::optional<int64_t> threads;
  bool quiet = false;

  void declare_model(Options& options);
  void declare_rest(Options& options);
  bool json() const { return format == "json"; }
  // Sets the number of threads; warnings go to standard error from here on.
  void apply() const;
};

// The folder of the model that -m names (hub_cache.h); without -m the default model's, which a note
// on standard error says unless quiet.
std::string model_folder(const CommonOptions& options);

// A size that an option gives, "500MB" or "8G"; a UsageError for text that is none.
int64_t read_size(const std::string& option, const std::string& text);

// --- Output --------------------------------------------------------------------------------------

// Thrown when nobody reads standard output any more: the program ends without a word.
struct ClosedPipe {};

// Writes all of it to standard output at once. Throws ClosedPipe, or Io.
void write_output(std::string_view text);
// The same for text of strangers: on a terminal its control characters are escaped.
void write_untrusted(std::string_view text);
// "mica: <text>" on standard error, with control characters escaped.
void print_message(std::string_view text);

// 7241732096 as "7.24 billion".
std::string count_text(int64_t count);

// --- Input ---------------------------------------------------------------------------------------

// From now on Ctrl-C sets a mark, and reading standard input throws Interrupted. A second Ctrl-C
// ends the program.
void catch_interrupts();
bool interrupted();
struct Interrupted {};

// All of standard input.
std::string read_input();

// Lines of standard input, without their ends; the last one may lack its own. Before it waits for
// more input it calls `before_wait`: what was answered so far should be written then.
class LineReader {
 public:
  explicit LineReader(std::function<void()> before_wait) : before_wait_(std::move(before_wait)) {}
  // False at the end. The line is valid until the next call.
  bool next(std::string_view& line);
  // Of the last line, from 1 on.
  int64_t number() const { return number_; }

 private:
  std::function<void()> before_wait_;
  std::string buffer_;
  size_t begin_ = 0;
  int64_t number_ = 0;
  bool ended_ = false;
};

// Answers each line of standard input with a line: `answer` gets a line as JSON text and returns
// one. Its errors are thrown again with the line's number.
void answer_lines(const std::function<std::string(std::string_view line)>& answer);

// --- Ids -----------------------------------------------------------------------------------------

// The ids that an option gives, "1,2,3", or standard input if that is "-": separated by commas or
// white space, perhaps in brackets. What is no number in the option is a UsageError, in standard
// input a Value error; so is a number that no id can be.
std::vector<int32_t> read_ids(const std::string& option);

}  // namespace mica::cli
