// The line protocol of bench/run for workers in C++ (bench/ruler/protocol.py describes it):
//
//   int main() { return mica::bench::serve([](const json& params) { return Prepared{...}; }); }
#pragma once

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <functional>
#include <iostream>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>

namespace mica::bench {

using nlohmann::json;

// Thrown for a case that the worker has no way to do; no mistake.
struct Absent : std::runtime_error {
  using std::runtime_error::runtime_error;
};

struct Prepared {
  std::function<void()> run;                     // one call
  double work = 0;                               // of one call; 0: the driver knows it
  json info = json::object();                    // goes into the results
  std::function<void(const std::string&)> save;  // writes the result of one call for comparison
};

inline double seconds_now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

inline double seconds_of(const std::function<void()>& run, int repetitions) {
  const double start = seconds_now();
  for (int i = 0; i < repetitions; ++i) run();
  return (seconds_now() - start) / repetitions;
}

// Seconds of one call over a round: the mean, and the fastest.
inline json round_of(const Prepared& prepared, int repetitions) {
  double fastest = INFINITY;
  double sum = 0;
  for (int i = 0; i < repetitions; ++i) {
    const double taken = seconds_of(prepared.run, 1);
    fastest = std::min(fastest, taken);
    sum += taken;
  }
  return {{"seconds", sum / repetitions}, {"fastest", fastest}};
}

// Warms up and chooses how many repetitions make a round of `seconds`.
inline json choose_repetitions(const Prepared& prepared, double seconds, int& repetitions) {
  double best = INFINITY;
  double spent = 0;
  for (int i = 0; i < 2 || (spent < seconds && i < 50); ++i) {
    const double taken = seconds_of(prepared.run, 1);
    best = std::min(best, taken);
    spent += taken;
  }
  repetitions = std::max(1, static_cast<int>(std::min(1e9, std::ceil(seconds / best))));
  json reply = {{"repetitions", repetitions}, {"seconds", best}, {"info", prepared.info}};
  if (prepared.work > 0) reply["work"] = prepared.work;
  return reply;
}

// Answers requests until there are no more. `prepare` gets the "params" of a case.
template <class Prepare>
int serve(Prepare prepare) {
  Prepared prepared;
  int repetitions = 1;
  for (std::string line; std::getline(std::cin, line);) {
    json reply = json::object();
    try {
      const json request = json::parse(line);
      if (request.contains("quit")) break;
      if (request.contains("prepare")) {
        const json& wanted = request["prepare"];
        prepared = {};
        prepared = prepare(wanted.at("params"));
        const json output = wanted.value("output", json());
        if (output.is_string() && prepared.save) prepared.save(output.get<std::string>());
        reply = choose_repetitions(prepared, wanted.at("seconds").get<double>(), repetitions);
      } else if (request.contains("round")) {
        if (!prepared.run) throw std::logic_error("a round before a case was prepared");
        reply = round_of(prepared, repetitions);
      } else if (request.contains("release")) {
        prepared = {};
      } else {
        throw std::invalid_argument("unknown request " + line);
      }
    } catch (const Absent& reason) {
      reply = {{"absent", reason.what()}};
    } catch (const std::exception& error) {
      reply = {{"error", error.what()}};
    }
    std::cout << reply.dump() << std::endl;
  }
  return 0;
}

}  // namespace mica::bench
