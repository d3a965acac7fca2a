#include "base/error.h"

#include <cstdlib>

namespace mica {

const char* error_kind_name(ErrorKind kind) {
  switch (kind) {
    case ErrorKind::Value: return "ValueError";
    case ErrorKind::Type: return "TypeError";
    case ErrorKind::Index: return "IndexError";
    case ErrorKind::Io: return "IoError";
    case ErrorKind::OutOfMemory: return "OutOfMemory";
    case ErrorKind::Unsupported: return "Unsupported";
  }
  return "Error";
}

void assertion_failed(const char* expression, const char* file, int line) {
  throw std::logic_error(
      fmt::format("internal error, please report: {} failed at {}:{}", expression, file, line));
}

}  // namespace mica
