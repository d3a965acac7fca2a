// From a Region to the steps of a TileProgram: which values share a tile, which operations form
// chains, which register holds what.
#include <algorithm>
#include <climits>

#include "backends/cpu/region_program.h"
#include "base/error.h"
#include "ops/elementwise.h"

namespace mica::cpu {

namespace {

using Kind = RegionStep::Kind;

// Instructions that are looked at for one that continues a chain.
constexpr size_t kLookahead = 32;

// Operations whose results on values of a half type are values of that type: nothing to round.
bool keeps_precision(const Op& op) {
  static const Op* const kept[] = {&ops::abs_op,     &ops::negative_op, &ops::sign_op,
                                   &ops::maximum_op, &ops::minimum_op,  &ops::floor_op,
                                   &ops::ceil_op,    &ops::rint_op,     &ops::select_op};
  return std::find(std::begin(kept), std::end(kept), &op) != std::end(kept);
}

// Registers by the intervals in which values live. A result may take the register of an argument
// that ends with the same step only if their elements have one size: it is written while they are
// read.
class Registers {
 public:
  Registers(TileProgram& program, const std::vector<Dtype>& dtypes)
      : program_(program), dtypes_(dtypes), last_(dtypes.size(), -1) {}

  void assign() {
    size_t widest = 1;
    for (size_t s = 0; s < program_.steps.size(); ++s) {
      auto use = [&](int16_t v) { last_[static_cast<size_t>(v)] = static_cast<int32_t>(s); };
      use(program_.steps[s].out);
      program_.each_argument(program_.steps[s], use);
    }
    for (size_t v = 0; v < dtypes_.size(); ++v)
      widest = std::max(widest, bytes(static_cast<int16_t>(v)));
    program_.tile_bytes = widest * static_cast<size_t>(kTile);
    for (size_t i = 0; i < program_.inputs.size(); ++i) program_.inputs[i].last_use = last_[i];
    for (size_t l = 0; l < program_.links.size(); ++l)
      for (int16_t v : {program_.links[l].p, program_.links[l].q})
        if (v >= 0 && static_cast<size_t>(v) < program_.inputs.size())
          program_.inputs[static_cast<size_t>(v)].last_link = static_cast<int32_t>(l);
    for (const RegionStore& store : program_.stores)
      last_[static_cast<size_t>(store.value)] = INT_MAX;
    if (program_.reduced >= 0) last_[static_cast<size_t>(program_.reduced)] = INT_MAX;
    program_.register_of.assign(dtypes_.size(), -1);
    for (size_t s = 0; s < program_.steps.size(); ++s) {
      // What a chain keeps is written while its operands are read.
      program_.each_kept(program_.steps[s],
                         [&](int16_t v) { program_.register_of[static_cast<size_t>(v)] = take(); });
      release(s, true);
      int16_t& out = program_.register_of[static_cast<size_t>(program_.steps[s].out)];
      if (out < 0) out = take();
      release(s, false);
    }
  }

 private:
  size_t bytes(int16_t value) const {
    auto v = static_cast<size_t>(value);
    if (v < program_.inputs.size()) return static_cast<size_t>(program_.inputs[v].tile_bytes);
    return static_cast<size_t>(size_of(computed_as(dtypes_[v])));
  }
  int16_t take() {
    if (free_.empty()) free_.push_back(static_cast<int16_t>(program_.registers++));
    int16_t taken = free_.back();
    free_.pop_back();
    return taken;
  }
  void release(size_t s, bool same_size) {
    const RegionStep& step = program_.steps[s];
    program_.each_argument(step, [&](int16_t v) {
      auto i = static_cast<size_t>(v);
      bool ends = last_[i] == static_cast<int32_t>(s) && program_.register_of[i] >= 0;
      if (!ends || (bytes(v) == bytes(step.out)) != same_size) return;
      free_.push_back(program_.register_of[i]);
      last_[i] = -1;
    });
  }

  TileProgram& program_;
  const std::vector<Dtype>& dtypes_;
  std::vector<int32_t> last_;
  std::vector<int16_t> free_;
};

class Preparer {
 public:
  explicit Preparer(const Region& region)
      : region_(region), program_(std::make_unique<TileProgram>()) {}

