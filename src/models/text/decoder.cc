// The forward pass. Shapes: B sequences, L tokens, D width, H query heads, G key heads, K head
// size, F feed-forward width, V vocabulary.
#include "models/text/decoder.h"

#include <cmath>

#include "ops/elementwise.h"
#include "ops/index.h"
#include "ops/shape.h"

namespace mica::models {

namespace {

using nn::Linear;
using nn::Norm;

// The last token of each sequence.
Array last_token(const Array& x_BLD) {
  const int64_t tokens = x_BLD.shape(1);
  return tokens == 1 ? x_BLD : slice_axis(x_BLD, 1, tokens - 1, tokens);
}

void visit_norm(nn::Visitor& v, const std::string& name, std::optional<Norm>& norm) {
  if (norm) v.module(name, *norm);
}

class Attention {
 public:
  explicit Attention(const DecoderConfig& c)
      : names_(&c.names), heads_(c.heads), key_heads_(c.key_heads), head_dims_(c.head_dims) {
    int64_t queries = heads_ * head_dims_, keys = key_heads_ * head_dims_;
    if (!c.names.qkv.empty()) {
      qkv_.emplace(c.width, queries + 2 * keys, c.qkv_bias, c.transposed_linears);
    } else {
      q_.emplace(c.width, queries, c.qkv_bias);
      k_.emplace(c.width, keys, c.qkv_bias);
      v_.emplace(c.width, keys, c.qkv_bias);
    }
    o_.emplace(queries, c.width, c.o_bias, c.transposed_linears);
    if (c.qk_norm) {
      q_norm_.emplace(c.qk_norm_kind, head_dims_, c.norm_eps);
      k_norm_.emplace(c.qk_norm_kind, head_dims_, c.norm_eps);
    }
  }

  void visit(nn::Visitor& v) {
    if (qkv_) v.module(names_->qkv, *qkv_);
    if (q_) v.module(names_->q, *q_);
    if (k_) v.module(names_->k, *k_);
    if (v_) v.module(names_->v, *v_);
    v.module(names_->o, *o_);
    visit_norm(v, names_->q_norm, q_norm_);
    visit_norm(v, names_->k_norm, k_norm_);
  }

  Array operator()(const Array& x_BLD, size_t layer, nn::Batch& batch, LogitsAt at,
                   const nn::AttendOptions& options) const {
    auto [q_BHLK, k_BGLK, v_BGLK] = project(x_BLD);
    Array y_BHLK = batch.attend(layer, q_BHLK, k_BGLK, v_BGLK, options);
    Shape flat{x_BLD.shape(0), x_BLD.shape(1), heads_ * head_dims_};
    Array y = reshape(transpose(y_BHLK, {0, 2, 1, 3}), flat);
    return (*o_)(at == LogitsAt::Last ? last_token(y) : y);
  }

 private:
  struct Projected {
    Array q, k, v;
  };

  Projected project(const Array& x_BLD) const {
    if (!qkv_) {
      const Arrays all = Linear::together(x_BLD, {&*q_, &*k_, &*v_});
      return {split(all[0], heads_, q_norm_), split(all[1], key_heads_, k_norm_),
              split(all[2], key_heads_, {})};
    }
    Array all = (*qkv_)(x_BLD);
    int64_t queries = heads_ * head_dims_, keys = key_heads_ * head_dims_;
    return {split(slice_axis(all, 2, 0, queries), heads_, q_norm_),
            split(slice_axis(all, 2, queries, queries + keys), key_heads_, k_norm_),
            split(slice_axis(all, 2, queries + keys, queries + 2 * keys), key_heads_, {})};
  }

  // [B, L, heads · K] -> [B, heads, L, K]
  Array split(const Array& x, int64_t heads, const std::optional<Norm>& norm) const {
    Array y = reshape(x, {x.shape(0), x.shape(1), heads, head_dims_});
    if (norm) y = (*norm)(y);
    return transpose(y, {0, 2, 1, 3});
  }

