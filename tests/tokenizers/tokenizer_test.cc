#include "tokenizers/tokenizer.h"

#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "base/expect_error.h"
#include "base/json.h"
#include "base/strings.h"
#include "base/temporary_folder.h"
#include "tests/tokenizers/cases.h"
#include "tests/tokenizers/small_tokenizer.h"

namespace mica::tokenizers {
namespace {

using Ids = std::vector<int32_t>;

Tokenizer load(const SmallTokenizer& parts) { return Tokenizer::from_json(parts.json()); }
Tokenizer gpt2() { return Tokenizer::from_folder(unpacked("tokenizers") + "/gpt2"); }
Tokenizer llama2() { return Tokenizer::from_folder(unpacked("tokenizers") + "/llama2"); }

TEST(Tokenizer, AnswersForItsTokens) {
  const Tokenizer tokenizer =
      load({.added_tokens = "[" + added_token(6, "<s>", R"("special": true)") + "," +
                            added_token(7, "hi") + "]"});
  EXPECT_EQ(tokenizer.vocab_size(), 8);
  EXPECT_EQ(tokenizer.id_to_token(3), "ab");
  EXPECT_EQ(tokenizer.id_to_token(6), "<s>");
  EXPECT_EQ(tokenizer.id_to_token(8), std::nullopt);
  EXPECT_EQ(tokenizer.id_to_token(-1), std::nullopt);
  EXPECT_EQ(tokenizer.token_to_id("ab"), 3);
  EXPECT_EQ(tokenizer.token_to_id("hi"), 7);
  EXPECT_EQ(tokenizer.token_to_id("nothing"), std::nullopt);
  EXPECT_TRUE(tokenizer.is_special(6));
  EXPECT_FALSE(tokenizer.is_special(7) || tokenizer.is_special(0) || tokenizer.is_special(99));
  EXPECT_EQ(tokenizer.encode("abhi<s>c"), (Ids{3, 7, 6, 2}));
  EXPECT_EQ(tokenizer.decode(Ids{3, 7, 6, 2}), "abhic");
  EXPECT_EQ(tokenizer.decode(Ids{3, 7, 6, 2}, false), "abhi<s>c");
  EXPECT_EQ(tokenizer.encode(""), Ids{});
  EXPECT_EQ(tokenizer.decode(Ids{}), "");
}

TEST(Tokenizer, HolesInTheVocabularyGiveNothing) {
  const Tokenizer tokenizer = load({.vocab = R"({"a": 0, "b": 9, "ab": 4})"});
  EXPECT_EQ(tokenizer.vocab_size(), 10);
  EXPECT_EQ(tokenizer.encode("abba"), (Ids{4, 9, 0}));
  EXPECT_EQ(tokenizer.decode(Ids{4, 5, 9}), "abb");
  EXPECT_EQ(tokenizer.id_to_token(5), std::nullopt);
}

TEST(Tokenizer, IdsOutsideTheVocabularyAreAnError) {
  const Tokenizer tokenizer = load({});
  for (const int32_t id : {-1, 6, INT32_MIN, INT32_MAX}) {
    expect_error(ErrorKind::Value, "there is no token with the id " + std::to_string(id),
                 [&] { tokenizer.decode(Ids{0, id}); });
  }
  // The stream goes on as if the call had not been made.
  StreamDecoder stream(tokenizer);
  EXPECT_EQ(stream.add(0), "a");
  expect_error(ErrorKind::Value, "ids are from 0 to 5", [&] { stream.add(6); });
  EXPECT_EQ(stream.add(1), "b");
}

TEST(Tokenizer, ReadsIllFormedTextAsPythonDoes) {
  // errors="replace": one U+FFFD for each longest part that could start a character.
  const Tokenizer tokenizer = gpt2();
  const std::pair<std::string, std::string> kCases[] = {
      {"a\xff"
       "b",
       "a\uFFFDb"},
      {"\xe2\x82", "\uFFFD"},
      {"\xe2\x82 x", "\uFFFD x"},
      {"\xed\xa0\x80", "\uFFFD\uFFFD\uFFFD"},
      {"\xf0\x9f\x98", "\uFFFD"},
      {"\xc0\x80", "\uFFFD\uFFFD"},
      {"\xf4\x90\x80\x80", "\uFFFD\uFFFD\uFFFD\uFFFD"},
  };
  for (const auto& [text, replaced] : kCases) {
    EXPECT_EQ(tokenizer.encode(text), tokenizer.encode(replaced));
    EXPECT_EQ(tokenizer.decode(tokenizer.encode(text)), replaced);
  }
  const std::string zero("a\0b", 3);
  EXPECT_EQ(tokenizer.decode(tokenizer.encode(zero)), zero);
}

TEST(Tokenizer, IgnoresTruncationAndPadding) {
  std::string text = SmallTokenizer{}.json();
  const auto set = [&](const std::string& key, const std::string& value) {
    const std::string old = "\"" + key + "\": null";
    text.replace(text.find(old), old.size(), "\"" + key + "\": " + value);
  };
  set("truncation", R"({"direction": "Right", "max_length": 2, "strategy": "LongestFirst",
                        "stride": 0})");
  set("padding", R"({"strategy": {"Fixed": 8}, "direction": "Right", "pad_to_multiple_of": null,
                     "pad_id": 5, "pad_type_id": 0, "pad_token": "<unk>"})");
  EXPECT_EQ(Tokenizer::from_json(text).encode("aaaa"), (Ids{0, 0, 0, 0}));
}

