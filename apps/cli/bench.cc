// mica bench: how fast a model is on this machine, and how fast it could be.
#include <stdlib.h>

#include <algorithm>
#include <chrono>
#include <filesystem>

#include "base/file.h"
#include "base/json_writer.h"
#include "base/memory_info.h"
#include "base/progress.h"
#include "base/strings.h"
#include "base/thread_pool.h"
#include "bench_runner.h"
#include "common.h"
#include "models/load.h"
#include "models/random_model.h"
#include "models/shapes.h"
#include "subcommand.h"

namespace mica::cli {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kFirstPrompt = 32;  // tokens before the first token that is timed on its own
constexpr int64_t kMostTokens = 1 << 24, kMostBatch = 1024;

// A folder of its own that goes with its owner.
class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string pattern = (fs::temp_directory_path() / "mica-bench-XXXXXX").string();
    if (!mkdtemp(pattern.data())) throw_cannot("make", pattern, errno);
    path_ = std::move(pattern);
  }
  ~TemporaryFolder() { remove(); }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;

  const std::string& path() const { return path_; }
  void remove() {
    std::error_code error;
    fs::remove_all(path_, error);
  }

 private:
  std::string path_;
};

// "512,2048" as numbers from `low` on.
std::vector<int64_t> read_list(const char* name, const std::string& text, int64_t low,
                               int64_t high) {
  std::vector<int64_t> numbers;
  for (std::string_view part : split(text, ',')) {
    const auto number = parse_integer(trim(part));
    if (!number || *number < low || *number > high)
      throw_usage("{} needs numbers between {} and {} separated by commas, not '{}'", name, low,
                  high, excerpt(text));
    numbers.push_back(*number);
  }
  return numbers;
}

class Bench : public Subcommand {
 public:
  const char* summary() const override { return "measures the speed of a model"; }
  void declare(Options& options) override;
  int run() override;

 private:
  void check_usage();
  std::vector<BenchCase> cases() const;
  std::string prepare(std::optional<TemporaryFolder>& temporary) const;
  void load(const std::string& folder, const std::vector<BenchCase>& cases);
  void check_lengths(const std::vector<BenchCase>& cases) const;
  std::string json(const BenchRunner& runner) const;
  std::string text(const BenchRunner& runner) const;
  std::string model_line() const;
  std::string storage() const;

  CommonOptions common_;
  PrecisionOptions precision_;
  std::optional<std::string> shape_, keep_, prompts_, batches_, depths_;
  std::optional<int64_t> bits_, group_size_, layers_, seed_, generated_, repetitions_,
      prefill_chunk_;

  std::vector<int64_t> prompt_list_{512}, batch_list_{1}, depth_list_{0};
  models::LoadedModel model_;
  double load_s_ = 0, first_token_s_ = 0;
  int64_t first_prompt_ = kFirstPrompt;
  std::vector<BenchResult> results_;
};

void Bench::declare(Options& options) {
  options
      .about(
          "Measures prompts and generation with random token ids, in the engine that `mica "
          "generate` uses. Each figure is the median of several repetitions after one that does "
          "not count. Beside it stands its share of what the machine gives at that moment: "
          "generation is put beside a streaming read of memory (every weight once per step, and "
          "the cache), prompts beside multiplications in registers (of 8-bit integers where "
          "products round activations to them, else of the activations' type).")
      .about("Without a model of your own, --shape makes one with random weights in real size.")
      .example("mica bench -m path/to/model", "a prompt of 512 tokens, then 128 new ones")
      .example("mica bench --shape llama-1b --bits 4 -p 512,2048 -n 128 -b 1,8",
               "a random model of 1.2 billion 4-bit weights, several prompts and batches")
      .example("mica bench --shape llama-8b --bits 4 --layers 8 --depth 0,4096 --format json",
               "a quarter of a larger one, also after 4096 tokens of context");
  options.group("Model");
  common_.declare_model(options);
  std::vector<std::string> shapes;
  for (const auto& shape : models::named_shapes()) shapes.push_back(shape.name);
  options
      .choice("--shape", shapes, shape_,
              "a random model of this shape in a temporary folder instead of -m")
      .integer("--bits", "N", bits_, "with --shape: quantize to N bits: 2, 3, 4, 5, 6 or 8", 2, 8)
      .integer("--group-size", "N", group_size_,
               "with --bits: weights that share a scale: 16, 32, 64 or 128 (default: 64)", 16, 128)
      .integer("--layers", "N", layers_, "with --shape: only so many layers", 1, kMostTokens)
      .integer("--seed", "N", seed_, "of random weights and tokens (default: 0)", 0,
               std::numeric_limits<int64_t>::max())
      .text("--keep", "DIR", keep_,
            "with --shape: write the model here, and leave it there; with -p 0 -n 0 no more than "
            "that");
  precision_.declare(options,
                     "type of activations (default: the checkpoint's); with --shape also of the "
                     "weights (default: bfloat16)");
  options.group("What is measured")
      .text("-p,--prompt-tokens", "LIST", prompts_, "prompt lengths; 0: none (default: 512)")
      .integer("-n,--max-tokens", "N", generated_, "tokens to generate; 0: none (default: 128)", 0,
               kMostTokens)
      .text("-b,--batch", "LIST", batches_, "sequences that generate together (default: 1)")
      .text("--depth", "LIST", depths_, "tokens that come before generated ones (default: 0)")
      .integer("-r,--repetitions", "N", repetitions_, "that count (default: 5)", 1, 10000)
      .integer("--prefill-chunk", "N", prefill_chunk_,
               "prompt tokens per forward pass (default: 512)", 1, kMostTokens);
  common_.declare_rest(options);
}

