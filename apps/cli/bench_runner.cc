#include "bench_runner.h"

#include <algorithm>
#include <chrono>

#include "base/memory_info.h"
#include "common.h"
#include "models/traffic.h"

namespace mica::cli {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

void check_interrupt() {
  if (interrupted()) throw Interrupted{};
}

}  // namespace

Spread spread_of(std::vector<double> figures) {
  if (figures.empty()) return {};
  std::sort(figures.begin(), figures.end());
  const size_t half = figures.size() / 2;
  const double median =
      figures.size() % 2 == 1 ? figures[half] : (figures[half - 1] + figures[half]) / 2;
  return {median, figures.front(), figures.back()};
}

std::vector<double> BenchResult::speeds() const {
  std::vector<double> all;
  for (double time : seconds) all.push_back(tokens / time);
  return all;
}

std::vector<double> BenchResult::shares() const {
  std::vector<double> all;
  for (size_t i = 0; i < seconds.size(); ++i) all.push_back(work / seconds[i] / ceiling[i]);
  return all;
}

BenchRunner::BenchRunner(std::shared_ptr<models::Model> model, const Options& options)
    : model_(std::move(model)),
      options_(options),
      engine_(model_, nullptr,
              {.prefill_chunk = options.prefill_chunk, .max_batch = options.max_batch}),
      random_(options.seed),
      arithmetic_(models::arithmetic_of(*model_)) {}

std::vector<int32_t> BenchRunner::random_ids(int64_t count) {
  std::vector<int32_t> ids(static_cast<size_t>(count));
  const auto vocabulary = static_cast<uint64_t>(model_->info().vocabulary);
  for (int32_t& id : ids) id = static_cast<int32_t>(random_() % vocabulary);
  return ids;
}

// A prompt to its end, with the token that follows.
void BenchRunner::run_prompt(int64_t tokens) {
  engine_.add({.prompt = random_ids(tokens), .max_tokens = 1, .ignore_eos = true});
  while (engine_.busy()) {
    check_interrupt();
    engine_.step();
  }
}

double BenchRunner::first_token(int64_t prompt) {
  const auto start = Clock::now();
  run_prompt(prompt);
  return seconds_since(start);
}

// Seconds that the case took, without what comes before it.
double BenchRunner::run_case(const BenchCase& what) {
  if (what.prompt > 0) {
    const auto start = Clock::now();
    run_prompt(what.prompt);
    return seconds_since(start);
  }
  const int64_t before = std::max<int64_t>(what.depth, 1);
  for (int64_t i = 0; i < what.batch; ++i)
    engine_.add(
        {.prompt = random_ids(before), .max_tokens = what.generated + 1, .ignore_eos = true});
  // The pass over what comes before makes each sequence's first token.
  for (int64_t ready = 0; ready < what.batch;) {
    check_interrupt();
    ready += static_cast<int64_t>(engine_.step().size());
  }
  const auto start = Clock::now();
  while (engine_.busy()) {
    check_interrupt();
    engine_.step();
  }
  return seconds_since(start);
}

double BenchRunner::work_of(const BenchCase& what) const {
  if (what.prompt > 0) {
    const int64_t chunk = options_.prefill_chunk;
    return models::prompt_operations(*model_, what.prompt, (what.prompt + chunk - 1) / chunk);
  }
  const int64_t middle = std::max<int64_t>(what.depth, 1) + what.generated / 2;
  return static_cast<double>(what.generated) * models::decode_bytes(*model_, what.batch, middle);
}

double BenchRunner::read_ceiling() {
  if (!reader_) {
    peak_before_reader_ = static_cast<int64_t>(memory_usage().peak);
    reader_.emplace();
    reader_->read();
  }
  const double now = spread_of({reader_->read(), reader_->read(), reader_->read()}).median;
  read_ceilings_.push_back(now);
  return now;
}

double BenchRunner::arithmetic_ceiling() {
  const double now = mica::arithmetic_ceiling(arithmetic_);
  arithmetic_ceilings_.push_back(now);
  return now;
}

BenchResult BenchRunner::measure(const BenchCase& what) {
  BenchResult result{.what = what};
  result.tokens = static_cast<double>(what.prompt > 0 ? what.prompt : what.batch * what.generated);
  result.work = work_of(what);
  BenchCase warm_up = what;
  warm_up.generated = std::min<int64_t>(what.generated, 8);
  run_case(warm_up);
  for (int64_t i = 0; i < options_.repetitions; ++i) {
    result.ceiling.push_back(what.prompt > 0 ? arithmetic_ceiling() : read_ceiling());
    result.seconds.push_back(run_case(what));
  }
  return result;
}

int64_t BenchRunner::peak_memory() const {
  const auto peak = static_cast<int64_t>(memory_usage().peak);
  // The block stays until the end: what was highest while it was there held it too.
  return reader_ ? std::max(peak_before_reader_, peak - reader_->bytes()) : peak;
}

}  // namespace mica::cli
