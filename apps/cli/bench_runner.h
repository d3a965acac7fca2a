// Measures a loaded model through the engine that serves everybody: prompts and generation, each
// repetition beside the machine's ceilings of the same moment.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "base/ceilings.h"
#include "generate/engine.h"
#include "models/model.h"

namespace mica::cli {

// Either the whole prompt of one sequence, or `generated` tokens of each of `batch` sequences that
// `depth` positions come before.
struct BenchCase {
  int64_t prompt = 0;  // 0: generation
  int64_t generated = 0, batch = 1, depth = 0;
  // Positions that each sequence reaches.
  int64_t length() const { return prompt > 0 ? prompt : std::max<int64_t>(depth, 1) + generated; }
};

// The middle and the ends of some figures.
struct Spread {
  double median = 0, min = 0, max = 0;
};
Spread spread_of(std::vector<double> figures);

struct BenchResult {
  BenchCase what;
  std::vector<double> seconds;  // of each repetition
  double tokens = 0;            // in each
  double work = 0;              // of each: operations of a prompt, bytes read in generation
  std::vector<double> ceiling;  // of that work per second, beside each repetition

  std::vector<double> speeds() const;  // tokens per second
  std::vector<double> shares() const;  // of the ceiling
};

class BenchRunner {
 public:
  struct Options {
    int64_t repetitions = 5, prefill_chunk = 512, max_batch = 64;
    uint64_t seed = 0;
  };
  BenchRunner(std::shared_ptr<models::Model> model, const Options& options);

  // Seconds of a prompt's pass before anything was measured: plans are made, pages mapped.
  double first_token(int64_t prompt);
  // A repetition that does not count, then those that do. Throws Interrupted after Ctrl-C.
  BenchResult measure(const BenchCase& what);
  // Peak of resident memory without the block that reading is measured with.
  int64_t peak_memory() const;

  // What prompts are put beside.
  Arithmetic arithmetic() const { return arithmetic_; }
  // All that were measured: bytes read, and operations of that kind, per second.
  const std::vector<double>& read_ceilings() const { return read_ceilings_; }
  const std::vector<double>& arithmetic_ceilings() const { return arithmetic_ceilings_; }

 private:
  std::vector<int32_t> random_ids(int64_t count);
  void run_prompt(int64_t tokens);
  double run_case(const BenchCase& what);
  double work_of(const BenchCase& what) const;
  double read_ceiling();
  double arithmetic_ceiling();

  std::shared_ptr<models::Model> model_;
  Options options_;
  generate::Engine engine_;
  std::mt19937_64 random_;
  std::optional<MemoryReader> reader_;
  Arithmetic arithmetic_;
  int64_t peak_before_reader_ = 0;
  std::vector<double> read_ceilings_, arithmetic_ceilings_;
};

}  // namespace mica::cli
