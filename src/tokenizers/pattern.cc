#include "tokenizers/pattern.h"

#include <utility>

namespace mica::tokenizers {

Pattern::Pattern(const Json& settings) {
  if (const auto text = settings.find("String")) {
    literal_ = text->as<std::string>();
    if (literal_.empty()) regex_.emplace("");
  } else if (const auto regex = settings.find("Regex")) {
    try {
      regex_.emplace(regex->as<std::string>());
    } catch (const Error& error) {
      throw Error(error.kind(), fmt::format("{}: {}", regex->where(), error.what()));
    }
  } else {
    settings.fail("must have \"String\" or \"Regex\"");
  }
}

void Pattern::for_each_segment(std::string_view text, Segment segment) const {
  if (text.empty()) return;
  size_t last = 0;
  const auto match = [&](size_t begin, size_t end) {
    if (last != begin) segment(last, begin, false);
    segment(begin, end, true);
    last = end;
  };
  if (regex_) {
    regex_->for_each_match(text, match);
  } else {
    for (size_t at = 0; (at = text.find(literal_, at)) != std::string_view::npos;) {
      match(at, at + literal_.size());
      at += literal_.size();
    }
  }
  if (last != text.size()) segment(last, text.size(), false);
}

std::string Pattern::replace(std::string_view text, std::string_view content, size_t limit,
                             size_t* head) const {
  std::string out;
  out.reserve(text.size());
  size_t new_head = 0;
  for_each_segment(text, [&](size_t begin, size_t end, bool is_match) {
    out += is_match ? content : text.substr(begin, end - begin);
    check_expansion(out.size(), limit);
    if (!head || begin >= *head) return;
    if (!is_match) {
      new_head += head_of_part(*head, begin, end);
    } else if (end <= *head) {
      new_head += content.size();
    }
  });
  if (head) *head = new_head;
  return out;
}

SplitBehavior split_behavior(const Json& name) {
  constexpr std::pair<const char*, SplitBehavior> kNames[] = {
      {"Removed", SplitBehavior::Removed},
      {"Isolated", SplitBehavior::Isolated},
      {"MergedWithPrevious", SplitBehavior::MergedWithPrevious},
      {"MergedWithNext", SplitBehavior::MergedWithNext},
      {"Contiguous", SplitBehavior::Contiguous},
  };
  const auto text = name.as<std::string>();
  for (const auto& [known, behavior] : kNames) {
    if (text == known) return behavior;
  }
  name.fail(
      "must be Removed, Isolated, MergedWithPrevious, MergedWithNext or Contiguous, not \"{}\"",
      text);
}

void SegmentCollector::add(size_t begin, size_t end, bool is_match) {
  bool joins = false;
  switch (behavior_) {
    case SplitBehavior::Removed:
      if (is_match) return;
      break;
    case SplitBehavior::Isolated: break;
    case SplitBehavior::MergedWithPrevious: joins = is_match && !last_was_match_; break;
    case SplitBehavior::MergedWithNext: joins = !is_match && last_was_match_; break;
    case SplitBehavior::Contiguous: joins = is_match == last_was_match_; break;
  }
  last_was_match_ = is_match;
  if (!joins || !pending_) {
    emit();
    begin_ = begin;
  }
  pending_ = true;
  end_ = end;
}

void SegmentCollector::finish() { emit(); }

void SegmentCollector::emit() {
  if (pending_ && begin_ < end_) {
    out_.push_back({shift_ + begin_, shift_ + end_, head_of_part(head_, begin_, end_), -1});
  }
  pending_ = false;
}

}  // namespace mica::tokenizers
