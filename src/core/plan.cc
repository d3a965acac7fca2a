#include "core/plan.h"

#include <algorithm>
#include <list>
#include <mutex>
#include <unordered_map>

#include "core/counters.h"
#include "core/order.h"

namespace mica {

namespace {

// Turns a group of elementwise nodes into a Region.
class RegionBuilder {
 public:
  RegionBuilder(const Segment& segment, const Grouping& grouping, const Group& group,
                int32_t number)
      : segment_(segment), grouping_(grouping), group_(group), number_(number) {}

  std::unique_ptr<RegionStep> build() {
    step_ = std::make_unique<RegionStep>();
    collect_inputs();
    for (int32_t n : group_.nodes) {
      if (n != group_.reduction) add_instruction(n);
    }
    add_outputs();
    if (group_.reduction >= 0)
      add_reduction();
    else
      step_->space = static_cast<int32_t>(node(group_.nodes.back()).first_value);
    step_->program = backend_of(node(group_.nodes[0]).node->stream.device).prepare(step_->region);
    return std::move(step_);
  }

 private:
  const SegmentNode& node(int32_t n) const { return segment_.nodes[static_cast<size_t>(n)]; }
  int32_t node_of(int32_t ref) const { return segment_.values[static_cast<size_t>(ref)].node; }
  bool inside(int32_t ref) const {
    return ref >= 0 && grouping_.group_of[static_cast<size_t>(node_of(ref))] == number_;
  }
  bool copied_constant(int32_t ref) const {
    return ref >= 0 && grouping_.group_of[static_cast<size_t>(node_of(ref))] < 0;
  }

  void collect_inputs() {
    for (int32_t n : group_.nodes) {
      for (int32_t ref : segment_.refs_of(node(n))) {
        if (inside(ref) || copied_constant(ref) || values_.count(ref)) continue;
        values_[ref] = static_cast<int16_t>(step_->inputs.size());
        step_->inputs.push_back(ref);
        step_->region.inputs.push_back(segment_.slot_of(ref)->dtype);
      }
    }
  }

  int16_t value_of(int32_t ref) {
    auto found = values_.find(ref);
    if (found != values_.end()) return found->second;
    add_instruction(node_of(ref));  // a constant of our own
    return values_.at(ref);
  }

  void add_instruction(int32_t n) {
    const SegmentNode& of = node(n);
    const Slot& out = of.node->slots[0];
    RegionInstruction instruction{of.node->op,  out.dtype,
                                  out.dtype,    static_cast<uint8_t>(of.input_count),
                                  {-1, -1, -1}, static_cast<int32_t>(step_->param_nodes.size())};
    auto refs = segment_.refs_of(of);
    for (size_t i = 0; i < refs.size(); ++i) instruction.arguments[i] = value_of(refs[i]);
    if (!refs.empty()) instruction.argument_dtype = segment_.slot_of(refs.back())->dtype;
    instruction.node = static_cast<int32_t>(step_->param_nodes.size());
    step_->param_nodes.push_back(n);
    values_[static_cast<int32_t>(of.first_value)] =
        static_cast<int16_t>(step_->region.inputs.size() + step_->region.instructions.size());
    step_->region.instructions.push_back(instruction);
  }

  void add_outputs() {
    std::vector<int32_t> inner_uses(group_.nodes.size(), 0);
    for (int32_t n : group_.nodes) {
      for (int32_t ref : segment_.refs_of(node(n))) {
        if (!inside(ref)) continue;
        auto at = std::lower_bound(group_.nodes.begin(), group_.nodes.end(), node_of(ref)) -
                  group_.nodes.begin();
        ++inner_uses[static_cast<size_t>(at)];
      }
    }
    for (size_t i = 0; i < group_.nodes.size(); ++i) {
      if (group_.nodes[i] == group_.reduction) continue;
      auto value = static_cast<int32_t>(node(group_.nodes[i]).first_value);
      const SegmentValue& of = segment_.values[static_cast<size_t>(value)];
      if (!of.held && of.uses == inner_uses[i]) continue;
      step_->outputs.push_back(value);
      step_->region.outputs.push_back({values_.at(value), of.slot->dtype});
    }
  }

  void add_reduction() {
    const SegmentNode& of = node(group_.reduction);
    int32_t reduced = segment_.refs_of(of)[0];
    Region& region = step_->region;
    region.reduction = of.node->op;
    region.reduced_value = value_of(reduced);
    region.reduction_dtype = of.node->slots[0].dtype;
    region.axes = static_cast<const ReduceParams*>(of.node->params)->axes;
    step_->outputs.push_back(static_cast<int32_t>(of.first_value));
    step_->space = reduced;
  }