TEST(Tokenizer, ReadsFilesAndFolders) {
  const TemporaryFolder folder;
  const std::string path = folder.write("tokenizer.json", SmallTokenizer{}.json());
  EXPECT_EQ(Tokenizer::from_file(path).encode("ab"), Ids{3});
  EXPECT_EQ(Tokenizer::from_folder(folder.path()).encode("ab"), Ids{3});
  expect_error(ErrorKind::Io, folder.path("none"),
               [&] { Tokenizer::from_folder(folder.path("none")); });
}

TEST(Tokenizer, ReadsTheDefaultModel) {
  const std::string folder = std::string(MICA_ASSETS) + "/shakespeare-3m";
  const Tokenizer tokenizer = Tokenizer::from_folder(folder);
  const Json expected = Json::load(folder + "/expected.json");
  EXPECT_EQ(tokenizer.encode(expected.get<std::string>("prompt")), expected.get<Ids>("prompt_ids"));
  EXPECT_EQ(tokenizer.decode(expected.get<Ids>("greedy_ids")),
            expected.get<std::string>("greedy_text"));
}

TEST(Tokenizer, ManyThreadsMayShareOne) {
  const Tokenizer tokenizer = gpt2();
  const auto cases = load_cases(unpacked("tokenizers") + "/gpt2");
  std::vector<std::thread> threads;
  std::atomic<int> wrong = 0;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      for (int round = 0; round < 5; ++round) {
        for (const Case& c : cases) {
          if (tokenizer.encode(c.text) != c.ids || tokenizer.decode(c.ids) != c.decoded) ++wrong;
        }
      }
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0);
}

TEST(Tokenizer, LongWordsTakeTimeInProportion) {
  std::string word;
  for (int64_t i = 0; i < 1'000'000; ++i) word += static_cast<char>('a' + i * i % 7);
  for (const char* kind : {"gpt2", "llama2"}) {
    const auto tokenizer = Tokenizer::from_folder(unpacked("tokenizers") + "/" + kind);
    EXPECT_EQ(tokenizer.decode(tokenizer.encode(word)), word);
    const std::string same(1'000'000, 'a');
    EXPECT_EQ(tokenizer.decode(tokenizer.encode(same)), same);
    const std::string spaces(1'000'000, ' ');
    EXPECT_EQ(tokenizer.decode(tokenizer.encode(spaces)), spaces);
  }
}

