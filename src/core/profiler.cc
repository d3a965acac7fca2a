#include "core/profiler.h"

#include <chrono>
#include <mutex>
#include <unordered_map>

#include "base/error.h"

namespace mica {

namespace {

// Rules are set while the tables of operations are built, before anything runs.
std::unordered_map<const Op*, CostRule>& rules() {
  static std::unordered_map<const Op*, CostRule> rules;
  return rules;
}

struct Recorder {
  std::mutex mutex;  // guards all of it
  bool active = false;
  int64_t start = 0;
  uint64_t number = 0;  // of the recording, so that threads know when to take a new name
  int32_t threads = 0;
  Profile profile;
  std::unordered_map<std::string, int32_t> calls;
};

// Never destroyed: the worker of async_eval may still run when the process ends.
Recorder& recorder() {
  static Recorder& recorder = *new Recorder;
  return recorder;
}

int32_t thread_number(Recorder& all) {
  static thread_local uint64_t recording = 0;
  static thread_local int32_t number = 0;
  if (recording != all.number) {
    recording = all.number;
    number = all.threads++;
  }
  return number;
}

// Under the mutex. Events that began before the recording are not part of it.
void record(Recorder& all, ProfileEvent event, int64_t end) {
  if (!all.active || event.start < all.start) return;
  event.duration = end - event.start;
  event.start -= all.start;
  event.thread = thread_number(all);
  if (all.profile.events.size() < Profile::kMostEvents)
    all.profile.events.push_back(event);
  else
    ++all.profile.dropped;
}

void append(std::string& key, const View& view) {
  key += static_cast<char>(view.dtype);
  key += static_cast<char>(view.shape.size());
  key.append(reinterpret_cast<const char*>(view.shape.data()), view.shape.size() * sizeof(int64_t));
}

std::string name_of(const Region& region) {
  constexpr size_t kNamed = 6;
  if (region.instructions.size() == 1 && !region.reduction) return region.instructions[0].op->name;
  std::vector<const char*> names;
  for (const RegionInstruction& instruction : region.instructions) {
    if (instruction.arity > 0) names.push_back(instruction.op->name);  // the others are constants
  }
  if (region.reduction) names.push_back(region.reduction->name);
  std::string text;
  for (size_t i = 0; i < names.size(); ++i) {
    if (i == kNamed && names.size() > kNamed + 1)
      return text + fmt::format("+{} more", names.size() - kNamed);
    if (i) text += '+';
    text += names[i];
  }
  return text;
}

std::vector<ProfileCall::Operand> operands(std::span<const View> views) {
  std::vector<ProfileCall::Operand> all;
  for (const View& view : views) all.push_back({view.dtype, view.shape});
  return all;
}

double sum_of_bytes(std::span<const View> views) {
  double bytes = 0;
  for (const View& view : views) bytes += view_bytes(view);
  return bytes;
}

}  // namespace

void set_cost_rule(const Op& op, CostRule rule) { rules()[&op] = rule; }

double view_bytes(const View& view) {
  double size = size_of(view.dtype);
  for (size_t i = 0; i < view.shape.size(); ++i) {
    if (view.shape[i] == 0) return 0;
    if (view.strides[i] != 0) size *= static_cast<double>(view.shape[i]);
  }
  return size;
}

Cost cost_of(const KernelCall& call) {
  auto rule = rules().find(call.op);
  if (rule != rules().end()) return rule->second(call);
  return {.bytes = sum_of_bytes(call.inputs) + sum_of_bytes(call.outputs)};
}

void start_profile() {
  Recorder& all = recorder();
  std::lock_guard lock(all.mutex);
  if (all.active) throw_value("[profiler] a recording is already under way; stop it first");
  all.active = true;
  ++all.number;
  all.threads = 0;
  all.profile = {};
  all.calls.clear();
  all.start = detail::profile_clock();
  detail::profiling.store(true, std::memory_order_relaxed);
}

Profile stop_profile() {
  if (detail::is_profiling()) synchronize();
  Recorder& all = recorder();
  std::lock_guard lock(all.mutex);
  if (!all.active) throw_value("[profiler] nothing is being recorded; start it first");
  detail::profiling.store(false, std::memory_order_relaxed);
  all.active = false;
  all.profile.duration = detail::profile_clock() - all.start;
  all.calls.clear();
  return std::move(all.profile);
}

namespace detail {

std::atomic<bool> profiling{false};

int64_t profile_clock() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

void ProfilePhase::end() noexcept {
  const int64_t now = profile_clock();
  try {
    Recorder& all = recorder();
    std::lock_guard lock(all.mutex);
    record(all, {.kind = kind_, .call = -1, .start = start_, .bytes = 0, .flops = 0}, now);
  } catch (...) {
    // Without memory for it the event is missing.
  }
  start_ = -1;
}

void record_call(const Op* op, const Region* region, std::span<const View> inputs,
                 std::span<const View> outputs, const Cost& cost, int64_t start) {
  const int64_t now = profile_clock();
  static thread_local std::string key;
  key = region ? name_of(*region) : op ? op->name : "copy";
  const size_t name = key.size();
  key += '\0';
  for (const View& view : inputs) append(key, view);
  key += '\1';
  for (const View& view : outputs) append(key, view);
  Recorder& all = recorder();
  std::lock_guard lock(all.mutex);
  if (!all.active) return;
  auto [at, fresh] = all.calls.try_emplace(key, static_cast<int32_t>(all.profile.calls.size()));
  if (fresh)
    all.profile.calls.push_back({key.substr(0, name), operands(inputs), operands(outputs)});
  const ProfileKind kind = region ? ProfileKind::Region
                           : op   ? ProfileKind::Kernel
                                  : ProfileKind::Copy;
  record(all,
         {.kind = kind,
          .arithmetic = cost.arithmetic,
          .call = at->second,
          .start = start,
          .bytes = cost.bytes,
          .flops = cost.flops},
         now);
}

}  // namespace detail
}  // namespace mica
