// Errors. A user's mistake throws mica::Error with the operation and the offending values in the
// text; expected outcomes are return values; our own bugs are MICA_ASSERT, never reachable by
// input.
//
//   throw Error(ErrorKind::Value, "[matmul] inner dimensions differ: {} x {}", a, b);
//
// Kinds map one to one to Python's classes: ValueError, TypeError, IndexError, OSError, MemoryError
// and NotImplementedError.
#pragma once

#include <fmt/format.h>

#include <stdexcept>
#include <string>
#include <utility>

namespace mica {

enum class ErrorKind { Value, Type, Index, Io, OutOfMemory, Unsupported };

// "ValueError", "TypeError", "IndexError", "IoError", "OutOfMemory", "Unsupported".
const char* error_kind_name(ErrorKind kind);

class __attribute__((visibility("default"))) Error : public std::runtime_error {
 public:
  template <class... Args>
  Error(ErrorKind kind, fmt::format_string<Args...> format, Args&&... args)
      : std::runtime_error(fmt::format(format, std::forward<Args>(args)...)), kind_(kind) {}
  // A message that is text already, not a format.
  Error(ErrorKind kind, const std::string& message) : std::runtime_error(message), kind_(kind) {}

  ErrorKind kind() const { return kind_; }

 private:
  ErrorKind kind_;
};

// One short line per kind, so that call sites read as what they report.
template <class... Args>
[[noreturn]] void throw_value(fmt::format_string<Args...> format, Args&&... args) {
  throw Error(ErrorKind::Value, format, std::forward<Args>(args)...);
}
template <class... Args>
[[noreturn]] void throw_type(fmt::format_string<Args...> format, Args&&... args) {
  throw Error(ErrorKind::Type, format, std::forward<Args>(args)...);
}
template <class... Args>
[[noreturn]] void throw_index(fmt::format_string<Args...> format, Args&&... args) {
  throw Error(ErrorKind::Index, format, std::forward<Args>(args)...);
}
template <class... Args>
[[noreturn]] void throw_io(fmt::format_string<Args...> format, Args&&... args) {
  throw Error(ErrorKind::Io, format, std::forward<Args>(args)...);
}
template <class... Args>
[[noreturn]] void throw_unsupported(fmt::format_string<Args...> format, Args&&... args) {
  throw Error(ErrorKind::Unsupported, format, std::forward<Args>(args)...);
}

[[noreturn]] void assertion_failed(const char* expression, const char* file, int line);

}  // namespace mica

// Our own bugs: active in every build, cheap by use. Input never reaches it.
#define MICA_ASSERT(expression)        \
  (__builtin_expect(!!(expression), 1) \
       ? (void)0                       \
       : ::mica::assertion_failed(#expression, __FILE__, __LINE__))
