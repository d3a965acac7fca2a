#include "common.h"

#include <fmt/format.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "base/assets.h"
#include "base/environment.h"
#include "base/file.h"
#include "base/log.h"
#include "base/progress.h"
#include "base/strings.h"
#include "base/thread_pool.h"
#include "hub_cache.h"

namespace mica::cli {

void CommonOptions::declare_model(Options& options) {
  options.text("-m,--model", "DIR|ORG/NAME", model,
               "a folder in Hugging Face layout, or org/name[@revision] in the local Hugging Face "
               "cache; an existing path wins (default: the small model that ships with Mica)");
}

void CommonOptions::declare_rest(Options& options) {
  options.group("Running")
      .integer("-t,--threads", "N", threads, "threads (default: as many as there are processors)",
               1, ThreadPool::kMaxThreads)
      .group("Output")
      .choice("--format", {"text", "json"}, format, "for people or for programs (default: text)")
      .flag("--quiet", quiet, "no notes and no statistics on standard error");
}

void CommonOptions::apply() const {
  if (threads) ThreadPool::shared().set_threads(static_cast<int>(*threads));
  Progress::enable(!quiet);
  set_warning_sink([](std::string_view text) { print_message(fmt::format("warning: {}", text)); });
}

void PrecisionOptions::declare(Options& options, std::string dtype_help) {
  options.choice("--dtype", kActivationTypes, name, std::move(dtype_help))
      .flag("--exact", exact,
            "do not round activations to 8 bits in products with quantized matrices: slower");
}
std::optional<Dtype> PrecisionOptions::dtype() const {
  return name ? std::optional(dtype_from_name(*name)) : std::nullopt;
}
void PrecisionOptions::apply(models::LoadOptions& options) const {
  options.activations = dtype();
  options.exact = exact;
}

std::string model_folder(const CommonOptions& options) {
  if (options.model) return find_model(*options.model);
  std::string folder = asset_path("shakespeare-3m");
  if (!options.quiet) {
    print_message(
        "no model given (-m): using the default, shakespeare-3m, which only imitates Shakespeare.\n"
        "For an assistant try Qwen/Qwen3-0.6B or meta-llama/Llama-3.2-1B-Instruct: download one\n"
        "(`hf download Qwen/Qwen3-0.6B`), then `mica generate -m Qwen/Qwen3-0.6B -p \"...\"`.");
  }
  return folder;
}

int64_t read_size(const std::string& option, const std::string& text) {
  try {
    return static_cast<int64_t>(std::min<uint64_t>(parse_size(text), INT64_MAX));
  } catch (const Error& error) {
    throw_usage("{}: {}", option, error.what());
  }
}

// --- Output --------------------------------------------------------------------------------------

void write_output(std::string_view text) {
  while (!text.empty()) {
    const ssize_t written = ::write(STDOUT_FILENO, text.data(), text.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0 && errno == EPIPE) throw ClosedPipe{};
    if (written < 0) throw_cannot("write", "standard output", errno);
    text.remove_prefix(static_cast<size_t>(written));
  }
}

void write_untrusted(std::string_view text) {
  static const bool terminal = isatty(STDOUT_FILENO);
  write_output(terminal ? printable_lines(text) : std::string(text));
}

void print_message(std::string_view text) {
  const std::string line = "mica: " + printable_lines(text) + '\n';
  // One call, so that messages of several threads do not mix; a lost one is no reason to fail.
  [[maybe_unused]] const ssize_t written = ::write(STDERR_FILENO, line.data(), line.size());
}

std::string count_text(int64_t count) {
  const auto number = static_cast<double>(count);
  if (count >= 1'000'000'000) return fmt::format("{:.2f} billion", number / 1e9);
  if (count >= 1'000'000) return fmt::format("{:.2f} million", number / 1e6);
  return fmt::format("{}", count);
}

// --- Input ---------------------------------------------------------------------------------------

namespace {

volatile sig_atomic_t interrupt_seen = 0;

// Up to `size` bytes more of standard input; 0 at its end.
size_t read_some(char* to, size_t size) {
  for (;;) {
    if (interrupted()) throw Interrupted{};
    const ssize_t count = ::read(STDIN_FILENO, to, size);
    if (count >= 0) return static_cast<size_t>(count);
    if (errno != EINTR) throw_cannot("read", "standard input", errno);
  }
}

constexpr size_t kBlock = 1 << 16;

// Appends a block; false at the end.
bool read_block(std::string& text) {
  const size_t old = text.size();
  text.resize(old + kBlock);
  const size_t count = read_some(text.data() + old, kBlock);
  text.resize(old + count);
  return count > 0;
}

}  // namespace

void catch_interrupts() {
  struct sigaction action{};
  action.sa_handler = [](int) { interrupt_seen = 1; };
  action.sa_flags = SA_RESETHAND;  // and no SA_RESTART: a waiting read must return
  sigaction(SIGINT, &action, nullptr);
}

bool interrupted() { return interrupt_seen != 0; }

std::string read_input() {
  std::string text;
  while (read_block(text)) {
  }
  return text;
}

bool LineReader::next(std::string_view& line) {
  size_t searched = begin_;
  for (;;) {
    const size_t end = buffer_.find('\n', searched);
    if (end != std::string::npos) {
      line = std::string_view(buffer_).substr(begin_, end - begin_);
      begin_ = end + 1;
      break;
    }
    if (ended_) {
      if (begin_ == buffer_.size()) return false;
      line = std::string_view(buffer_).substr(begin_);
      begin_ = buffer_.size();
      break;
    }
    buffer_.erase(0, begin_);
    begin_ = 0;
    searched = buffer_.size();
    before_wait_();
    ended_ = !read_block(buffer_);
  }
  if (line.ends_with('\r')) line.remove_suffix(1);
  ++number_;
  return true;
}

void answer_lines(const std::function<std::string(std::string_view line)>& answer) {
  std::string answers;
  auto flush = [&] {
    write_output(answers);
    answers.clear();
  };
  LineReader lines(flush);
  for (std::string_view line; lines.next(line);) {
    try {
      answers += answer(line);
    } catch (const Error& error) {
      flush();  // the lines before are right
      throw Error(error.kind(),
                  fmt::format("standard input, line {}: {}", lines.number(), error.what()));
    }
    answers += '\n';
    if (answers.size() >= kBlock) flush();
  }
  flush();
}

// --- Ids -----------------------------------------------------------------------------------------

namespace {

// The first id of a list, which is cut off with its comma and white space.
int64_t take_id(std::string_view& text) {
  constexpr std::string_view kSpace = " \t\r\n";
  auto skip_space = [&] {
    text.remove_prefix(std::min(text.find_first_not_of(kSpace), text.size()));
  };
  const std::string_view word = text.substr(0, text.find_first_of(", \t\r\n"));
  const auto id = parse_integer(word);
  if (!id) throw_usage("'{}' is no token id; ids are whole numbers, like 1,2,3", excerpt(word));
  text.remove_prefix(word.size());
  skip_space();
  if (text.starts_with(',')) {
    text.remove_prefix(1);
    skip_space();
    if (text.empty()) throw_usage("an id is missing after the last comma");
  }
  return *id;
}

}  // namespace

std::vector<int32_t> read_ids(const std::string& option) {
  const bool from_input = option == "-";
  const std::string all = from_input ? read_input() : option;
  std::string_view text = trim(all);
  if (text.starts_with('[') && text.ends_with(']')) text = trim(text.substr(1, text.size() - 2));
  std::vector<int32_t> ids;
  try {
    while (!text.empty()) {
      const int64_t id = take_id(text);
      if (id < 0 || id > INT32_MAX) throw_value("id {} is outside of any vocabulary", id);
      ids.push_back(static_cast<int32_t>(id));
    }
  } catch (const UsageError& error) {
    if (!from_input) throw;
    throw_value("standard input: {}", error.what());
  }
  return ids;
}

}  // namespace mica::cli
