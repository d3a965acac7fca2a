#include "tune/perplexity.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "ops/elementwise.h"
#include "ops/index.h"
#include "ops/reduce.h"
#include "ops/shape.h"
#include "ops/softmax.h"

namespace mica::tune {

namespace {

// Tokens [begin, end) of the text; those from `score` on are predicted.
struct Window {
  int64_t begin, end, score;
  int64_t length() const { return end - begin; }
};

int64_t stride_of(const PerplexityOptions& options) {
  return options.stride > 0 ? options.stride : options.context;
}

std::vector<Window> cut(int64_t tokens, const PerplexityOptions& options) {
  std::vector<Window> windows;
  int64_t covered = 0;
  for (int64_t begin = 0; covered < tokens; begin += stride_of(options)) {
    const int64_t end = std::min(begin + options.context, tokens);
    const int64_t score = std::max(covered, begin + 1);
    if (score < end) windows.push_back({begin, end, score});
    covered = end;
  }
  return windows;
}

void check(const models::ModelInfo& info, std::span<const int32_t> ids,
           const PerplexityOptions& options) {
  const auto most = info.max_positions;
  if (options.context < 2)
    throw_value("a context of {} tokens predicts nothing: at least 2 are needed", options.context);
  if (options.stride < 0 || options.stride > options.context)
    throw_value("the stride must be between 1 and the context of {}, not {}", options.context,
                options.stride);
  if (options.batch < 1 || options.chunk < 1)
    throw_value("batches and chunks have at least 1 element, not {} and {}", options.batch,
                options.chunk);
  if (info.learned_positions && options.context > most)
    throw_value("a context of {} tokens goes past the {} positions that this model has",
                options.context, most);
  if (ids.size() < 2)
    throw_value("a text of {} tokens predicts nothing: at least 2 are needed", ids.size());
  for (size_t i = 0; i < ids.size(); ++i) {
    if (ids[i] < 0 || ids[i] >= info.vocabulary)
      throw_value("id {} at position {} is outside of the vocabulary of {} tokens", ids[i], i,
                  info.vocabulary);
  }
}

// Sums of negative log-likelihoods, shifted so that the variance keeps its digits (Welford).
struct Sum {
  int64_t count = 0;
  double mean = 0, squares = 0;
  void add(double value) {
    ++count;
    const double off = value - mean;
    mean += off / static_cast<double>(count);
    squares += off * (value - mean);
  }
};

class Measurement {
 public:
  Measurement(models::Model& model, std::span<const int32_t> ids, const PerplexityOptions& options)
      : model_(model), ids_(ids), options_(options) {}

  // Windows of one length, and the same places scored.
  void score(std::span<const Window> windows) {
    std::vector<nn::SequenceCache> caches;
    std::vector<nn::SequenceCache*> sequences;
    for (size_t i = 0; i < windows.size(); ++i) caches.push_back(model_.make_cache(true));
    for (nn::SequenceCache& cache : caches) {
      cache.expect(windows[0].length());
      sequences.push_back(&cache);
    }
    // The last token predicts nothing that is scored.
    const int64_t length = windows[0].length() - 1;
    for (int64_t first = 0; first < length; first += options_.chunk) {
      const int64_t last = std::min(first + options_.chunk, length);
      pass(windows, sequences, first, last);
      const auto tokens = (last - first) * static_cast<int64_t>(windows.size());
      result_.read += tokens;
      if (options_.progress) options_.progress(tokens);
    }
    result_.windows += static_cast<int64_t>(windows.size());
  }

  Perplexity result() {
    result_.scored = sum_.count;
    result_.mean = sum_.mean;
    const auto n = static_cast<double>(sum_.count);
    if (sum_.count > 1) result_.mean_error = std::sqrt(sum_.squares / (n - 1) / n);
    return result_;
  }

 private:
  // Tokens [first, last) of each window go through the model, and what they predict is scored.
  void pass(std::span<const Window> windows, const std::vector<nn::SequenceCache*>& sequences,
            int64_t first, int64_t last) {
    const auto count = static_cast<int64_t>(windows.size());
    nn::Batch batch(sequences, last - first);
    const int64_t score = std::max(windows[0].score - windows[0].begin - 1, first);
    const bool any = score < last;
    Array logits_BLV = model_.forward(tokens(windows, first, last), batch,
                                      any ? models::LogitsAt::All : models::LogitsAt::Last);
    Arrays wanted;
    if (any) {
      logits_BLV = slice_axis(logits_BLV, 1, score - first, last - first);
      const Array targets_BL1 =
          reshape(tokens(windows, score + 1, last + 1), {count, last - score, 1});
      const Array picked = take_along_axis(logits_BLV, targets_BL1, -1);
      wanted.push_back(logsumexp(astype(logits_BLV, Dtype::F32), std::vector<int>{-1}, true) -
                       astype(picked, Dtype::F32));
    }
    for (nn::SequenceCache* sequence : sequences) {
      for (Array& state : sequence->state()) wanted.push_back(std::move(state));
    }
    eval(wanted);
    batch.advance();
    if (!any) return;
    const std::vector<float> values = wanted[0].to_vector<float>();
    for (size_t i = 0; i < values.size(); ++i) {
      const Window& window = windows[i / static_cast<size_t>(last - score)];
      if (std::isnan(values[i]))
        throw_value("the model's prediction of the token at position {} is not a number",
                    window.begin + score + 1 + static_cast<int64_t>(i) % (last - score));
      sum_.add(values[i]);
    }
  }

  // int32 [B, last - first]
  Array tokens(std::span<const Window> windows, int64_t first, int64_t last) const {
    std::vector<int32_t> ids;
    for (const Window& window : windows) {
      const auto from = ids_.begin() + window.begin;
      ids.insert(ids.end(), from + first, from + last);
    }
    return Array::from<int32_t>(ids, {static_cast<int64_t>(windows.size()), last - first});
  }

  models::Model& model_;
  std::span<const int32_t> ids_;
  const PerplexityOptions& options_;
  Sum sum_;
  Perplexity result_;
};

bool alike(const Window& a, const Window& b) {
  return a.length() == b.length() && a.score - a.begin == b.score - b.begin;
}

}  // namespace

double Perplexity::perplexity() const { return std::exp(mean); }

int64_t tokens_to_read(int64_t tokens, const PerplexityOptions& options) {
  int64_t total = 0;
  for (const Window& window : cut(tokens, options)) total += window.length() - 1;
  return total;
}

Perplexity measure_perplexity(models::Model& model, std::span<const int32_t> ids,
                              const PerplexityOptions& options) {
  check(model.info(), ids, options);
  const std::vector<Window> windows = cut(static_cast<int64_t>(ids.size()), options);
  Measurement measurement(model, ids, options);
  for (size_t begin = 0; begin < windows.size();) {
    size_t end = begin + 1;
    while (end < windows.size() && end - begin < static_cast<size_t>(options.batch) &&
           alike(windows[begin], windows[end]))
      ++end;
    measurement.score(std::span(windows).subspan(begin, end - begin));
    begin = end;
  }
  return measurement.result();
}

}  // namespace mica::tune