  const WeightNames* names_;
  int64_t heads_, key_heads_, head_dims_;
  std::optional<Linear> q_, k_, v_, qkv_, o_;
  std::optional<Norm> q_norm_, k_norm_;
};

class Mlp {
 public:
  explicit Mlp(const DecoderConfig& c)
      : names_(&c.names),
        width_(c.mlp_width),
        gated_(c.gated_mlp),
        act_(nn::activation_from_name(c.activation)) {
    if (gated_ && !c.names.gate_up.empty())
      gate_up_.emplace(c.width, 2 * width_, c.mlp_bias);
    else if (gated_)
      gate_.emplace(c.width, width_, c.mlp_bias);
    if (!gate_up_) up_.emplace(c.width, width_, c.mlp_bias, c.transposed_linears);
    down_.emplace(width_, c.width, c.mlp_bias, c.transposed_linears);
  }

  void visit(nn::Visitor& v) {
    if (gate_up_) v.module(names_->gate_up, *gate_up_);
    if (gate_) v.module(names_->gate, *gate_);
    if (up_) v.module(names_->up, *up_);
    v.module(names_->down, *down_);
  }

  Array operator()(const Array& x_BLD) const {
    if (gate_up_) {
      Array both = (*gate_up_)(x_BLD);
      return (*down_)(act_(slice_axis(both, 2, 0, width_)) *
                      slice_axis(both, 2, width_, 2 * width_));
    }
    if (gate_) {
      const Arrays both = Linear::together(x_BLD, {&*gate_, &*up_});
      return (*down_)(act_(both[0]) * both[1]);
    }
    return (*down_)(act_((*up_)(x_BLD)));
  }

 private:
  const WeightNames* names_;
  int64_t width_;
  bool gated_;
  nn::Activation act_;
  std::optional<Linear> gate_, up_, gate_up_, down_;
};

class Layer : public nn::Module {
 public:
  Layer(const DecoderConfig& c, size_t index)
      : names_(&c.names), index_(index), parallel_(c.parallel), attention_(c) {
    options_.scale = static_cast<float>(c.attention_scale > 0 ? c.attention_scale
                                                              : 1 / std::sqrt(double(c.head_dims)));
    if (c.scale_by_layer) options_.scale /= static_cast<float>(index + 1);
    options_.softcap = static_cast<float>(c.attention_softcap);
    auto norm = [&](std::optional<Norm>& to, const std::string& name) {
      if (!name.empty()) to.emplace(c.norm, c.width, c.norm_eps);
    };
    norm(attention_norm_, c.names.attention_norm);
    norm(attention_out_norm_, c.names.attention_out_norm);
    if (!parallel_) norm(mlp_norm_, c.names.mlp_norm);
    norm(mlp_out_norm_, c.names.mlp_out_norm);
    if (c.experts > 0)
      experts_.emplace(c.experts, c.experts_per_token, c.width, c.mlp_width, c.activation,
                       c.names.experts);
    else
      mlp_.emplace(c);
  }

  void set_rope(const nn::Rope* rope) { options_.rope = rope; }

  void visit(nn::Visitor& v) override {
    visit_norm(v, names_->attention_norm, attention_norm_);
    attention_.visit(v);
    visit_norm(v, names_->attention_out_norm, attention_out_norm_);
    visit_norm(v, names_->mlp_norm, mlp_norm_);
    if (experts_) v.module("", *experts_);
    if (mlp_) mlp_->visit(v);
    visit_norm(v, names_->mlp_out_norm, mlp_out_norm_);
  }