void Bench::check_usage() {
  if (shape_ && common_.model) throw_usage("--shape and --model exclude each other");
  if (!shape_ && (bits_ || group_size_ || layers_ || keep_))
    throw_usage("--bits, --group-size, --layers and --keep need --shape");
  if (group_size_ && !bits_) throw_usage("--group-size needs --bits");
  if (prompts_) prompt_list_ = read_list("--prompt-tokens", *prompts_, 0, kMostTokens);
  if (batches_) batch_list_ = read_list("--batch", *batches_, 1, kMostBatch);
  if (depths_) depth_list_ = read_list("--depth", *depths_, 0, kMostTokens);
  if (cases().empty() && !keep_) throw_usage("-p 0 and -n 0 leave nothing to measure");
}

std::vector<BenchCase> Bench::cases() const {
  std::vector<BenchCase> all;
  for (int64_t prompt : prompt_list_)
    if (prompt > 0) all.push_back({.prompt = prompt});
  const int64_t generated = generated_.value_or(128);
  for (int64_t depth : depth_list_)
    for (int64_t batch : batch_list_)
      if (generated > 0) all.push_back({.generated = generated, .batch = batch, .depth = depth});
  return all;
}

// The folder with the model, written first if it is a random one.
std::string Bench::prepare(std::optional<TemporaryFolder>& temporary) const {
  if (!shape_) return model_folder(common_);
  models::ShapeOptions shape_options{.layers = layers_.value_or(0)};
  if (bits_)
    shape_options.quantization = {static_cast<int>(group_size_.value_or(64)),
                                  static_cast<int>(*bits_)};
  Json config = models::shape_config(models::find_shape(*shape_), shape_options);
  std::string folder;
  if (keep_) {
    folder = *keep_;
    std::error_code error;
    fs::create_directories(folder, error);
    if (error) throw_cannot("make", folder, error.value());
  } else {
    folder = temporary.emplace().path();
  }
  models::RandomModelOptions options{.seed = static_cast<uint64_t>(seed_.value_or(0))};
  if (auto dtype = precision_.dtype()) options.dtype = *dtype;
  options.between_pieces = [] {
    if (interrupted()) throw Interrupted{};
  };
  models::write_random_model(std::move(config), folder, options);
  return folder;
}