  std::unique_ptr<TileProgram> prepare() {
    size_t values = region_.inputs.size() + region_.instructions.size();
    dtype_ = region_.inputs;
    for (Dtype dtype : dtype_) {
      int64_t bytes = size_of(dtype);
      if (is_half(dtype))
        program_->inputs.push_back(
            {dtype, false, -1, -1, bytes, sizeof(float), widen_function(dtype)});
      else
        program_->inputs.push_back({dtype, false, -1, -1, bytes, bytes, nullptr});
    }
    program_->chain_block = chain_block();
    program_->end_in_tile = chain_end(Dtype::F32, false);
    program_->keep_in_tile = chain_keep(Dtype::F32, false, true);
    alias_.resize(values);
    for (size_t v = 0; v < values; ++v) alias_[v] = static_cast<int16_t>(v);
    defined_at_.assign(values, -1);
    kept_by_.assign(values, -1);
    for (const RegionInstruction& in : region_.instructions) dtype_.push_back(in.dtype);
    count_uses(values);
    add_all();
    flush();
    add_results();
    Registers(*program_, dtype_).assign();
    add_patches();
    return std::move(program_);
  }

 private:
  template <class T>
  static auto& at(std::vector<T>& of, int16_t value) {
    return of[static_cast<size_t>(value)];
  }
  bool is_input(int16_t value) const { return static_cast<size_t>(value) < region_.inputs.size(); }

  // How often values are used by instructions and the reduction, apart from being outputs.
  void count_uses(size_t values) {
    uses_.assign(values, 0);
    stores_.assign(values, 0);
    for (const RegionInstruction& in : region_.instructions) {
      for (int i = 0; i < in.arity; ++i) ++at(uses_, in.arguments[i]);
    }
    for (const RegionOutput& output : region_.outputs) ++at(stores_, output.value);
    if (region_.reduction) ++at(uses_, region_.reduced_value);
  }

  // In the order given, but that what takes the value in the open chain's block goes first.
  void add_all() {
    const auto first = static_cast<int16_t>(region_.inputs.size());
    std::vector<bool> added(region_.instructions.size());
    auto ready = [&](const RegionInstruction& in) {
      return std::all_of(in.arguments, in.arguments + in.arity, [&](int16_t v) {
        return v < first || added[static_cast<size_t>(v - first)];
      });
    };
    auto follows = [&](const RegionInstruction& in) {
      return pending_.links > 0 && ready(in) &&
             std::any_of(in.arguments, in.arguments + in.arity,
                         [&](int16_t v) { return at(alias_, v) == pending_.out; });
    };
    for (size_t next = 0; next < added.size();) {
      size_t chosen = next;
      for (size_t i = next; i < std::min(added.size(), next + kLookahead); ++i) {
        if (added[i] || !follows(region_.instructions[i])) continue;
        chosen = i;
        break;
      }
      add(region_.instructions[chosen], static_cast<int16_t>(first + static_cast<int>(chosen)));
      added[chosen] = true;
      while (next < added.size() && added[next]) ++next;
    }
  }

  void add(const RegionInstruction& in, int16_t value) {
    if (in.op == &ops::fill_op) {
      program_->fills.push_back({value, in.dtype, in.node, false});
      return;
    }
    int16_t arguments[3] = {-1, -1, -1};
    for (int i = 0; i < in.arity; ++i) arguments[i] = at(alias_, in.arguments[i]);
    if (in.op == &ops::cast_op) return add_cast(in, value, arguments[0]);
    if (computed_as(in.argument_dtype) == Dtype::F32 && add_to_chain(in, value, arguments)) return;
    TileFunction function = in.op == &ops::select_op
                                ? select_function(in.argument_dtype)
                                : table_function(*in.op, computed_as(in.argument_dtype));
    if (!function)
      throw_type("[{}] is not defined for {}", in.op->name, dtype_name(in.argument_dtype));
    add_function(function, value, arguments);
    if (rounds(in, value)) {
      begin_chain(value);
      link({chain_round(in.dtype, false)}, value);
    }
  }

  // A half value that is only stored is rounded as it is stored.
  bool rounds(const RegionInstruction& in, int16_t value) {
    return is_half(in.dtype) && !keeps_precision(*in.op) && at(uses_, value) > 0;
  }

