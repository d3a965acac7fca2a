// The loop of a worker that runs one language model for bench/lm/cases.py: a command per line of
// standard input, an answer per line of standard output, "ok …" or "error <why>".
//
//   load PATH THREADS OPTION     OPTION is the engine's own; answers the seconds
//   decode BATCH DEPTH TOKENS    TOKENS greedy ones of each of BATCH sequences after DEPTH random
//                                ones (at least one); answers the seconds of the former
//   prefill TOKENS               a prompt of random ids and the token after it; answers the seconds
//   logits FILE ID …             float32 logits after each id, as raw bytes into FILE
//   peak                         most bytes of memory that were resident
//
// and those that the worker itself adds.
#pragma once

#include <sys/resource.h>

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <fstream>
#include <iostream>
#include <random>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

namespace lm {

template <class T>
T take(std::istream& words) {
  T value;
  if (!(words >> value)) throw std::runtime_error("the command lacks a word");
  return value;
}

class Subject {
 public:
  virtual ~Subject() = default;
  virtual void load(const std::string& path, int threads, const std::string& option) = 0;
  // Seconds.
  virtual double decode(int batch, int depth, int tokens) = 0;
  virtual double prefill(int tokens) = 0;
  virtual std::vector<float> logits(const std::vector<int32_t>& ids) = 0;
  // A command of this worker alone.
  virtual double more(const std::string& command, std::istream&) {
    throw std::runtime_error("unknown command " + command);
  }
};

class Timer {
 public:
  double seconds() const {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  }

 private:
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

inline std::vector<int32_t> random_ids(int count, int64_t vocabulary) {
  static std::mt19937_64 random(1);
  std::vector<int32_t> ids(static_cast<size_t>(count));
  for (int32_t& id : ids) id = static_cast<int32_t>(random() % static_cast<uint64_t>(vocabulary));
  return ids;
}

inline std::string answer(Subject& subject, std::istream& words) {
  const auto command = take<std::string>(words);
  if (command == "load") {
    const Timer timer;
    const auto path = take<std::string>(words);
    const auto threads = take<int>(words);
    subject.load(path, threads, take<std::string>(words));
    return std::to_string(timer.seconds());
  }
  if (command == "decode") {
    const auto batch = take<int>(words), depth = take<int>(words);
    return std::to_string(subject.decode(batch, depth, take<int>(words)));
  }
  if (command == "prefill") return std::to_string(subject.prefill(take<int>(words)));
  if (command == "logits") {
    const auto path = take<std::string>(words);
    std::vector<int32_t> ids;
    for (int32_t id; words >> id;) ids.push_back(id);
    const std::vector<float> all = subject.logits(ids);
    std::ofstream(path, std::ios::binary)
        .write(reinterpret_cast<const char*>(all.data()),
               static_cast<std::streamsize>(all.size() * sizeof(float)));
    return path;
  }
  if (command == "peak") {
    struct rusage usage{};
    getrusage(RUSAGE_SELF, &usage);
    return std::to_string(int64_t{usage.ru_maxrss} * 1024);
  }
  return std::to_string(subject.more(command, words));
}

inline int serve(Subject& subject) {
  for (std::string line; std::getline(std::cin, line);) {
    std::istringstream words(line);
    try {
      std::cout << "ok " << answer(subject, words) << std::endl;
    } catch (const std::exception& error) {
      std::cout << "error " << error.what() << std::endl;
    }
  }
  return 0;
}

}  // namespace lm
