// Byte pair encoding: a word starts as its characters, and neighbours are joined in the order of
// the list of merges until none applies.
//
//   Bpe bpe(std::move(vocab), options, 280'000);
//   bpe.add_merges({{"t", "h"}, {"th", "e"}});   // the first has precedence
//   std::vector<int32_t> ids;
//   bpe.encode(split, ids);
//
// A word of n characters takes O(n log n). Words that came lately are remembered.
//
// What is not in the vocabulary: with byte_fallback the bytes of the character as <0x00> to <0xFF>,
// where the vocabulary has all of them; else unk_token, once for each run of such characters with
// fuse_unk; without unk_token nothing.
//
// Source: Sennrich et al. 2016, https://aclanthology.org/P16-1162; the details are those of Hugging
// Face tokenizers 0.23, models/bpe.
#pragma once

#include <array>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "tokenizers/model.h"

namespace mica::tokenizers {

struct BpeOptions {
  std::optional<std::string> unk_token;
  std::string continuing_subword_prefix;  // before every character of a word but the first
  std::string end_of_word_suffix;         // after the last
  bool fuse_unk = false;
  bool byte_fallback = false;
  bool ignore_merges = false;  // a word that is a token is that token
};

class Bpe : public Model {
 public:
  Bpe(Vocab vocab, BpeOptions options, size_t expected_merges);
  ~Bpe() override;

  // Appends to the list, before the first encode; at most as many as were expected. Throws Value if
  // one of the tokens, or the one they make, is unknown.
  using MergePair = std::pair<std::string_view, std::string_view>;
  void add_merges(std::span<const MergePair> pairs);

  const Vocab& vocab() const override { return vocab_; }
  // Throws Value if unk_token is needed and not in the vocabulary.
  void encode(const SplitText& split, std::vector<int32_t>& ids) const override;

 private:
  struct Workspace;
  struct Merge {
    int32_t left = -1;
    int32_t right = -1;
    uint32_t rank = 0;
    int32_t result = -1;
  };

  int32_t guess(std::string_view left, std::string_view right) const;
  const Merge* find_merge(int32_t left, int32_t right) const;
  Merge resolve(const MergePair& pair);
  size_t first_slot(int32_t left, int32_t right) const;
  size_t merge_slot(int32_t left, int32_t right) const;

  void encode_cached(std::string_view word, Workspace& workspace, std::vector<int32_t>& ids) const;
  void encode_word(std::string_view word, Workspace& workspace, std::vector<int32_t>& ids) const;
  size_t independent_end(std::string_view text, size_t begin) const;
  void note_joined(std::string_view left, std::string_view right);
  bool joins_mark(char32_t c) const;
  void split_word(std::string_view word, Workspace& workspace) const;
  void merge_all(Workspace& workspace) const;
  bool append_bytes(std::string_view character, Workspace& workspace) const;
  int32_t find_char(std::string_view character) const;
  int32_t unknown() const;

  std::unique_ptr<Workspace> take_workspace() const;
  void give_back(std::unique_ptr<Workspace> workspace) const;

  Vocab vocab_;
  BpeOptions options_;
  uint64_t seed_;
  std::vector<Merge> merges_;  // open-addressed by both ids, a power of two
  size_t merge_count_ = 0;
  int32_t last_result_ = -1;
  std::string buffer_;
  std::vector<int32_t> char_ids_;  // of characters up to U+FFFF
  // Without a pre-tokenizer the whole text is one word. It falls apart before each "▁" that no
  // merge joins to the character before it; those that some merge joins are listed, mostly "▁"
  // alone.
  bool cuts_at_mark_ = false;
  std::vector<char32_t> joined_to_mark_;
  std::array<int32_t, 256> byte_ids_{};

  // One for each thread that encodes; kept for the next.
  mutable std::mutex mutex_;
  mutable std::vector<std::unique_ptr<Workspace>> workspaces_;
};

}  // namespace mica::tokenizers
