#include "tokenizers/regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <mutex>
#include <new>

#include "base/error.h"
#include "base/strings.h"
#include "tokenizers/onig_syntax.h"
#include "tokenizers/unicode.h"

namespace mica::tokenizers {

namespace {

// PCRE2 counts steps for each position of the text anew. A run of spaces may take a step for each
// of its characters, hence the second figure.
constexpr uint32_t kStepsPerPosition = 300'000;
constexpr size_t kStepsPerByte = 16;
constexpr uint32_t kHeapLimitKib = 64 << 10;
constexpr size_t kJitStackBytes = 1 << 20;
constexpr size_t kCompiledLimit = 1 << 20;
// Positions that PCRE2 may try before the clock is read. The times for a whole search are thousands
// of times what ordinary patterns take.
constexpr size_t kPositionsPerCall = 256;
constexpr double kSecondsPerSearch = 3;
constexpr double kSecondsPerMegabyte = 2;

constexpr uint32_t kCompileOptions =
    PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C | PCRE2_USE_OFFSET_LIMIT;

template <auto Free>
struct Deleter {
  template <class T>
  void operator()(T* object) const {
    Free(object);
  }
};
using CodePointer = std::unique_ptr<pcre2_code, Deleter<pcre2_code_free>>;

// What a thread needs to search: where matches are written, and a stack for compiled code.
struct Workspace {
  Workspace()
      : match(pcre2_match_data_create(1, nullptr)),
        context(pcre2_match_context_create(nullptr)),
        stack(pcre2_jit_stack_create(32 << 10, kJitStackBytes, nullptr)) {
    if (!match || !context) throw std::bad_alloc();
    pcre2_set_heap_limit(context.get(), kHeapLimitKib);
    // Without the just-in-time compiler there is no stack, and none is needed.
    if (stack) pcre2_jit_stack_assign(context.get(), nullptr, stack.get());
  }

  static Workspace& of_this_thread() {
    static thread_local Workspace workspace;
    return workspace;
  }

  std::unique_ptr<pcre2_match_data, Deleter<pcre2_match_data_free>> match;
  std::unique_ptr<pcre2_match_context, Deleter<pcre2_match_context_free>> context;
  std::unique_ptr<pcre2_jit_stack, Deleter<pcre2_jit_stack_free>> stack;
};

std::string message_of(int error) {
  char buffer[256];
  pcre2_get_error_message(error, reinterpret_cast<PCRE2_UCHAR*>(buffer), sizeof buffer);
  return buffer;
}

CodePointer compile(std::string_view pattern, OnigOptions options) {
  const std::string translated = onig_to_pcre2(pattern, options);
  const std::unique_ptr<pcre2_compile_context, Deleter<pcre2_compile_context_free>> context(
      pcre2_compile_context_create(nullptr));
  if (!context) throw std::bad_alloc();
  pcre2_set_newline(context.get(), PCRE2_NEWLINE_LF);
  int error = 0;
  PCRE2_SIZE offset = 0;
  CodePointer code(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(translated.data()), translated.size(),
                                 kCompileOptions, &error, &offset, context.get()));
  if (!code) {
    throw_value("regular expression \"{}\": {}", excerpt(pattern, 200), message_of(error));
  }
  size_t size = 0;
  pcre2_pattern_info(code.get(), PCRE2_INFO_SIZE, &size);
  if (size > kCompiledLimit) {
    throw_value("regular expression \"{}\": needs {} compiled, the limit is {}",
                excerpt(pattern, 200), human_size(size), human_size(kCompiledLimit));
  }
  // Where it fails (no executable memory), the interpreter does the same.
  pcre2_jit_compile(code.get(), PCRE2_JIT_COMPLETE);
  return code;
}

bool has_newer_characters(std::string_view text) {
  if (is_ascii(text)) return false;
  for (size_t at = 0; at < text.size();) {
    if (is_newer_than_pcre2(next_char(text, at))) return true;
  }
  return false;
}

// One pass over a text.
class Search {
 public:
  Search(const pcre2_code* code, std::string_view pattern, std::string_view text)
      : code_(code),
        pattern_(pattern),
        text_(text),
        steps_(static_cast<uint32_t>(
            std::min<size_t>(kStepsPerPosition + kStepsPerByte * text.size(), UINT32_MAX))) {}

