// Rotary position embeddings of checkpoints: frequencies from a configuration.
//
// Types default, linear, dynamic (NTK), yarn (arXiv:2309.00071), longrope (arXiv:2402.13753) and
// llama3 (Llama 3.1), with the formulas of transformers' modeling_rope_utils. Both spellings of the
// configuration are read: the older `rope_theta` + `rope_scaling`, the newer `rope_parameters`.
#pragma once

#include <string>
#include <vector>

#include "base/json.h"
#include "core/array.h"

namespace mica::nn {

struct RopeConfig {
  std::string type = "default";
  double theta = 10000;
  int64_t dims = 0;  // rotated dimensions of a head, the first ones
  int64_t max_positions = 2048;
  double factor = 1;
  int64_t original_max_positions = 0;
  double low_freq_factor = 1, high_freq_factor = 4;  // llama3
  double beta_fast = 32, beta_slow = 1;              // yarn
  bool truncate = true;                              // yarn
  double attention_factor = 1;                       // yarn, longrope: multiplies cosine and sine
  std::vector<double> short_factor, long_factor;     // longrope
};

// What a family adds to the common rules.
struct RopeDefaults {
  double theta = 10000;
  double partial_factor = 1;           // share of the head that is rotated
  bool partial_in_default = false;     // type default reads partial_rotary_factor too
  int64_t original_max_positions = 0;  // if config.json has none; 0: the maximum
  bool only_longrope = false;          // Phi-3: "su" and "yarn" are older names of longrope
};

// From config.json; throws ValueError naming the key for what is missing, malformed or unknown.
RopeConfig read_rope(const Json& config, int64_t head_dims, int64_t max_positions,
                     const RopeDefaults& defaults);

class Rope {
 public:
  explicit Rope(RopeConfig config);

  // True where frequencies depend on the length of the sequence (dynamic, longrope): keys are then
  // cached unrotated and rotated at every step for the length of that step.
  bool depends_on_length() const { return config_.type == "dynamic" || config_.type == "longrope"; }
  // The shortest length with the frequencies that `length` has: lengths of one class agree in all
  // angles.
  int64_t length_class(int64_t length) const;
  // Rotates x [B, H, L, K]: row i of sequence b is at position offsets[b] + i, or at offsets[b, i];
  // with the frequencies of a sequence of `length` positions.
  Array operator()(const Array& x, const Array& offsets, int64_t length) const;
  // Angle per position, float32 [dims / 2].
  std::vector<float> inverse_frequencies(int64_t length) const;
  const RopeConfig& config() const { return config_; }

 private:
  RopeConfig config_;
  Array within_;  // up to the original length; for the fixed types always
  Array beyond_;  // longrope past it
};

}  // namespace mica::nn
