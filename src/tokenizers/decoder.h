// Decoders of tokenizer.json: how tokens become text again, piece by piece.
//
// Sequence, ByteLevel, ByteFallback, Fuse, Strip, Replace, Metaspace, BPEDecoder, WordPiece and
// CTC.
//
//   const DecoderStages stages = make_decoder(file.at("decoder"));   // for null: tokens and spaces
//   DecoderChain chain(stages);
//   chain.token("Hel");  chain.token("lo");
//   std::string text = chain.take();     // what is certain by now: "Hel lo"
//   chain.finish();
//   text += chain.take();                // and the rest
//
// Every decoder is one stage of a chain that tokens flow through. What a stage cannot know yet it
// holds back: a character whose bytes have not all come, a run of <0x..> tokens (one bad byte makes
// all of it "\uFFFD"), trailing characters that Strip may remove, the last token of BPEDecoder. All
// else goes on at once, so each token costs its own length and nothing is decoded twice. A regular
// expression behind Fuse or ByteLevel has to see the whole text and gives it at the end.
//
// Source: Hugging Face tokenizers 0.23, decoders; what makes those abort (Strip's `stop` on a
// shorter token) is read in the obvious way.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"

namespace mica::tokenizers {

class DecoderStage {
 public:
  virtual ~DecoderStage() = default;
  // Text of the current token: whole characters. A token may come in several parts.
  virtual void text(std::string_view part) = 0;
  virtual void end_token() = 0;
  // After the last token.
  virtual void finish() = 0;
  // With the state of a stage that has seen nothing, if this one has not.
  virtual std::unique_ptr<DecoderStage> clone() const = 0;

  void lead_to(DecoderStage& next) { next_ = &next; }

 protected:
  DecoderStage& next() const { return *next_; }

 private:
  DecoderStage* next_ = nullptr;
};

using DecoderStages = std::vector<std::unique_ptr<const DecoderStage>>;

// Throws Value, with the place in the file, for settings that are missing or wrong.
DecoderStages make_decoder(const Json& settings);

// One decoding under way.
class DecoderChain {
 public:
  explicit DecoderChain(const DecoderStages& stages);
  ~DecoderChain();
  DecoderChain(DecoderChain&&) noexcept;
  DecoderChain& operator=(DecoderChain&&) noexcept;

  void token(std::string_view token);
  // Nothing may follow.
  void finish();
  // The text that has come out since the last call.
  std::string take();

 private:
  class End;

  std::vector<std::unique_ptr<DecoderStage>> stages_;
  std::unique_ptr<End> end_;
};

}  // namespace mica::tokenizers
