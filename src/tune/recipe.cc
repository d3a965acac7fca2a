#include "tune/recipe.h"

#include <algorithm>
#include <charconv>

#include "base/error.h"
#include "base/strings.h"

namespace mica::tune {

namespace {

struct Mixed {
  const char* name;
  int low, high;
};
constexpr Mixed kMixed[] = {
    {"mixed_2_6", 2, 6}, {"mixed_3_4", 3, 4}, {"mixed_3_6", 3, 6}, {"mixed_4_6", 4, 6}};

bool fits(int64_t columns, const nn::Quantization& q) {
  return columns % q.group_size == 0 && columns * q.bits % 32 == 0;
}

// Greedy with one step back: linear for patterns as people write them, quadratic at worst.
bool glob(std::string_view pattern, std::string_view text) {
  size_t p = 0, t = 0, star = std::string_view::npos, after = 0;
  while (t < text.size()) {
    if (p < pattern.size() && (pattern[p] == '?' || (pattern[p] == text[t] && pattern[p] != '*'))) {
      ++p, ++t;
    } else if (p < pattern.size() && pattern[p] == '*') {
      star = p++;
      after = t;
    } else if (star != std::string_view::npos) {
      p = star + 1;
      t = ++after;
    } else {
      return false;
    }
  }
  while (p < pattern.size() && pattern[p] == '*') ++p;
  return p == pattern.size();
}

std::optional<int> whole_number(std::string_view text) {
  int value = 0;
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

bool is_number(std::string_view part) {
  return !part.empty() && part.find_first_not_of("0123456789") == part.npos;
}

bool has(std::string_view module, std::string_view part) {
  return module.find(part) != module.npos;
}

}  // namespace

bool is_quantization(const nn::Quantization& q) {
  constexpr int groups[] = {16, 32, 64, 128}, bits[] = {2, 3, 4, 5, 6, 8};
  return std::find(std::begin(groups), std::end(groups), q.group_size) != std::end(groups) &&
         std::find(std::begin(bits), std::end(bits), q.bits) != std::end(bits);
}

LayerRule parse_layer_rule(std::string_view text) {
  auto fail = [&](const char* what) {
    throw_value(
        "'{}' {}; a rule is PATTERN=BITS, PATTERN=BITS:GROUP or PATTERN=none, with 2, 3, 4, 5, 6 "
        "or 8 bits and groups of 16, 32, 64 or 128",
        excerpt(text), what);
  };
  size_t equals = text.rfind('=');
  if (equals == text.npos) fail("has no '='");
  LayerRule rule{std::string(text.substr(0, equals)), {}, {}};
  if (rule.pattern.empty()) fail("has no pattern");
  std::string_view value = text.substr(equals + 1);
  if (value == "none") return rule;
  size_t colon = value.find(':');
  rule.bits = whole_number(value.substr(0, colon));
  if (!rule.bits || !is_quantization({64, *rule.bits})) fail("has no possible number of bits");
  if (colon == value.npos) return rule;
  rule.group_size = whole_number(value.substr(colon + 1));
  if (!rule.group_size || !is_quantization({*rule.group_size, 4}))
    fail("has no possible group size");
  return rule;
}

bool matches(const LayerRule& rule, std::string_view module) {
  if (glob(rule.pattern, module)) return true;
  return rule.pattern.find_first_of("*?") == rule.pattern.npos &&
         module.ends_with('.' + rule.pattern);
}

const std::vector<std::string>& mixed_recipes() {
  static const std::vector<std::string> names = [] {
    std::vector<std::string> all;
    for (const Mixed& mixed : kMixed) all.push_back(mixed.name);
    return all;
  }();
  return names;
}

LayerChoice::LayerChoice(const QuantizationRecipe& recipe, const std::vector<std::string>& modules,
                         int64_t layers)
    : recipe_(recipe), layers_(layers) {
  for (const LayerRule& rule : recipe.layers) {
    auto of = [&](const std::string& module) { return matches(rule, module); };
    if (std::none_of(modules.begin(), modules.end(), of)) {
      auto near = closest(rule.pattern, modules);
      throw_value("no matrix of the model matches '{}'{}", printable(rule.pattern),
                  near ? fmt::format("; did you mean '{}'?", printable(*near))
                       : fmt::format("; there are '{}' and others",
                                     modules.empty() ? "" : printable(modules.back())));
    }
  }
  if (recipe.mixed.empty()) return;
  auto mixed = std::find_if(std::begin(kMixed), std::end(kMixed),
                            [&](const Mixed& one) { return recipe.mixed == one.name; });
  if (mixed == std::end(kMixed))
    throw_value("recipe '{}' is not known; known: {}", excerpt(recipe.mixed),
                join(mixed_recipes(), ", "));
  low_ = mixed->low, high_ = mixed->high;
  auto down = std::find_if(modules.begin(), modules.end(),
                           [](const std::string& name) { return has(name, "down_proj"); });
  if (down == modules.end())
    throw_value(
        "recipe '{}' knows layers by the names v_proj and down_proj, which this model does not "
        "have; give rules for its layers instead",
        recipe.mixed);
  auto parts = split(*down, '.');
  auto number = std::find_if(parts.begin(), parts.end(), is_number);
  layer_place_ = static_cast<size_t>(number - parts.begin());
}

// mixed_quant_predicate_builder of mlx_lm/convert.py, which follows llama.cpp's Q4_K_M.
int LayerChoice::mixed_bits(const std::string& module) const {
  auto parts = split(module, '.');
  int64_t index = 0;
  if (parts.size() > layer_place_) index = whole_number(parts[layer_place_]).value_or(0);
  bool more = index < layers_ / 8 || index >= 7 * layers_ / 8 || (index - layers_ / 8) % 3 == 2;
  bool high =
      has(module, "lm_head") || (more && (has(module, "v_proj") || has(module, "v_a_proj") ||
                                          has(module, "v_b_proj") || has(module, "down_proj")));
  return high ? high_ : low_;
}

std::optional<nn::Quantization> LayerChoice::of(const std::string& module, int64_t columns) const {
  auto rule = std::find_if(recipe_.layers.rbegin(), recipe_.layers.rend(),
                           [&](const LayerRule& one) { return matches(one, module); });
  if (rule != recipe_.layers.rend()) {
    if (!rule->bits) return std::nullopt;
    nn::Quantization q{rule->group_size.value_or(recipe_.standard.group_size), *rule->bits};
    if (!fits(columns, q))
      throw_value("'{}' has {} columns: groups of {} with {} bits do not fit", printable(module),
                  columns, q.group_size, q.bits);
    return q;
  }
  nn::Quantization q = recipe_.standard;
  if (!recipe_.mixed.empty()) q.bits = mixed_bits(module);
  return fits(columns, q) ? std::optional(q) : std::nullopt;
}

}  // namespace mica::tune
