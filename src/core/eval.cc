#include <algorithm>
#include <condition_variable>
#include <deque>
#include <thread>
#include <utility>

#include "core/graph.h"
#include "core/profiler.h"
#include "core/run.h"
#include "core/single.h"
#include "core/trace.h"

namespace mica {

namespace {

// Nodes of one plan at most: long graphs run in pieces that meet the plan cache.
constexpr size_t kSegmentNodes = 2048;
// More take a while to plan and bind, however small their arrays.
constexpr size_t kBriefNodes = 256;

struct Scratch {
  Work work;
  Segment segment;
  PlanMemo plans;
  Runner runner;
  KeyWords key;
};
thread_local std::unique_ptr<Scratch> kept_scratch;

// Tables are kept from eval to eval; a second eval nested in the first (a lowering may not, but a
// custom function may) gets its own.
class ScratchLease {
 public:
  ScratchLease()
      : kept_(kept_scratch), scratch_(kept_ ? std::move(kept_) : std::make_unique<Scratch>()) {}
  ~ScratchLease() {
    scratch_->work.clear();
    kept_ = std::move(scratch_);
  }
  Scratch* operator->() { return scratch_.get(); }
  Scratch& operator*() { return *scratch_; }

 private:
  std::unique_ptr<Scratch>& kept_;  // the thread's
  std::unique_ptr<Scratch> scratch_;
};

// Cuts long work in creation order, which keeps the memory of what crosses the cuts low.
void sort_for_cutting(Work& work) {
  if (work.nodes.size() <= kSegmentNodes) return;
  std::stable_sort(work.nodes.begin(), work.nodes.end(),
                   [](const WorkNode& a, const WorkNode& b) { return a.rank < b.rank; });
}

// Publishes what ran: held values get their data, nodes are Done and let go of their inputs.
void publish(const Work& work, const Segment& segment, Runner& runner) {
  {
    GraphLock lock;
    for (size_t v = 0; v < segment.values.size(); ++v) {
      const SegmentValue& value = segment.values[v];
      if (value.held) value.slot->data = runner.take_data(static_cast<int32_t>(v));
    }
    for (const SegmentNode& node : segment.nodes) {
      node.node->claim = nullptr;
      node.node->state.store(NodeState::Done, std::memory_order_release);
    }
  }
  runner.clear();
  for (const SegmentNode& node : segment.nodes) {
    if (!(work.keep_traced && node.node->traced)) drop_inputs(*node.node);
  }
}

void fail(Node& node, const std::exception_ptr& error) {
  node.claim = nullptr;
  node.error = new std::exception_ptr(error);
  node.state.store(NodeState::Failed, std::memory_order_release);
}

// After an error: held values that were computed are Done; what failed, and what needs it or needs
// memory that an update has consumed, is Failed; the rest is as before.
void publish_failure(const Segment& segment, const Plan& plan, Runner& runner,
                     const std::exception_ptr& error) {
  size_t completed = runner.completed_steps();
  std::vector<bool> done(segment.nodes.size(), false), failed(segment.nodes.size(), false);
  auto mark = [&](const PlanStep& step, std::vector<bool>& set) {
    if (!step.region)
      set[static_cast<size_t>(step.node)] = true;
    else
      for (int32_t node : step.region->param_nodes) set[static_cast<size_t>(node)] = true;
    set[static_cast<size_t>(step.node)] = true;
  };
  for (size_t s = 0; s < completed; ++s) mark(plan.steps[s], done);
  if (completed < plan.steps.size()) mark(plan.steps[completed], failed);
  auto lost = [&](int32_t ref) {
    if (ref < 0) return runner.consumed(static_cast<size_t>(~ref), completed + 1);
    return static_cast<bool>(
        failed[static_cast<size_t>(segment.values[static_cast<size_t>(ref)].node)]);
  };
  GraphLock lock;
  for (size_t n = 0; n < segment.nodes.size(); ++n) {
    const SegmentNode& node = segment.nodes[n];
    bool held = false;
    for (uint32_t o = 0; o < node.node->output_count; ++o)
      held |= segment.values[node.first_value + o].held;
    if (done[n] && held) {
      for (uint32_t o = 0; o < node.node->output_count; ++o) {
        size_t value = node.first_value + o;
        if (segment.values[value].held)
          segment.values[value].slot->data = runner.take_data(static_cast<int32_t>(value));
      }
      node.node->claim = nullptr;
      node.node->state.store(NodeState::Done, std::memory_order_release);
      continue;
    }
    for (int32_t ref : segment.refs_of(node)) {
      if (lost(ref)) failed[n] = true;
    }
    if (failed[n]) {
      fail(*node.node, error);
    } else {
      node.node->claim = nullptr;
      node.node->state.store(NodeState::Unevaluated, std::memory_order_release);
    }
  }
}

// What eval's caller wants to know.
class BeforeLong {
 public:
  explicit BeforeLong(const std::function<void()>* call) : call_(call) {}
  bool wanted() const { return call_; }
  void operator()() {
    if (auto* call = std::exchange(call_, nullptr)) (*call)();
  }

