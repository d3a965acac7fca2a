// mica detokenize: token ids to text.
#include "base/json.h"
#include "base/json_writer.h"
#include "common.h"
#include "subcommand.h"

namespace mica::cli {
namespace {

class Detokenize : public Subcommand {
 public:
  const char* summary() const override { return "turns token ids into text"; }

  void declare(Options& options) override {
    options
        .about(
            "Reads ids like 1,2,3 from --ids, or from standard input, and writes their text. The "
            "model's folder needs only its tokenizer.json.")
        .example("mica detokenize -m path/to/model --ids 9906,1917", "prints Hello world")
        .example("mica detokenize -m path/to/model --jsonl < ids.jsonl",
                 "each line an array of ids, each answer a line with a JSON string");
    options.group("Input");
    common_.declare_model(options);
    options
        .text("--ids", "IDS", ids_,
              "ids separated by commas or white space; '-' reads standard input (default)")
        .flag("--jsonl", jsonl_, "an array of ids per line in, a JSON string per line out")
        .flag("--keep-special-tokens", keep_special_, "also write tokens such as <s>");
    common_.declare_rest(options);
  }

  int run() override {
    if (jsonl_ && ids_ && ids_ != "-") throw_usage("--jsonl reads standard input, not --ids");
    common_.apply();
    const auto tokenizer = tokenizers::Tokenizer::from_folder(model_folder(common_));
    if (jsonl_) {
      answer_lines([&](std::string_view line) {
        const auto ids = Json::parse(line, "JSON").as<std::vector<int32_t>>();
        return JsonWriter().value(tokenizer.decode(ids, !keep_special_)).text();
      });
      return kSuccess;
    }
    const auto ids = read_ids(ids_.value_or("-"));
    const std::string text = tokenizer.decode(ids, !keep_special_);
    if (common_.json()) {
      JsonWriter json;
      write_output(json.begin_object().key("text").value(text).end_object().text() + '\n');
    } else {
      write_untrusted(text + '\n');
    }
    return kSuccess;
  }

 private:
  CommonOptions common_;
  std::optional<std::string> ids_;
  bool jsonl_ = false, keep_special_ = false;
};

}  // namespace

std::unique_ptr<Subcommand> detokenize_command() { return std::make_unique<Detokenize>(); }

}  // namespace mica::cli
