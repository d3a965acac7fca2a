// mica generate: a prompt in, the model's continuation out.
#include <cmath>
#include <filesystem>

#include "answer.h"
#include "base/log.h"
#include "base/memory_info.h"
#include "base/strings.h"
#include "common.h"
#include "core/counters.h"
#include "generate/generation_config.h"
#include "models/load.h"
#include "models/registry.h"
#include "profile.h"
#include "subcommand.h"

namespace mica::cli {
namespace {

using Tokenizer = tokenizers::Tokenizer;
using generate::Request;

constexpr double kAny = 1e6;  // bound of penalties and temperature

class Generate : public Subcommand {
 public:
  const char* summary() const override { return "writes text with a language model"; }
  void declare(Options& options) override;
  int run() override;

 private:
  void declare_sampling(Options& options);
  void declare_output(Options& options);
  void check_usage();
  void read_model();
  void read_prompt();
  void check_length();
  void load();
  Request make_request(const generate::GenerationConfig& defaults) const;
  generate::SamplingOptions sampling(generate::SamplingOptions options) const;
  int64_t max_tokens() const { return max_tokens_.value_or(512); }
  int64_t prefill_chunk() const {
    return prefill_chunk_.value_or(generate::EngineOptions().prefill_chunk);
  }
  int64_t prompt_size() const { return static_cast<int64_t>(prompt_.size()); }

  CommonOptions common_;
  ProfileOptions profile_;
  PrecisionOptions precision_;
  std::optional<std::string> prompt_text_, prompt_ids_, device_, memory_limit_;
  std::optional<int64_t> max_tokens_, seed_, top_k_, logprobs_, prompt_logprobs_, prefill_chunk_,
      max_context_;
  std::optional<double> temperature_, top_p_, min_p_, repetition_, presence_, frequency_;
  std::vector<std::string> logit_bias_, stop_;
  bool ignore_eos_ = false, no_cache_ = false;