 private:
  const std::function<void()>* call_;
};

// With the lock held or not; lets go of it once it has the numbers.
void run_segment(Scratch& scratch, size_t first, size_t last, GraphLock& lock,
                 BeforeLong& before_long) {
  auto& [work, segment, plans, runner, key] = scratch;
  const Plan* plan = nullptr;
  try {
    detail::ProfilePhase phase(ProfileKind::Plan);
    lock.hold();
    number_segment(work, first, last, segment, lock);
    lock.let_go();
    plan = &plans.plan_for(segment);
    runner.bind(segment, *plan);
    if (before_long.wanted() && !runner.is_brief()) before_long();
  } catch (...) {
    lock.let_go();
    runner.clear();
    unclaim(work, first, last);
    throw;
  }
  try {
    detail::ProfilePhase phase(ProfileKind::Run);
    runner.run();
    runner.check_mapped_files();
  } catch (...) {
    publish_failure(segment, *plan, runner, std::current_exception());
    runner.clear();
    throw;
  }
  publish(work, segment, runner);
}

// After waiting: false if another evaluation gave back (or failed) something that this one needs.
bool inputs_arrived(const Work& work) {
  GraphLock lock;
  for (const WorkNode& node : work.nodes) {
    for (const Array& input : work.inputs_of(node)) {
      NodeState state = input.node()->state.load(std::memory_order_acquire);
      if (state != NodeState::Done && input.node()->claim != work.evaluation.get()) return false;
    }
  }
  return true;
}

// With the lock held or not; lets go of it. False if nothing was run because others gave back what
// was needed: collect again.
bool run_work(Scratch& scratch, GraphLock& lock, BeforeLong& before_long) {
  Work& work = scratch.work;
  struct Finish {
    Evaluation& evaluation;
    ~Finish() { evaluation.finish(); }
  } finish{*work.evaluation};
  if (!work.waits.empty()) {
    lock.let_go();
    before_long();
    for (auto& earlier : work.waits) earlier->wait();
    if (!inputs_arrived(work)) {
      unclaim(work, 0, work.nodes.size());
      return false;
    }
  }
  if (work.nodes.size() > kBriefNodes && before_long.wanted()) {
    lock.let_go();
    before_long();
  }
  sort_for_cutting(work);
  size_t last = 0;
  try {
    while (last < work.nodes.size()) {
      size_t first = last;
      last = std::min(first + kSegmentNodes, work.nodes.size());
      run_segment(scratch, first, last, lock, before_long);
    }
  } catch (...) {
    unclaim(work, last, work.nodes.size());
    throw;
  }
  return true;
}

// What async_eval hands over: one worker thread runs it in order.
class Worker {
 public:
  void push(std::unique_ptr<Scratch> scratch, Arrays keep) {
    std::lock_guard lock(mutex_);
    if (!thread_.joinable()) thread_ = std::thread([this] { loop(); });
    queue_.push_back({std::move(scratch), std::move(keep)});
    condition_.notify_all();
  }
  void drain() {
    std::unique_lock lock(mutex_);
    condition_.wait(lock, [&] { return queue_.empty() && !busy_; });
  }
  ~Worker() {
    {
      std::lock_guard lock(mutex_);
      stop_ = true;
      condition_.notify_all();
    }
    if (thread_.joinable()) thread_.join();
  }

