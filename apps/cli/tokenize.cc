// mica tokenize: text to token ids.
#include "base/json.h"
#include "base/json_writer.h"
#include "common.h"
#include "subcommand.h"

namespace mica::cli {
namespace {

class Tokenize : public Subcommand {
 public:
  const char* summary() const override { return "turns text into token ids"; }

  void declare(Options& options) override {
    options
        .about(
            "Reads the text of -p, or all of standard input, and writes its token ids. The "
            "model's folder needs only its tokenizer.json.")
        .example("mica tokenize -m path/to/model -p \"Hello world\"", "prints ids like 9906,1917")
        .example("mica tokenize -m path/to/model --jsonl < lines.jsonl",
                 "each line a JSON string, each answer a line with an array of ids");
    options.group("Input");
    common_.declare_model(options);
    options
        .text("-p,--prompt", "TEXT", text_,
              "the text; '-' reads standard input (default: standard input)")
        .flag("--jsonl", jsonl_, "a JSON string per line in, an array of ids per line out")
        .flag("--no-special-tokens", no_special_,
              "without the tokens that the tokenizer puts around a text");
    common_.declare_rest(options);
  }

  int run() override {
    if (jsonl_ && text_ && text_ != "-") throw_usage("--jsonl reads standard input, not -p");
    common_.apply();
    const auto tokenizer = tokenizers::Tokenizer::from_folder(model_folder(common_));
    if (jsonl_) {
      answer_lines([&](std::string_view line) {
        const auto text = Json::parse(line, "JSON").as<std::string>();
        return JsonWriter().value(tokenizer.encode(text, !no_special_)).text();
      });
      return kSuccess;
    }
    const std::string text = text_ && text_ != "-" ? *text_ : read_input();
    const std::vector<int32_t> ids = tokenizer.encode(text, !no_special_);
    if (common_.json())
      write_output(json(tokenizer, ids) + '\n');
    else
      write_output(fmt::format("{}\n", fmt::join(ids, ",")));
    return kSuccess;
  }

 private:
  static std::string json(const tokenizers::Tokenizer& tokenizer, const std::vector<int32_t>& ids) {
    JsonWriter json;
    json.begin_object().key("ids").value(ids).key("tokens").begin_array();
    for (int32_t id : ids) json.value(tokenizer.id_to_token(id).value_or(""));
    return json.end_array().end_object().take();
  }

  CommonOptions common_;
  std::optional<std::string> text_;
  bool jsonl_ = false, no_special_ = false;
};

}  // namespace

std::unique_ptr<Subcommand> tokenize_command() { return std::make_unique<Tokenize>(); }

}  // namespace mica::cli