  // [B, L, D], or [B, 1, D] of the last token: keys and values are those of all.
  Array operator()(Array x_BLD, nn::Batch& batch, LogitsAt at) const {
    Array h_BLD = (*attention_norm_)(x_BLD);
    Array attended_BLD = attention_(h_BLD, index_, batch, at, options_);
    if (at == LogitsAt::Last) x_BLD = last_token(x_BLD), h_BLD = last_token(h_BLD);
    if (parallel_) return x_BLD + attended_BLD + feed_forward(h_BLD);
    if (attention_out_norm_) attended_BLD = (*attention_out_norm_)(attended_BLD);
    Array y_BLD = x_BLD + attended_BLD;
    Array fed_BLD = feed_forward((*mlp_norm_)(y_BLD));
    if (mlp_out_norm_) fed_BLD = (*mlp_out_norm_)(fed_BLD);
    return y_BLD + fed_BLD;
  }

 private:
  Array feed_forward(const Array& x_BLD) const {
    return experts_ ? (*experts_)(x_BLD) : (*mlp_)(x_BLD);
  }

  const WeightNames* names_;
  size_t index_;
  bool parallel_;
  nn::AttendOptions options_;
  Attention attention_;
  std::optional<Mlp> mlp_;
  std::optional<nn::Experts> experts_;
  std::optional<Norm> attention_norm_, attention_out_norm_, mlp_norm_, mlp_out_norm_;
};

class Decoder : public Model {
 public:
  explicit Decoder(DecoderConfig config)
      : config_(std::move(config)),
        embedding_(config_.vocabulary, config_.width),
        final_norm_(config_.norm, config_.width, config_.norm_eps) {
    if (config_.rope)
      rope_.emplace(*config_.rope);
    else
      positions_.emplace(config_.max_positions, config_.width);
    for (int64_t i = 0; i < config_.layers; ++i) {
      layers_.push_back(std::make_unique<Layer>(config_, static_cast<size_t>(i)));
      layers_.back()->set_rope(rope_ ? &*rope_ : nullptr);
    }
    if (!config_.tied_head) head_.emplace(config_.width, config_.vocabulary, config_.head_bias);
    fill_info();
  }

  void visit(nn::Visitor& v) override {
    const WeightNames& names = config_.names;
    v.module(names.embedding, embedding_);
    if (positions_) v.module(names.positions, *positions_);
    for (size_t i = 0; i < layers_.size(); ++i)
      v.module(names.layers + '.' + std::to_string(i), *layers_[i]);
    v.module(names.final_norm, final_norm_);
    if (head_) v.module(names.head, *head_);
    if (config_.tied_head && config_.head_bias)
      v.parameter((names.head + ".bias").c_str(), tied_bias_, {config_.vocabulary});
  }

  Array forward(const Array& ids_BL, nn::Batch& batch, LogitsAt at) override {
    Array x_BLD = embedding_(ids_BL, info_.activations);
    if (positions_) x_BLD = x_BLD + (*positions_)(batch.positions(), info_.activations);
    if (config_.embedding_scale != 1) x_BLD = x_BLD * config_.embedding_scale;
    // Above the last layer's attention only tokens with logits are needed.
    for (const auto& layer : layers_)
      x_BLD = (*layer)(x_BLD, batch, layer == layers_.back() ? at : LogitsAt::All);
    x_BLD = final_norm_(x_BLD);
    Array logits_BLV = head_ ? (*head_)(x_BLD) : embedding_.as_linear(x_BLD);
    if (tied_bias_.defined()) logits_BLV = astype(logits_BLV + tied_bias_, logits_BLV.dtype());
    if (config_.final_softcap > 0)
      logits_BLV = tanh(logits_BLV / config_.final_softcap) * config_.final_softcap;
    return logits_BLV;
  }

  nn::SequenceCache make_cache(bool keep) const override {
    std::vector<std::unique_ptr<nn::LayerCache>> layers;
    for (int64_t window : config_.windows)
      layers.push_back(!keep        ? nn::no_cache(window)
                       : window > 0 ? nn::sliding_cache(window)
                                    : nn::full_cache());
    return nn::SequenceCache(std::move(layers), rope_ ? &*rope_ : nullptr);
  }

