// A progress bar for anything that may take over a second:
//
//   Progress progress("loading", total_bytes, Progress::Unit::Bytes);
//   for (...) progress.advance(chunk);
//
//   loading  45 % [=========>           ] 1.1 GiB of 2.4 GiB, 3 s left
//
// It shows on standard error, after a second, if a program enabled it and standard error is a
// terminal, and wipes itself when it is destroyed. Otherwise it costs an addition. Any thread may
// advance it.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <mutex>
#include <string>
#include <string_view>

namespace mica {

class Progress {
 public:
  enum class Unit { Count, Bytes };
  using Clock = std::chrono::steady_clock;

  // For programs: off at the start, since the library never prints.
  static void enable(bool on);

  // A total of 0 means unknown.
  Progress(std::string label, uint64_t total, Unit unit = Unit::Count,
           Clock::duration delay = std::chrono::seconds(1));
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  void advance(uint64_t amount = 1) {
    const uint64_t done = done_.fetch_add(amount, std::memory_order_relaxed) + amount;
    if (shown_) draw(done);
  }

 private:
  void draw(uint64_t done);

  std::string label_;
  uint64_t total_;
  Unit unit_;
  bool shown_;  // enabled and on a terminal
  Clock::time_point start_;
  std::atomic<uint64_t> done_{0};
  std::mutex mutex_;  // guards what follows
  Clock::time_point next_;
  bool drawn_ = false;
};

// The bar's text, at most `width` characters.
std::string progress_line(std::string_view label, uint64_t done, uint64_t total,
                          Progress::Unit unit, double seconds, size_t width);

}  // namespace mica
