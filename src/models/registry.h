// The architectures that Mica knows, by `model_type` of config.json.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/json.h"
#include "models/model.h"

namespace mica::models {

// A model without weights. ValueError for an unknown model_type, listing the known ones, and for a
// configuration that does not fit together.
std::unique_ptr<Model> make_model(const Json& config);
std::vector<std::string> known_model_types();

}  // namespace mica::models
