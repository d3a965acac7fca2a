// Mica's worker of the language-model benchmarks (worker.h): its decode engine, as `mica generate`
// uses it. OPTION of load is the activations' dtype, "exact" for activations that are not rounded
// to 8 bits, or "-". It adds
//
//   bytes BATCH CONTEXT          what a step of generation reads at least
//   operations TOKENS            what a prompt of so many tokens computes at least
//   ceiling read|int8|float32    what the machine gives at this moment, per second
#include "base/ceilings.h"
#include "base/thread_pool.h"
#include "core/dtype.h"
#include "generate/engine.h"
#include "models/load.h"
#include "models/traffic.h"
#include "ops/elementwise.h"
#include "worker.h"

namespace {

class Mica : public lm::Subject {
 public:
  void load(const std::string& path, int threads, const std::string& option) override {
    mica::ThreadPool::shared().set_threads(threads);
    mica::models::LoadOptions options;
    options.exact = option == "exact";
    if (option != "-" && !options.exact) options.activations = mica::dtype_from_name(option);
    model_ = mica::models::load_model(path, options).model;
    engine_ = std::make_unique<mica::generate::Engine>(model_, nullptr);
  }

  double decode(int batch, int depth, int tokens) override {
    for (int i = 0; i < batch; ++i)
      engine_->add(
          {.prompt = ids(std::max(depth, 1)), .max_tokens = tokens + 1, .ignore_eos = true});
    for (size_t ready = 0; ready < static_cast<size_t>(batch);) ready += engine_->step().size();
    return run();
  }

  double more(const std::string& command, std::istream& words) override {
    if (command == "bytes") {
      const auto batch = lm::take<int>(words);
      return mica::models::decode_bytes(*model_, batch, lm::take<int>(words));
    }
    if (command == "operations")
      return mica::models::prompt_operations(*model_, lm::take<int>(words), 1);
    if (command == "ceiling") return ceiling(lm::take<std::string>(words));
    return Subject::more(command, words);
  }

  double prefill(int tokens) override {
    engine_->add({.prompt = ids(tokens), .max_tokens = 1, .ignore_eos = true});
    return run();
  }

  std::vector<float> logits(const std::vector<int32_t>& ids) override {
    mica::nn::SequenceCache cache = model_->make_cache(true);
    const auto count = static_cast<int64_t>(ids.size());
    mica::nn::Batch batch({&cache}, count);
    const auto input = mica::Array::from<int32_t>(ids, mica::Shape{1, count});
    return mica::astype(model_->forward(input, batch, mica::models::LogitsAt::All),
                        mica::Dtype::F32)
        .to_vector<float>();
  }

 private:
  std::vector<int32_t> ids(int count) { return lm::random_ids(count, model_->info().vocabulary); }

  double ceiling(const std::string& what) {
    if (what == "int8") return mica::arithmetic_ceiling(mica::Arithmetic::Int8);
    if (what == "float32") return mica::arithmetic_ceiling(mica::Arithmetic::Float32);
    if (what != "read") throw std::runtime_error("unknown ceiling " + what);
    if (!reader_) reader_.emplace();
    return std::max({reader_->read(), reader_->read(), reader_->read()});
  }

  double run() {
    const lm::Timer timer;
    while (engine_->busy()) engine_->step();
    return timer.seconds();
  }

  std::shared_ptr<mica::models::Model> model_;
  std::unique_ptr<mica::generate::Engine> engine_;
  std::optional<mica::MemoryReader> reader_;
};

}  // namespace

int main() {
  Mica mica;
  return lm::serve(mica);
}