  // The first match that starts at or after byte `from`.
  bool find(size_t from, size_t& begin, size_t& end) {
    while (from <= text_.size()) {
      const size_t last = std::min(from + kPositionsPerCall, text_.size());
      pcre2_set_match_limit(workspace_.context.get(), steps_);
      pcre2_set_offset_limit(workspace_.context.get(), last);
      int result = run(from, 0);
      if (result == PCRE2_ERROR_JIT_STACKLIMIT) result = run(from, PCRE2_NO_JIT);
      if (result >= 0) {
        const PCRE2_SIZE* offsets = pcre2_get_ovector_pointer(workspace_.match.get());
        begin = offsets[0];
        end = offsets[1];
        if (begin > end) fail("a match ends before it starts");
        return true;
      }
      if (result != PCRE2_ERROR_NOMATCH) fail(message_of(result));
      check_clock();
      from = last + 1;
      while (from < text_.size() && !starts_char(text_[from])) ++from;
    }
    return false;
  }

  void check_clock() const {
    const std::chrono::duration<double> passed = Clock::now() - start_;
    const double megabytes = static_cast<double>(text_.size()) / 1e6;
    if (passed.count() > kSecondsPerSearch + kSecondsPerMegabyte * megabytes) {
      fail("the search takes too long");
    }
  }

 private:
  using Clock = std::chrono::steady_clock;

  int run(size_t from, uint32_t options) {
    return pcre2_match(code_, reinterpret_cast<PCRE2_SPTR>(text_.data()), text_.size(), from,
                       options | PCRE2_NO_UTF_CHECK, workspace_.match.get(),
                       workspace_.context.get());
  }

  [[noreturn]] void fail(const std::string& reason) const {
    throw_value("regular expression \"{}\" on a text of {} bytes: {}", excerpt(pattern_, 200),
                text_.size(), reason);
  }

  Workspace& workspace_ = Workspace::of_this_thread();
  const pcre2_code* code_;
  std::string_view pattern_;
  std::string_view text_;
  uint32_t steps_;
  Clock::time_point start_ = Clock::now();
};

}  // namespace

struct Regex::Code {
  std::string pattern;
  CodePointer plain;
  // Names also the characters that PCRE2 may not know. Slower, so it is only for texts that have
  // some, and made when the first of them comes.
  CodePointer newer;
  std::once_flag newer_made;

  const pcre2_code* for_text(std::string_view text) {
    if (!has_newer_characters(text)) return plain.get();
    std::call_once(newer_made, [&] { newer = compile(pattern, {.newer_unicode = true}); });
    return newer.get();
  }
};

Regex::Regex(std::string_view pattern) : code_(std::make_unique<Code>()) {
  code_->pattern = pattern;
  code_->plain = compile(pattern, {});
}
Regex::~Regex() = default;
Regex::Regex(Regex&&) noexcept = default;
Regex& Regex::operator=(Regex&&) noexcept = default;

void Regex::for_each_match(std::string_view text, FunctionRef<void(size_t, size_t)> found) const {
  Search search(code_->for_text(text), code_->pattern, text);
  size_t last_end = std::string_view::npos;
  size_t begin = 0;
  size_t end = 0;
  for (size_t from = 0, count = 1; search.find(from, begin, end); ++count) {
    if (count % kPositionsPerCall == 0) search.check_clock();
    if (begin == end && end == last_end) {
      from += from < text.size() ? char_length(text[from]) : 1;
      continue;
    }
    found(begin, end);
    from = last_end = end;
  }
}

}  // namespace mica::tokenizers
