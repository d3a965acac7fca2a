// Random tiny models from a configuration, for tests that compare ways to run one model.
#pragma once

#include <map>
#include <random>
#include <string>

#include "base/json.h"
#include "models/registry.h"

namespace mica::testing {

// Fills every array with random numbers, the same for the same seed, and remembers them by key.
class RandomWeights : public nn::Visitor {
 public:
  explicit RandomWeights(unsigned seed = 1) : random_(seed) {}

  std::map<std::string, Array> arrays;

 protected:
  void on_parameter(const std::string& key, Array& array, const Shape& shape) override {
    bool vector = shape.size() == 1;
    std::normal_distribution<float> noise(0.0f, vector ? 0.1f : 0.3f);
    float center = vector && key.ends_with(".weight") ? 1.0f : 0.0f;  // of norms
    int64_t count = 1;
    for (int64_t extent : shape) count *= extent;
    std::vector<float> values(static_cast<size_t>(count));
    for (float& value : values) value = center + noise(random_);
    array = Array::from<float>(values, shape);
    arrays.insert_or_assign(key, array);
  }

 private:
  std::mt19937 random_;
};

inline std::shared_ptr<models::Model> random_model(const std::string& config, unsigned seed = 1) {
  std::shared_ptr<models::Model> model = models::make_model(Json::parse(config));
  RandomWeights weights(seed);
  weights.module("", *model);
  return model;
}

}  // namespace mica::testing
