// Warnings: what a user should know although the operation goes on. The library never prints; a
// program that wants to show them sets a sink.
//
//   set_warning_sink([](std::string_view text) { fmt::print(stderr, "warning: {}\n", text); });
//   warn("{}: 'auto_map' is ignored, code in checkpoints is never run", path);
//
// Untrusted text belongs through printable() or excerpt() (base/strings.h) before it gets here.
#pragma once

#include <fmt/format.h>

#include <functional>
#include <string_view>
#include <utility>

namespace mica {

using WarningSink = std::function<void(std::string_view)>;

// Takes over all warnings from now on; an empty sink, the state at the start, drops them. The sink
// may be called from any thread, also from several at once.
void set_warning_sink(WarningSink sink);

void warn_text(std::string_view text);

template <class... Args>
void warn(fmt::format_string<Args...> format, Args&&... args) {
  warn_text(fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace mica