TEST(Tokenizer, MergesOnlyNeighbours) {
  // Without unk_token unknown characters vanish, and their neighbours meet.
  const SmallTokenizer parts{.vocab = R"({"a": 0, "b": 1, "ab": 3, "▁": 4, "▁▁": 5, "b▁": 6})",
                             .merges = R"(["a b", "▁ ▁"])"};
  EXPECT_EQ(load(parts).encode("a?b▁?▁"), (Ids{3, 5}));
  SmallTokenizer with_unknown = parts;
  with_unknown.model = R"(, "unk_token": "b")";
  EXPECT_EQ(load(with_unknown).encode("a?b▁?▁"), (Ids{3, 1, 4, 1, 4}));
  with_unknown.merges = R"(["a b", "b ▁", "▁ ▁"])";
  EXPECT_EQ(load(with_unknown).encode("b▁▁a▁b▁"), (Ids{6, 4, 0, 4, 6}));
}

TEST(Tokenizer, ByteFallbackWantsAllBytesOfACharacter) {
  const std::string bytes = R"("<0xC3>": 10, "<0xA9>": 11)";
  const auto tokenizer = [&](const std::string& options) {
    return load({.vocab = R"({"a": 0, "<unk>": 1, )" + bytes + "}",
                 .merges = "[]",
                 .model = R"(, "byte_fallback": true)" + options});
  };
  EXPECT_EQ(tokenizer("").encode("aéè"), (Ids{0, 10, 11}));
  EXPECT_EQ(tokenizer(R"(, "unk_token": "<unk>")").encode("aéèèa"), (Ids{0, 10, 11, 1, 1, 0}));
  EXPECT_EQ(tokenizer(R"(, "unk_token": "<unk>", "fuse_unk": true)").encode("aéèèa"),
            (Ids{0, 10, 11, 1, 0}));
}

TEST(Tokenizer, AnUnknownTokenThatIsUnknownIsAnErrorOnlyWhenNeeded) {
  const Tokenizer tokenizer = load({.model = R"(, "unk_token": "[UNK]")"});
  EXPECT_EQ(tokenizer.encode("ab"), Ids{3});
  expect_error(ErrorKind::Value, "unk_token \"[UNK]\"", [&] { tokenizer.encode("abz"); });
}

TEST(StreamDecoder, HoldsBackHalfCharacters) {
  const Tokenizer tokenizer = gpt2();
  const auto ids = tokenizer.encode("\U0001F600");  // no token has all of it
  ASSERT_GT(ids.size(), 1u);
  StreamDecoder stream(tokenizer);
  for (size_t i = 0; i + 1 < ids.size(); ++i) EXPECT_EQ(stream.add(ids[i]), "");
  EXPECT_EQ(stream.add(ids.back()), "\U0001F600");
  EXPECT_EQ(stream.finish(), "");

  StreamDecoder cut(tokenizer);
  EXPECT_EQ(cut.add(ids[0]), "");
  EXPECT_EQ(cut.finish(), "\uFFFD");
}

TEST(StreamDecoder, HoldsBackRunsOfByteTokens) {
  const Tokenizer tokenizer = llama2();
  const auto byte = [&](const char* name) { return *tokenizer.token_to_id(name); };
  const int32_t letter = *tokenizer.token_to_id("e");
  StreamDecoder good(tokenizer);
  for (const char* name : {"<0xC3>", "<0xA9>"}) EXPECT_EQ(good.add(byte(name)), "");
  EXPECT_EQ(good.add(letter), "ée");
  // One bad byte makes all of the run unreadable.
  StreamDecoder bad(tokenizer);
  for (const char* name : {"<0xC3>", "<0xA9>", "<0xFF>"}) EXPECT_EQ(bad.add(byte(name)), "");
  EXPECT_EQ(bad.add(letter), "\uFFFD\uFFFD\uFFFDe");
}

TEST(StreamDecoder, CostsTheSameForEveryToken) {
  const Tokenizer tokenizer = gpt2();
  const auto ids = tokenizer.encode("the quick brown fox ");
  StreamDecoder stream(tokenizer);
  size_t bytes = 0;
  // Quadratic work would take minutes.
  for (int i = 0; i < 200'000; ++i) bytes += stream.add(ids[i % ids.size()]).size();
  EXPECT_GT(bytes, 200'000u);
}

}  // namespace
}  // namespace mica::tokenizers
