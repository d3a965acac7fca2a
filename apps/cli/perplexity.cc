// mica perplexity: how well a model predicts a text.
#include "tune/perplexity.h"

#include <algorithm>
#include <chrono>

#include "base/file.h"
#include "base/json_writer.h"
#include "base/log.h"
#include "base/memory_info.h"
#include "base/progress.h"
#include "base/strings.h"
#include "common.h"
#include "core/counters.h"
#include "models/load.h"
#include "models/registry.h"
#include "profile.h"
#include "subcommand.h"

namespace mica::cli {
namespace {

constexpr int64_t kDefaultContext = 512;
constexpr int64_t kMostLogits = int64_t{1} << 25;  // of a pass, where that leaves enough tokens
constexpr size_t kMostText = size_t{1} << 32;

class PerplexityCommand : public Subcommand {
 public:
  const char* summary() const override { return "measures how well a model predicts a text"; }
  void declare(Options& options) override;
  int run() override;

 private:
  std::vector<int32_t> read_text(const std::string& folder) const;
  void plan(const models::ModelInfo& info);
  models::LoadedModel load(const std::string& folder) const;
  std::string json(const tune::Perplexity& result, double seconds) const;
  std::string text(const tune::Perplexity& result, double seconds) const;

  CommonOptions common_;
  ProfileOptions profile_;
  PrecisionOptions precision_;
  std::optional<std::string> file_, memory_limit_;
  std::optional<int64_t> context_, stride_, max_tokens_, batch_;
  bool no_special_ = false;

