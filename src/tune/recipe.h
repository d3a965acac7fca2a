// Which matrix of a model is quantized how.
//
//   QuantizationRecipe recipe{.standard = {64, 4}, .mixed = "mixed_4_6",
//                             .layers = {parse_layer_rule("lm_head=8"),
//                                        parse_layer_rule("model.layers.0.*=none")}};
//   LayerChoice choice(recipe, modules, layers);
//   choice.of("model.layers.3.mlp.down_proj", 11008);   // bits and group size, or none: dense
//
// Without more, every matrix (of linear layers, embeddings, experts) gets the standard. The mixed
// recipes are MLX-LM's (mlx_lm.convert --quant-predicate): "mixed_L_H" gives L bits, and H bits to
// the head and, in the first and last eighth of the layers and every third between, to v_proj and
// down_proj. Rules for layers win over both, the last that matches first.
//
// A matrix whose columns are no multiple of the group size stays dense, as in MLX-LM; where a rule
// for it asks for bits, that is a Value error. So are a rule that matches nothing, and a mixed
// recipe for a model without down_proj.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "nn/module.h"

namespace mica::tune {

// The bits and group sizes of the format (ops/quantized.h).
bool is_quantization(const nn::Quantization& q);

// For the modules whose path matches: `*` stands for any text, `?` for any character; a pattern
// without either also matches the end of a path after a dot ("v_proj", "mlp.down_proj").
struct LayerRule {
  std::string pattern;
  std::optional<int> bits;        // none: stays dense
  std::optional<int> group_size;  // none: the standard's
};

// "PATTERN=BITS", "PATTERN=BITS:GROUP" or "PATTERN=none"; Value saying so otherwise.
LayerRule parse_layer_rule(std::string_view text);
bool matches(const LayerRule& rule, std::string_view module);

struct QuantizationRecipe {
  nn::Quantization standard;
  std::string mixed;  // one of mixed_recipes(), or empty
  std::vector<LayerRule> layers;
};

// "mixed_2_6", "mixed_3_4", "mixed_3_6", "mixed_4_6".
const std::vector<std::string>& mixed_recipes();

class LayerChoice {
 public:
  // `modules` are the paths of all matrices, in the model's order.
  LayerChoice(const QuantizationRecipe& recipe, const std::vector<std::string>& modules,
              int64_t layers);
  std::optional<nn::Quantization> of(const std::string& module, int64_t columns) const;

 private:
  int mixed_bits(const std::string& module) const;

  const QuantizationRecipe& recipe_;
  int64_t layers_;
  int low_ = 0, high_ = 0;
  size_t layer_place_ = 0;  // of the layer's number among the parts of a path
};

}  // namespace mica::tune
