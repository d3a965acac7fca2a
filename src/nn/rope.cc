#include "nn/rope.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "ops/rope.h"

namespace mica::nn {

namespace {

constexpr const char* kTypes[] = {"default", "linear", "dynamic", "yarn", "longrope", "llama3"};

double positive(const Json& parameters, const char* key) {
  auto value = parameters.get<double>(key);
  if (!(value > 0) || std::isinf(value)) parameters.fail_at(key, "must be positive, not {}", value);
  return value;
}

double positive(const Json& parameters, const char* key, double otherwise) {
  return parameters.has(key) ? positive(parameters, key) : otherwise;
}

double yarn_magnitude(double factor, double scale) {
  return factor <= 1 ? 1.0 : 0.1 * scale * std::log(factor) + 1.0;
}

void read_yarn(const Json& parameters, RopeConfig& rope) {
  rope.factor = positive(parameters, "factor",
                         double(rope.max_positions) / double(rope.original_max_positions));
  rope.beta_fast = positive(parameters, "beta_fast", 32);
  rope.beta_slow = positive(parameters, "beta_slow", 1);
  rope.truncate = parameters.get<bool>("truncate", true);
  auto scale = parameters.get<double>("mscale", 0),
       scale_all = parameters.get<double>("mscale_all_dim", 0);
  double inferred = scale != 0 && scale_all != 0 ? yarn_magnitude(rope.factor, scale) /
                                                       yarn_magnitude(rope.factor, scale_all)
                                                 : yarn_magnitude(rope.factor, 1);
  rope.attention_factor = parameters.get<double>("attention_factor", inferred);
}

std::vector<double> read_factors(const Json& parameters, const char* key, int64_t dims) {
  auto factors = parameters.get<std::vector<double>>(key);
  if (static_cast<int64_t>(factors.size()) != dims / 2)
    parameters.fail_at(key, "must have {} elements, not {}", dims / 2, factors.size());
  if (!std::all_of(factors.begin(), factors.end(),
                   [](double f) { return f > 0 && !std::isinf(f); }))
    parameters.fail_at(key, "must hold positive numbers only");
  return factors;
}

void read_longrope(const Json& parameters, RopeConfig& rope) {
  rope.short_factor = read_factors(parameters, "short_factor", rope.dims);
  rope.long_factor = read_factors(parameters, "long_factor", rope.dims);
  if (rope.original_max_positions < 2)
    parameters.fail_at("original_max_position_embeddings", "must be at least 2, not {}",
                       rope.original_max_positions);
  double original = double(rope.original_max_positions);
  rope.factor = positive(parameters, "factor", double(rope.max_positions) / original);
  double inferred =
      rope.factor <= 1 ? 1.0 : std::sqrt(1 + std::log(rope.factor) / std::log(original));
  rope.attention_factor = parameters.get<double>("attention_factor", inferred);
}

}  // namespace

RopeConfig read_rope(const Json& config, int64_t head_dims, int64_t max_positions,
                     const RopeDefaults& defaults) {
  auto found = config.find("rope_scaling");
  if (!found || found->size() == 0) found = config.find("rope_parameters");
  Json parameters = found ? *found : Json::object();
  RopeConfig rope;
  rope.max_positions = max_positions;
  rope.type =
      parameters.get<std::string>("rope_type", parameters.get<std::string>("type", "default"));
  if (defaults.only_longrope && (rope.type == "su" || rope.type == "yarn")) rope.type = "longrope";
  if (std::find(std::begin(kTypes), std::end(kTypes), rope.type) == std::end(kTypes)) {
    parameters.fail_at("rope_type", "'{}' is not known; known: {}", rope.type,
                       fmt::join(kTypes, ", "));
  }
  rope.theta = positive(parameters, "rope_theta", positive(config, "rope_theta", defaults.theta));
  double partial = positive(parameters, "partial_rotary_factor",
                            positive(config, "partial_rotary_factor", defaults.partial_factor));
  if (rope.type == "default" && !defaults.partial_in_default) partial = 1;
  if (partial > 1)
    parameters.fail_at("partial_rotary_factor", "must be at most 1, not {}", partial);
  rope.dims = static_cast<int64_t>(static_cast<double>(head_dims) * partial);
  // A family with a default of its own (Phi-3) does not look into the parameters.
  int64_t inside = defaults.original_max_positions > 0
                       ? defaults.original_max_positions
                       : parameters.get<int64_t>("original_max_position_embeddings", max_positions);
  rope.original_max_positions = config.get<int64_t>("original_max_position_embeddings", inside);
  if (rope.original_max_positions < 1)
    parameters.fail_at("original_max_position_embeddings", "must be positive, not {}",
                       rope.original_max_positions);
  if (rope.type == "linear" || rope.type == "dynamic" || rope.type == "llama3")
    rope.factor = positive(parameters, "factor");
  if (rope.type == "llama3") {
    rope.low_freq_factor = positive(parameters, "low_freq_factor");
    rope.high_freq_factor = positive(parameters, "high_freq_factor");
  }
  if (rope.type == "yarn") read_yarn(parameters, rope);
  if (rope.type == "longrope") read_longrope(parameters, rope);
  return rope;
}

namespace {

// base^(-2i/dims), in float32 as transformers computes it.
std::vector<float> plain(double base, int64_t dims) {
  std::vector<float> frequencies;
  for (int64_t i = 0; i < dims; i += 2)
    frequencies.push_back(1.0f / std::pow(static_cast<float>(base),
                                          static_cast<float>(i) / static_cast<float>(dims)));
  return frequencies;
}

// Stretches long wavelengths, keeps short ones, blends between.
std::vector<float> llama3(const RopeConfig& c) {
  auto frequencies = plain(c.theta, c.dims);
  double original = double(c.original_max_positions);
  for (float& f : frequencies) {
    double wavelength = 2 * std::numbers::pi / f;
    if (wavelength > original / c.low_freq_factor) {
      f = static_cast<float>(f / c.factor);
    } else if (wavelength >= original / c.high_freq_factor) {
      double smooth =
          (original / wavelength - c.low_freq_factor) / (c.high_freq_factor - c.low_freq_factor);
      f = static_cast<float>((1 - smooth) * f / c.factor + smooth * f);
    }
  }
  return frequencies;
}

// Interpolates dimensions that turn slowly, extrapolates those that turn fast, with a ramp between.
std::vector<float> yarn(const RopeConfig& c) {
  auto dims = static_cast<double>(c.dims);
  auto dimension = [&](double rotations) {
    return dims * std::log(double(c.original_max_positions) / (rotations * 2 * std::numbers::pi)) /
           (2 * std::log(c.theta));
  };
  double low = dimension(c.beta_fast), high = dimension(c.beta_slow);
  if (c.truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, dims - 1);
  if (low == high) high += 0.001;
  auto frequencies = plain(c.theta, c.dims);
  for (size_t i = 0; i < frequencies.size(); ++i) {
    double ramp = std::clamp((static_cast<double>(i) - low) / (high - low), 0.0, 1.0);
    frequencies[i] =
        static_cast<float>(frequencies[i] / c.factor * ramp + frequencies[i] * (1 - ramp));
  }
  return frequencies;
}

std::vector<float> longrope(const RopeConfig& c, const std::vector<double>& factors) {
  auto frequencies = plain(c.theta, c.dims);
  for (size_t i = 0; i < frequencies.size(); ++i)
    frequencies[i] = static_cast<float>(frequencies[i] / factors[i]);
  return frequencies;
}

Array array_of(const std::vector<float>& values) { return Array::from<float>(values); }

}  // namespace

std::vector<float> Rope::inverse_frequencies(int64_t length) const {
  const RopeConfig& c = config_;
  if (c.type == "linear") {
    auto frequencies = plain(c.theta, c.dims);
    for (float& f : frequencies) f /= static_cast<float>(c.factor);
    return frequencies;
  }
  if (c.type == "dynamic") {
    auto dims = static_cast<double>(c.dims);
    double stretch =
        c.factor * double(std::max(length, c.max_positions)) / double(c.max_positions) -
        (c.factor - 1);
    return plain(c.theta * std::pow(stretch, dims / (dims - 2)), c.dims);
  }
  if (c.type == "llama3") return llama3(c);
  if (c.type == "yarn") return yarn(c);
  if (c.type == "longrope")
    return longrope(c, length > c.original_max_positions ? c.long_factor : c.short_factor);
  return plain(c.theta, c.dims);
}

Rope::Rope(RopeConfig config) : config_(std::move(config)) {
  within_ = array_of(inverse_frequencies(1));
  if (config_.type == "longrope")
    beyond_ = array_of(inverse_frequencies(config_.original_max_positions + 1));
}

int64_t Rope::length_class(int64_t length) const {
  if (config_.type == "longrope" && length > config_.original_max_positions)
    return config_.original_max_positions + 1;
  if (config_.type == "dynamic" && length > config_.max_positions) return length;
  return 1;
}

Array Rope::operator()(const Array& x, const Array& offsets, int64_t length) const {
  RopeOptions options;
  options.dims = static_cast<int>(config_.dims);
  options.magnitude = config_.attention_factor;
  int64_t shortest = length_class(length);
  options.inv_freqs = shortest == 1                ? within_
                      : config_.type == "longrope" ? beyond_
                                                   : array_of(inverse_frequencies(length));
  return rope(x, offsets, options);
}

}  // namespace mica::nn
