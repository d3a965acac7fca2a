#include "base/log.h"

#include <memory>
#include <mutex>

namespace mica {
namespace {

std::mutex sink_mutex;

std::shared_ptr<const WarningSink>& current_sink() {
  static std::shared_ptr<const WarningSink> sink;
  return sink;
}

}  // namespace

void set_warning_sink(WarningSink sink) {
  auto made = sink ? std::make_shared<const WarningSink>(std::move(sink)) : nullptr;
  std::lock_guard lock(sink_mutex);
  current_sink() = std::move(made);
}

void warn_text(std::string_view text) {
  std::shared_ptr<const WarningSink> sink;
  {
    std::lock_guard lock(sink_mutex);
    sink = current_sink();
  }
  if (sink) (*sink)(text);
}

}  // namespace mica
