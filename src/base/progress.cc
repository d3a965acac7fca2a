#include "base/progress.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>

#include "base/environment.h"
#include "base/error.h"
#include "base/strings.h"

namespace mica {
namespace {

constexpr auto kInterval = std::chrono::milliseconds(100);
constexpr std::string_view kWipe = "\r\x1b[K";

std::atomic<bool> enabled{false};

size_t terminal_width() {
  winsize size{};
  return ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
}

// A lost piece of a progress bar is no reason to fail.
void show(std::string_view text) {
  [[maybe_unused]] const ssize_t written = write(STDERR_FILENO, text.data(), text.size());
}

std::string amount(uint64_t value, Progress::Unit unit) {
  return unit == Progress::Unit::Bytes ? human_size(value) : fmt::format("{}", value);
}

std::string duration(double seconds) {
  const auto whole = static_cast<int64_t>(std::min(std::ceil(seconds), 1e9));
  if (whole < 60) return fmt::format("{} s", whole);
  if (whole < 3600) return fmt::format("{} min {} s", whole / 60, whole % 60);
  return fmt::format("{} h {} min", whole / 3600, whole / 60 % 60);
}

}  // namespace

std::string progress_line(std::string_view label, uint64_t done, uint64_t total,
                          Progress::Unit unit, double seconds, size_t width) {
  constexpr size_t kLongestBar = 30;
  if (total == 0) {
    return excerpt(fmt::format("{}  {}, {}", label, amount(done, unit), duration(seconds)), width);
  }
  done = std::min(done, total);
  const double share = static_cast<double>(done) / static_cast<double>(total);
  const std::string head = fmt::format("{} {:3.0f} % ", label, std::floor(100 * share));
  std::string tail = fmt::format(" {} of {}", amount(done, unit), amount(total, unit));
  if (done > 0) tail += fmt::format(", {} left", duration(seconds / share - seconds));
  const size_t taken = head.size() + tail.size() + 2;
  if (taken + 5 > width) return (head + tail).substr(0, width);
  const size_t bar = std::min(width - taken, kLongestBar);
  const auto filled = static_cast<size_t>(share * static_cast<double>(bar));
  std::string body(filled, '=');
  if (filled < bar) body += '>';
  body.resize(bar, ' ');
  return fmt::format("{}[{}]{}", head, body, tail);
}

void Progress::enable(bool on) { enabled = on; }

Progress::Progress(std::string label, uint64_t total, Unit unit, Clock::duration delay)
    : label_(printable(label)),
      total_(total),
      unit_(unit),
      shown_(enabled && is_terminal(STDERR_FILENO)),
      start_(Clock::now()),
      next_(start_ + delay) {}

Progress::~Progress() {
  if (drawn_) show(kWipe);
}

void Progress::draw(uint64_t done) {
  std::unique_lock lock(mutex_, std::try_to_lock);
  const auto now = Clock::now();
  if (!lock || now < next_) return;
  next_ = now + kInterval;
  drawn_ = true;
  const double seconds = std::chrono::duration<double>(now - start_).count();
  // The last column stays free: writing it would start a new line on some terminals.
  show(std::string(kWipe) +
       progress_line(label_, done, total_, unit_, seconds, terminal_width() - 1));
}

}  // namespace mica