  void add_cast(const RegionInstruction& in, int16_t value, int16_t from) {
    bool to_half_of_float = is_half(in.dtype) && computed_as(in.argument_dtype) == Dtype::F32;
    if (to_half_of_float && in.dtype != in.argument_dtype && at(uses_, value) > 0) {
      extend_or_begin(from);
      link({chain_round(in.dtype, false)}, value);
      return;
    }
    TileFunction function = to_half_of_float ? nullptr : cast_function(in.argument_dtype, in.dtype);
    if (function) {
      int16_t arguments[3] = {from, -1, -1};
      return add_function(function, value, arguments);
    }
    at(alias_, value) = from;
    at(uses_, from) += at(uses_, value) - 1;
    at(stores_, from) += at(stores_, value);
  }

  void add_function(TileFunction function, int16_t value, const int16_t* arguments) {
    flush();
    int16_t given[3];
    for (int i = 0; i < 3; ++i) given[i] = load(arguments[i] >= 0 ? arguments[i] : arguments[0]);
    step({.kind = Kind::Function,
          .out = value,
          .a = given[0],
          .b = given[1],
          .c = given[2],
          .function = function});
  }

  // Chains.

  bool add_to_chain(const RegionInstruction& in, int16_t value, const int16_t* arguments) {
    if (in.op == &ops::select_op) {
      add_select(value, arguments);
      return true;
    }
    if (!chain_operation(*in.op)) return false;
    int16_t x = arguments[0], y = arguments[1];
    bool reversed = in.arity == 2 && !in_block(x) && in_block(y);
    extend_or_begin(reversed ? y : x);
    if (in.arity == 1)
      link({chain_operation(*in.op)}, value);
    else
      link(with_operand(*in.op, reversed, reversed ? x : y), value);
    if (in.dtype == Dtype::Bool) {
      pending_.kind = Kind::Test;
      flush();
    } else if (rounds(in, value)) {
      link({chain_round(in.dtype, in.argument_dtype == in.dtype)}, value);
    }
    return true;
  }

  ChainLink with_operand(const Op& op, bool reversed, int16_t operand) {
    auto fill = std::find_if(program_->fills.begin(), program_->fills.end(),
                             [&](const RegionFill& f) { return f.value == operand; });
    if (fill == program_->fills.end()) return {chain_operation(op, reversed), load(operand)};
    if (LinkFunction constant = chain_constant(op, reversed)) return {constant, operand};
    fill->whole_tile = true;
    return {chain_operation(op, reversed), operand};
  }

  void add_select(int16_t value, const int16_t* arguments) {
    bool reversed = !in_block(arguments[1]) && in_block(arguments[2]);
    extend_or_begin(arguments[reversed ? 2 : 1]);
    link({chain_select(reversed), load(arguments[0]), load(arguments[reversed ? 1 : 2])}, value);
  }

  // True if the open chain's block holds the value.
  bool in_block(int16_t value) { return pending_.links > 0 && pending_.out == value; }

  // The block then holds the value, which also lies in a tile if others want it.
  void extend_or_begin(int16_t value) {
    if (!in_block(value)) return begin_chain(value);
    const bool wanted = at(uses_, value) > 1 || at(stores_, value) > 0;
    const bool in_tile = pending_.links == 1 || at(kept_by_, value) >= 0;
    if (!wanted || in_tile) return;
    at(kept_by_, value) = static_cast<int32_t>(program_->links.size());
    kept_.push_back(value);
    link({program_->keep_in_tile, value, -1, true}, value);
  }

  void begin_chain(int16_t value) {
    flush();
    bool raw = is_input(value) && is_half(at(dtype_, value)) && at(uses_, value) == 1 &&
               at(stores_, value) == 0;
    if (raw) {
      RegionInput& input = at(program_->inputs, value);
      input = {input.dtype, true, -1, -1, input.bytes, input.bytes, nullptr};
    }
    pending_ = {
        .kind = Kind::Chain, .out = value, .first = static_cast<int32_t>(program_->links.size())};
    link({chain_start(raw ? at(dtype_, value) : Dtype::F32), load(value)}, value);
  }