void Bench::load(const std::string& folder, const std::vector<BenchCase>& cases) {
  models::LoadOptions options;
  precision_.apply(options);
  options.pass_tokens = prefill_chunk_.value_or(512);
  for (const BenchCase& what : cases)
    options.context = std::max(options.context, what.batch * what.length());
  const auto start = std::chrono::steady_clock::now();
  model_ = models::load_model(folder, options);
  load_s_ = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

void Bench::check_lengths(const std::vector<BenchCase>& cases) const {
  const models::ModelInfo& info = model_.model->info();
  for (const BenchCase& what : cases) {
    if (info.learned_positions && what.length() > info.max_positions)
      throw_value("a sequence of {} tokens does not fit: this model has {} positions",
                  what.length(), info.max_positions);
  }
}

int Bench::run() {
  check_usage();
  common_.apply();
  catch_interrupts();
  const std::vector<BenchCase> all = cases();
  {
    // Mapped files outlive their names: no way to end leaves the folder behind.
    std::optional<TemporaryFolder> temporary;
    const std::string folder = prepare(temporary);
    if (all.empty()) return kSuccess;
    load(folder, all);
  }
  check_lengths(all);
  BenchRunner runner(model_.model,
                     {.repetitions = repetitions_.value_or(5),
                      .prefill_chunk = prefill_chunk_.value_or(512),
                      .max_batch = *std::max_element(batch_list_.begin(), batch_list_.end()),
                      .seed = static_cast<uint64_t>(seed_.value_or(0))});
  const models::ModelInfo& info = model_.model->info();
  if (info.learned_positions) first_prompt_ = std::min(first_prompt_, info.max_positions - 1);
  first_token_s_ = runner.first_token(first_prompt_);
  {
    Progress progress("measuring", all.size());
    for (const BenchCase& what : all) {
      results_.push_back(runner.measure(what));
      progress.advance();
    }
  }
  if (common_.json())
    write_output(json(runner) + '\n');
  else
    write_untrusted(text(runner));
  return kSuccess;
}

// --- Telling -------------------------------------------------------------------------------------

void write_spread(JsonWriter& json, const std::string& key, const std::vector<double>& figures) {
  const Spread spread = spread_of(figures);
  json.key(key).begin_object().key("median").value(spread.median).key("min").value(spread.min);
  json.key("max").value(spread.max).end_object();
}

void write_result(JsonWriter& json, const BenchResult& result) {
  const BenchCase& what = result.what;
  const bool prompt = what.prompt > 0;
  json.begin_object().key("test").value(prompt ? "prompt" : "generate");
  json.key("tokens").value(prompt ? what.prompt : what.generated);
  json.key("batch").value(what.batch).key("depth").value(what.depth);
  write_spread(json, "tokens_per_s", result.speeds());
  json.key(prompt ? "operations_per_token" : "bytes_per_step");
  json.value(result.work / static_cast<double>(prompt ? what.prompt : what.generated));
  write_spread(json, "ceiling_share", result.shares());
  json.key("seconds").value(result.seconds).end_object();
}

std::string Bench::json(const BenchRunner& runner) const {
  const models::ModelInfo& info = model_.model->info();
  JsonWriter json;
  json.begin_object().key("model").begin_object().key("shape");
  shape_ ? json.value(*shape_) : json.null();
  json.key("model_type").value(info.model_type).key("layers").value(info.layers);
  json.key("parameters").value(model_.parameters.elements);
  json.key("bytes").value(model_.weight_bytes).key("storage").value(storage()).end_object();
  json.key("threads").value(ThreadPool::shared().threads());
  json.key("load_s").value(load_s_).key("first_prompt_tokens").value(first_prompt_);
  json.key("first_token_s").value(load_s_ + first_token_s_);
  json.key("peak_rss_bytes").value(runner.peak_memory());
  json.key("ceilings").begin_object();
  write_spread(json, "read_bytes_per_s", runner.read_ceilings());
  const std::string arithmetic = arithmetic_name(runner.arithmetic());
  write_spread(json, arithmetic + "_ops_per_s", runner.arithmetic_ceilings());
  json.end_object().key("results").begin_array();
  for (const BenchResult& result : results_) write_result(json, result);
  return json.end_array().end_object().take();
}

// "4-bit in groups of 64, bfloat16": how the weights lie.
std::string Bench::storage() const {
  const auto quantization = model_.config.find("quantization");
  const std::string activations = dtype_name(model_.model->info().activations);
  if (!quantization) return activations;
  const nn::Quantization stored = models::read_quantization(*quantization);
  return fmt::format("{} bits in groups of {}, {}", stored.bits, stored.group_size, activations);
}

std::string Bench::model_line() const {
  const models::ModelInfo& info = model_.model->info();
  std::string name = shape_ ? *shape_ + " with random weights" : info.model_type;
  if (layers_) name += fmt::format(", cut to {} layer{}", *layers_, *layers_ == 1 ? "" : "s");
  return fmt::format("{}, {} parameters, {}, {}", name, count_text(model_.parameters.elements),
                     storage(), human_size(static_cast<uint64_t>(model_.weight_bytes)));
}

std::string Bench::text(const BenchRunner& runner) const {
  const Spread read = spread_of(runner.read_ceilings());
  const Spread arithmetic = spread_of(runner.arithmetic_ceilings());
  std::string out = fmt::format(
      "model        {}\nthreads      {}\nload         {:.3f} s; {:.3f} s to the first token of a "
      "{}-token prompt, load included\n",
      model_line(), ThreadPool::shared().threads(), load_s_, load_s_ + first_token_s_,
      first_prompt_);
  out += fmt::format("peak memory  {}\nmachine      ",
                     human_size(static_cast<uint64_t>(runner.peak_memory())));
  if (read.median > 0) out += fmt::format("reads {:.1f} GB/s", read.median * 1e-9);
  if (arithmetic.median > 0)
    out += fmt::format("{}{:.0f} billion {} operations per second", read.median > 0 ? ", " : "",
                       arithmetic.median * 1e-9, arithmetic_name(runner.arithmetic()));
  out += fmt::format("\n\n{:<16}{:>6}{:>8}{:>12}{:>24}   {}\n", "test", "batch", "depth",
                     "tokens/s", "least to most", "share of the ceiling");
  for (const BenchResult& result : results_) {
    const BenchCase& what = result.what;
    const Spread speed = spread_of(result.speeds());
    const bool prompt = what.prompt > 0;
    out += fmt::format(
        "{:<16}{:>6}{:>8}{:>12.1f}{:>24}   {:.0f} % of {}\n",
        prompt ? fmt::format("prompt {}", what.prompt) : fmt::format("generate {}", what.generated),
        what.batch, what.depth, speed.median, fmt::format("{:.1f} to {:.1f}", speed.min, speed.max),
        spread_of(result.shares()).median * 100, prompt ? "arithmetic" : "reading memory");
  }
  return out;
}

}  // namespace

std::unique_ptr<Subcommand> bench_command() { return std::make_unique<Bench>(); }

}  // namespace mica::cli