  const ModelInfo& info() const override { return info_; }
  void set_activations(Dtype dtype) override { info_.activations = dtype; }

 private:
  void fill_info() {
    info_.model_type = config_.model_type;
    info_.vocabulary = config_.vocabulary;
    info_.layers = config_.layers;
    info_.max_positions = config_.max_positions;
    info_.learned_positions = !config_.rope;
    info_.position_elements = 2 * config_.key_heads * config_.head_dims;
    info_.token_elements = 4 * config_.width + 2 * config_.heads * config_.head_dims +
                           3 * config_.mlp_width * std::max<int64_t>(config_.experts_per_token, 1);
    info_.query_elements = config_.heads * config_.head_dims;
    info_.windows = config_.windows;
    info_.head = config_.tied_head ? config_.names.embedding : config_.names.head;
    if (!config_.tied_head) info_.tables.push_back(config_.names.embedding);
    if (positions_) info_.tables.push_back(config_.names.positions);
    const WeightNames& names = config_.names;
    const std::string last = names.layers + '.' + std::to_string(config_.layers - 1) + '.';
    for (const std::string& name : {names.o, names.gate, names.up, names.gate_up, names.down,
                                    names.experts.router, names.experts.each, names.experts.stack})
      if (!name.empty()) info_.above.push_back(last + name + '.');
    info_.experts = config_.experts;
    info_.experts_per_token = config_.experts_per_token;
    info_.prefixes = config_.names.prefixes;
    info_.ignorable = config_.names.ignorable;
    if (config_.tied_head) info_.ignorable.push_back(config_.names.head + ".weight");
  }

  DecoderConfig config_;
  ModelInfo info_;
  nn::Embedding embedding_;
  std::optional<nn::Embedding> positions_;
  std::optional<nn::Rope> rope_;
  std::vector<std::unique_ptr<Layer>> layers_;
  Norm final_norm_;
  std::optional<Linear> head_;
  Array tied_bias_;  // of a head that shares the embedding's matrix
};

}  // namespace

void DecoderConfig::check() const {
  auto positive = [&](int64_t value, const char* what) {
    if (value <= 0) throw_value("{}: {} must be positive, got {}", model_type, what, value);
  };
  positive(vocabulary, "vocab_size");
  positive(width, "hidden_size");
  positive(layers, "num_hidden_layers");
  positive(heads, "num_attention_heads");
  positive(key_heads, "num_key_value_heads");
  positive(head_dims, "head_dim");
  positive(mlp_width, "intermediate_size");
  positive(max_positions, "max_position_embeddings");
  if (heads % key_heads != 0)
    throw_value("{}: {} attention heads cannot share {} key heads evenly", model_type, heads,
                key_heads);
  if (rope && (rope->dims % 2 != 0 || rope->dims > head_dims || rope->dims <= 0))
    throw_value("{}: rotary dimensions must be even and at most {}, got {}", model_type, head_dims,
                rope->dims);
  if (head_dims > kMostHeads)
    throw_value("{}: heads of size {} are too large: at most {}", model_type, head_dims,
                kMostHeads);
  if (experts * layers > kMostHeads)
    throw_value("{}: {} experts in each of {} layers are too many: at most {} in all", model_type,
                experts, layers, kMostHeads);
  if (experts > 0 && (experts_per_token < 1 || experts_per_token > experts))
    throw_value("{}: {} experts per token of {}", model_type, experts_per_token, experts);
  if (!(norm_eps >= 0 && std::isfinite(norm_eps)))
    throw_value("{}: the norm's epsilon must not be negative, got {}", model_type, norm_eps);
  nn::activation_from_name(activation);
}

std::unique_ptr<Model> make_decoder(DecoderConfig config) {
  if (config.windows.empty())
    config.windows.assign(static_cast<size_t>(std::max<int64_t>(config.layers, 0)), 0);
  config.check();
  return std::make_unique<Decoder>(std::move(config));
}

}  // namespace mica::models
