// llama.cpp's worker of the language-model benchmarks (worker.h), with the library and headers that
// llama-cpp-python brings. OPTION of load is "flash" or "plain": flash attention on or off.
//
//   llama_worker                         serves commands
//   llama_worker first FILE THREADS ID…  the token after a prompt, then ends: for the time from the
//                                        start of a process to its first token
#include <llama.h>

#include <algorithm>
#include <cstring>
#include <memory>

#include "worker.h"

namespace {

void must(bool held, const char* what) {
  if (!held) throw std::runtime_error(std::string("llama.cpp: ") + what);
}

class Llama : public lm::Subject {
 public:
  ~Llama() override { free_all(); }

  void load(const std::string& path, int threads, const std::string& option) override {
    free_all();
    threads_ = threads;
    flash_ = option == "flash";
    model_ = llama_model_load_from_file(path.c_str(), llama_model_default_params());
    must(model_ != nullptr, "cannot load the model");
    vocabulary_ = llama_vocab_n_tokens(llama_model_get_vocab(model_));
  }

  double decode(int batch, int depth, int tokens) override {
    const int before = std::max(depth, 1);
    prepare(batch, before + tokens + 1);
    std::vector<int32_t> last;
    for (int s = 0; s < batch; ++s) last.push_back(pass(lm::random_ids(before, vocabulary_), s));
    const lm::Timer timer;
    for (int i = 0; i < tokens; ++i) {
      llama_batch step = llama_batch_init(batch, 0, 1);
      for (int s = 0; s < batch; ++s) add(step, last[static_cast<size_t>(s)], before + i, s, true);
      const int failed = llama_decode(context_, step);
      llama_batch_free(step);
      must(failed == 0, "a step failed");
      for (int s = 0; s < batch; ++s) last[static_cast<size_t>(s)] = best(s);
    }
    return timer.seconds();
  }

  double prefill(int tokens) override {
    prepare(1, tokens + 1);
    const auto ids = lm::random_ids(tokens, vocabulary_);
    const lm::Timer timer;
    pass(ids, 0);
    return timer.seconds();
  }

  std::vector<float> logits(const std::vector<int32_t>& ids) override {
    const int count = static_cast<int>(ids.size());
    prepare(1, count + 1);
    llama_batch batch = llama_batch_init(count, 0, 1);
    for (int i = 0; i < count; ++i) add(batch, ids[static_cast<size_t>(i)], i, 0, true);
    const int failed = llama_decode(context_, batch);
    llama_batch_free(batch);
    must(failed == 0, "the pass failed");
    std::vector<float> all;
    for (int i = 0; i < count; ++i) {
      const float* row = llama_get_logits_ith(context_, i);
      all.insert(all.end(), row, row + vocabulary_);
    }
    return all;
  }

  // The token after a prompt.
  int32_t first(const std::vector<int32_t>& ids) {
    prepare(1, static_cast<int>(ids.size()) + 1);
    return pass(ids, 0);
  }

 private:
  static constexpr int kBatch = 512;

  static void add(llama_batch& batch, int32_t id, int position, int sequence, bool logits) {
    const int n = batch.n_tokens++;
    batch.token[n] = id;
    batch.pos[n] = position;
    batch.n_seq_id[n] = 1;
    batch.seq_id[n][0] = sequence;
    batch.logits[n] = logits;
  }

  // An empty context with room for so many sequences of such a length.
  void prepare(int sequences, int length) {
    if (!context_ || sequences != sequences_ || length > length_) {
      if (context_) llama_free(context_);
      sequences_ = sequences;
      length_ = length;
      llama_context_params params = llama_context_default_params();
      params.n_ctx = static_cast<uint32_t>(sequences * ((length + 255) / 256 * 256));
      params.n_batch = params.n_ubatch = kBatch;
      params.n_seq_max = static_cast<uint32_t>(sequences);
      params.n_threads = params.n_threads_batch = threads_;
      params.flash_attn_type =
          flash_ ? LLAMA_FLASH_ATTN_TYPE_ENABLED : LLAMA_FLASH_ATTN_TYPE_DISABLED;
      context_ = llama_init_from_model(model_, params);
      must(context_ != nullptr, "cannot make a context");
    }
    llama_memory_clear(llama_get_memory(context_), false);
  }

  // A prompt in pieces; the likeliest next token.
  int32_t pass(const std::vector<int32_t>& ids, int sequence) {
    const int count = static_cast<int>(ids.size());
    int in_piece = 0;
    for (int begin = 0; begin < count; begin += kBatch) {
      const int end = std::min(begin + kBatch, count);
      in_piece = end - begin;
      llama_batch batch = llama_batch_init(in_piece, 0, 1);
      for (int i = begin; i < end; ++i)
        add(batch, ids[static_cast<size_t>(i)], i, sequence, i + 1 == count);
      const int failed = llama_decode(context_, batch);
      llama_batch_free(batch);
      must(failed == 0, "the prompt's pass failed");
    }
    return best(in_piece - 1);
  }

  int32_t best(int row) {
    const float* logits = llama_get_logits_ith(context_, row);
    float top = logits[0];  // two loops, since only the first needs to be fast, and is
    for (int64_t i = 1; i < vocabulary_; ++i) top = logits[i] > top ? logits[i] : top;
    return static_cast<int32_t>(std::find(logits, logits + vocabulary_, top) - logits);
  }

  void free_all() {
    if (context_) llama_free(context_);
    if (model_) llama_model_free(model_);
    context_ = nullptr;
    model_ = nullptr;
  }

  llama_model* model_ = nullptr;
  llama_context* context_ = nullptr;
  int64_t vocabulary_ = 0;
  int threads_ = 1, sequences_ = 0, length_ = 0;
  bool flash_ = false;
};

void log_errors(ggml_log_level level, const char* text, void*) {
  if (level == GGML_LOG_LEVEL_ERROR) std::fputs(text, stderr);
}

}  // namespace

int main(int count, char** words) {
  llama_log_set(log_errors, nullptr);
  llama_backend_init();
  Llama llama;
  if (count < 2) return lm::serve(llama);
  if (count < 5 || std::strcmp(words[1], "first") != 0) {
    std::fputs("usage: llama_worker [first FILE THREADS ID...]\n", stderr);
    return 2;
  }
  try {
    llama.load(words[2], std::atoi(words[3]), "flash");
    std::vector<int32_t> ids;
    for (int i = 4; i < count; ++i) ids.push_back(std::atoi(words[i]));
    std::printf("%d\n", llama.first(ids));
    std::fflush(stdout);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
  return 0;
}