  void link(const ChainLink& link, int16_t value) {
    program_->links.push_back(link);
    ++pending_.links;
    pending_.out = value;
  }

  void flush() {
    if (pending_.links == 0) return;
    step(pending_);
    if (pending_.kind == Kind::Chain) program_->links.push_back({program_->end_in_tile});
    pending_.links = 0;
  }

  void step(const RegionStep& step) {
    program_->computes = true;
    const auto number = static_cast<int32_t>(program_->steps.size());
    for (int16_t value : kept_) at(defined_at_, value) = number;
    kept_.clear();
    at(defined_at_, step.out) = number;
    program_->steps.push_back(step);
  }

  // The value, loaded before its first use if it is an input.
  int16_t load(int16_t value) {
    for (RegionFill& fill : program_->fills) fill.whole_tile |= fill.value == value;

    if (is_input(value) && at(defined_at_, value) < 0) {
      at(defined_at_, value) = static_cast<int32_t>(program_->steps.size());
      program_->steps.push_back({.kind = Kind::Load, .out = value});
    }
    return value;
  }

  void add_results() {
    auto& stores = program_->stores;
    for (size_t o = 0; o < region_.outputs.size(); ++o) {
      const RegionOutput& output = region_.outputs[o];
      stores.push_back(
          make_store(load(at(alias_, output.value)), output.dtype, static_cast<int16_t>(o)));
    }
    std::stable_partition(stores.begin(), stores.end(),
                          [&](const RegionStore& s) { return is_input(s.value); });
    for (size_t s = 0; s < stores.size(); ++s) {
    }
    if (region_.reduction) {
      program_->reduced = load(at(alias_, region_.reduced_value));
      program_->reduced_dtype = computed_as(at(dtype_, region_.reduced_value));
      program_->reduces_half = is_half(at(dtype_, region_.reduced_value));
    }
  }

  void add_patches() {
    auto moves = [&](int16_t value) {
      return is_input(value) ||
             std::any_of(program_->stores.begin(), program_->stores.end(),
                         [&](const RegionStore& s) {
                           return (s.direct || s.kept_by >= 0) && s.value == value;
                         });
    };
    for (size_t l = 0; l < program_->links.size(); ++l) {
      auto number = static_cast<int32_t>(l);
      const ChainLink& link = program_->links[l];
      if (link.p >= 0 && moves(link.p)) program_->patches.push_back({number, false, link.p});
      if (link.q >= 0 && moves(link.q)) program_->patches.push_back({number, true, link.q});
    }
  }

  RegionStore make_store(int16_t value, Dtype dtype, int16_t output) {
    RegionStore store{.value = value,
                      .dtype = dtype,
                      .output = output,
                      .defined_at = at(defined_at_, value),
                      .kept_by = at(kept_by_, value),
                      .bytes = size_of(dtype)};
    bool once = at(stores_, value) == 1;
    if (is_half(dtype)) store.narrow = narrow_function(dtype);
    if (store.defined_at < 0 || is_input(value) || !once) return store;
    bool by_chain = program_->steps[static_cast<size_t>(store.defined_at)].kind == Kind::Chain;
    store.direct = !store.narrow;
    if (store.kept_by >= 0 && at(uses_, value) == 1) {
      const bool rounded = at(dtype_, value) == dtype;
      store.end = chain_keep(dtype, false, rounded);
      store.end_stream = chain_keep(dtype, true, rounded);
    } else if (by_chain && at(uses_, value) == 0) {
      store.end = chain_end(dtype, false);
      store.end_stream = chain_end(dtype, true);
    }
    return store;
  }

  const Region& region_;
  std::unique_ptr<TileProgram> program_;
  std::vector<int16_t> alias_;  // the value that holds the bits of this one
  std::vector<Dtype> dtype_;    // by value
  std::vector<int32_t> defined_at_, kept_by_;
  std::vector<int16_t> kept_;  // by the open chain
  std::vector<int> uses_, stores_;
  RegionStep pending_{.kind = Kind::Chain, .out = -1};
};

}  // namespace

std::unique_ptr<TileProgram> make_program(const Region& region) {
  return Preparer(region).prepare();
}

}  // namespace mica::cpu
