// mica convert: a checkpoint quantized, dequantized or cast, as another folder.
#include "tune/convert.h"

#include <chrono>

#include "base/json_writer.h"
#include "base/strings.h"
#include "common.h"
#include "core/counters.h"
#include "profile.h"
#include "subcommand.h"

namespace mica::cli {
namespace {

std::string size(int64_t bytes) { return human_size(static_cast<uint64_t>(bytes)); }

class Convert : public Subcommand {
 public:
  const char* summary() const override { return "quantizes, dequantizes or casts a model"; }
  void declare(Options& options) override;
  int run() override;

 private:
  void declare_quantization(Options& options);
  void check_usage() const;
  tune::ConvertOptions make_options() const;
  std::string json(const tune::ConversionPlan& plan, double seconds) const;
  std::string text(const tune::ConversionPlan& plan, double seconds) const;

  CommonOptions common_;
  ProfileOptions profile_;
  std::optional<std::string> target_, mixed_, dtype_, shard_size_;
  std::optional<int64_t> bits_, group_size_;
  std::vector<std::string> layers_;
  bool quantize_ = false, dequantize_ = false, dry_run_ = false, overwrite_ = false;
};

void Convert::declare(Options& options) {
  options
      .about(
          "Writes a model's folder anew: quantized (-q), dequantized (-d), with its floating "
          "tensors cast (--dtype), or dealt out to files of another size. Quantized results are "
          "in MLX's affine format, which Mica and MLX-LM read. The weights stream through: memory "
          "does not grow with the model. The result appears when it is complete, or not at all.")
      .example("mica convert -m path/to/model --to model-4bit -q", "4 bits, groups of 64")
      .example(
          "mica convert -m org/name --to small -q --bits 3 --layer lm_head=8 "
          "--layer '*.0.*=6:32' --dry-run",
          "how large it would be, with more bits for the head and the first layer")
      .example("mica convert -m model-4bit --to dense -d --dtype bfloat16", "back to dense");
  options.group("Model");
  common_.declare_model(options);
  options.text("--to,--mlx-path", "DIR", target_, "the folder to make")
      .flag("--overwrite", overwrite_, "replace a model that is there")
      .flag("--dry-run", dry_run_, "only tell what the result would be");
  declare_quantization(options);
  options.group("Storage")
      .choice("--dtype", kActivationTypes, dtype_,
              "cast floating tensors, scales and biases included (default: as stored)")
      .text("--shard-size", "SIZE", shard_size_,
            "at most so many bytes of tensors in a file, like 500MB; 0: one file (default: 5G)");
  profile_.declare(options);
  common_.declare_rest(options);
}

void Convert::declare_quantization(Options& options) {
  options.group("Quantization")
      .flag("-q,--quantize", quantize_, "quantize the matrices of linear layers and embeddings")
      .integer("--bits,--q-bits", "N", bits_, "2, 3, 4, 5, 6 or 8 (default: 4)")
      .integer("--group-size,--q-group-size", "N", group_size_,
               "columns that share a scale: 16, 32, 64 or 128 (default: 64); MLX has no 16")
      .choice("--quant-predicate", tune::mixed_recipes(), mixed_,
              "MLX-LM's recipes: the first number of bits, the second for lm_head and, in the "
              "first and last eighth of the layers and every third between, v_proj and down_proj")
      .texts("--layer", "RULE", layers_,
             "PATTERN=BITS[:GROUP] or PATTERN=none (stays dense) for layers whose name matches "
             "(* and ?) or ends so; the last rule that matches counts")
      .flag("-d,--dequantize", dequantize_, "turn a quantized model into a dense one");
}

void Convert::check_usage() const {
  if (!target_ && !dry_run_) throw_usage("a folder for the result is needed: --to DIR");
  if (quantize_ && dequantize_) throw_usage("-q and -d exclude each other");
  if (!quantize_ && (bits_ || group_size_ || mixed_ || !layers_.empty()))
    throw_usage("--bits, --group-size, --quant-predicate and --layer need -q");
  if (!quantize_ && !dequantize_ && !dtype_ && !shard_size_)
    throw_usage("nothing to do: give -q, -d, --dtype or --shard-size");
  const nn::Quantization q{static_cast<int>(group_size_.value_or(64)),
                           static_cast<int>(bits_.value_or(4))};
  if (!tune::is_quantization({64, q.bits}))
    throw_usage("--bits must be 2, 3, 4, 5, 6 or 8, not {}", *bits_);
  if (!tune::is_quantization({q.group_size, 4}))
    throw_usage("--group-size must be 16, 32, 64 or 128, not {}", *group_size_);
}

tune::ConvertOptions Convert::make_options() const {
  tune::ConvertOptions options{.dequantize = dequantize_, .replace = overwrite_};
  if (quantize_) {
    tune::QuantizationRecipe recipe{.standard = {static_cast<int>(group_size_.value_or(64)),
                                                 static_cast<int>(bits_.value_or(4))},
                                    .mixed = mixed_.value_or("")};
    try {
      for (const std::string& rule : layers_) recipe.layers.push_back(tune::parse_layer_rule(rule));
    } catch (const Error& error) {
      throw_usage("--layer {}", error.what());
    }
    options.recipe = std::move(recipe);
  }
  if (dtype_) options.dtype = dtype_from_name(*dtype_);
  if (shard_size_)
    options.shard_bytes = static_cast<uint64_t>(read_size("--shard-size", *shard_size_));
  options.between = [] {
    if (interrupted()) throw Interrupted{};
  };
  return options;
}

std::string Convert::json(const tune::ConversionPlan& plan, double seconds) const {
  JsonWriter json;
  json.begin_object().key("path");
  target_ ? json.value(*target_) : json.null();
  json.key("dry_run").value(dry_run_).key("model_type").value(plan.model_type);
  json.key("parameters").value(plan.parameters).key("source_bytes").value(plan.source_bytes);
  json.key("bytes").value(plan.bytes).key("bits_per_weight").value(plan.bits_per_weight());
  json.key("files").begin_array();
  for (const auto& file : plan.files)
    json.begin_object().key("name").value(file.name).key("bytes").value(file.bytes).end_object();
  json.end_array().key("matrices").begin_array();
  for (const tune::StorageUse& use : plan.matrices) {
    json.begin_object().key("bits");
    use.quantization ? json.value(use.quantization->bits) : json.null();
    json.key("group_size");
    use.quantization ? json.value(use.quantization->group_size) : json.null();
    json.key("count").value(use.matrices).key("elements").value(use.elements).end_object();
  }
  json.end_array().key("left_dense").value(plan.left_dense).key("copied").value(plan.copied);
  json.key("seconds");
  dry_run_ ? json.null() : json.value(seconds);
  json.key("peak_memory_bytes");
  dry_run_ ? json.null() : json.value(memory_use(DeviceKind::Cpu).peak);
  return json.end_object().take() + '\n';
}

std::string Convert::text(const tune::ConversionPlan& plan, double seconds) const {
  std::string text = fmt::format("{}: {} parameters, {} -> {}, {:.3f} bits per weight\n",
                                 plan.model_type, plan.parameters, size(plan.source_bytes),
                                 size(plan.bytes), plan.bits_per_weight());
  for (const tune::StorageUse& use : plan.matrices) {
    const std::string how = use.quantization
                                ? fmt::format("{} bits, groups of {}", use.quantization->bits,
                                              use.quantization->group_size)
                                : "dense";
    text += fmt::format("  {:<34}{} matrices, {} weights\n", how, use.matrices, use.elements);
  }
  for (const std::string& name : plan.left_dense)
    text += fmt::format("  {} stays dense: its columns do not fill groups\n", name);
  for (const auto& file : plan.files)
    text += fmt::format("  {:<34}{}\n", file.name, human_size(file.bytes));
  if (dry_run_) return text + "nothing was written (--dry-run)\n";
  return text + fmt::format("wrote {} in {:.1f} s, {:.2f} GB/s\n", *target_, seconds,
                            static_cast<double>(plan.source_bytes) / seconds / 1e9);
}

int Convert::run() {
  check_usage();
  tune::ConvertOptions options = make_options();
  common_.apply();
  catch_interrupts();
  options.source = model_folder(common_);
  // An estimate looks at no folder but the source.
  options.target = target_.value_or("");
  const auto start = std::chrono::steady_clock::now();
  tune::Conversion conversion(std::move(options));
  profile_.start();
  if (!dry_run_) conversion.run();
  const std::chrono::duration<double> time = std::chrono::steady_clock::now() - start;
  const tune::ConversionPlan& plan = conversion.plan();
  if (common_.json())
    write_output(json(plan, time.count()));
  else if (!common_.quiet)
    write_untrusted(text(plan, time.count()));
  profile_.finish();
  return kSuccess;
}

}  // namespace

std::unique_ptr<Subcommand> convert_command() { return std::make_unique<Convert>(); }

}  // namespace mica::cli
