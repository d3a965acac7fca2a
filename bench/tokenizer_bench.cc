// Reading a tokenizer.json of byte-level BPE, and encoding, decoding and streaming with it. The
// file is made here: random words of a few letters, each merged from two others.
#include <algorithm>
#include <random>
#include <string>
#include <unordered_set>

#include "bench/support.h"
#include "tokenizers/tokenizer.h"

namespace mica {
namespace {

// About 4.2 MB for 75,000 tokens.
std::string tokenizer_json(size_t count) {
  std::mt19937 random(1);
  std::vector<std::string> tokens;
  std::unordered_set<std::string> known;
  std::string vocab, merges;
  auto add = [&](const std::string& token) {
    if (token.size() > 24 || !known.insert(token).second) return false;
    vocab += (tokens.empty() ? "\"" : ", \"") + token + "\": " + std::to_string(tokens.size());
    tokens.push_back(token);
    return true;
  };
  for (char c = 'a'; c <= 'z'; ++c) add(std::string(1, c));
  add("Ġ");
  while (tokens.size() < count) {
    // Mostly short parts, so that words grow slowly.
    std::string left = tokens[random() % std::min<size_t>(tokens.size(), 9000)];
    std::string right = tokens[random() % std::min<size_t>(tokens.size(), 9000)];
    if (right.starts_with("Ġ") || !add(left + right)) continue;
    merges += (merges.empty() ? "\"" : ", \"") + left + " " + right + "\"";
  }
  return R"({"version": "1.0", "added_tokens": [], "normalizer": null, "pre_tokenizer": {"type": )"
         R"("ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true}, )"
         R"("post_processor": null, "decoder": {"type": "ByteLevel", "add_prefix_space": false, )"
         R"("trim_offsets": true, "use_regex": true}, "model": {"type": "BPE", "dropout": null, )"
         R"("unk_token": null, "continuing_subword_prefix": null, "end_of_word_suffix": null, )"
         R"("fuse_unk": false, "byte_fallback": false, "vocab": {)" +
         vocab + "}, \"merges\": [" + merges + "]}}";
}

const std::string& json() {
  static const std::string text = tokenizer_json(75'000);
  return text;
}
const tokenizers::Tokenizer& tokenizer() {
  static const auto made = tokenizers::Tokenizer::from_json(json());
  return made;
}
// Words of letters whose frequencies fall.
const std::string& text() {
  static const std::string made = [] {
    std::mt19937 random(2);
    std::string words;
    while (words.size() < 4'000'000) {
      for (size_t n = 1 + random() % 9; n > 0; --n)
        words += static_cast<char>('a' + std::min(random() % 26, random() % 26));
      words += ' ';
    }
    return words;
  }();
  return made;
}

void Load(benchmark::State& state) {
  for (auto _ : state) benchmark::DoNotOptimize(tokenizers::Tokenizer::from_json(json()));
  state.counters["MB"] = static_cast<double>(json().size()) / 1e6;
}
void Encode(benchmark::State& state) {
  for (auto _ : state) benchmark::DoNotOptimize(tokenizer().encode(text()));
  state.SetBytesProcessed(state.iterations() * static_cast<int64_t>(text().size()));
}
void Decode(benchmark::State& state) {
  auto ids = tokenizer().encode(text());
  for (auto _ : state) benchmark::DoNotOptimize(tokenizer().decode(ids));
  state.SetBytesProcessed(state.iterations() * static_cast<int64_t>(text().size()));
}
void Stream(benchmark::State& state) {
  auto ids = tokenizer().encode(text().substr(0, 400'000));
  for (auto _ : state) {
    tokenizers::StreamDecoder decoder(tokenizer());
    size_t bytes = 0;
    for (int32_t id : ids) bytes += decoder.add(id).size();
    benchmark::DoNotOptimize(bytes);
  }
  state.SetItemsProcessed(state.iterations() * static_cast<int64_t>(ids.size()));
}
BENCHMARK(Load)->Unit(benchmark::kMillisecond);
BENCHMARK(Encode)->Unit(benchmark::kMillisecond);
BENCHMARK(Decode)->Unit(benchmark::kMillisecond);
BENCHMARK(Stream)->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace mica
