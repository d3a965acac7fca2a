// Perplexity: how well a model predicts a text.
//
//   PerplexityOptions options{.context = 512};
//   Perplexity result = measure_perplexity(*model, ids, options);
//   result.perplexity();   // exp of the mean negative log-likelihood of a token, ± result.error()
//
// Definition. The text's N tokens t[0] … t[N-1] are cut into windows of `context` tokens that begin
// at 0, stride, 2 · stride, …; the last one may be shorter. Each window is read on its own, without
// state of another. It scores those of its tokens that no earlier window held, except its own
// first, which has nothing before it: a scored token's negative log-likelihood is -ln p(t[i] | the
// tokens of the window before it), with log-softmax in float32. All scored tokens weigh the same:
//
//   mean = 1/n Σ nll,  perplexity = exp(mean)
//   error of the mean = sqrt(Σ (nll - mean)² / (n - 1) / n),  of the perplexity: that times itself
//
// The error (of the first order, as if tokens were independent) says how far the text is a sample,
// not how two models differ on the same text, which is known much better.
//
// - stride = context, the default: windows side by side, context - 1 scored in each. This is
//   mlx_lm.perplexity (mlx_lm/perplexity.py: cross entropy of batch[:, 1:] given batch[:, :-1],
//   error sqrt(var(ddof=1) / n)), except that it draws samples of a data set at random and drops a
//   remainder shorter than a window.
// - stride < context: each token but the text's first is scored once, with at least context -
// stride
//   tokens before it: the sliding window of Hugging Face's guide
//   (https://huggingface.co/docs/transformers/perplexity), which averages the windows' means
//   instead of all tokens.
// - llama-perplexity (llama.cpp, tools/perplexity) takes windows side by side, scores only the
// second
//   half of each, and replaces the first token of each by the beginning-of-text token where the
//   model has one. stride = context / 2 scores with the same contexts, but every token.
//
// Compare models at equal context, stride and text; perplexities of different tokenizers do not
// compare.
#pragma once

#include <cstdint>
#include <functional>
#include <span>

#include "models/model.h"

namespace mica::tune {

struct PerplexityOptions {
  int64_t context = 512;  // tokens of a window, 2 or more
  int64_t stride = 0;     // from 1 to context; 0: context
  int64_t batch = 1;      // windows that are read together
  int64_t chunk = 512;    // tokens of a window per forward pass: bounds the logits that there are
  // Called after each pass with the tokens that it read; what it throws ends the measurement.
  std::function<void(int64_t tokens)> progress = {};
};

struct Perplexity {
  int64_t windows = 0;
  int64_t read = 0;  // tokens that went through the model, those of overlaps each time
  int64_t scored = 0;
  double mean = 0;        // negative log-likelihood per token, natural logarithm
  double mean_error = 0;  // its standard error; 0 for a single token
  double perplexity() const;
  double error() const { return perplexity() * mean_error; }
};

// Tokens that measure_perplexity will read: the total of its progress.
int64_t tokens_to_read(int64_t tokens, const PerplexityOptions& options);

// Errors, all Value: fewer than two tokens, ids outside of the vocabulary, options out of range, a
// context longer than learned positions, and predictions that are not numbers.
Perplexity measure_perplexity(models::Model& model, std::span<const int32_t> ids,
                              const PerplexityOptions& options = {});

}  // namespace mica::tune