 private:
  struct Job {
    std::unique_ptr<Scratch> scratch;  // with the work
    Arrays keep;
  };

  void loop() {
    std::unique_lock lock(mutex_);
    while (true) {
      condition_.wait(lock, [&] { return stop_ || !queue_.empty(); });
      if (queue_.empty()) return;
      Job job = std::move(queue_.front());
      queue_.pop_front();
      busy_ = true;
      lock.unlock();
      try {
        GraphLock graph_lock(GraphLock::Later{});
        BeforeLong nobody(nullptr);
        if (!run_work(*job.scratch, graph_lock, nobody)) eval(job.keep);
      } catch (...) {
        // The nodes carry the error to whoever reads them.
      }
      job = {};
      lock.lock();
      busy_ = false;
      condition_.notify_all();
    }
  }

  std::mutex mutex_;
  std::condition_variable condition_;
  std::deque<Job> queue_;
  std::thread thread_;
  bool busy_ = false;
  bool stop_ = false;
};

Worker& worker() {
  static Worker instance;
  return instance;
}

// Rethrows the error of a root that failed, possibly in another thread's evaluation.
bool all_done(std::span<const Array> arrays) {
  bool done = true;
  for (const Array& array : arrays) {
    if (!array.defined())
      throw_value("[eval] an array is empty: it was never assigned or has been moved from");
    switch (array.node()->state.load(std::memory_order_acquire)) {
      case NodeState::Done: break;
      case NodeState::Failed: std::rethrow_exception(*array.node()->error);
      default: done = false;
    }
  }
  return done;
}

void collect_recorded(std::span<const Array> arrays, Work& work, GraphLock& lock) {
  detail::ProfilePhase phase(ProfileKind::Collect);
  lock.hold();
  collect(arrays, work, lock);
}

void eval(std::span<const Array> arrays, BeforeLong before_long) {
  // Another thread's evaluation may give its claim back (out of memory); then the work is ours.
  while (!all_done(arrays)) {
    ScratchLease scratch;
    if (arrays.size() == 1 &&
        eval_single(arrays[0], scratch->plans, scratch->key, *scratch->work.evaluation))
      return;
    GraphLock lock(GraphLock::Later{});
    collect_recorded(arrays, scratch->work, lock);
    if (!scratch->work.nodes.empty()) {
      run_work(*scratch, lock, before_long);
    } else {
      lock.let_go();
      before_long();
      for (auto& earlier : scratch->work.waits) earlier->wait();
    }
  }
}

}  // namespace

void eval(std::span<const Array> arrays) { eval(arrays, BeforeLong(nullptr)); }

void eval(std::span<const Array> arrays, const std::function<void()>& before_long) {
  eval(arrays, BeforeLong(&before_long));
}

void eval(std::initializer_list<Array> arrays) {
  eval(std::span<const Array>(arrays.begin(), arrays.size()));
}

void async_eval(std::span<const Array> arrays) {
  if (all_done(arrays)) return;
  auto scratch = std::make_unique<Scratch>();
  {
    GraphLock lock(GraphLock::Later{});
    collect_recorded(arrays, scratch->work, lock);
  }
  if (!scratch->work.nodes.empty())
    worker().push(std::move(scratch), Arrays(arrays.begin(), arrays.end()));
}

void synchronize() { worker().drain(); }

}  // namespace mica