  const Segment& segment_;
  const Grouping& grouping_;
  const Group& group_;
  int32_t number_;
  std::unique_ptr<RegionStep> step_;
  std::unordered_map<int32_t, int16_t> values_;  // by reference
};

// Lists for every step what is used there for the last time.
void find_deaths(const Segment& segment, const Grouping& grouping, Plan& plan) {
  std::unordered_map<int32_t, size_t> last;
  for (size_t s = 0; s < plan.steps.size(); ++s) {
    const PlanStep& step = plan.steps[s];
    auto use = [&](int32_t n) {
      const SegmentNode& node = segment.nodes[static_cast<size_t>(n)];
      for (int32_t ref : segment.refs_of(node)) last[ref] = s;
      for (uint32_t o = 0; o < node.node->output_count; ++o)
        last[static_cast<int32_t>(node.first_value + o)] = s;
    };
    auto group = static_cast<size_t>(grouping.group_of[static_cast<size_t>(step.node)]);
    for (int32_t n : grouping.groups[group].nodes) use(n);
  }
  for (auto [ref, s] : last) {
    if (ref < 0 || !segment.values[static_cast<size_t>(ref)].held)
      plan.steps[s].dies.push_back(ref);
  }
  for (PlanStep& step : plan.steps) std::sort(step.dies.begin(), step.dies.end());
}

std::shared_ptr<const Plan> make_plan(const Segment& segment) {
  auto plan = std::make_shared<Plan>();
  plan->key = segment.key;
  Grouping grouping = form_groups(segment);
  StorageRoots roots(segment);
  order_updates(segment, roots, grouping);
  for (int32_t g : order_groups(segment, roots, grouping)) {
    const Group& group = grouping.groups[static_cast<size_t>(g)];
    PlanStep step{group.nodes.back(), nullptr, {}};
    if (group.region) step.region = RegionBuilder(segment, grouping, group, g).build();
    plan->steps.push_back(std::move(step));
  }
  find_deaths(segment, grouping, *plan);
  return plan;
}

// Four chains at once: one would wait for each of its multiplications.
uint64_t hash_words(const KeyWords& words) {
  constexpr uint64_t kFactor = 0x9e3779b97f4a7c15ull;
  uint64_t chains[4] = {words.size(), 1, 2, 3};
  auto mix = [](uint64_t& hash, uint64_t word) {
    hash = (hash ^ word) * kFactor;
    hash ^= hash >> 29;
  };
  size_t i = 0;
  for (; i + 4 <= words.size(); i += 4)
    for (size_t j = 0; j < 4; ++j) mix(chains[j], words[i + j]);
  for (; i < words.size(); ++i) mix(chains[0], words[i]);
  for (size_t j = 1; j < 4; ++j) mix(chains[0], chains[j]);
  return chains[0];
}

// Least recently used first out; bounded in plans and in words of keys.
class PlanCache {
 public:
  std::shared_ptr<const Plan> find(uint64_t hash, const KeyWords& key) {
    std::lock_guard lock(mutex_);
    auto [first, last] = index_.equal_range(hash);
    for (auto it = first; it != last; ++it) {
      if ((*it->second)->key != key) continue;
      plans_.splice(plans_.begin(), plans_, it->second);
      return *it->second;
    }
    return nullptr;
  }

  void insert(uint64_t hash, std::shared_ptr<const Plan> plan) {
    std::lock_guard lock(mutex_);
    words_ += plan->key.size();
    plans_.push_front(std::move(plan));
    index_.emplace(hash, plans_.begin());
    shrink();
  }

  // How many plans have gone; a memo of an earlier count may hold one of them.
  uint64_t evictions() const { return evictions_.load(std::memory_order_acquire); }

  size_t set_limit(size_t plans) {
    std::lock_guard lock(mutex_);
    std::swap(limit_, plans);
    shrink();
    return plans;
  }

 private:
  static constexpr size_t kMaxWords = size_t{8} << 20;

  void shrink() {
    while (plans_.size() > limit_ || (words_ > kMaxWords && plans_.size() > 1)) {
      auto last = std::prev(plans_.end());
      if ((*last)->met.exchange(false, std::memory_order_relaxed)) {  // recently used after all
        plans_.splice(plans_.begin(), plans_, last);
        continue;
      }
      evictions_.fetch_add(1, std::memory_order_release);
      words_ -= (*last)->key.size();
      auto [from, to] = index_.equal_range(hash_words((*last)->key));
      for (auto it = from; it != to; ++it) {
        if (it->second != last) continue;
        index_.erase(it);
        break;
      }
      plans_.erase(last);
    }
  }

  std::mutex mutex_;
  std::list<std::shared_ptr<const Plan>> plans_;
  std::unordered_multimap<uint64_t, std::list<std::shared_ptr<const Plan>>::iterator> index_;
  size_t limit_ = 1024;
  size_t words_ = 0;
  std::atomic<uint64_t> evictions_{0};
};

PlanCache& plan_cache() {
  static auto* cache = new PlanCache;
  return *cache;
}

}  // namespace

const Plan* PlanMemo::hit(const Entry& entry, uint64_t hash, const KeyWords& key) {
  if (!entry.plan || entry.hash != hash || entry.evictions != plan_cache().evictions() ||
      entry.plan->key != key)
    return nullptr;
  detail::count(detail::live_counters.plan_hits);
  if (!entry.plan->met.load(std::memory_order_relaxed))
    entry.plan->met.store(true, std::memory_order_relaxed);
  return entry.plan.get();
}

const Plan* PlanMemo::find(const KeyWords& key) {
  uint64_t hash = hash_words(key);
  return hit(entry_of(hash), hash, key);
}

const Plan& PlanMemo::plan_for(const Segment& segment) {
  PlanCache& cache = plan_cache();
  uint64_t hash = hash_words(segment.key), evictions = cache.evictions();
  Entry& entry = entry_of(hash);
  if (const Plan* met = hit(entry, hash, segment.key)) return *met;
  auto plan = cache.find(hash, segment.key);
  detail::count(plan ? detail::live_counters.plan_hits : detail::live_counters.plan_misses);
  if (!plan) {
    plan = make_plan(segment);
    cache.insert(hash, plan);
  }
  entry = {std::move(plan), hash, evictions};
  return *entry.plan;
}

size_t set_plan_cache_limit(size_t plans) { return plan_cache().set_limit(plans); }

}  // namespace mica
