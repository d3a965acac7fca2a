// What normalizers, pre-tokenizers and decoders look for in a text: a string or a regular
// expression; and what becomes of the text around the matches.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/function_ref.h"
#include "base/json.h"
#include "tokenizers/regex.h"
#include "tokenizers/split_text.h"
#include "tokenizers/unicode.h"

namespace mica::tokenizers {

// A part of a text, either a match or what lies between two.
using Segment = FunctionRef<void(size_t begin, size_t end, bool is_match)>;

class Pattern {
 public:
  // {"String": "..."} or {"Regex": "..."}
  explicit Pattern(const Json& settings);

  // The segments of the text in order; together they are the text.
  void for_each_segment(std::string_view text, Segment segment) const;

  // The text with all matches replaced. Throws Value if that makes more than `limit` bytes.
  // `head`: as Piece::head, kept up to date; new text stems from the last character it replaces.
  std::string replace(std::string_view text, std::string_view content, size_t limit,
                      size_t* head = nullptr) const;

  // The string, unless this is a regular expression (which an empty string is, too).
  const std::string* literal() const { return regex_ ? nullptr : &literal_; }

 private:
  std::string literal_;
  std::optional<Regex> regex_;
};

// The segments where a predicate holds, one for each character, and what lies between them.
template <class Predicate>
void for_each_char_segment(std::string_view text, Predicate is_match, Segment segment) {
  size_t last = 0;
  for (size_t at = 0; at < text.size();) {
    const size_t begin = at;
    if (!is_match(next_char(text, at))) continue;
    if (last < begin) segment(last, begin, false);
    segment(begin, at, true);
    last = at;
  }
  if (last < text.size()) segment(last, text.size(), false);
}

// What a split makes of segments. With "the-final--countdown" and "-" as pattern:
enum class SplitBehavior {
  Removed,             // the | final | countdown
  Isolated,            // the | - | final | - | - | countdown
  MergedWithPrevious,  // the- | final- | - | countdown
  MergedWithNext,      // the | -final | - | -countdown
  Contiguous,          // the | - | final | -- | countdown
};

SplitBehavior split_behavior(const Json& name);

// Receives the segments of one piece and appends the pieces that they make.
class SegmentCollector {
 public:
  // `shift`: where the piece's text starts in the text that the new pieces are of.
  SegmentCollector(std::vector<Piece>& out, SplitBehavior behavior, size_t shift, size_t head)
      : out_(out), behavior_(behavior), shift_(shift), head_(head) {}

  void add(size_t begin, size_t end, bool is_match);
  // After the last segment.
  void finish();

 private:
  void emit();

  std::vector<Piece>& out_;
  SplitBehavior behavior_;
  size_t shift_;
  size_t head_;
  // The piece being made, held back because the next segment may belong to it.
  bool pending_ = false;
  size_t begin_ = 0;
  size_t end_ = 0;
  bool last_was_match_ = false;
};

// Cuts every piece that is not a token: `segments(text, segment)` says where.
template <class Segments>
void split_pieces(SplitText& split, SplitBehavior behavior, const Segments& segments) {
  std::vector<Piece> out;
  out.reserve(split.pieces.size());
  for (const Piece& piece : split.pieces) {
    if (piece.token >= 0) {
      out.push_back(piece);
      continue;
    }
    SegmentCollector collector(out, behavior, piece.begin, piece.head);
    segments(split.of(piece),
             [&](size_t begin, size_t end, bool is_match) { collector.add(begin, end, is_match); });
    collector.finish();
  }
  split.pieces = std::move(out);
}

}  // namespace mica::tokenizers