  std::vector<std::pair<int32_t, double>> biases_;
  int64_t most_memory_ = INT64_MAX;
  std::string folder_;
  Json config_;
  std::optional<models::ModelInfo> info_;
  std::shared_ptr<const Tokenizer> tokenizer_;
  std::vector<int32_t> prompt_;
  models::LoadedModel model_;
};

void Generate::declare(Options& options) {
  options
      .about(
          "Continues a prompt. The text is written as it is made; statistics follow on standard "
          "error. The prompt is tokenized as it is, with the tokenizer's special tokens around it; "
          "no chat template is applied.")
      .example("mica generate -p \"ROMEO:\"", "the default model, up to 512 tokens")
      .example("mica generate -m path/to/model -p \"Once upon a time\" -n 200 --temp 0.8 --seed 7",
               "sampled, and the same again with the same seed")
      .example("mica generate -m Qwen/Qwen3-0.6B -p - --stop $'\\n\\n' < prompt.txt",
               "a model of the local Hugging Face cache, the prompt from standard input")
      .example("mica generate -m DIR --prompt-ids 1,2,3 -n 16 --logprobs 5 --format json",
               "ids in, one JSON object out");
  options.group("Model and prompt");
  common_.declare_model(options);
  options
      .text("-p,--prompt", "TEXT", prompt_text_, "the text to continue; '-' reads standard input")
      .text("--prompt-ids", "IDS", prompt_ids_,
            "token ids instead of text, like 1,2,3; '-' reads them from standard input")
      .integer("-n,--max-tokens", "N", max_tokens_, "at most N new tokens (default: 512)", 0)
      .texts("--stop", "TEXT", stop_, "end before this text")
      .flag("--ignore-eos", ignore_eos_, "go on after the model's end-of-text tokens");
  declare_sampling(options);
  declare_output(options);
  profile_.declare(options);
  common_.declare_rest(options);
}

void Generate::declare_sampling(Options& options) {
  constexpr int64_t kMost = std::numeric_limits<int64_t>::max();
  options.group("Sampling (default: generation_config.json if it says do_sample, else greedy)")
      .number("--temp,--temperature", "T", temperature_,
              "randomness: 0 takes the likeliest token, 1 samples as trained", 0, kAny)
      .integer("--top-k", "K", top_k_, "only the K likeliest tokens; 0: all", 0, kMost)
      .number("--top-p", "P", top_p_, "only the likeliest tokens that sum up to P", 0, 1)
      .number("--min-p", "P", min_p_, "only tokens at least P times as likely as the likeliest", 0,
              1)
      .number("--repetition-penalty", "X", repetition_,
              "above 1 makes tokens of prompt and output less likely", 1e-6, kAny)
      .number("--presence-penalty", "X", presence_,
              "taken off the logits of tokens that the output has", -kAny, kAny)
      .number("--frequency-penalty", "X", frequency_, "the same for each time that it has them",
              -kAny, kAny)
      .texts("--logit-bias", "ID:VALUE", logit_bias_, "added to the logit of a token")
      .integer("--seed", "N", seed_, "the same seed gives the same text", 0, kMost);
}

void Generate::declare_output(Options& options) {
  constexpr int64_t kMost = std::numeric_limits<int64_t>::max();
  options.group("Running");
  precision_.declare(options);
  options
      .choice("--device", {"cpu", "ref"}, device_,
              "cpu, or ref: the slow definition of every operation (default: cpu)")
      .integer("--prefill-chunk", "N", prefill_chunk_,
               "prompt tokens per forward pass (default: 512)", 1, kMost)
      .integer("--max-context", "N", max_context_, "at most N tokens of prompt and output", 1,
               kMost)
      .flag("--no-kv-cache", no_cache_, "compute the whole sequence again for each token")
      .text("--memory-limit", "SIZE", memory_limit_,
            "refuse what needs more, like 8G or 500MB (default: what the system has)")
      .group("Output")
      .integer("--logprobs", "K", logprobs_,
               "log-probability of each new token, and the K likeliest (with --format json)", 0,
               kMost)
      .integer("--prompt-logprobs", "K", prompt_logprobs_,
               "the K likeliest next tokens at each place of the prompt (with --format json)", 0,
               kMost);
}

std::vector<std::pair<int32_t, double>> read_biases(const std::vector<std::string>& given) {
  std::vector<std::pair<int32_t, double>> biases;
  for (const std::string& text : given) {
    const size_t colon = std::min(text.find(':'), text.size());
    const auto id = parse_integer(std::string_view(text).substr(0, colon));
    const auto bias =
        colon < text.size() ? parse_number(std::string_view(text).substr(colon + 1)) : std::nullopt;
    if (!id || !bias || std::isnan(*bias))
      throw_usage("--logit-bias needs ID:VALUE, like 42:-1.5, not '{}'", excerpt(text));
    if (*id < 0 || *id > INT32_MAX)
      throw_value("--logit-bias: id {} is outside of any vocabulary", *id);
    biases.emplace_back(static_cast<int32_t>(*id), *bias);
  }
  return biases;
}

// What can be said of the options alone, before anything is read.
void Generate::check_usage() {
  if (!prompt_text_ && !prompt_ids_) throw_usage("a prompt is needed: -p TEXT or --prompt-ids IDS");
  if (prompt_text_ && prompt_ids_) throw_usage("-p and --prompt-ids exclude each other");
  if ((logprobs_ || prompt_logprobs_) && !common_.json())
    throw_usage("--logprobs and --prompt-logprobs need --format json");
  for (const std::string& stop : stop_) {
    if (stop.empty()) throw_usage("--stop needs a text, not an empty one");
  }
  biases_ = read_biases(logit_bias_);
  if (memory_limit_) most_memory_ = read_size("--memory-limit", *memory_limit_);
  if (prompt_ids_ && prompt_ids_ != "-") prompt_ = read_ids(*prompt_ids_);
}

// A flag wins over the model's defaults, one by one.
generate::SamplingOptions Generate::sampling(generate::SamplingOptions options) const {
  options.temperature = temperature_.value_or(options.temperature);
  options.top_k = top_k_.value_or(options.top_k);
  options.top_p = top_p_.value_or(options.top_p);
  options.min_p = min_p_.value_or(options.min_p);
  options.repetition_penalty = repetition_.value_or(options.repetition_penalty);
  options.presence_penalty = presence_.value_or(0);
  options.frequency_penalty = frequency_.value_or(0);
  options.logit_bias = biases_;
  if (seed_) options.seed = static_cast<uint64_t>(*seed_);
  if (options.temperature == 0 && !common_.quiet && (top_k_ || top_p_ || min_p_ || seed_))
    print_message(
        "note: the temperature is 0 (greedy), so --top-k, --top-p, --min-p and --seed "
        "change nothing; set --temp");
  return options;
}

// What config.json says, and the tokenizer if the folder has one.
void Generate::read_model() {
  folder_ = model_folder(common_);
  config_ = Json::load(folder_ + "/config.json");
  info_ = models::make_model(config_)->info();
  if (config_.has("auto_map"))
    warn("{}: 'auto_map' is ignored: code that comes with a checkpoint is never run",
         config_.where());
  std::error_code error;
  const auto status = std::filesystem::symlink_status(folder_ + "/tokenizer.json", error);
  if (!std::filesystem::exists(status)) return;
  try {
    tokenizer_ = std::make_shared<const Tokenizer>(Tokenizer::from_folder(folder_));
  } catch (const Error& error) {
    // Ids in, ids out needs no tokenizer.
    if (error.kind() != ErrorKind::Unsupported || prompt_text_ || !stop_.empty()) throw;
    warn("{}; going on without text", error.what());
  }
}

void Generate::read_prompt() {
  if (prompt_ids_) {
    if (prompt_.empty()) prompt_ = read_ids(*prompt_ids_);
    return;
  }
  if (!tokenizer_)
    throw_io("{} has no tokenizer.json, so it takes --prompt-ids, not a text", printable(folder_));
  prompt_ = tokenizer_->encode(prompt_text_ == "-" ? read_input() : *prompt_text_);
}

// Past the positions that a model was trained for, rope models degrade and learned ones end.
void Generate::check_length() {
  const int64_t most = info_->max_positions;
  int64_t wanted = prompt_size() + max_tokens();
  if (max_context_) wanted = std::min(wanted, *max_context_);
  if (info_->learned_positions && max_tokens_ && prompt_size() <= most && wanted > most) {
    throw_value(
        "a prompt of {} tokens and {} new ones go past the {} positions that this model has; at "
        "most -n {} is possible",
        prompt_size(), max_tokens(), most, most - prompt_size());
  }
  if (!info_->learned_positions && prompt_size() > most)
    warn("the prompt has {} tokens, the model was trained for {}: answers may be poor",
         prompt_size(), most);
}

void Generate::load() {
  models::LoadOptions options;
  precision_.apply(options);
  const auto available = static_cast<int64_t>(available_memory());
  options.memory_limit = available > 0 ? available : INT64_MAX;
  options.memory_limit = std::min(options.memory_limit, most_memory_);
  // -n is often an upper bound that no answer reaches: plan for what the model was made for.
  const int64_t usual = std::max(prompt_size(), info_->max_positions);
  options.context = std::min(
      {prompt_size() + std::min(max_tokens(), usual), usual, max_context_.value_or(INT64_MAX)});
  options.pass_tokens =
      no_cache_ ? options.context : std::min(prefill_chunk(), std::max<int64_t>(prompt_size(), 1));
  options.all_logits = prompt_logprobs_.has_value();
  // A pair in memory, and its text.
  constexpr double kPairBytes = 8 + 24;
  const auto pairs = static_cast<double>(prompt_size()) *
                     static_cast<double>(std::min(prompt_logprobs_.value_or(0), info_->vocabulary));
  options.answer_bytes = static_cast<int64_t>(std::min(pairs * kPairBytes, 1e17));
  model_ = models::load_model(folder_, options);
  // Weights are mapped; what arrays may take besides is the rest.
  if (memory_limit_) set_memory_limit(options.memory_limit - model_.weight_bytes);
}

Request Generate::make_request(const generate::GenerationConfig& defaults) const {
  return {.prompt = prompt_,
          .max_tokens = max_tokens(),
          .sampling = sampling(defaults.sampling),
          .eos = defaults.eos,
          .ignore_eos = ignore_eos_,
          .stop = stop_,
          .logprobs = logprobs_.value_or(-1),
          .prompt_logprobs = prompt_logprobs_.value_or(-1)};
}

int Generate::run() {
  check_usage();
  common_.apply();
  catch_interrupts();
  if (device_) set_default_device(device_from_name(*device_));
  Answer answer(common_.json());
  read_model();
  read_prompt();
  const auto defaults = generate::read_generation_config(folder_, config_);
  Request request = make_request(defaults);
  check_length();
  load();
  answer.loaded(model_.weight_bytes);
  generate::EngineOptions engine_options;
  engine_options.prefill_chunk = prefill_chunk();
  engine_options.max_context = max_context_.value_or(0);
  engine_options.use_cache = !no_cache_;
  generate::Engine engine(model_.model, tokenizer_, engine_options);
  profile_.start();
  answer.run(engine, std::move(request), tokenizer_ != nullptr);
  if (!info_->learned_positions && prompt_size() <= info_->max_positions &&
      answer.length() > info_->max_positions)
    warn("the text has {} tokens, the model was trained for {}: its end may be poor",
         answer.length(), info_->max_positions);
  if (common_.json())
    write_output(answer.json() + '\n');
  else if (!common_.quiet)
    print_message(answer.statistics());
  profile_.finish();
  return answer.was_interrupted() ? kInterrupted : kSuccess;
}

}  // namespace

std::unique_ptr<Subcommand> generate_command() { return std::make_unique<Generate>(); }

}  // namespace mica::cli
