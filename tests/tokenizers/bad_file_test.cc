// Files are untrusted: what is malformed ends in an error that names the file and the place.
#include <gtest/gtest.h>

#include <string>

#include "base/expect_error.h"
#include "base/temporary_folder.h"
#include "tests/tokenizers/small_tokenizer.h"
#include "tokenizers/tokenizer.h"

namespace mica::tokenizers {
namespace {

void expect_refused(const std::string& text, const std::string& part,
                    ErrorKind kind = ErrorKind::Value) {
  SCOPED_TRACE(text.substr(0, 300));
  expect_error(kind, part, [&] { Tokenizer::from_json(text, "dir/tokenizer.json"); });
  expect_error(kind, "dir/tokenizer.json",
               [&] { Tokenizer::from_json(text, "dir/tokenizer.json"); });
}

void expect_refused_parts(const SmallTokenizer& parts, const std::string& part,
                          ErrorKind kind = ErrorKind::Value) {
  expect_refused(parts.json(), part, kind);
}

TEST(BadTokenizerFile, MalformedJson) {
  expect_refused("", "line 1, column 1");
  expect_refused("{", "");
  expect_refused("[]", "object");
  expect_refused("null", "object");
  expect_refused("{\"model\": \xff}", "");
  expect_refused("{}", "'model' is missing");
  expect_refused(R"({"model": []})", "'model' must be an object, not an array");
  const std::string whole = SmallTokenizer{}.json();
  for (size_t length = 0; length < whole.size(); length += 7) {
    expect_error(ErrorKind::Value, "tokenizer.json",
                 [&] { Tokenizer::from_json(whole.substr(0, length)); });
  }
  expect_refused(R"({"model": )" + std::string(100'000, '['), "");
  expect_refused(std::string(100'000, '{'), "");
  expect_refused_parts({.normalizer = std::string(500, '[') + std::string(500, ']')}, "");
}

TEST(BadTokenizerFile, EmptyAndTruncatedFilesOnDisk) {
  const TemporaryFolder folder;
  for (const std::string& text : {std::string(), SmallTokenizer{}.json().substr(0, 200)}) {
    const std::string path = folder.write("tokenizer.json", text);
    expect_error(ErrorKind::Value, path, [&] { Tokenizer::from_file(path); });
  }
}

TEST(BadTokenizerFile, Versions) {
  expect_refused(R"({"version": "2.0", "model": {"type": "BPE", "vocab": {}, "merges": []}})",
                 "'version' must be \"1.0\"");
}

TEST(BadTokenizerFile, Models) {
  const auto model = [](const std::string& text) { return R"({"model": )" + text + "}"; };
  expect_refused(model(R"({"type": "BPE", "merges": []})"), "'model.vocab' is missing");
  expect_refused(model(R"({"type": "BPE", "vocab": {}})"), "'model.merges' is missing");
  expect_refused(model(R"({"type": "GPT", "vocab": {}, "merges": []})"), "\"GPT\"");
  expect_refused(model(R"({"type": 7, "vocab": {}, "merges": []})"), "model.type");
  for (const std::string kind : {"WordPiece", "Unigram", "WordLevel"}) {
    expect_refused(model(R"({"type": ")" + kind + R"(", "vocab": {}})"), kind,
                   ErrorKind::Unsupported);
  }
  expect_refused(model(R"({"vocab": {}, "max_input_chars_per_word": 100})"), "WordPiece",
                 ErrorKind::Unsupported);
  expect_refused(model(R"({"vocab": [["a", 0.5]], "unk_id": 0})"), "Unigram",
                 ErrorKind::Unsupported);
  expect_refused_parts({.model = R"(, "dropout": 0.1)"}, "model.dropout", ErrorKind::Unsupported);
  expect_refused_parts({.model = R"(, "dropout": 7)"}, "model.dropout");
  expect_refused_parts({.model = R"(, "unk_token": 7)"}, "model.unk_token");
  expect_refused_parts({.model = R"(, "fuse_unk": "yes")"}, "model.fuse_unk");
}

TEST(BadTokenizerFile, Vocabularies) {
  const auto vocab = [](const std::string& text) {
    return SmallTokenizer{.vocab = text, .merges = "[]"};
  };
  expect_refused_parts(vocab("[]"), "'model.vocab' must be an object");
  expect_refused_parts(vocab("null"), "'model.vocab' must be an object, not null");
  expect_refused_parts(vocab(R"({"a": -1})"), "the id -1");
  expect_refused_parts(vocab(R"({"a": 1.5})"), "the id of \"a\" must be a whole number, not 1.5");
  expect_refused_parts(vocab(R"({"a": "1"})"), "a string");
  expect_refused_parts(vocab(R"({"a": 4000000000})"), "the id 4000000000");
  expect_refused_parts(vocab(R"({"a": 99999999999999999999})"), "");
  expect_refused_parts(vocab(R"({"a": 18446744073709551615})"), "whole number");
  expect_refused_parts(vocab(R"({"a": 1, "b": 1})"), "tokens \"a\" and \"b\" have the same id 1");
  expect_refused_parts(vocab(R"({"a": 1, "a": 2})"), "token \"a\" is there twice");
}

TEST(BadTokenizerFile, Merges) {
  const auto merges = [](const std::string& text) { return SmallTokenizer{.merges = text}; };
  expect_refused_parts(merges("{}"), "'model.merges' must be an array");
  expect_refused_parts(merges("[7]"), "two tokens");
  expect_refused_parts(merges(R"(["ab"])"), "a space between");
  expect_refused_parts(merges(R"(["a b c"])"), "a space between");
  expect_refused_parts(merges(R"([["a"]])"), "two tokens");
  expect_refused_parts(merges(R"([["a", "b", "c"]])"), "two tokens");
  expect_refused_parts(merges(R"([["a", 1]])"), "two tokens");
  expect_refused_parts(merges(R"(["a b", "a zzz"])"),
                       "merge 1: token \"zzz\" is not in the vocabulary");
  expect_refused_parts(merges(R"(["b a"])"), "merge 0: token \"ba\" is not in the vocabulary");
  expect_refused_parts({.merges = R"(["a b"])", .model = R"(, "continuing_subword_prefix": "##")"},
                       "shorter than the continuing_subword_prefix");
}

TEST(BadTokenizerFile, AddedTokens) {
  const auto added = [](const std::string& text) { return SmallTokenizer{.added_tokens = text}; };
  expect_refused_parts(added("{}"), "'added_tokens' must be an array");
  expect_refused_parts(added("null"), "'added_tokens' must be an array");
  expect_refused_parts(added("[7]"), "'added_tokens[0]' must be an object");
  expect_refused_parts(added(R"([{"content": "x"}])"), "'added_tokens[0].id' is missing");
  expect_refused_parts(added(R"([{"id": 6}])"), "'added_tokens[0].content' is missing");
  expect_refused_parts(added(R"([{"id": -6, "content": "x"}])"), "'added_tokens[0].id'");
  expect_refused_parts(added(R"([{"id": 1e30, "content": "x"}])"), "'added_tokens[0].id'");
  expect_refused_parts(added(R"([{"id": 4000000000, "content": "x"}])"), "'added_tokens[0].id'");
  expect_refused_parts(added(R"([{"id": 6, "content": 7}])"), "'added_tokens[0].content'");
  expect_refused_parts(
      added("[" + added_token(6, "x") + "," + added_token(7, "y", R"("lstrip": 1)") + "]"),
      "'added_tokens[1].lstrip' must be true or false");
  expect_refused_parts(added("[" + added_token(6, "x") + "," + added_token(6, "y") + "]"),
                       "\"x\" and \"y\" have the same id 6");
}

TEST(BadTokenizerFile, Normalizers) {
  const auto normalizer = [](const std::string& text) {
    return SmallTokenizer{.normalizer = text};
  };
  expect_refused_parts(normalizer("7"), "normalizer");
  expect_refused_parts(normalizer("{}"), "normalizer.type");
  expect_refused_parts(normalizer(R"({"type": "Magic"})"), "\"Magic\"; known are Sequence");
  expect_refused_parts(normalizer(R"({"type": "Precompiled", "precompiled_charsmap": "AA=="})"),
                       "Precompiled", ErrorKind::Unsupported);
  expect_refused_parts(normalizer(R"({"type": "Strip"})"), "normalizer.strip_left");
  expect_refused_parts(normalizer(R"({"type": "Prepend"})"), "normalizer.prepend");
  expect_refused_parts(normalizer(R"({"type": "Sequence", "normalizers": [{"type": "NFC"}, {}]})"),
                       "normalizer.normalizers[1].type");
  expect_refused_parts(normalizer(R"({"type": "Replace", "pattern": "x", "content": ""})"),
                       "normalizer.pattern");
  expect_refused_parts(
      normalizer(R"({"type": "Replace", "pattern": {"Regex": "("}, "content": ""})"),
      "normalizer.pattern.Regex");
}

TEST(BadTokenizerFile, OtherParts) {
  expect_refused_parts({.pre_tokenizer = R"({"type": "Magic"})"}, "is no pre-tokenizer");
  expect_refused_parts({.pre_tokenizer = R"({"type": "UnicodeScripts"})"}, "UnicodeScripts",
                       ErrorKind::Unsupported);
  expect_refused_parts({.pre_tokenizer = R"({"type": "Split", "pattern": {"String": " "},
                                       "behavior": "Sideways", "invert": false})"},
                       "pre_tokenizer.behavior");
  expect_refused_parts({.pre_tokenizer = R"({"type": "Metaspace", "replacement": "ab"})"},
                       "must be one character");
  expect_refused_parts({.pre_tokenizer = R"({"type": "Metaspace", "replacement": "_",
                                       "prepend_scheme": "often"})"},
                       "prepend_scheme");
  expect_refused_parts({.pre_tokenizer = R"({"type": "FixedLength", "length": 0})"}, "length");
  expect_refused_parts({.post_processor = R"({"type": "Magic"})"}, "is no post-processor");
  expect_refused_parts({.post_processor = R"({"type": "TemplateProcessing", "single": [
                    {"SpecialToken": {"id": "<s>", "type_id": 0}}], "pair": [],
                    "special_tokens": {}})"},
                       "is not among special_tokens");
  expect_refused_parts({.post_processor = R"({"type": "TemplateProcessing", "single": [
                    {"Sequence": {"id": "B", "type_id": 0}}], "pair": [], "special_tokens": {}})"},
                       "single[0].Sequence.id");
  expect_refused_parts({.post_processor = R"({"type": "BertProcessing", "sep": ["x", -1],
                                        "cls": ["y", 1]})"},
                       "post_processor.sep");
  expect_refused_parts({.decoder = R"({"type": "Magic"})"}, "is no decoder");
  expect_refused_parts({.decoder = R"({"type": "Strip", "content": " ", "start": -1, "stop": 0})"},
                       "decoder.start");
  std::string decoders = R"({"type": "Fuse"})";
  for (int i = 0; i < 100; ++i) decoders += R"(, {"type": "Fuse"})";
  expect_refused_parts({.decoder = R"({"type": "Sequence", "decoders": [)" + decoders + "]}"},
                       "more than 64 decoders");
}

TEST(BadTokenizerFile, TextsDoNotGrowWithoutEnd) {
  std::string doubles;
  for (int i = 0; i < 60; ++i) {
    doubles += std::string(i ? ", " : "") +
               R"({"type": "Replace", "pattern": {"String": "a"}, "content": "aa"})";
  }
  const auto grows = Tokenizer::from_json(
      SmallTokenizer{.normalizer = R"({"type": "Sequence", "normalizers": [)" + doubles + "]}"}
          .json());
  expect_error(ErrorKind::Value, "longer than", [&] { grows.encode("a"); });
  const auto decodes = Tokenizer::from_json(
      SmallTokenizer{.decoder = R"({"type": "Sequence", "decoders": [)" + doubles + "]}"}.json());
  expect_error(ErrorKind::Value, "longer than", [&] { decodes.decode(std::vector<int32_t>{0}); });
  std::string levels = R"({"type": "ByteLevel"})";
  for (int i = 0; i < 60; ++i) levels += R"(, {"type": "ByteLevel"})";
  const auto maps = Tokenizer::from_json(
      SmallTokenizer{.normalizer = R"({"type": "Sequence", "normalizers": [)" + levels + "]}"}
          .json());
  expect_error(ErrorKind::Value, "longer than", [&] { maps.encode("é"); });
}

}  // namespace
}  // namespace mica::tokenizers