  int64_t most_memory_ = INT64_MAX;
  tune::PerplexityOptions options_;
};

void PerplexityCommand::declare(Options& options) {
  options
      .about(
          "Tells the perplexity of a text file: exp of the mean negative log-likelihood of its "
          "tokens, with the standard error. Lower is better; compare models at equal text, context "
          "and stride, and only where tokenizers are the same.")
      .about(
          "The text's tokens are cut into windows of --context tokens that begin every --stride "
          "tokens; each is read on its own and scores its tokens that no earlier window held, "
          "except its first, which has nothing before it. With the default, stride = context, "
          "this is mlx_lm.perplexity on a whole text; a smaller stride is the sliding window of "
          "Hugging Face's guide; llama-perplexity scores only the second half of each window.")
      .example("mica perplexity -m path/to/model text.txt", "windows of 512 tokens")
      .example("mica perplexity -m model-4bit text.txt --context 1024 --stride 512 --format json",
               "each token with 512 before it or more, told for programs");
  options.group("Model and text");
  common_.declare_model(options);
  options.argument("FILE", file_, "the text, in UTF-8; '-' reads standard input")
      .integer("--context", "N", context_,
               "tokens of a window (default: 512, or what the model has if less)", 2, INT32_MAX)
      .integer("--stride", "N", stride_, "tokens from window to window (default: the context)", 1,
               INT32_MAX)
      .integer("--max-tokens", "N", max_tokens_, "only the first N tokens of the text", 2)
      .flag("--no-special-tokens", no_special_,
            "without the tokens that the tokenizer puts around a text");
  options.group("Running");
  precision_.declare(options);
  options
      .integer("--batch-size", "N", batch_, "windows that are read together (default: 1)", 1, 4096)
      .text("--memory-limit", "SIZE", memory_limit_,
            "refuse what needs more, like 8G or 500MB (default: what the system has)");
  profile_.declare(options);
  common_.declare_rest(options);
}

std::vector<int32_t> PerplexityCommand::read_text(const std::string& folder) const {
  const auto tokenizer = tokenizers::Tokenizer::from_folder(folder);
  const std::string text = file_ == "-" ? read_input() : read_file(*file_, kMostText);
  std::vector<int32_t> ids = tokenizer.encode(text, !no_special_);
  if (max_tokens_)
    ids.resize(static_cast<size_t>(std::min<int64_t>(*max_tokens_, std::ssize(ids))));
  return ids;
}

void PerplexityCommand::plan(const models::ModelInfo& info) {
  options_.context = context_.value_or(std::min(kDefaultContext, info.max_positions));
  options_.stride = stride_.value_or(options_.context);
  options_.batch = batch_.value_or(1);
  options_.chunk = std::clamp<int64_t>(kMostLogits / (info.vocabulary * options_.batch), 64, 512);
  if (stride_ && *stride_ > options_.context)
    throw_usage("--stride {} is more than the context of {}: tokens between windows would be lost",
                *stride_, options_.context);
  if (!info.learned_positions && options_.context > info.max_positions)
    warn("windows have {} tokens, the model was trained for {}", options_.context,
         info.max_positions);
}

models::LoadedModel PerplexityCommand::load(const std::string& folder) const {
  models::LoadOptions options;
  precision_.apply(options);
  const auto available = static_cast<int64_t>(available_memory());
  options.memory_limit = std::min(available > 0 ? available : INT64_MAX, most_memory_);
  options.context = options_.batch * options_.context;
  options.pass_tokens = options_.batch * std::min(options_.chunk, options_.context);
  options.all_logits = true;
  auto loaded = models::load_model(folder, options);
  if (memory_limit_) set_memory_limit(options.memory_limit - loaded.weight_bytes);
  return loaded;
}

std::string PerplexityCommand::json(const tune::Perplexity& result, double seconds) const {
  JsonWriter json;
  json.begin_object().key("perplexity").value(result.perplexity());
  json.key("perplexity_error").value(result.error());
  json.key("mean_nll").value(result.mean).key("mean_nll_error").value(result.mean_error);
  json.key("tokens_scored").value(result.scored).key("tokens_read").value(result.read);
  json.key("windows").value(result.windows).key("context").value(options_.context);
  json.key("stride").value(options_.stride).key("batch_size").value(options_.batch);
  json.key("seconds").value(seconds);
  json.key("tokens_per_second").value(static_cast<double>(result.read) / seconds);
  return json.end_object().take() + '\n';
}

std::string PerplexityCommand::text(const tune::Perplexity& result, double seconds) const {
  return fmt::format(
      "perplexity        {:.4f} ± {:.4f}\n"
      "mean nll          {:.5f} ± {:.5f} per token\n"
      "tokens            {} scored in {} windows of {}, stride {}\n"
      "speed             {:.1f} tokens/s, {:.1f} s\n",
      result.perplexity(), result.error(), result.mean, result.mean_error, result.scored,
      result.windows, options_.context, options_.stride, static_cast<double>(result.read) / seconds,
      seconds);
}

int PerplexityCommand::run() {
  if (!file_) throw_usage("a text is needed: mica perplexity -m DIR FILE");
  if (memory_limit_) most_memory_ = read_size("--memory-limit", *memory_limit_);
  common_.apply();
  catch_interrupts();
  const std::string folder = model_folder(common_);
  plan(models::make_model(Json::load(folder + "/config.json"))->info());
  const std::vector<int32_t> ids = read_text(folder);
  const models::LoadedModel loaded = load(folder);
  const auto start = std::chrono::steady_clock::now();
  std::optional<Progress> progress;
  progress.emplace("reading",
                   static_cast<uint64_t>(tune::tokens_to_read(std::ssize(ids), options_)));
  options_.progress = [&](int64_t tokens) {
    if (interrupted()) throw Interrupted{};
    progress->advance(static_cast<uint64_t>(tokens));
  };
  profile_.start();
  const tune::Perplexity result = tune::measure_perplexity(*loaded.model, ids, options_);
  progress.reset();
  const std::chrono::duration<double> time = std::chrono::steady_clock::now() - start;
  write_output(common_.json() ? json(result, time.count()) : text(result, time.count()));
  profile_.finish();
  return kSuccess;
}

}  // namespace

std::unique_ptr<Subcommand> perplexity_command() { return std::make_unique<PerplexityCommand>(); }

}  // namespace mica::cli
