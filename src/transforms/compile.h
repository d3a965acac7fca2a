// compile: a function is traced once per signature, its graph simplified and kept; further calls
// build that graph again without calling the function.
//
//   auto step = compile([](const Arrays& a) { return Arrays{a[0] * sigmoid(a[0])}; });
//   Array y = step({x})[0];
//
// A signature is the shapes and types of the inputs, the constants, the default stream and nothing
// else: the function must depend on nothing else. What it captures is an input that stays as it was
// at the trace; random state and module parameters that change must be passed in and out.
// Simplifying merges equal applications and drops what no output needs. Results are the same bits
// as without compile. Evaluating what depends on an input inside the function is a ValueError.
//
// Compiled functions nest with every other transform, and are themselves differentiable and
// batchable. Inside another transform, a trace that captures that transform's arrays is used once
// and not kept.
#pragma once

#include <list>
#include <memory>
#include <mutex>
#include <vector>

#include "core/params.h"
#include "transforms/tape.h"

namespace mica {

// `shapeless` is MLX's: here a new shape means a new trace, which is always right and costs one
// call.
ArraysFunction compile(ArraysFunction f, bool shapeless = false);

// Process-wide: while disabled, compiled functions call the function. MICA_DISABLE_COMPILE=1 in the
// environment starts so.
void disable_compile();
void enable_compile();

// For language bindings: constants in the signature, and a structure (the nesting of the outputs,
// say) that the function gives when it is traced and each call gets back. Any thread may call.
class Compiled {
 public:
  using Function = std::function<Arrays(const Arrays& inputs, std::shared_ptr<void>& structure)>;
  explicit Compiled(Function f);

  Arrays operator()(const Arrays& inputs, std::span<const uint64_t> constants = {},
                    std::shared_ptr<void>* structure = nullptr);
  // How often the function was traced so far; for tests.
  size_t traces() const;

  static constexpr size_t kTracesKept = 256;  // the least recently used go first

 private:
  struct Trace {
    KeyWords key;
    transforms::Tape tape;
    std::shared_ptr<void> structure;
  };
  std::shared_ptr<const Trace> find(const KeyWords& key);
  std::shared_ptr<const Trace> trace(KeyWords key, const Arrays& inputs) const;
  void keep(std::shared_ptr<const Trace> trace);

  Function function_;
  mutable std::mutex mutex_;  // guards what follows; not held while the function runs
  std::list<std::shared_ptr<const Trace>> kept_;  // most recently used first
  size_t traces_ = 0;
};

}  // namespace mica
