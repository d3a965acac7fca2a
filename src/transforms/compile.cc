#include "transforms/compile.h"

#include <algorithm>
#include <atomic>
#include <cstdlib>

namespace mica {

namespace {

std::atomic<bool>& disabled() {
  static std::atomic<bool> flag = [] {
    const char* value = std::getenv("MICA_DISABLE_COMPILE");
    return value && *value && std::string_view(value) != "0";
  }();
  return flag;
}

KeyWords signature(const Arrays& inputs, std::span<const uint64_t> constants) {
  KeyWords key;
  Stream stream = resolve({});
  key.push_back(static_cast<uint64_t>(stream.device.kind) << 32 |
                static_cast<uint64_t>(stream.device.index) << 16 |
                static_cast<uint16_t>(stream.index));
  key.push_back(inputs.size());
  for (const Array& input : inputs) {
    key.push_back(static_cast<uint64_t>(input.dtype()) << 32 | input.rank());
    key.insert(key.end(), input.shape().begin(), input.shape().end());
  }
  key.insert(key.end(), constants.begin(), constants.end());
  return key;
}

}  // namespace

void disable_compile() { disabled() = true; }
void enable_compile() { disabled() = false; }

Compiled::Compiled(Function f) : function_(std::move(f)) {}

size_t Compiled::traces() const {
  std::lock_guard lock(mutex_);
  return traces_;
}

std::shared_ptr<const Compiled::Trace> Compiled::find(const KeyWords& key) {
  std::lock_guard lock(mutex_);
  auto found = std::find_if(kept_.begin(), kept_.end(), [&](auto& t) { return t->key == key; });
  if (found == kept_.end()) return nullptr;
  kept_.splice(kept_.begin(), kept_, found);
  return kept_.front();
}

std::shared_ptr<const Compiled::Trace> Compiled::trace(KeyWords key, const Arrays& inputs) const {
  TraceScope scope;
  Arrays sources;
  for (const Array& input : inputs) sources.push_back(placeholder(input.shape(), input.dtype()));
  std::shared_ptr<void> structure;
  Arrays outputs = function_(sources, structure);
  return std::make_shared<const Trace>(
      Trace{std::move(key), transforms::Tape(outputs, sources, true), std::move(structure)});
}

void Compiled::keep(std::shared_ptr<const Trace> trace) {
  const Arrays& captured = trace->tape.captured();
  bool foreign = TraceScope::depth() > 0 &&
                 std::any_of(captured.begin(), captured.end(),
                             [](const Array& array) { return array.node()->traced; });
  std::lock_guard lock(mutex_);
  ++traces_;
  if (foreign) return;
  kept_.push_front(std::move(trace));
  if (kept_.size() > kTracesKept) kept_.pop_back();
}

Arrays Compiled::operator()(const Arrays& inputs, std::span<const uint64_t> constants,
                            std::shared_ptr<void>* structure) {
  std::shared_ptr<void> ignored;
  if (!structure) structure = &ignored;
  if (disabled()) return function_(inputs, *structure);
  KeyWords key = signature(inputs, constants);
  std::shared_ptr<const Trace> found = find(key);
  if (!found) {
    found = trace(std::move(key), inputs);
    keep(found);
  }
  *structure = found->structure;
  return found->tape.replay(inputs);
}

ArraysFunction compile(ArraysFunction f, bool) {
  auto compiled = std::make_shared<Compiled>(
      [f = std::move(f)](const Arrays& inputs, std::shared_ptr<void>&) { return f(inputs); });
  return [compiled](const Arrays& inputs) { return (*compiled)(inputs); };
}

}  // namespace mica
